"""A client of 0.3 at the door: what is its own there. That it reaches every agent is in test_matrix.py, and that both
ways through JSON-RPC answer it alike in test_jsonrpc_paths.py."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.actors import Cue
from tests.bindings import BINDINGS, Caller
from tests.older import METHODS, Older, text, word
from tests.receiver import receiving
from tests.serving import BOUND, Gateway, message

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUIRED = "urn:a2a:tck:required-extension"
HOOK = "https://hooks.example/x"


@pytest.fixture(params=BINDINGS)
def client(gateway: Gateway, request: pytest.FixtureRequest) -> Older:
    return Older(gateway, request.param)


def arguments(client: Older, method: str) -> dict[str, Any]:
    if method.startswith("message/"):
        return {"message": client.message("hi")}
    if method.endswith("/set"):
        return {"taskId": "t", "pushNotificationConfig": {"url": HOOK}}
    if method.startswith("agent/"):
        return {}
    return {"id": "t", **({"pushNotificationConfigId": "c"} if method.endswith(("/get", "/delete")) else {})}


# Versions.


@pytest.mark.requirement("a2a.version.none-is-0.3", "a2a.v03.no-header-needed")
@pytest.mark.parametrize("version", [None, "", "0.3", "0.3.0", "0.3.7"])
async def test_nothing_and_0_3_mean_0_3(client: Older, version: str | None) -> None:
    if version is not None:
        client = client.having(A2A_Version=version)
    answer = await client.call("message/send", message=client.message("hi"))
    assert answer["kind"] == "task"
    assert word(answer["status"]["state"]) == "COMPLETED"


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_of_0_3_is_none_of_another_version(client: Older, method: str) -> None:
    said = await client.having(A2A_Version="1.0").refused("METHOD_NOT_FOUND", method, **arguments(client, method))
    assert said.endswith("send A2A-Version: 0.3")
    await client.having(A2A_Version="0.2.6").refused("VERSION_NOT_SUPPORTED", method, **arguments(client, method))


async def test_the_default_agent_answers_at_the_root(client: Older) -> None:
    answer = await client.to("").call("message/send", message=client.message("hi"))
    assert word(answer["status"]["state"]) == "COMPLETED"


# One rule for both versions: the same calls behind the door.


@pytest.mark.requirement("a2a.v03.same-rules")
@pytest.mark.parametrize("method", [method for method in METHODS if method.startswith("tasks/")])
async def test_somebody_elses_task_is_not_there(client: Older, method: str) -> None:
    sent = await client.call("message/send", message=client.message("ask"))
    name = f"stranger-{method.replace('/', '.')}-{client.binding}"
    stranger = Older(client.gateway, client.binding, who=await client.gateway.key(name))
    params = {**arguments(client, method), "taskId" if method.endswith("/set") else "id": sent["id"]}
    await stranger.refused("TASK_NOT_FOUND", method, **params)


@pytest.mark.requirement("a2a.v03.same-rules")
async def test_both_versions_see_one_task_and_repeat_one_message(gateway: Gateway, client: Older) -> None:
    sent = await client.call("message/send", message=client.message("hi", messageId=f"both-{client.binding}"))
    newer = Caller(gateway, "jsonrpc")
    task = await newer.get(sent["id"])
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert await newer.task("hi", messageId=f"both-{client.binding}") == task  # the same message in other words


@pytest.mark.requirement("a2a.v03.errors")
@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"role": "agent"}, "message.role"),
        ({"parts": [{"text": "no kind"}]}, "message.parts.0.kind"),
        ({"parts": [{"kind": "text", "text": 7}]}, "message.parts.0.text"),
        ({"parts": [{"kind": "data", "data": [1]}]}, "message.parts.0.data"),
        ({"parts": []}, "message.parts"),
    ],
)
async def test_a_malformed_message_is_invalid_params(gateway: Gateway, more: dict[str, Any], where: str) -> None:
    client = Older(gateway, "jsonrpc")
    said = await client.refused("INVALID_PARAMS", "message/send", message={**client.message("hi"), **more})
    assert said.startswith(where)
    assert "ROLE_" not in said


async def test_a_missing_configuration_is_told_in_its_own_words(gateway: Gateway) -> None:
    client = Older(gateway, "jsonrpc")
    push = {"url": "http://10.0.0.1/hook", "authentication": {"schemes": [], "credentials": "x"}}
    said = await client.refused(
        "INVALID_PARAMS", "message/send", message=client.message("hi"), configuration={"pushNotificationConfig": push}
    )
    assert said.startswith("configuration.pushNotificationConfig.authentication.schemes")


# Content.


@pytest.mark.requirement("a2a.v03.parts", "a2a.v03.beyond-the-older-version")
async def test_parts_of_every_kind_come_back(gateway: Gateway) -> None:
    client = Older(gateway, "jsonrpc")
    parts = [
        {"kind": "text", "text": "words", "metadata": {"k": 1}},
        {"kind": "file", "file": {"bytes": "dGNr", "mimeType": "text/plain", "name": "a.txt"}},
        {"kind": "file", "file": {"uri": "https://x.example/a", "mimeType": "image/png"}},
        {"kind": "data", "data": {"n": 1, "deep": [None, {"x": "y"}]}},
    ]
    sent = await client.call("message/send", message=client.message("", parts=parts))
    assert sent["status"]["message"]["parts"] == parts
    assert sent["history"][0]["parts"] == parts
    assert sent["history"][0]["role"] == "user"
    assert sent["status"]["message"]["kind"] == "message"


@pytest.mark.requirement("a2a.v03.parts")
async def test_parts_of_every_kind_come_back_over_http_in_the_protos_form(gateway: Gateway) -> None:
    client = Older(gateway, "http")
    content = [
        {"text": "words"},
        {"file": {"file_with_bytes": "dGNr", "mime_type": "text/plain", "name": "a.txt"}},
        {"data": {"data": {"n": 1}}},
    ]
    sent = await client.call("message/send", message=client.message("", content=content))
    camel = {"fileWithBytes": "dGNr", "mimeType": "text/plain", "name": "a.txt"}
    assert sent["status"]["message"]["content"] == [content[0], {"file": camel}, content[2]]
    assert sent["history"][0]["role"] == "ROLE_USER"


async def test_the_other_form_is_read_over_http_too(gateway: Gateway) -> None:
    """0.3.0 §3.2.3 asks for structurally equivalent objects; some clients send those of JSON-RPC."""
    body = {"message": Older(gateway, "jsonrpc").message("hi"), "configuration": {"blocking": True}}
    answer = await gateway.client.post("/agents/echo/v1/message:send", json=body, headers=gateway.bearer(None))
    assert text(answer.json()["task"]["status"]["message"]["content"]) == "hi"


@pytest.mark.requirement("a2a.v03.beyond-the-older-version")
async def test_what_a_1_0_client_said_beyond_0_3_is_in_the_metadata(gateway: Gateway) -> None:
    parts = [{"text": "# x", "mediaType": "text/markdown"}, {"data": [1, 2]}]
    task = await Caller(gateway, "jsonrpc").task("", parts=parts)
    seen = await Older(gateway, "jsonrpc").call("tasks/get", id=task["id"])
    assert seen["history"][0]["parts"] == [
        {"kind": "text", "text": "# x", "metadata": {"a2a_v1": {"mediaType": "text/markdown"}}},
        {"kind": "data", "data": {"value": [1, 2]}, "metadata": {"data_part_compat": True}},
    ]


async def test_a_direct_reply_is_a_message(client: Older) -> None:
    reply = await client.call("message/send", message=client.message("x", messageId="tck-message-response-03"))
    assert reply["kind"] == "message"
    assert text(reply.get("parts") or reply["content"]) == "Direct message response"


@pytest.mark.requirement("a2a.v03.blocking")
async def test_a_call_waits_unless_it_says_otherwise(gateway: Gateway) -> None:
    client = Older(gateway, "jsonrpc", "actor")
    cue = Cue()
    for configuration in ({"blocking": False}, None):
        sent = asyncio.ensure_future(
            client.call("message/send", message=client.message(cue.text), configuration=configuration)
        )
        if configuration is None:
            cue.done()
        state = word((await asyncio.wait_for(sent, BOUND))["status"]["state"])
        assert state == ("COMPLETED" if configuration is None else "SUBMITTED")
        cue.done()
    # In the proto a bool that is not written is false.
    body = {"message": Older(gateway, "http").message(Cue().text), "configuration": {"historyLength": 0}}
    answer = await gateway.client.post("/agents/actor/v1/message:send", json=body, headers=gateway.bearer(None))
    assert answer.json()["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"


# Streams.


@pytest.mark.requirement("a2a.v03.final")
@pytest.mark.parametrize("rest", ["need_input", "need_auth"])
async def test_a_stream_ends_with_final_where_the_task_waits(client: Older, rest: str) -> None:
    client, cue = client.to("actor"), Cue()
    cue.say("Began")
    cue.steps.put_nowait(lambda context: getattr(context, rest)("And now?"))
    events = await client.events("message/stream", message=client.message(cue.text))
    assert [event["kind"] for event in events] == ["task", "status-update", "status-update"]
    assert [event.get("final") for event in events] == [None, False, True]
    assert (
        text(events[-1]["status"]["message"].get("parts") or events[-1]["status"]["message"]["content"]) == "And now?"
    )


async def test_a_subscriber_of_a_task_that_waits_hears_how_it_goes_on(client: Older) -> None:
    asked = await client.call("message/send", message=client.message("ask"))
    async with asyncio.timeout(BOUND), client.stream("tasks/resubscribe", id=asked["id"]) as events:
        assert word((await anext(events))["status"]["state"]) == "INPUT_REQUIRED"
        await client.call("message/send", message=client.message("blue", taskId=asked["id"]))
        rest = [event async for event in events]
    assert (word(rest[-1]["status"]["state"]), rest[-1]["final"]) == ("COMPLETED", True)


@pytest.mark.requirement("a2a.v03.stream-refusal-is-an-event")
async def test_a_stream_that_cannot_begin_over_json_rpc_is_one_error(gateway: Gateway) -> None:
    answer = await Older(gateway, "jsonrpc").ask("tasks/resubscribe", id="nobody-made-this")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.content.startswith(b'data: {"jsonrpc":"2.0","id":"call-1","error":{"code":-32001,')
    nobody = Older(gateway, "jsonrpc", "hidden").having(Authorization="Bearer wrong")
    answer = await nobody.ask("tasks/resubscribe", id="x")
    assert answer.status_code == 401  # what HTTP has to say is said by HTTP
    assert answer.headers["content-type"] == "application/json"


# Push.


@pytest.mark.requirement("a2a.v03.push-configurations")
async def test_push_configurations_come_and_go(client: Older) -> None:
    task = await client.call("message/send", message=client.message("hi"))
    config = {
        "id": "c",
        "url": HOOK,
        "token": "t",
        "authentication": {"schemes": ["Bearer", "Basic"], "credentials": "x"},
    }
    made = await client.call("tasks/pushNotificationConfig/set", taskId=task["id"], pushNotificationConfig=config)
    assert made["pushNotificationConfig"] == config
    named = {"id": task["id"], "pushNotificationConfigId": "c"}
    assert await client.call("tasks/pushNotificationConfig/get", **named) == made
    every = await client.call("tasks/pushNotificationConfig/list", id=task["id"])
    assert (every if client.binding == "jsonrpc" else every["configs"]) == [made]
    for _ in range(2):
        gone = await client.call("tasks/pushNotificationConfig/delete", **named)
        assert gone == (None if client.binding == "jsonrpc" else {})
    await client.refused("TASK_NOT_FOUND", "tasks/pushNotificationConfig/get", **named)


@pytest.mark.requirement("a2a.v03.push-configurations")
async def test_a_configuration_without_an_id_is_one_that_is_set_again(gateway: Gateway) -> None:
    client = Older(gateway, "jsonrpc")
    task = await client.call("message/send", message=client.message("hi"))
    for url in (HOOK, HOOK + "/2"):
        config = {"url": url}
        await client.call("tasks/pushNotificationConfig/set", taskId=task["id"], pushNotificationConfig=config)
    (only,) = await client.call("tasks/pushNotificationConfig/list", id=task["id"])
    assert only["pushNotificationConfig"]["url"] == HOOK + "/2"
    assert await client.call("tasks/pushNotificationConfig/get", id=task["id"]) == only  # §7.6: the task's id may do
    shown = await Caller(gateway, "jsonrpc").call("ListTaskPushNotificationConfigs", taskId=task["id"])
    assert shown["configs"] == [{"id": "default", "taskId": task["id"], "url": HOOK + "/2"}]


@pytest.mark.requirement("a2a.v03.webhook-body")
async def test_each_webhook_is_told_in_the_version_that_it_was_set_in(gateway: Gateway, client: Older) -> None:
    cue = Cue()
    async with receiving() as old, receiving() as new:
        config = {"url": old.url, "token": "t0ken", "authentication": {"schemes": ["Bearer"], "credentials": "c"}}
        actor = client.to("actor")
        begun = await actor.call(
            "message/send",
            message=client.message(cue.text),
            configuration={"blocking": False, "pushNotificationConfig": config},
        )
        caller = Caller(gateway, client.binding, "actor")
        await caller.call("CreateTaskPushNotificationConfig", taskId=begun["id"], url=new.url, protocolVersion="0.3")
        cue.done()
        told, heard = await old.ended(begun["id"]), await new.ended(begun["id"])
    tree = told[-1].tree
    assert (tree["kind"], tree["id"], tree["status"]["state"]) == ("task", begun["id"], "completed")
    assert tree["status"]["message"]["parts"] == [{"kind": "text", "text": "Done"}]
    assert told[-1].headers["content-type"] == "application/json"
    assert told[-1].headers["x-a2a-notification-token"] == "t0ken"
    assert told[-1].headers["authorization"] == "Bearer c"
    # The other configuration is a 1.0 client's, whatever unknown field it sent.
    assert heard[-1].tree.keys() == {"statusUpdate"}


# Extensions, the extended card, lists.


@pytest.mark.requirement("a2a.v03.extensions-header")
async def test_extensions_are_named_in_the_older_header(client: Older) -> None:
    strict = client.to("strict")
    await strict.refused("EXTENSION_SUPPORT_REQUIRED", "message/send", message=client.message("hi"))
    named = f"https://example.com/other, {REQUIRED}"
    answer = await strict.having(X_A2A_Extensions=named).ask("message/send", message=client.message("hi"))
    assert answer.headers["x-a2a-extensions"] == REQUIRED
    assert "a2a-extensions" not in answer.headers
    newer = Caller(client.gateway, client.binding, "strict").having(X_A2A_Extensions=REQUIRED)
    await newer.refused("EXTENSION_SUPPORT_REQUIRED", "SendMessage", message=message("hi"))


@pytest.mark.requirement("a2a.v03.extended-card")
async def test_the_extended_card_is_for_callers_with_a_credential(client: Older) -> None:
    card = await client.to("more").call("agent/getAuthenticatedExtendedCard")
    assert (card["protocolVersion"], card["url"]) == ("0.3.0", f"{client.gateway.url}/agents/more")
    await client.refused("UNSUPPORTED_OPERATION", "agent/getAuthenticatedExtendedCard")


@pytest.mark.requirement("a2a.v03.list-over-http")
async def test_tasks_are_listed_over_http_alone(gateway: Gateway) -> None:
    client = Older(gateway, "http")
    sent = await client.call("message/send", message=client.message("hi"))
    for status in ("completed", "TASK_STATE_COMPLETED"):
        (listed,) = await client.call("tasks/list", contextId=sent["contextId"], status=status)
    assert await client.call("tasks/list", contextId=sent["contextId"], status="TASK_STATE_CANCELLED") == []
    assert (listed["id"], listed["status"]["state"]) == (sent["id"], "TASK_STATE_COMPLETED")
    await Older(gateway, "jsonrpc").refused("METHOD_NOT_FOUND", "tasks/list")


# The card.


@pytest.mark.requirement("a2a.v03.card", "a2a.v03.card-interfaces-are-true")
@pytest.mark.parametrize("path", ["", "/agents/echo"])
async def test_one_card_serves_both_generations(gateway: Gateway, path: str) -> None:
    newest = await gateway.client.get(f"{path}/.well-known/agent-card.json")
    oldest = await gateway.client.get(f"{path}/.well-known/agent.json")
    assert newest.content == oldest.content
    card = newest.json()
    assert (card["protocolVersion"], card["preferredTransport"]) == ("0.3.0", "JSONRPC")
    assert card["supportsAuthenticatedExtendedCard"] is False
    scheme = card["securitySchemes"]["gateway"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "Bearer")
    assert scheme["httpAuthSecurityScheme"]["scheme"] == "Bearer"
    assert card["security"] == [{"gateway": []}]
    # Every address really answers in its own way; gRPC's is tried in test_grpc.py.
    offered = [(card["url"], card["preferredTransport"])]
    offered += [(each["url"], each["transport"]) for each in card["additionalInterfaces"]]
    assert {transport for _, transport in offered} == {"JSONRPC", "HTTP+JSON", "GRPC"}
    for url, transport in offered:
        if transport == "GRPC":
            continue
        client = Older(gateway, "jsonrpc" if transport == "JSONRPC" else "http")
        request = client.request("message/send", {"message": client.message("hi")})
        tail = "" if transport == "JSONRPC" else "/v1/message:send"
        answer = await gateway.client.post(url + tail, content=request.content, headers=request.headers)
        assert "completed" in json.dumps(answer.json()).lower()


@pytest.mark.requirement("a2a.v03.card")
async def test_who_says_that_it_speaks_1_0_gets_a_card_of_1_0_alone(gateway: Gateway) -> None:
    path = "/agents/echo/.well-known/agent-card.json"
    for request in ({"headers": {"A2A-Version": "1.0.1"}}, {"params": {"A2A-Version": "1.0"}}):
        answer = await gateway.client.get(path, **request)  # type: ignore[arg-type]
        assert answer.json().keys().isdisjoint({"url", "protocolVersion", "security", "additionalInterfaces"})
        assert answer.json()["securitySchemes"]["gateway"].keys() == {"httpAuthSecurityScheme"}
        assert "A2A-Version" in answer.headers["vary"]
    both = await gateway.client.get(path)
    assert both.headers["etag"] != answer.headers["etag"]
    newer = await Caller(gateway, "jsonrpc", "more").call("GetExtendedAgentCard")
    assert "url" not in newer
