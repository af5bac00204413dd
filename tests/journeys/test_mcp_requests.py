"""Requests of 2026-07-28 at the door: what must be in them, what is answered otherwise, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.dialects.mcp import headers
from gateway.dialects.mcp.message import CLIENT_CAPABILITIES, META, PROTOCOL_VERSION
from tests.mcp import MODERN, Door, Scripted, configured, message_of, modern, request, says, scripted, tool
from tests.serving import BOUND, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    async with scripted(tool("search"), {"name": "in", "inputSchema": REGION}) as script:
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    config = configured("grants: [{to: ann, tools: [docs]}]", docs=docs)
    async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
        yield gateway


@pytest.mark.requirement("mcp.discover")
async def test_a_client_can_ask_what_there_is_before_anything_else(gateway: Gateway) -> None:
    result = await Door(gateway).result("server/discover")
    assert result["supportedVersions"] == [MODERN]
    assert result["capabilities"]["tools"] == {"listChanged": True}
    assert result["resultType"] == "complete"
    assert result["_meta"][META + "serverInfo"]["name"] == "gateway"
    assert (result["cacheScope"], result["ttlMs"] > 0) == ("private", True)


@pytest.mark.requirement("mcp.caching-fields")
async def test_lists_say_how_long_and_for_whom_they_hold(gateway: Gateway) -> None:
    for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
        result = await Door(gateway).result(method)
        assert (result["resultType"], result["cacheScope"], result["ttlMs"]) == ("complete", "private", 60_000)


def without(name: str) -> dict[str, Any]:
    params = modern()
    del params["_meta"][name]
    return params


@pytest.mark.requirement("mcp.meta.required")
@pytest.mark.parametrize("params", [without(PROTOCOL_VERSION), without(CLIENT_CAPABILITIES), {}])
async def test_a_request_without_its_meta_is_refused(gateway: Gateway, params: Any) -> None:
    answer = await Door(gateway).post("tools/list", params)
    assert (answer.status_code, message_of(answer)["error"]["code"]) == (400, -32602)


@pytest.mark.requirement("mcp.version.unsupported")
@pytest.mark.parametrize("version", ["2099-01-01", "1900-01-01", "latest"])
async def test_a_revision_that_is_not_spoken_is_answered_with_those_that_are(gateway: Gateway, version: str) -> None:
    params = modern()
    params["_meta"][PROTOCOL_VERSION] = version
    made = headers.make("tools/list", params, version)
    answer = await Door(gateway).raw(request("tools/list", params, id="v"), made)
    assert (answer.status_code, answer.json()["id"]) == (400, "v")
    error = answer.json()["error"]
    assert (error["code"], error["data"]) == (-32022, {"supported": [MODERN], "requested": version})


@pytest.mark.requirement("mcp.methods.unknown-is-404")
@pytest.mark.parametrize(
    "method", ["ping", "initialize", "logging/setLevel", "resources/subscribe", "tasks/list", "no/such", "tools/list "]
)
async def test_what_this_revision_does_not_have_is_404(gateway: Gateway, method: str) -> None:
    answer = await Door(gateway).raw(
        request(method, modern()), {"MCP-Protocol-Version": MODERN, "Mcp-Method": method.strip()}
    )
    wanted = (404, -32601) if method == method.strip() else (400, -32020)
    assert (answer.status_code, answer.json()["error"]["code"]) == wanted


@pytest.mark.requirement("mcp.http.post-only")
async def test_without_a_session_there_is_only_post(gateway: Gateway) -> None:
    for method in ("GET", "DELETE", "PUT"):
        answer = await Door(gateway).raw(None, {"MCP-Protocol-Version": MODERN}, method=method)
        assert answer.status_code == 405
        assert "POST" in answer.headers["allow"]


@pytest.mark.requirement("mcp.headers.match-the-body")
async def test_a_head_that_says_something_else_reaches_no_server(gateway: Gateway, docs: Scripted) -> None:
    before = len(docs.requests)
    params = modern({"name": "docs__search", "arguments": {}})
    for changed in (
        {"mcp_name": "docs__in"},
        {"mcp_method": "tools/list"},
        {"mcp_protocol_version": "2025-11-25"},
        {"mcp_name": "=?base64?!!?="},
    ):
        answer = await Door(gateway).post("tools/call", params, **changed)
        assert (answer.status_code, message_of(answer)["error"]["code"]) == (400, -32020), changed
    assert len(docs.requests) == before
    assert (await Door(gateway).post("tools/call", params, mcp_name="=?base64?ZG9jc19fc2VhcmNo?=")).status_code == 200


@pytest.mark.requirement("mcp.headers.parameters-match-the-body")
async def test_annotated_arguments_are_checked_at_the_door_and_repeated_to_the_server(
    gateway: Gateway, docs: Scripted
) -> None:
    params = modern({"name": "docs__in", "arguments": {"region": "Köln"}})
    for changed in ({}, {"mcp_param_region": "Bonn"}):
        answer = await Door(gateway).post("tools/call", params, **changed)
        assert (answer.status_code, message_of(answer)["error"]["code"]) == (400, -32020)
    good = await Door(gateway).post("tools/call", params, mcp_param_region=headers.wrap("Köln"))
    assert good.status_code == 200
    assert docs.raw[-1]["mcp-param-region"] == headers.wrap("Köln")


async def test_notifications_are_taken_and_answers_are_not(gateway: Gateway) -> None:
    door = Door(gateway)
    sent = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "notifications/cancelled"}
    told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": modern({"requestId": 1})}
    assert (await door.raw(told, sent)).status_code == 202
    answer = await door.raw({"jsonrpc": "2.0", "id": 1, "result": {}}, {"MCP-Protocol-Version": MODERN})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)


@pytest.mark.requirement("mcp.cancel.closing-the-stream")
@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
async def test_a_client_that_leaves_takes_its_request_with_it(gateway: Gateway, docs: Scripted, accept: str) -> None:
    begun = asyncio.Event()

    async def work(params: Any) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return says("never")

    docs.answers["search"] = work
    docs.canceled.clear()
    params = modern({"name": "docs__search", "arguments": {}})
    sent = {"Accept": accept, **headers.make("tools/call", params, MODERN)}
    calling = asyncio.ensure_future(Door(gateway).raw(request("tools/call", params), sent))
    await asyncio.wait_for(begun.wait(), BOUND)
    calling.cancel()
    await asyncio.wait_for(docs.canceled.wait(), BOUND)
    del docs.answers["search"]


@pytest.mark.requirement("mcp.listen.acknowledged-first", "mcp.listen.tagged-and-filtered")
async def test_a_subscription_is_acknowledged_tagged_and_holds_only_what_was_asked_for(
    gateway: Gateway, docs: Scripted
) -> None:
    door = Door(gateway)
    async with door.stream("subscriptions/listen", {"notifications": {"toolsListChanged": True, "other": 1}}) as told:
        first = await anext(told)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        id = first["params"]["_meta"][META + "subscriptionId"]
        async with door.stream("subscriptions/listen", {"notifications": {"promptsListChanged": True}}) as other:
            await anext(other)
            docs.announce()
            changed = await asyncio.wait_for(anext(told), BOUND)
            assert changed["method"] == "notifications/tools/list_changed"
            assert changed["params"]["_meta"][META + "subscriptionId"] == id
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(other), 0.2)


async def test_a_subscription_needs_a_stream_and_a_filter(gateway: Gateway) -> None:
    params = modern({"notifications": {}})
    sent = {"Accept": "application/json", **headers.make("subscriptions/listen", params, MODERN)}
    assert (await Door(gateway).raw(request("subscriptions/listen", params), sent)).status_code == 400
    wrongs: list[dict[str, Any]] = [{}, {"notifications": []}, {"notifications": {"resourceSubscriptions": [1]}}]
    for wrong in wrongs:
        assert (await Door(gateway).error("subscriptions/listen", wrong))["code"] == -32602


@pytest.mark.security
async def test_nobody_hears_of_a_server_it_sees_nothing_of(gateway: Gateway, docs: Scripted) -> None:
    stranger = Door(gateway, who=await gateway.key("stranger"))
    filter = {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["docs+file:///a"]}}
    async with stranger.stream("subscriptions/listen", filter) as told:
        first = await anext(told)
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        async with Door(gateway, who=await gateway.key("ann")).stream("subscriptions/listen", filter) as mine:
            await anext(mine)
            docs.announce()
            await asyncio.wait_for(anext(mine), BOUND)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(told), 0.2)


@pytest.mark.requirement("mcp.listen.graceful-end")
async def test_a_subscription_ends_with_a_result_when_the_gateway_stops(tmp_path: Any) -> None:
    async with (
        scripted(tool("search")) as docs,
        running(tmp_path, configured(docs=docs)) as gateway,
        Door(gateway).stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}}) as told,
    ):
        id = (await anext(told))["params"]["_meta"][META + "subscriptionId"]
        await gateway.app.drain()
        last = await asyncio.wait_for(anext(told), BOUND)
        assert last["id"] == id
        assert last["result"] == {"resultType": "complete", "_meta": {META + "subscriptionId": id}}


@pytest.mark.requirement("mcp.pagination")
async def test_a_long_list_comes_in_pages(tmp_path: Any) -> None:
    many = [tool(f"t{number:04}") for number in range(2001)]
    async with scripted(*many) as docs, running(tmp_path, configured(docs=docs)) as gateway:
        door = Door(gateway)
        names, cursor, pages = [], None, 0
        while True:
            page = await door.result("tools/list", {} if cursor is None else {"cursor": cursor})
            names += [each["name"] for each in page["tools"]]
            pages += 1
            if (cursor := page.get("nextCursor")) is None:
                break
            first = cursor
        assert (pages, names) == (3, [f"docs__{each['name']}" for each in many])
        for wrong in ("x", first[:-2], 7):
            assert (await door.error("tools/list", {"cursor": wrong}))["code"] == -32602
        async with door.sdk() as sdk:
            assert len((await sdk.list_tools()).tools) == 1000


@pytest.mark.requirement("mcp.mrtr.supported-requests")
async def test_a_server_may_ask_only_where_the_specification_lets_it(tmp_path: Any) -> None:
    question = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}}

    async def ask(params: Any) -> Any:
        return {"resultType": "input_required", "inputRequests": {"q": question}}

    script = scripted(
        tool("t"), answers={"resources/read": ask, "completion/complete": ask}, resources=[{"uri": "a:1", "name": "a"}]
    )
    async with script as docs, running(tmp_path, configured(docs=docs)) as gateway:
        door = Door(gateway)
        can: dict[str, Any] = {"elicitation": {}}
        read = await door.result("resources/read", {"uri": "docs+a:1"}, capabilities=can)
        assert read["resultType"] == "input_required"
        params = {"ref": {"type": "ref/resource", "uri": "docs+a:1"}, "argument": {"name": "x", "value": ""}}
        error = await door.error("completion/complete", params, capabilities=can)
        assert (error["code"], "input_required" in error["message"]) == (-31050, True)


@pytest.mark.security
async def test_what_a_server_may_not_answer_does_not_reach_the_caller(gateway: Gateway, docs: Scripted) -> None:
    question = {"method": "elicitation/create", "params": {"message": "password?"}}
    answers: list[dict[str, Any]] = [
        {"resultType": "banana", "content": []},
        {"resultType": "task", "task": {"taskId": "t"}},
        {"resultType": "input_required", "inputRequests": [question]},
        {"resultType": "input_required", "inputRequests": {"q": {"method": "tools/call"}}},
        {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "s"},
    ]
    codes = []
    for answer in answers:

        async def work(params: Any, answer: Any = answer) -> Any:
            return answer

        docs.answers["search"] = work
        codes.append((await Door(gateway).error("tools/call", {"name": "docs__search"}))["code"])
    assert codes == [-31050, -31050, -31050, -31050, -32021]
    relayed = await Door(gateway).call("docs__search", {"elicitation": {}})
    assert relayed["inputRequests"] == {"q": question}
    del docs.answers["search"]


@pytest.mark.security
@pytest.mark.requirement("mcp.http.host-and-origin")
async def test_only_our_own_names_and_named_origins_reach_the_door(gateway: Gateway) -> None:
    for sent, status in (
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ):
        params = modern()
        answer = await Door(gateway).raw(
            request("tools/list", params), {**headers.make("tools/list", params, MODERN), **sent}
        )
        assert answer.status_code == status, sent


@pytest.mark.security
async def test_a_body_that_is_too_large_or_too_deep_is_refused_before_it_is_understood(gateway: Gateway) -> None:
    large = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"' + b"x" * 1_100_000 + b'"}}'
    assert (await Door(gateway).raw(large)).status_code == 413
    deep = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":' + b'{"a":' * 80 + b"1" + b"}" * 81
    answer = await Door(gateway).raw(deep)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32700)
