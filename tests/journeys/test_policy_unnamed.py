"""Calls that name a task and no agent: what policy and limits say of its agent holds for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acp import Acp
from tests.actors import Cue
from tests.journeys.test_policy_reach import rule, ruled
from tests.mcp import soon
from tests.serving import Gateway

Ask = Callable[[Gateway, str, str], Awaitable[httpx2.Response]]
"""As somebody, about a task of theirs by its id."""


async def begun(gateway: Gateway, key: str) -> str:
    """A task at echo, which the older messages know as `mine` and ACP as a run."""
    params = {"agent_id": "echo", "task": {"id": "mine", "description": "hi"}}
    await gateway.result("agents/tasks/create", params, agent="", who=key)
    page = await gateway.result("ListTasks", {}, who=key)
    return str(page["tasks"][0]["id"])


def _get(path: str, **headers: str) -> Ask:
    async def ask(gateway: Gateway, key: str, task: str) -> httpx2.Response:
        return await gateway.client.get(path.format(task), headers={**gateway.bearer(key), **headers})

    return ask


async def _older(gateway: Gateway, key: str, task: str) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": 1, "method": "agents/tasks/result", "params": {"task_id": "mine"}}
    return await gateway.post(body, agent="", who=key)


async def _session(gateway: Gateway, key: str, task: str) -> httpx2.Response:
    run = await Acp(gateway, who=key).get(f"/runs/{task}")
    return await gateway.client.get(f"/acp/session/{run['session_id']}", headers=gateway.bearer(key))


DOORS: dict[str, tuple[str, Ask]] = {
    "acp": ("GetTask", _get("/acp/runs/{}")),
    "acp-events": ("GetTask", _get("/acp/runs/{}/events")),
    "acp-stream": ("SubscribeToTask", _get("/acp/runs/{}/events", Accept="text/event-stream")),
    "acp-session": ("ListTasks", _session),
    "older": ("GetTask", _older),
}
each_door = pytest.mark.parametrize("door", DOORS)


@each_door
async def test_a_limit_of_an_agent_counts_who_reads_its_tasks_without_naming_it(tmp_path: Path, door: str) -> None:
    verb, ask = DOORS[door]
    async with ruled(tmp_path, "") as gateway:
        key = await gateway.key("ann")
        task = await begun(gateway, key)
        policy = f"limits: [{{limit: reads, do: {verb}, on: agents/echo, per: principal, calls: 2/day}}]"
        await rule(gateway, tmp_path, policy)
        answers = [await ask(gateway, key, task) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429], answers[-1].text
        assert int(answers[-1].headers["retry-after"]) > 0
        assert "The limit reads is used up" in answers[-1].text

        async def recorded() -> bool:
            found = await gateway.record()
            return any(each.outcome == "OVERLOADED" and "The limit reads" in str(each.reason) for each in found)

        await soon(recorded)


@pytest.mark.parametrize("door", ["acp", "older"])
async def test_a_halt_that_freezes_is_heeded(tmp_path: Path, door: str) -> None:
    verb, ask = DOORS[door]
    async with ruled(tmp_path, "") as gateway:
        key = await gateway.key("ann")
        task = await begun(gateway, key)
        stop = f"rules: [{{rule: stop, who: ann, do: {verb}, on: agents/echo, verdict: HALT, freeze: true}}]"
        await rule(gateway, tmp_path, stop)
        answer = await ask(gateway, key, task)
        assert answer.status_code == 403, answer.text

        async def frozen() -> Any:
            answer = await gateway.client.get("/admin/frozen", headers=gateway.bearer(None))
            return [each["name"] for each in answer.json()["frozen"]]

        assert await frozen() == ["key:ann"]

        async def recorded() -> bool:
            return any(
                (each.rule, each.verdict, each.verb) == ("stop", "HALT", verb) for each in await gateway.record()
            )

        await soon(recorded)


NOT_AT_ECHO = """
rules:
  - {rule: no, who: ann, do: use, on: agents/echo, verdict: BLOCK}
  - {rule: yes, who: ann, verdict: PASS}
"""


@pytest.mark.parametrize("path", ["/admin/tasks/{}", "/admin/tasks/{}:watch", "/acp/runs/{}"])
async def test_a_rule_about_an_agent_holds_where_only_its_task_is_named(tmp_path: Path, path: str) -> None:
    async with ruled(tmp_path, "") as gateway:
        key = await gateway.key("ann")
        task = await begun(gateway, key)
        await rule(gateway, tmp_path, "rules: [{rule: yes, who: ann, verdict: PASS}]")
        assert (await _get(path)(gateway, key, task)).status_code == 200
        await rule(gateway, tmp_path, NOT_AT_ECHO)
        assert (await _get(path)(gateway, key, task)).status_code == 404
        listed = await gateway.client.get("/admin/tasks", headers=gateway.bearer(key))
        assert listed.json()["tasks"] == []


async def test_a_rule_about_canceling_holds_where_only_the_task_is_named(tmp_path: Path) -> None:
    policy = """
rules:
  - {rule: let-it-end, who: ann, do: CancelTask, on: agents/actor, verdict: BLOCK}
  - {rule: yes, who: ann, verdict: PASS}
"""
    async with ruled(tmp_path, policy) as gateway:
        key, cue = await gateway.key("ann"), Cue()
        config = {"returnImmediately": True}
        task = await gateway.task(cue.text, agent="actor", who=key, configuration=config)
        answer = await gateway.client.post(f"/admin/tasks/{task['id']}:cancel", headers=gateway.bearer(key))
        assert answer.status_code == 403, answer.text
        assert "let-it-end" in answer.text
        cue.done()


@pytest.mark.parametrize("mode", ["sync", "async", "stream"])
async def test_a_run_is_one_call_with_its_answer(tmp_path: Path, mode: str) -> None:
    """Whoever may call an agent is told what came of it, as A2A tells it; reading it again is another call."""
    policy = """
defaults: false
rules:
  - {rule: op, who: local, verdict: PASS}
  - {rule: ask, who: ann, do: call, on: agents/echo, verdict: PASS}
limits: [{limit: one, do: use, on: agents/echo, per: principal, calls: 1/day}]
"""
    async with ruled(tmp_path, policy) as gateway:
        ann = Acp(gateway, who=await gateway.key("ann"))
        answer = await ann.ask("POST", "/runs", body=ann.body("hi", mode))
        assert answer.status_code == (202 if mode == "async" else 200), answer.text
        run = answer.headers["run-id"]
        assert (await ann.ask("GET", f"/runs/{run}")).status_code in (403, 404)
