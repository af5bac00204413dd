"""Local agents and tools: the same registry and the same grants, as the agent's own principal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp import Scripted, configured, says, scripted, tool
from tests.serving import ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = f"""
agents:
  helper: {{run: "tests.actors:tooled", card: {ROOT}/agent_cards/echo.json, public: true}}
  admin-helper: {{run: "tests.actors:tooled", card: {ROOT}/agent_cards/echo.json, public: true}}
  asker: {{run: "tests.actors:answering", card: {ROOT}/agent_cards/echo.json, public: true}}
grants:
  - {{to: "agent:asker", tools: [docs/wizard, docs/endless]}}
  - {{to: "agent:helper", tools: [docs/search, docs/ask, docs/gone], arguments: {{folder: [public]}}}}
  - {{to: ann, tools: [docs]}}
"""


async def fails(params: Any) -> dict[str, Any]:
    return {**says("no such folder"), "isError": True}


async def asks(params: Any) -> dict[str, Any]:
    return {"error": {"code": -32021, "message": "needs elicitation", "data": {"requiredCapabilities": {}}}}


async def wizard(params: Any) -> dict[str, Any]:
    """Asks twice, and knows where it is by its state."""
    step = int(params.get("requestState", 0))
    if step == 2:
        return says(params["inputResponses"]["q"]["content"]["said"])
    question = {"method": "elicitation/create", "params": {"message": f"step {step + 1}?", "requestedSchema": {}}}
    return {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": str(step + 1)}


async def endless(params: Any) -> dict[str, Any]:
    return {"resultType": "input_required", "requestState": "more"}


ANSWERS = {"ask": asks, "wizard": wizard, "endless": endless}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    async with scripted(
        tool("search"), tool("send"), tool("ask"), tool("wizard"), tool("endless"), answers=ANSWERS
    ) as script:
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("gateway"), configured(AGENTS, docs=docs), base=ROOT) as gateway:
        yield gateway


async def sent(gateway: Gateway, agent: str, name: str, data: Any, who: str | None = None) -> Any:
    return await gateway.result("SendMessage", asking(name, data), agent=agent, who=who)


def asking(name: str, data: Any) -> Any:
    return {"message": {**message(name), "parts": [{"text": name}, {"data": data}]}}


async def test_an_agent_calls_the_tools_it_has_a_grant_for(gateway: Gateway, docs: Scripted) -> None:
    answer = await sent(gateway, "helper", "docs/search", {"folder": "public", "n": 2**60})
    assert answer["message"]["parts"][0]["data"] == {"text": "search", "structured": None, "failed": False}
    assert docs.asked("tools/call")[-1]["arguments"] == {"folder": "public", "n": 2**60}
    entries = [entry for entry in await gateway.record() if entry.target == "docs/search"]
    assert [(each.phase, each.principal, each.chain) for each in entries] == [
        ("intent", "agent:helper", ("local:local",)),
        ("outcome", "agent:helper", ("local:local",)),
    ]


async def test_a_tool_that_failed_is_told_apart_from_one_that_worked(gateway: Gateway, docs: Scripted) -> None:
    docs.answers["search"] = fails
    answer = await sent(gateway, "helper", "docs/search", {"folder": "public"})
    assert answer["message"]["parts"][0]["data"]["failed"] is True
    del docs.answers["search"]


@pytest.mark.security
@pytest.mark.parametrize(
    ("agent", "name", "data", "sentence"),
    [
        ("helper", "docs/send", {"folder": "public"}, "Unknown tool: docs/send"),
        ("helper", "docs/search", {"folder": "secret"}, "folder one of ['public']"),
        ("helper", "docs/nothing", {}, "Unknown tool: docs/nothing"),
        ("helper", "docs__search", {"folder": "public"}, "Unknown tool: docs__search"),
        ("helper", "nobody/search", {}, "Unknown tool: nobody/search"),
        ("helper", "docs/ask", {"folder": "public"}, "needs elicitation"),
        ("admin-helper", "docs/search", {"folder": "public"}, "Unknown tool: docs/search"),
    ],
)
async def test_an_agent_gets_no_tool_beyond_its_own_grants_whoever_asks(
    gateway: Gateway, docs: Scripted, agent: str, name: str, data: Any, sentence: str
) -> None:
    before = [each for each in docs.asked("tools/call") if each["name"] != "ask"]
    for who in (None, await gateway.key("ann")):
        error = await gateway.error("SendMessage", asking(name, data), agent=agent, who=who)
        assert sentence in error["message"]
        assert error["data"][0]["reason"] == "UPSTREAM_FAILED"
    assert [each for each in docs.asked("tools/call") if each["name"] != "ask"] == before


async def test_an_agent_can_answer_what_a_tool_asks_before_it_goes_on(gateway: Gateway) -> None:
    answer = await sent(gateway, "asker", "docs/wizard", {})
    assert answer["message"]["parts"][0]["data"] == {"text": "step 2?", "asked": ["step 1?", "step 2?"]}
    error = await gateway.error("SendMessage", asking("docs/endless", {}), agent="asker")
    assert "asked more than 8 times" in error["message"]
