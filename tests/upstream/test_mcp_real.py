"""The client face against servers that nobody here wrote (the SDK's), one test over all transports and eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.model.errors import GatewayError
from gateway.model.tool import ACKNOWLEDGED, Era, Kind, PeerError
from gateway.upstream.mcp.server import McpServer
from tests.upstream.mcp_servers import FULL, PATIENCE, Recorder, at, child, fixture, run, texts

WAYS = ["http modern", "http both", "http legacy", "http+sse", "stdio both"]


@pytest.fixture(scope="module", params=WAYS)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, str | None]]:
    """(how, url): a running server, or None for the one that each test starts itself."""
    match request.param.split():
        case ["http", "both"]:
            with child(lambda port: fixture("--http", str(port))) as port:
                yield request.param, f"http://127.0.0.1:{port}/mcp"
        case ["http", era]:
            with child(lambda port: fixture("--http", str(port), "--era", era)) as port:
                yield request.param, f"http://127.0.0.1:{port}/mcp"
        case ["http+sse"]:
            with child(lambda port: fixture("--sse", str(port))) as port:
                yield request.param, f"http://127.0.0.1:{port}/sse"
        case _:
            yield request.param, None


@pytest.fixture
async def server(place: tuple[str, str | None]) -> AsyncIterator[McpServer]:
    _, url = place
    async with at(url) if url else run(*fixture()[1:]) as server:
        yield server


@pytest.fixture
def modern(place: tuple[str, str | None]) -> bool:
    return place[0] in ("http modern", "http both", "stdio both")


async def call(server: McpServer, tool: str, caller: Recorder | None = None, **arguments: Any) -> Any:
    params = {"name": tool, "arguments": arguments}
    return await asyncio.wait_for(server.request("tools/call", params, caller or Recorder()), PATIENCE)


@pytest.mark.requirement("mcp.client.era-probing")
async def test_the_era_is_found_out(server: McpServer, modern: bool) -> None:
    face = await server.face()
    assert (face.era, face.version) == ((Era.MODERN, "2026-07-28") if modern else (Era.LEGACY, "2025-11-25"))
    assert face.info["name"] == "gateway-tool-fixture"
    assert all(face.offers(kind) for kind in Kind)


async def test_everything_is_listed(server: McpServer) -> None:
    keys = {kind: {tree[kind.key] for tree in (await server.list(kind)).trees} for kind in Kind}
    assert keys[Kind.TOOL] > {"test_simple_text", "test_x_mcp_header"}
    assert keys[Kind.PROMPT] > {"test_simple_prompt"}
    assert keys[Kind.RESOURCE] == {"test://static-text", "test://static-binary", "test://watched-resource"}
    assert keys[Kind.TEMPLATE] == {"test://template/{id}/data"}
    tools = {tree["name"]: tree for tree in (await server.list(Kind.TOOL)).trees}
    assert tools["json_schema_2020_12_tool"]["inputSchema"]["$defs"]["address"]["$anchor"] == "addressDef"


async def test_tools_prompts_resources_and_completions_answer(server: McpServer) -> None:
    result = await call(server, "test_simple_text")
    assert result["resultType"] == "complete"
    assert texts(result) == ["This is a simple text response for testing."]
    caller = Recorder()
    prompt = await server.request(
        "prompts/get", {"name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}}, caller
    )
    assert prompt["messages"][0]["content"]["text"] == "Prompt with arguments: arg1='a', arg2='b'"
    read = await server.request("resources/read", {"uri": "test://template/7/data"}, caller)
    assert '"id": "7"' in read["contents"][0]["text"]
    reference = {"type": "ref/prompt", "name": "test_prompt_with_arguments"}
    params = {"ref": reference, "argument": {"name": "arg1", "value": "x"}}
    assert (await server.request("completion/complete", params, caller))["completion"]["values"] == []


async def test_an_error_of_the_tool_is_a_result_and_an_error_of_the_protocol_an_error(server: McpServer) -> None:
    assert (await call(server, "test_error_handling"))["isError"] is True
    with pytest.raises(PeerError) as caught:
        await server.request("resources/read", {"uri": "test://nothing"}, Recorder())
    assert caught.value.code in (-32602, -32002)
    assert not caught.value.retryable


async def test_progress_arrives_for_those_who_want_it(server: McpServer) -> None:
    caller = Recorder(progress=True)
    await call(server, "test_tool_with_progress", caller)
    assert [params["progress"] for _, params in caller.all] == [0, 50, 100]
    silent = Recorder()
    await call(server, "test_tool_with_progress", silent)
    assert silent.all == []


async def test_log_messages_arrive_for_those_who_want_them(server: McpServer) -> None:
    wants = {"loud": Recorder(log_level="debug"), "only errors": Recorder(log_level="error"), "none": Recorder()}
    for caller in wants.values():
        await call(server, "test_tool_with_logging", caller)
    heard = {name: [params["data"] for _, params in caller.all] for name, caller in wants.items()}
    assert len(heard.pop("loud")) == 3
    assert heard == {"only errors": [], "none": []}


async def test_whoever_calls_at_the_same_time_hears_of_its_own_call_only(server: McpServer) -> None:
    callers = [Recorder(principal=f"p{n}", progress=True) for n in range(4)]
    results = await asyncio.gather(*(call(server, "test_tool_with_progress", caller) for caller in callers))
    assert {result["resultType"] for result in results} == {"complete"}
    assert [len(caller.all) for caller in callers] == [3, 3, 3, 3]


async def test_a_question_reaches_the_caller(server: McpServer, modern: bool) -> None:
    said = {"action": "accept", "content": {"response": "blue"}}
    caller = Recorder(capabilities=FULL, answers={"elicitation/create": said})
    result = await call(server, "test_elicitation", caller, message="Which color?")
    if modern:
        assert result["resultType"] == "input_required"
        assert result["inputRequests"]["answer"]["params"]["message"] == "Which color?"
        assert caller.asked == []
        again = {
            "name": "test_elicitation",
            "arguments": {"message": "Which color?"},
            "inputResponses": {"answer": said},
        }
        result = await server.request("tools/call", again, caller)
    else:
        assert [(method, params["message"]) for method, params in caller.asked] == [
            ("elicitation/create", "Which color?")
        ]
    assert texts(result)[0].replace(" ", "") == 'Userresponse:action=accept,content={"response":"blue"}'


async def test_a_request_state_travels_there_and_back_untouched(server: McpServer, modern: bool) -> None:
    if not modern:
        pytest.skip("sessions know no requestState")
    caller = Recorder(capabilities=FULL)
    first = await call(server, "test_input_required_result_tampered_state", caller)
    params: dict[str, Any] = {
        "name": "test_input_required_result_tampered_state",
        "arguments": {},
        "inputResponses": {"confirm": {"action": "accept", "content": {"ok": True}}},
    }
    again = await server.request("tools/call", {**params, "requestState": first["requestState"]}, caller)
    assert texts(again) == ["state-ok: untouched"]
    with pytest.raises(PeerError):
        await server.request("tools/call", {**params, "requestState": first["requestState"] + "x"}, caller)


async def test_capabilities_are_those_of_each_caller(server: McpServer, modern: bool) -> None:
    if not modern:
        pytest.skip("the tool is one of 2026-07-28")
    few = await call(server, "test_input_required_result_capabilities", Recorder(capabilities={"sampling": {}}))
    many = await call(server, "test_input_required_result_capabilities", Recorder(capabilities=FULL))
    assert (few["inputRequests"].keys(), many["inputRequests"].keys()) == ({"sample"}, {"sample", "ask"})
    with pytest.raises(PeerError) as caught:
        await call(server, "test_missing_capability", Recorder())
    assert (caught.value.code, caught.value.data) == (-32021, {"requiredCapabilities": {"sampling": {}}})


async def test_an_annotated_argument_goes_into_its_header(server: McpServer) -> None:
    assert texts(await call(server, "test_x_mcp_header", region="Zürich, süd")) == ["region=Zürich, süd"]


async def test_a_stream_that_its_server_closes_early_is_gone_on_with(server: McpServer) -> None:
    caller = Recorder(log_level="info")
    assert texts(await call(server, "test_reconnection", caller)) == ["Reconnection test completed"]
    assert [params["data"] for _, params in caller.all] == ["Before disconnect", "After reconnect"]


async def test_changes_are_acknowledged_and_arrive(server: McpServer, modern: bool) -> None:
    stream = server.changes(frozenset({"test://watched-resource"}))
    first = await asyncio.wait_for(anext(stream), PATIENCE)
    assert first.method == ACKNOWLEDGED
    assert first.params["notifications"]["resourceSubscriptions"] == ["test://watched-resource"]
    if modern:
        await call(server, "test_trigger_tool_change")
        change = await asyncio.wait_for(anext(stream), PATIENCE)
        assert (change.method, change.params) == ("notifications/tools/list_changed", {})
    await stream.aclose()


async def test_a_caller_that_gives_up_frees_the_server(server: McpServer) -> None:
    caller = Recorder(progress=True)
    task = asyncio.ensure_future(call(server, "test_tool_with_progress", caller))
    await caller.next()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert texts(await call(server, "test_simple_text"))


async def test_a_closed_server_face_says_so_and_may_be_closed_twice(server: McpServer) -> None:
    await server.face()
    await server.aclose()
    await server.aclose()
    with pytest.raises(GatewayError, match="stopping"):
        await call(server, "test_simple_text")
