"""How far a policy reaches: into skills, older messages, streams, lists and what goes on after a yes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.approvals import approvals
from gateway.core.tools.news import News
from gateway.model.tool import Kind
from tests.actors import Cue
from tests.journeys.test_approvals import approval_of, said, waiting
from tests.mcp import Door, configured, scripted, soon, tool
from tests.serving import BOUND, ROOT, Gateway, message, running

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


async def test_who_may_answer_for_one_skill_alone_does_so_in_its_task(tmp_path: Path) -> None:
    policy = """
defaults: false
rules:
  - {rule: own, who: ann, do: call, on: agents/echo/behave, verdict: ESCALATE, approver: caller}
  - {rule: op, who: local, verdict: PASS}
"""
    async with ruled(tmp_path, policy) as gateway:
        held = (await asked(gateway, "ann", "behave"))["result"]["task"]
        assert held["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        yes = {"message": message("yes", taskId=held["id"])}
        answer = await gateway.rpc("SendMessage", yes, who=await gateway.key("ann"))
        assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED", answer


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


# Lists.

TOWN = """
agents:
  town: {{run: "agents.echo:Echo", card: {card}}}
  box: {{tools: [docs], public: true}}
"""
SKILLS = """
rules:
  - {rule: echoes, who: [ann, bob], do: use, on: agents/town/echo, verdict: PASS}
  - {rule: bobs, who: bob, do: use, on: agents/town/behave, verdict: PASS}
  - {rule: not-for-ann, who: agent:box, do: delegate, on: docs/delete, when: {for: ann}, verdict: BLOCK}
"""


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Gateway]:
    (folder / "policy.yaml").write_text(SKILLS)
    async with scripted(tool("search"), tool("delete")) as docs:
        agents = TOWN.format(card=f"{ROOT}/agent_cards/echo.json")
        config = f"{agents}policy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config) as gateway:
            yield gateway


async def skills(gateway: Gateway, who: str, agent: str) -> list[str]:
    headers = gateway.bearer(await gateway.key(who))
    answer = await gateway.client.get(f"/agents/{agent}/.well-known/agent-card.json", headers=headers)
    return [each["id"] for each in answer.json()["skills"]] if answer.status_code == 200 else []


async def test_whoever_may_use_one_skill_sees_the_agent_with_it_and_its_own_tasks_there(tmp_path: Path) -> None:
    async with town(tmp_path) as gateway:
        assert await skills(gateway, "ann", "town") == ["echo"]
        assert await skills(gateway, "bob", "town") == ["echo", "behave"]
        assert await skills(gateway, "eve", "town") == []
        key, eve = await gateway.key("ann"), await gateway.key("eve")
        said = {"message": message("hi", metadata={"skillId": "echo"})}
        await gateway.result("SendMessage", said, agent="town", who=key)
        assert "tasks" in await gateway.result("ListTasks", {}, agent="town", who=key)
        assert "error" in await gateway.rpc("SendMessage", {"message": message("hi")}, agent="town", who=key)
        assert (await gateway.error("ListTasks", {}, agent="town", who=eve))["message"] == "There is no such agent here"


async def test_a_rule_that_stops_one_skill_leaves_the_agents_card_and_tasks_alone(tmp_path: Path) -> None:
    policy = "rules: [{rule: no, who: ann, do: use, on: agents/echo/behave, verdict: BLOCK}]"
    async with ruled(tmp_path, policy) as gateway:
        assert await skills(gateway, "ann", "echo") == ["echo"]
        assert "tasks" in await gateway.result("ListTasks", {}, who=await gateway.key("ann"))


async def test_every_list_of_agents_shows_the_skills_that_its_reader_may_use(tmp_path: Path) -> None:
    async with town(tmp_path) as gateway:
        for who, behaves in (("ann", False), ("bob", True)):
            headers = gateway.bearer(await gateway.key(who))
            for path in ("/agents", "/agents:find?query=demo", "/acp/agents", "/acp/agents/town"):
                answer = await gateway.client.get(path, headers=headers)
                assert '"town"' in answer.text or "/town" in answer.text
                assert ("Behave as told" in answer.text) is behaves, (who, path)
            catalog = await gateway.client.get("/.well-known/ai-catalog.json", headers=headers)
            assert ("multi-turn" in catalog.text) is behaves


async def test_the_card_of_a_set_of_tools_shows_those_that_its_reader_may_use(tmp_path: Path) -> None:
    async with town(tmp_path) as gateway:

        async def ready() -> bool:
            return len(await skills(gateway, "bob", "box")) == 2

        await soon(ready)
        assert await skills(gateway, "ann", "box") == ["docs/search"]
        for who, state in (("ann", "FAILED"), ("bob", "COMPLETED")):
            asked = {"message": {**message(""), "parts": [{"data": {"tool": "docs/delete", "arguments": {}}}]}}
            task = await gateway.result("SendMessage", asked, agent="box", who=await gateway.key(who))
            assert task["task"]["status"]["state"] == f"TASK_STATE_{state}", task


@pytest.mark.security
async def test_who_listens_hears_no_more_of_a_resource_that_it_may_not_read_any_more(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules: [{rule: all, who: ann, do: resources/read, on: docs, verdict: PASS}]")
    pages = [{"uri": f"file:///{name}", "name": name} for name in ("one", "two")]
    async with scripted(tool("search"), resources=pages) as docs:
        config = f"policy: {{file: {tmp_path}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(tmp_path / "data", config) as gateway:
            door = Door(gateway, who=await gateway.key("ann"))
            uris = [each["uri"] for each in (await door.result("resources/list"))["resources"]]
            wanted = {"notifications": {"resourceSubscriptions": uris}}
            async with asyncio.timeout(BOUND), door.stream("subscriptions/listen", wanted) as told:
                first = await anext(told)
                assert sorted(first["params"]["notifications"]["resourceSubscriptions"]) == sorted(uris)
                rules = "rules: [{rule: one, who: ann, do: resources/read, on: 'docs/file:///two', verdict: PASS}]"
                await rule(gateway, tmp_path, rules)
                board = gateway.app.tools.servers.board
                board.publish(News("docs", Kind.RESOURCE, each["uri"]) for each in pages)
                heard = await anext(told)
                assert heard["params"]["uri"].endswith("file:///two")
