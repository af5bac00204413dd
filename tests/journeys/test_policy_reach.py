"""How far a policy reaches: into skills, older messages, streams, lists and what goes on after a yes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.approvals import approvals
from tests.actors import Cue
from tests.journeys.test_approvals import approval_of, said, waiting
from tests.mcp import soon
from tests.serving import ROOT, Gateway, message, running

CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"
AGENTS = f"""
agents:
  echo: {{run: "agents.echo:Echo", {CARD}}}
  desk: {{run: "agents.echo:Echo", {CARD}}}
  actor: {{run: "tests.actors:Actor", {CARD}}}
"""


@asynccontextmanager
async def ruled(folder: Path, policy: str, more: str = "") -> AsyncIterator[Gateway]:
    """A gateway with this policy, and `more` in its policy section."""
    (folder / "policy.yaml").write_text(policy)
    config = f"{AGENTS}policy: {{file: {folder}/policy.yaml{more}}}\n"
    async with running(folder / "data", config) as gateway:
        yield gateway


async def rule(gateway: Gateway, folder: Path, policy: str) -> None:
    """Another policy from now on."""
    (folder / "policy.yaml").write_text(policy)
    await gateway.app.policies[0].reload()


async def asked(gateway: Gateway, who: str, skill: str, **more: Any) -> Any:
    params = {"message": message("hi", metadata={"skillId": skill}, **more)}
    return await gateway.rpc("SendMessage", params, who=await gateway.key(who))


# Skills: what is said of one of them holds though no rule speaks of any.


async def test_a_limit_on_one_skill_is_about_that_skill(tmp_path: Path) -> None:
    async with ruled(tmp_path, "limits: [{limit: few, on: agents/echo/find, per: principal, calls: 1/day}]") as gateway:
        assert "result" in await asked(gateway, "ann", "find")
        assert (await asked(gateway, "ann", "find"))["error"]["data"][0]["metadata"] == {"limit": "few"}
        assert "result" in await asked(gateway, "ann", "other")


async def test_a_skill_may_cost_more_than_others(tmp_path: Path) -> None:
    policy = "limits: [{limit: dear, cost: 5/day}]\ncosts: [{on: agents/echo/find, cost: 5}]"
    async with ruled(tmp_path, policy) as gateway:
        assert "result" in await asked(gateway, "ann", "find")
        assert "error" in await asked(gateway, "ann", "other")


async def test_a_skill_brings_its_labels(tmp_path: Path) -> None:
    policy = """
labels:
  private-data: agents/echo/read
  untrusted-input: agents/echo/hear
  can-send-out: agents/echo/tell
"""
    async with ruled(tmp_path, policy) as gateway:
        states = []
        for skill in ("read", "hear", "tell"):
            answer = (await asked(gateway, "ann", skill, contextId="one"))["result"]
            states.append(answer.get("task", {}).get("status", {}).get("state", "TASK_STATE_COMPLETED"))
        assert states == ["TASK_STATE_COMPLETED", "TASK_STATE_COMPLETED", "TASK_STATE_AUTH_REQUIRED"]


async def test_a_person_is_asked_before_one_skill(tmp_path: Path) -> None:
    async with ruled(tmp_path, "approvals: {pause: agents/echo/find}") as gateway:
        held = (await asked(gateway, "ann", "find"))["result"]["task"]
        assert held["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        assert "AUTH_REQUIRED" not in str(await asked(gateway, "ann", "other"))


async def test_a_policy_that_is_tried_out_sees_the_skill(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("rules: [{rule: no, who: ann, do: call, on: agents/echo/find, verdict: BLOCK}]")
    async with ruled(tmp_path, "", f", shadow: {tmp_path}/new.yaml") as gateway:
        assert "result" in await asked(gateway, "ann", "find")
        answer = await gateway.client.get("/admin/policy/shadow", headers=gateway.bearer(None))
        assert [(each["target"], each["byRule"]) for each in answer.json()["flips"]] == [("agents/echo/find", "no")]


# A yes, and a limit that has no room in that moment.

LETTERS = """
limits: [{limit: one, who: ann, on: "agents/*", per: principal, concurrency: 1}]
rules:
  - {rule: letters, who: ann, do: call, on: agents/desk, verdict: ESCALATE}
"""


async def test_what_is_approved_while_a_limit_is_used_up_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "RETRY_SECONDS", 0.05)
    async with ruled(tmp_path, LETTERS) as gateway:
        task, key = await waiting(gateway), await gateway.key("ann")
        cue = Cue()
        await gateway.task(cue.text, agent="actor", who=key, configuration={"returnImmediately": True})
        assert (await said(gateway, None, approval_of(task), "approve")).json()["state"] == "approved"
        cue.done()

        async def done() -> bool:
            found = await gateway.result("GetTask", {"id": task["id"]}, agent="desk", who=key)
            return bool(found["status"]["state"] == "TASK_STATE_COMPLETED")

        await soon(done)


# What was done before a rule said no.


@pytest.mark.parametrize("at", ["", "echo"])
async def test_an_old_result_is_no_way_around_a_rule(tmp_path: Path, at: str) -> None:
    async with ruled(tmp_path, "") as gateway:
        key, params = await gateway.key("ann"), {"agent_id": "echo", "task": {"id": "one", "description": "hi"}}
        await gateway.result("agents/tasks/create", params, agent=at, who=key)
        asked = {"task_id": "one"}
        assert (await gateway.result("agents/tasks/result", asked, agent=at, who=key))["result"] == "hi"
        await rule(gateway, tmp_path, "rules: [{rule: gone, who: ann, verdict: BLOCK}]")
        assert (await gateway.error("agents/tasks/result", asked, agent=at, who=key))["code"] in (-32001, -32042)
        await rule(gateway, tmp_path, "rules: [{rule: unread, who: ann, do: GetTask, verdict: BLOCK}]")
        refused = await gateway.error("agents/tasks/result", asked, agent=at, who=key)
        assert refused["data"][0]["metadata"]["rule"] == "unread"


async def test_a_log_that_was_followed_takes_no_place_for_good(tmp_path: Path) -> None:
    async with ruled(tmp_path, 'limits: [{limit: one, who: ann, do: "*", concurrency: 1}]') as gateway:
        key = gateway.bearer(await gateway.key("ann"))
        run = {"agent_name": "echo", "input": [{"parts": [{"content_type": "text/plain", "content": "hi"}]}]}
        begun = (await gateway.client.post("/acp/runs", json=run, headers=key)).json()
        for _ in range(2):
            events = f"/acp/runs/{begun['run_id']}/events"
            answer = await gateway.client.get(events, headers={**key, "Accept": "text/event-stream"})
            assert answer.status_code == 200, answer.text


# What is said twice.


async def sent(gateway: Gateway, who: str, *data: Any, metadata: Any = None, request: Any = None) -> Any:
    said = {**message("hi"), "parts": [{"data": each} for each in data]} | ({"metadata": metadata} if metadata else {})
    params = {"message": said} | ({"metadata": request} if request else {})
    return await gateway.rpc("SendMessage", params, who=await gateway.key(who))


@pytest.mark.security
async def test_a_second_value_is_no_way_around_a_rule_about_the_first(tmp_path: Path) -> None:
    """An agent may read either of them."""
    policy = """
defaults: false
rules:
  - {rule: op, who: local, verdict: PASS}
  - {rule: small, who: ann, do: use, on: agents/echo, when: {arguments: {data.amount: {at_most: 9}}}, verdict: PASS}
  - {rule: low, who: bob, do: use, on: agents/echo, when: {arguments: {metadata.amount: {at_most: 9}}}, verdict: PASS}
"""
    async with ruled(tmp_path, policy) as gateway:
        assert "result" in await sent(gateway, "ann", {"amount": 1})
        assert "error" in await sent(gateway, "ann", {"amount": 1}, {"amount": 1_000})
        assert "result" in await sent(gateway, "bob", 1, metadata={"amount": 1}, request={"amount": 1})
        assert "error" in await sent(gateway, "bob", 1, metadata={"amount": 1}, request={"amount": 1_000})


# What a rule cannot freeze.


async def test_a_halt_that_would_freeze_the_machines_own_credential_is_a_halt(tmp_path: Path) -> None:
    policy = "rules: [{rule: stop, who: local, do: call, on: agents/desk, verdict: HALT, freeze: true}]"
    async with ruled(tmp_path, policy) as gateway:
        error = await gateway.error("SendMessage", {"message": message("hi")}, agent="desk")
        assert error["data"][0]["metadata"] == {"rule": "stop", "verdict": "HALT"}
        assert await gateway.send("hi")


# A policy of thousands of rules.


async def test_calls_go_on_while_a_long_policy_is_read(tmp_path: Path) -> None:
    rules = "".join(f"  - {{rule: r{n}, who: p{n}, do: call, on: agents/a{n}, verdict: PASS}}\n" for n in range(1_500))
    async with ruled(tmp_path, "") as gateway:
        (tmp_path / "policy.yaml").write_text(f"rules:\n{rules}  - {{rule: no, who: ann, verdict: BLOCK}}\n")
        key, during = await gateway.key("ann"), 0
        reading = asyncio.create_task(gateway.app.policies[0].reload())
        while not reading.done():
            during += "result" in await gateway.rpc("SendMessage", {"message": message("hi")}, who=key)
        await reading
        assert during > 1
        assert "error" in await gateway.rpc("SendMessage", {"message": message("hi")}, who=key)
