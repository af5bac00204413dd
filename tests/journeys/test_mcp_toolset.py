"""A set of tools as an A2A agent: a skill for each, results as artifacts, questions as input that is waited for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp import Scripted, configured, says, scripted, soon, tool
from tests.serving import Gateway, message, running
from tests.upstream.mcp_servers import child, fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = {"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    search = tool("search", description="Finds.", title="Search")
    async with scripted(search, {"name": "only", "inputSchema": TEXT}, tool("secret")) as script:
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    with contextlib.ExitStack() as stack:
        ports = {
            era: stack.enter_context(child(lambda port, era=era: fixture("--http", str(port), "--era", era)))  # type: ignore[misc]
            for era in ("modern", "legacy")
        }
        agents = """
agents:
  finder: {tools: [docs/search, docs/only], public: true}
  single: {tools: [docs/only], public: true}
  modern: {tools: [modern], public: true}
  legacy: {tools: [legacy], public: true}
"""
        urls = {era: f"http://127.0.0.1:{port}/mcp" for era, port in ports.items()}
        config = configured(agents, docs=docs, **urls)
        async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
            yield gateway


def asking(data: Any = None, text: str | None = None, **more: Any) -> Any:
    parts = [*([] if text is None else [{"text": text}]), *([] if data is None else [{"data": data}])]
    return {"message": {**message("x", **more), "parts": parts}}


async def sent(gateway: Gateway, agent: str, data: Any = None, text: str | None = None, **more: Any) -> Any:
    answer = await gateway.result("SendMessage", asking(data, text, **more), agent=agent)
    return answer["task"]


async def test_each_tool_is_a_skill_of_the_card_and_the_card_follows_the_tools(
    gateway: Gateway, docs: Scripted
) -> None:
    async def skills() -> Any:
        card = (await gateway.client.get("/agents/finder/.well-known/agent-card.json")).json()
        return {each["id"]: (each["name"], each["description"]) for each in card["skills"]}

    async def both() -> Any:
        found = await skills()
        return found if "docs/search" in found else None

    assert await soon(both) == {"docs/search": ("Search", "Finds."), "docs/only": ("only", "only")}


async def test_data_chooses_the_tool_and_the_result_is_an_artifact(gateway: Gateway, docs: Scripted) -> None:
    data = {"b": [2**60, 1.0], "a": None}

    async def answer(params: Any) -> dict[str, Any]:
        return {**says("found"), "structuredContent": params["arguments"]}

    docs.answers["search"] = answer
    task = await sent(gateway, "finder", {"tool": "docs/search", "arguments": data})
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    (artifact,) = task["artifacts"]
    assert artifact["name"] == "docs/search"
    assert [part.get("data", part.get("text")) for part in artifact["parts"]] == [data, "found"]
    assert list(artifact["parts"][0]["data"]) == ["b", "a"]


async def test_where_there_is_one_tool_it_need_not_be_named(gateway: Gateway, docs: Scripted) -> None:
    for more in ({"data": {"words": "hi"}}, {"text": "hi"}):
        task = await sent(gateway, "single", **more)
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert docs.asked("tools/call")[-1]["arguments"] == {"words": "hi"}


@pytest.mark.security
async def test_no_other_tool_is_there_and_what_is_unclear_is_answered_with_where_to_look(gateway: Gateway) -> None:
    for more in (
        {"data": {"tool": "docs/secret", "arguments": {}}},
        {"data": {"tool": "modern/test_simple_text"}},
        {"text": "search"},
        {"data": [1]},
    ):
        error = await gateway.error("SendMessage", asking(**more), agent="finder")
        assert "the card of this agent has the tools that you may use, as skills" in error["message"], error
        assert "docs/only" not in error["message"], "nobody is told of more than the card shows them"


async def test_a_tool_that_fails_fails_the_task(gateway: Gateway, docs: Scripted) -> None:
    async def fails(params: Any) -> dict[str, Any]:
        return {**says("no such folder"), "isError": True}

    docs.answers["only"] = fails
    task = await sent(gateway, "single", {"words": "x"})
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["parts"][0]["text"] == "no such folder"
    del docs.answers["only"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_question_of_the_tools_is_input_that_the_task_waits_for(gateway: Gateway, era: str) -> None:
    data = {"tool": f"{era}/test_input_required_result_multi_round", "arguments": {}}
    task = await sent(gateway, era, data)
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert task["status"]["message"]["parts"][0]["text"] == "Step 1: What is your name?"
    assert task["status"]["message"]["metadata"]["schema"]["properties"] == {"name": {"type": "string"}}
    task = await sent(gateway, era, text="Ann", taskId=task["id"])
    assert task["status"]["message"]["parts"][0]["text"] == "Step 2: What is your favorite color?"
    task = await sent(gateway, era, {"color": "red"}, taskId=task["id"])
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "Ann likes red" in [part.get("text") for part in task["artifacts"][0]["parts"]]
