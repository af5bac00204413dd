"""Sessions of the revisions before 2026-07-28 at the door: how they begin, whose they are, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp import MODERN, Door, Scripted, configured, message_of, request, says, scripted, tool
from tests.serving import BOUND, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    async with scripted(tool("search", outputSchema={"type": "array"}), tool("send")) as script:
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    config = configured("grants: [{to: ann, tools: [docs]}]", "mounts: {other: {}}", docs=docs)
    async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
        yield gateway


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26"])
async def test_a_session_begins_lists_calls_and_ends(gateway: Gateway, version: str) -> None:
    session = await Door(gateway).session(version=version)
    assert session.offer["protocolVersion"] == version
    assert session.offer["serverInfo"]["name"] == "gateway"
    await session.tell("notifications/initialized", {})
    assert await session.result("ping") == {}
    listed = await session.result("tools/list")
    assert listed.keys() == {"tools"}
    assert "outputSchema" not in listed["tools"][0]
    called = await session.result("tools/call", {"name": "docs__send", "arguments": {}})
    assert called == {"content": [{"type": "text", "text": "send"}]}
    assert (await session.raw(None, method="DELETE")).status_code == 204
    gone = await session.raw(request("ping", {}))
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, -32600)


@pytest.mark.security
@pytest.mark.requirement("mcp.session.belongs-to-its-principal")
async def test_a_session_of_somebody_else_does_not_exist(gateway: Gateway) -> None:
    ann = await Door(gateway, who=await gateway.key("ann")).session()
    bob = Door(gateway, who=await gateway.key("bob"))
    for door in (bob, Door(gateway), Door(gateway, "other", ann.door.who)):
        for method, body in (("POST", request("ping", {})), ("GET", None), ("DELETE", None)):
            assert (await door.raw(body, ann.headers, method=method)).status_code == 404
    assert await ann.result("ping") == {}


async def test_session_ids_are_visible_ascii_and_never_the_same(gateway: Gateway) -> None:
    ids = {(await Door(gateway).session()).id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(id) >= 32 and all("!" <= each <= "~" for each in id) for id in ids)


async def test_what_is_wrong_in_a_session_is_said_in_its_own_way(gateway: Gateway) -> None:
    session = await Door(gateway).session()
    for method, params, code in (
        ("no/such", {}, -32601),
        ("server/discover", {}, -32601),
        ("logging/setLevel", {"level": "loud"}, -32602),
        ("tools/call", {"name": "nothing"}, -32602),
        ("resources/read", {"uri": "nobodys://x"}, -32002),
        ("resources/subscribe", {"uri": "nobodys://x"}, -32002),
        ("prompts/get", {}, -32602),
        ("tools/list", {"cursor": "x"}, -32602),
    ):
        answer = await session.raw(request(method, params, id="q"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, code), method
        assert answer.json()["id"] == "q"
    assert await session.result("logging/setLevel", {"level": "error"}) == {}


async def test_a_session_keeps_to_its_revision(gateway: Gateway) -> None:
    session = await Door(gateway).session()
    wrong = await session.door.raw(request("ping", {}), {**session.headers, "MCP-Protocol-Version": MODERN})
    assert wrong.status_code == 400
    unknown = await session.door.raw(request("ping", {}), {**session.headers, "MCP-Protocol-Version": "1999-01-01"})
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (400, "This session speaks 2025-11-25")
    plain = await session.door.raw(request("ping", {}), {"Mcp-Session-Id": session.id})
    assert plain.status_code == 200


@pytest.mark.requirement("mcp.session.batches")
async def test_several_messages_in_one_body_are_for_the_revision_that_has_them(gateway: Gateway) -> None:
    batch = [
        request("ping", {}, id=1),
        {"jsonrpc": "2.0", "method": "notifications/x"},
        request("no/such", {}, id=2),
        7,
    ]
    old = await Door(gateway).session(version="2025-03-26")
    answer = await old.raw(batch)
    assert [(each["id"], "result" in each) for each in answer.json()] == [(1, True), (2, False), (None, False)]
    assert (await old.raw([{"jsonrpc": "2.0", "method": "notifications/x"}])).status_code == 202
    assert (await old.raw([])).status_code == 400
    assert (await old.raw([request("ping", {})] * 51)).status_code == 400
    assert (await (await Door(gateway).session()).raw(batch)).status_code == 400


@pytest.mark.requirement("mcp.session.cancelled")
async def test_a_canceled_request_stops_at_the_server_and_has_no_answer(gateway: Gateway, docs: Scripted) -> None:
    begun = asyncio.Event()

    async def work(params: Any) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return says("never")

    docs.answers["send"] = work
    docs.canceled.clear()
    session = await Door(gateway).session()
    calling = asyncio.ensure_future(session.raw(request("tools/call", {"name": "docs__send"}, id="long")))
    await asyncio.wait_for(begun.wait(), BOUND)
    twice = await session.ask("ping")
    assert "result" in twice
    again = await session.raw(request("ping", {}, id="long"))
    assert (again.status_code, again.json()["error"]["code"]) == (400, -32600)
    await session.tell("notifications/cancelled", {"requestId": "someone else's"})
    await session.tell("notifications/cancelled", {"requestId": "long", "reason": "enough"})
    await asyncio.wait_for(docs.canceled.wait(), BOUND)
    assert b"data:" not in (await asyncio.wait_for(calling, BOUND)).content
    del docs.answers["send"]


async def test_ending_a_session_ends_what_runs_in_it(gateway: Gateway, docs: Scripted) -> None:
    begun = asyncio.Event()

    async def work(params: Any) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return says("never")

    docs.answers["send"] = work
    docs.canceled.clear()
    session = await Door(gateway).session()
    calling = asyncio.ensure_future(session.raw(request("tools/call", {"name": "docs__send"})))
    await asyncio.wait_for(begun.wait(), BOUND)
    await session.raw(None, method="DELETE")
    await asyncio.wait_for(docs.canceled.wait(), BOUND)
    await asyncio.wait_for(calling, BOUND)
    del docs.answers["send"]


@pytest.mark.requirement("mcp.session.changes-on-the-stream")
async def test_changes_come_on_the_sessions_own_stream(gateway: Gateway, docs: Scripted) -> None:
    session = await Door(gateway).session()
    async with session.stream(None) as told:
        await docs.change(tool("search", outputSchema={"type": "array"}), tool("send"), tool("new"))
        changed = await asyncio.wait_for(anext(told), BOUND)
        assert changed == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}}
        async with session.stream(None) as newer:
            docs.announce()
            assert (await asyncio.wait_for(anext(newer), BOUND))["method"] == "notifications/tools/list_changed"
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(told), BOUND)


@pytest.mark.requirement("mcp.session.server-asks-live")
async def test_a_server_that_needs_input_makes_the_gateway_ask_while_the_request_is_open(
    gateway: Gateway, docs: Scripted
) -> None:
    asked: list[Any] = []

    async def work(params: Any) -> dict[str, Any]:
        asked.append(params)
        if "inputResponses" in params:
            return says(params["inputResponses"]["q"]["content"]["name"])
        question = {"method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": {}}}
        return {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "opaque ß"}

    docs.answers["send"] = work
    session = await Door(gateway).session({"elicitation": {}})
    async with session.stream(request("tools/call", {"name": "docs__send", "arguments": {"a": 1}}, id="me")) as told:
        question = await asyncio.wait_for(anext(told), BOUND)
        assert (question["method"], question["params"]["message"]) == ("elicitation/create", "Name?")
        stranger = await Door(gateway).session({"elicitation": {}})
        forged = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Eve"}}}
        assert (await stranger.raw(forged)).status_code == 202
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Ann"}}}
        assert (await session.raw(answer)).status_code == 202
        last = await asyncio.wait_for(anext(told), BOUND)
        assert (last["id"], last["result"]["content"][0]["text"]) == ("me", "Ann")
    assert asked[1]["requestState"] == "opaque ß"
    assert asked[1]["arguments"] == asked[0]["arguments"] == {"a": 1}
    del docs.answers["send"]


@pytest.mark.requirement("mcp.eras.cannot-be-asked")
async def test_a_session_that_nobody_can_ask_gets_an_error_and_no_silence(gateway: Gateway, docs: Scripted) -> None:
    async def work(params: Any) -> dict[str, Any]:
        question = {"method": "roots/list", "params": {}}
        return {"resultType": "input_required", "inputRequests": {"q": question}}

    docs.answers["send"] = work
    result = await (await Door(gateway).session()).result("tools/call", {"name": "docs__send"})
    assert (result["isError"], "roots/list" in result["content"][0]["text"]) == (True, True)

    async def refuse(params: Any) -> dict[str, Any]:
        return {"error": {"code": -32021, "message": "Needs sampling", "data": {"requiredCapabilities": {}}}}

    # An error of 2026-07-28, which no session knows.
    docs.answers["send"] = refuse
    result = await (await Door(gateway).session()).result("tools/call", {"name": "docs__send"})
    assert result == {"isError": True, "content": [{"type": "text", "text": "Needs sampling"}]}
    del docs.answers["send"]


async def test_a_server_that_asks_without_end_is_stopped(gateway: Gateway, docs: Scripted) -> None:
    rounds = 0

    async def work(params: Any) -> dict[str, Any]:
        nonlocal rounds
        rounds += 1
        return {"resultType": "input_required", "inputRequests": {}, "requestState": str(rounds)}

    docs.answers["send"] = work
    answer = await (await Door(gateway).session({"roots": {}})).ask("tools/call", {"name": "docs__send"})
    assert "more than 8 times" in answer["error"]["message"]
    assert rounds == 8
    del docs.answers["send"]


async def test_a_stream_needs_a_session_and_an_accept(gateway: Gateway) -> None:
    session = await Door(gateway).session()
    plain = await session.door.raw(None, {**session.headers, "Accept": "application/json"}, method="GET")
    assert plain.status_code == 406
    assert message_of(plain)["error"]
