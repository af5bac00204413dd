"""What is HTTP's own: routes, verbs, media types, tenants, the root, and who stands at the door (A2A §11, §9.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from tests.bindings import OPERATIONS, Caller, state
from tests.journeys.conftest import TOWN
from tests.serving import A2A, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


def refusal(answer: httpx2.Response, status: int, name: str) -> Any:
    """An error that is HTTP's own, in the shape of every other error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error.keys() == {"code", "status", "message", "details"}
    assert (error["code"], error["status"]) == (status, name)
    assert error["message"]
    return error


# Paths and verbs.

PATHS = {
    "/message:send": {"POST"},
    "/message:stream": {"POST"},
    "/tasks": {"GET"},
    "/tasks/x": {"GET"},
    "/tasks/x:cancel": {"POST"},
    "/tasks/x:subscribe": {"GET", "POST"},
    "/tasks/x/pushNotificationConfigs": {"GET", "POST"},
    "/tasks/x/pushNotificationConfigs/y": {"GET", "DELETE"},
    "/extendedAgentCard": {"GET"},
}


@pytest.mark.requirement("a2a.http.unknown-route", "a2a.http.error-shape")
@pytest.mark.parametrize("base", ["/agents/echo", "", "/agents/echo/acme", "/acme"])
async def test_a_wrong_verb_is_told_the_right_ones(gateway: Gateway, base: str) -> None:
    for path, right in PATHS.items():
        for verb in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - right:
            answer = await gateway.client.request(verb, base + path, headers={**A2A, **gateway.bearer(None)})
            refusal(answer, 405, "UNIMPLEMENTED")
            assert set(answer.headers["allow"].split(", ")) == right


@pytest.mark.requirement("a2a.http.unknown-route")
@pytest.mark.parametrize("path", ["/", "/agents/echo", "/agents/echo/", "/agents/missing"])
async def test_the_json_rpc_endpoint_takes_post_alone(gateway: Gateway, path: str) -> None:
    for verb in ("GET", "PUT", "DELETE"):
        answer = await gateway.client.request(verb, path, headers={**A2A, **gateway.bearer(None)})
        refusal(answer, 405, "UNIMPLEMENTED")
        assert answer.headers["allow"] == "POST"


@pytest.mark.requirement("a2a.http.unknown-route")
@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/agents/",
        "/agents/echo/nothing",
        "/agents/echo/tasks/",
        "/agents/echo/message:sends",
        "/agents/echo/tasks/x:explode",
        "/agents/echo/tasks/x/y",
        "/agents/echo/tasks/a:b:cancel",
        "/agents/echo/tasks/x/pushNotificationConfigs/y/z",
        "/agents/echo/v1/message:send/x",
        "/livez/",
        "/admin",
        "/v1/tasks/x/y",
        "/.well-known/nothing",
        "/agents/echo/.well-known/nothing",
    ],
)
async def test_an_unknown_path_is_not_found_and_never_redirected(gateway: Gateway, path: str) -> None:
    for verb in ("GET", "POST", "DELETE"):
        answer = await gateway.client.request(verb, path, headers={**A2A, **gateway.bearer(None)})
        refusal(answer, 404, "NOT_FOUND")


async def test_a_wrong_verb_elsewhere_is_told_the_right_ones_too(gateway: Gateway) -> None:
    for path in ("/agents", "/livez", "/.well-known/agent-card.json", "/agents/echo/.well-known/agent-card.json"):
        answer = await gateway.client.post(path, headers=gateway.bearer(None))
        refusal(answer, 405, "UNIMPLEMENTED")
        assert "GET" in answer.headers["allow"]


async def test_the_root_is_the_default_agent(caller: Caller) -> None:
    root = caller.to("")
    task = await root.task("ask")
    assert await caller.get(task["id"]) == task
    events = await root.events("SendStreamingMessage", message=message("so", taskId=task["id"]))
    assert state(events[-1]["statusUpdate"]) == "COMPLETED"
    await caller.to("more").refused("TASK_NOT_FOUND", "GetTask", id=task["id"])


# Tenants.


@pytest.mark.requirement("a2a.http.tenant-path")
@pytest.mark.parametrize("agent", ["echo", ""])
async def test_a_tenant_that_the_agent_names_is_a_routing_word(caller: Caller, agent: str) -> None:
    asked = caller.to(agent)
    task = (await asked.call("SendMessage", message=message("ask"), tenant="acme"))["task"]
    assert await asked.get(task["id"], tenant="acme") == task
    # It never decides whose task it is.
    assert await asked.get(task["id"]) == task
    assert state(await asked.call("CancelTask", id=task["id"], tenant="acme")) == "CANCELED"


@pytest.mark.requirement("a2a.http.tenant-path")
@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_tenant_that_the_agent_does_not_name_is_refused(caller: Caller, method: str) -> None:
    params = {"id": "x", "taskId": "x", "tenant": "other", "message": message("hi"), "url": "https://x.example"}
    reason = "NOT_FOUND" if caller.binding == "http" else "INVALID_PARAMS"
    await caller.refused(reason, method, **params)


async def test_path_and_body_name_the_same_tenant(gateway: Gateway) -> None:
    http = Caller(gateway, "http")
    for path, tenant in (("/acme/message:send", "other"), ("/message:send", "acme"), ("/message:send", "other")):
        answer = await gateway.http("POST", path, json={"message": message("hi"), "tenant": tenant})
        assert http.error(answer, "INVALID_PARAMS").fields.keys() == {"tenant"}
    for same in ("acme", "", None):
        answer = await gateway.http("POST", "/acme/message:send", json={"message": message("hi"), "tenant": same})
        assert state(http.result(answer)["task"]) == "COMPLETED"
    task = await http.task()
    answer = await gateway.http("GET", f"/acme/tasks/{task['id']}?tenant=other")
    http.error(answer, "INVALID_PARAMS")


async def test_path_and_body_name_the_same_ids(gateway: Gateway) -> None:
    http = Caller(gateway, "http")
    one, two = await http.task("ask"), await http.task("ask")
    for path, body in (
        (f"/tasks/{one['id']}:cancel", {"id": two["id"]}),
        (f"/tasks/{one['id']}/pushNotificationConfigs", {"taskId": two["id"], "url": "https://example.com"}),
        (f"/tasks/{one['id']}/pushNotificationConfigs", {"task_id": two["id"], "url": "https://example.com"}),
    ):
        http.error(await gateway.http("POST", path, json=body), "INVALID_PARAMS")
    assert (await http.get(one["id"]), await http.get(two["id"])) == (one, two)
    answer = await gateway.http("POST", f"/tasks/{one['id']}:cancel", json={"id": one["id"]})
    assert state(http.result(answer)) == "CANCELED"


# Media types.


@pytest.mark.requirement("a2a.http.both-media-types", "a2a.http.success-media-type")
async def test_both_json_media_types_are_read(gateway: Gateway) -> None:
    http = Caller(gateway, "http")
    for sent in (
        "application/json",
        "application/a2a+json",
        "Application/JSON; charset=utf-8",
        "application/a2a+json;x=y",
    ):
        assert http.result(await http.having(Content_Type=sent).ask("SendMessage", message=message("hi")))


@pytest.mark.requirement("a2a.http.success-media-type")
@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("*/*", "application/a2a+json"),
        ("application/a2a+json", "application/a2a+json"),
        ("application/json, application/a2a+json", "application/a2a+json"),
        ("application/json", "application/json"),
        ("text/html, application/json;q=0.9", "application/json"),
    ],
)
async def test_answers_are_a2a_json_unless_only_plain_json_is_taken(gateway: Gateway, accept: str, given: str) -> None:
    answer = await Caller(gateway, "http").having(Accept=accept).ask("ListTasks")
    assert (answer.status_code, answer.headers["content-type"]) == (200, given)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("a2a.http.both-media-types", "a2a.jsonrpc.media-type", "a2a.error.content-type")
@pytest.mark.parametrize(
    "sent",
    [
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/xml",
        "text/json",
        "",
        "json",
    ],
)
@pytest.mark.parametrize("body", [b"{'message': 'no json'}", b'{"message": {}}', b"\xff\xfe"])
async def test_another_media_type_is_refused_before_the_body_is_looked_at(
    caller: Caller, sent: str, body: bytes
) -> None:
    path = "/agents/echo" + ("" if caller.binding == "jsonrpc" else "/message:send")
    headers = {**A2A, **caller.gateway.bearer(None), "Content-Type": sent}
    answer = await caller.gateway.client.post(path, content=body, headers=headers)
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["code"] == (-32005 if caller.binding == "jsonrpc" else 415)
    details = error["data" if caller.binding == "jsonrpc" else "details"]
    assert details[0]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"


@pytest.mark.requirement("a2a.http.error-shape", "a2a.error.info-in-http", "a2a.error.code-and-sentence")
async def test_http_errors_say_their_status_twice(gateway: Gateway) -> None:
    http = Caller(gateway, "http")
    for reason, status, method, params in (
        ("TASK_NOT_FOUND", "NOT_FOUND", "GetTask", {"id": "x"}),
        ("INVALID_PARAMS", "INVALID_ARGUMENT", "ListTasks", {"pageSize": 0}),
        ("UNSUPPORTED_OPERATION", "FAILED_PRECONDITION", "GetExtendedAgentCard", {}),
    ):
        error = await http.refused(reason, method, **params)
        assert error.answer.json()["error"]["status"] == status


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b'{"a":1,"a":2}', "PARSE_ERROR"),
        (b"NaN", "PARSE_ERROR"),
        (b"[]", "INVALID_REQUEST"),
        (b'"x"', "INVALID_REQUEST"),
        (b"null", "INVALID_REQUEST"),
        (b"{}", "INVALID_PARAMS"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(gateway: Gateway, body: bytes, reason: str) -> None:
    answer = await gateway.http("POST", "/message:send", content=body, headers={"Content-Type": "application/json"})
    Caller(gateway, "http").error(answer, reason)


@pytest.mark.requirement("a2a.http.empty-body")
async def test_an_empty_body_is_an_empty_object(gateway: Gateway) -> None:
    http = Caller(gateway, "http")
    for headers in ({}, {"Content-Type": "application/json"}):
        task = await http.task("ask")
        canceled = http.result(await gateway.http("POST", f"/tasks/{task['id']}:cancel", headers=headers))
        assert state(canceled) == "CANCELED"
        http.error(await gateway.http("POST", "/message:send", headers=headers), "INVALID_PARAMS")


@pytest.mark.requirement("a2a.http.query-names")
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("historyLength=x", "historyLength"),
        ("historyLength=", "historyLength"),
        ("historyLength=1.5", "historyLength"),
        ("includeArtifacts=yes", "includeArtifacts"),
        ("includeArtifacts=1", "includeArtifacts"),
        ("pageSize=1e1", "pageSize"),
        ("pageSize=1&pageSize=2", "pageSize"),
        ("A2A-Version=1.0&A2A-Version=0.3", "A2A-Version"),
    ],
)
async def test_query_parameters_have_the_types_of_their_fields(gateway: Gateway, query: str, field: str) -> None:
    http = Caller(gateway, "http")
    assert http.error(await gateway.http("GET", f"/tasks?{query}"), "INVALID_PARAMS").fields.keys() == {field}


@pytest.mark.requirement("a2a.http.query-names")
async def test_a_query_is_read_as_utf8_and_unknown_names_are_passed_over(gateway: Gateway) -> None:
    http = Caller(gateway, "http")
    task = await http.task(contextId="käse & brot")
    answer = await gateway.http("GET", "/tasks?contextId=k%C3%A4se+%26%20brot&unknown=1&includeArtifacts=true")
    assert [listed["id"] for listed in http.result(answer)["tasks"]] == [task["id"]]


# Who stands at the door.


def routes(gateway: Gateway) -> Iterator[tuple[str, str]]:
    """Every method and path that the gateway serves, doors and Starlette's alike."""
    for base in ("/agents/echo", "", "/agents/echo/acme", "/acme"):
        for path, verbs in PATHS.items():
            yield from ((verb, base + path) for verb in verbs)
    yield from (("POST", path) for path in ("/", "/agents/echo", "/agents/echo/"))
    doors: Any = gateway.app.asgi._inside  # type: ignore[attr-defined]
    rest: Starlette = doors._rest
    for route in rest.routes:
        assert isinstance(route, Route)
        for verb in route.methods or ():
            yield verb, route.path.replace("{id}", "echo")
    yield "GET", "/no/such/path"
    yield "OPTIONS", "/agents/echo"


@pytest.mark.security
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1:80", "[::1]"])
async def test_another_host_is_refused_on_every_route(gateway: Gateway, host: str) -> None:
    walked = 0
    for verb, path in routes(gateway):
        headers = {**A2A, **gateway.bearer(None), "Host": host}
        answer = await gateway.client.request(verb, path, headers=headers)
        assert answer.status_code == 421, (verb, path)
        assert verb == "HEAD" or refusal(answer, 421, "INVALID_ARGUMENT")
        walked += 1
    assert walked > 60


@pytest.mark.security
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://127.0.0.1", "http://localhost:1"])
async def test_another_origin_is_refused_on_every_route(gateway: Gateway, origin: str) -> None:
    for verb, path in routes(gateway):
        headers = {**A2A, **gateway.bearer(None), "Origin": origin}
        answer = await gateway.client.request(verb, path, headers=headers)
        assert answer.status_code == 403, (verb, path)
        assert verb == "HEAD" or refusal(answer, 403, "PERMISSION_DENIED")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.security
async def test_our_own_names_and_origin_are_let_in(gateway: Gateway) -> None:
    port = gateway.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert (await gateway.client.get("/livez", headers={"Host": host})).status_code == 200
    assert (await gateway.client.get("/livez", headers={"Origin": gateway.url})).status_code == 200


@pytest.mark.security
async def test_a_web_origin_that_the_operator_named_may_call_and_no_other(tmp_path: Path) -> None:
    config = TOWN.replace("default_agent: echo", "default_agent: echo, cors_origins: [https://app.example]")
    async with running(tmp_path, config) as gateway:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
        answer = await gateway.client.options("/agents/echo", headers={"Origin": "https://app.example", **asks})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in answer.headers
        answer = await gateway.post(b"{}", Origin="https://app.example")
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
            assert (await gateway.client.options("/agents/echo", headers={"Origin": origin, **asks})).status_code == 403
            assert (await gateway.post(b"{}", Origin=origin)).status_code == 403
        stranger = {"Origin": "https://app.example", "Host": "evil.example", **asks}
        assert (await gateway.client.options("/agents/echo", headers=stranger)).status_code == 421
