"""Agents called as MCP tools: tasks like any other, questions asked, progress told, and only for whoever may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio

from tests.mcp import Door, soon
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOWN = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
  hidden: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json}}
  mirror: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json, public: true}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("gateway"), TOWN, base=ROOT) as gateway:
        yield gateway


async def test_agents_are_tools_for_whoever_may_use_them(gateway: Gateway) -> None:
    assert await Door(gateway).names() == ["agents__echo", "agents__hidden", "agents__mirror"]
    ann = Door(gateway, who=await gateway.key("ann"))
    assert await ann.names() == ["agents__echo", "agents__mirror"]
    error = await ann.error("tools/call", {"name": "agents__hidden", "arguments": {"message": "hi"}})
    assert error["message"] == "Unknown tool: agents__hidden"


async def test_a_call_is_a_task_of_the_callers(gateway: Gateway) -> None:
    who = await gateway.key("bea")
    result = await Door(gateway, who=who).call("agents__echo", message="hello")
    assert result["content"][0] == {"type": "text", "text": "hello"}
    told = result["structuredContent"]
    assert told["state"] == "TASK_STATE_COMPLETED"
    task = await gateway.result("GetTask", {"id": told["taskId"]}, who=who)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "error" in await gateway.rpc("GetTask", {"id": told["taskId"]}, who=await gateway.key("eve"))


async def test_data_reaches_the_agent_and_comes_back_as_it_is(gateway: Gateway) -> None:
    data = {"b": [1, 2.5, 2**60, None], "a": {"é": True}}
    result = await Door(gateway).call("agents__mirror", message="m", data=data)
    seen = result["structuredContent"]["artifacts"][0]["parts"][0]["data"]["message"]
    assert seen["parts"] == [{"text": "m"}, {"data": data}]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_question_of_the_agents_is_an_elicitation(gateway: Gateway, mode: str) -> None:
    async def answer(context: Any, params: Any) -> types.ElicitResult:
        assert params.message == "What shall I echo?"
        return types.ElicitResult(action="accept", content={"answer": "this"})

    async with Door(gateway).sdk(mode, elicitation_callback=answer) as sdk:
        result = await sdk.call_tool("agents__echo", {"message": "ask"})
        assert "this" in str(result.content)


async def test_who_cannot_be_asked_goes_on_with_the_task_later(gateway: Gateway) -> None:
    door = Door(gateway)
    first = await door.call("agents__echo", message="ask")
    told = first["structuredContent"]
    assert (told["state"], first["content"][0]["text"]) == ("TASK_STATE_INPUT_REQUIRED", "What shall I echo?")
    second = await door.call("agents__echo", message="this", taskId=told["taskId"])
    assert second["structuredContent"]["taskId"] == told["taskId"]
    assert second["structuredContent"]["state"] == "TASK_STATE_COMPLETED"


async def test_what_the_agent_reports_is_progress_and_it_only_grows(gateway: Gateway) -> None:
    params = {"name": "agents__echo", "arguments": {"message": "wait 1"}}
    async with Door(gateway).stream("tools/call", params, progressToken="p") as told:
        heard = [each async for each in told]
    progress = [each["params"] for each in heard if each.get("method") == "notifications/progress"]
    assert progress
    assert all(each["progressToken"] == "p" for each in progress)
    assert [each["progress"] for each in progress] == sorted({each["progress"] for each in progress})
    assert heard[-1]["result"]["structuredContent"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_failure_is_a_failed_tool_and_a_wrong_call_an_error(gateway: Gateway) -> None:
    door = Door(gateway)
    for word in ("fail", "reject"):
        result = await door.call("agents__echo", message=word)
        assert result["isError"] is True
        assert f"{word}ed" in result["content"][0]["text"].lower()
    wrongs: list[dict[str, Any]] = [{}, {"message": 7}, {"message": "x", "taskId": ["no"]}]
    for arguments in wrongs:
        assert (await door.error("tools/call", {"name": "agents__echo", "arguments": arguments}))["code"] == -32602
    gone = await door.error("tools/call", {"name": "agents__echo", "arguments": {"message": "x", "taskId": "none"}})
    assert gone["data"]["reason"] == "TASK_NOT_FOUND"


async def test_a_client_that_leaves_cancels_the_task(gateway: Gateway) -> None:
    who = await gateway.key("leaver")
    calling = asyncio.ensure_future(Door(gateway, who=who).call("agents__echo", message="wait 600"))

    async def in_state(state: str) -> Any:
        tasks = (await gateway.result("ListTasks", {}, who=who))["tasks"]
        return [each for each in tasks if each["status"]["state"] == state]

    await soon(lambda: in_state("TASK_STATE_WORKING"))
    calling.cancel()
    async with asyncio.timeout(BOUND):
        await soon(lambda: in_state("TASK_STATE_CANCELED"))
