"""How many agents asked each other to get here, told to whatever is behind: a ring of gateways ends by it, whichever
protocols it is made of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.model.trail import HOPS
from tests.acp import Acp, run, scripted, told
from tests.mcp import Door, configured, tool
from tests.mcp import scripted as tools
from tests.remote import agents, ready
from tests.serving import BOUND, ROOT, Gateway, message, running
from tests.upstream import loopback

pytestmark = pytest.mark.asyncio

CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"
NAME = HOPS.lower()


async def says(gateway: Gateway, agent: str, *parts: Any, hops: int | None = None) -> Any:
    params = {"message": {**message("x"), "parts": [*parts]}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    sent = {} if hops is None else {HOPS: str(hops)}
    answer = await asyncio.wait_for(gateway.post(body, agent=agent, **sent), BOUND)
    return answer.json()


async def test_a_tool_server_is_told_how_deep_the_call_of_an_agent_is_and_nothing_of_a_callers_own(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text("rules: [{rule: all, who: 'agent:tooled', do: use, on: docs, verdict: PASS}]")
    config = f'policy: {{file: {rules}}}\nagents:\n  tooled: {{run: "tests.actors:tooled", {CARD}}}\n'
    async with tools(tool("read")) as docs, running(tmp_path / "data", config + configured(docs=docs)) as gateway:

        def hops() -> str | None:
            calls = zip(docs.requests, docs.raw, strict=True)
            return [head for asked, head in calls if asked["method"] == "tools/call"][-1].get(NAME)

        await Door(gateway).call("docs__read")
        assert hops() is None
        await says(gateway, "tooled", {"text": "docs/read"})
        assert hops() == "1"
        await says(gateway, "tooled", {"text": "docs/read"}, hops=3)
        assert hops() == "4"


async def test_an_agent_behind_acp_is_told_it_too(tmp_path: Path) -> None:
    async with scripted() as server:

        @server.on("create")
        async def answers(asked: Any) -> None:
            asked.answer(run("completed", told("done")))

        async with running(tmp_path, agents(far=server.manifest)) as gateway:
            await ready(gateway, "far")
            for hops, said in ((None, "1"), (4, "5")):
                await says(gateway, "far", {"text": "hi"}, hops=hops)
                assert server.asked_for("create")[-1].headers[NAME] == said


async def test_an_agent_of_the_older_messages_is_told_it_too(tmp_path: Path) -> None:
    done = b'{"jsonrpc":"2.0","id":1,"result":{"status":"completed","result":"done"}}'
    async with loopback.serve(loopback.always(loopback.answer(done, content_type="application/json"))) as server:
        config = f"agents:\n  counter: {{tasks_url: '{server.url}/', {CARD}}}\n"
        async with running(tmp_path, config) as gateway:
            await says(gateway, "counter", {"text": "hi"}, hops=2)
            assert server.requests[-1].headers[NAME] == "3"


async def test_a_run_that_came_too_deep_is_refused_over_acp(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        acp = Acp(gateway)
        answer = await acp.ask("POST", "/runs", body=acp.body("hi"), **{HOPS: "9"})
        assert answer.status_code == 403, answer.text
        assert "agents asked each other" in answer.text
