"""What keeps agents in hand: the kill switch, HALT, loops, limits, labels; and a policy over what was recorded."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.model.audit import AuditEntry, AuditQuery
from gateway.model.tool import TASKS
from tests import rpc
from tests.actors import Cue
from tests.audit.logs import entries
from tests.bindings import BINDINGS, Caller, state
from tests.issuer import issuing
from tests.journeys.test_approvals import approval_of, ended, said
from tests.mcp import Door, configured, scripted, soon, tool
from tests.serving import BOUND, ROOT, Gateway, message, running
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAKES: dict[str, Any] = {"extensions": {TASKS: {}}}
CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"
AGENTS = f"""
agents:
  echo: {{run: "agents.echo:Echo", {CARD}}}
  actor: {{run: "tests.actors:Actor", {CARD}}}
  fan: {{run: "tests.actors:fan", {CARD}}}
  tooled: {{run: "tests.actors:tooled", {CARD}}}
  left: {{run: "tests.actors:ring", {CARD}}}
  right: {{run: "tests.actors:ring", {CARD}}}
"""
POLICY = """
labels:
  private-data: files
  untrusted-input: [web]
  can-send-out: [mail/send]
limits:
  - {limit: hasty, who: hurry, rate: 60/hour, burst: 2, per: principal}
  - {limit: wide, who: "agent:fan", fan_out: 3}
  - {limit: one-at-a-time, who: patient, on: agents/actor, concurrency: 1, per: principal}
  - {limit: dear, who: "key:*", on: mail, calls: 2/day, per: principal}
rules:
  - rule: enough
    who: agent:fan
    do: delegate
    on: agents/echo
    when: {arguments: {text: stop}}
    verdict: HALT
    because: it said stop
  - rule: enough-for-good
    who: agent:fan
    do: delegate
    on: agents/echo
    when: {arguments: {text: stop for good}}
    verdict: HALT
    freeze: true
  - {rule: nearly, who: saver, on: mail, when: {budget: {limit: dear, used: 50%}}, verdict: ESCALATE}
  - {rule: tools, who: "*", do: use, on: [files, web, mail], verdict: PASS}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("governance")
    (folder / "policy.yaml").write_text(POLICY)
    async with scripted(tool("read")) as files, scripted(tool("get")) as web, scripted(tool("send")) as mail:
        servers = configured(files=files, web=web, mail=mail)
        config = f"{AGENTS}policy: {{file: {folder}/policy.yaml}}\n{servers}"
        async with running(folder / "data", config) as gateway:
            yield gateway


async def admin(gateway: Gateway, verb: str, path: str, **body: Any) -> Any:
    answer = await gateway.client.request(verb, f"/admin/{path}", headers=gateway.bearer(None), json=body or None)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def begun(gateway: Gateway, who: str | None = None, agent: str = "actor") -> tuple[Cue, str]:
    cue = Cue()
    task = await gateway.task(cue.text, agent=agent, who=who, configuration={"returnImmediately": True})
    return cue, task["id"]


async def shown(gateway: Gateway, id: str, agent: str = "actor", who: str | None = None) -> Any:
    return await gateway.result("GetTask", {"id": id}, agent=agent, who=who)


def fanned(*asked: tuple[str, ...]) -> Any:
    return {"message": {**message(""), "parts": [{"data": [list(each) for each in asked]}]}}


# The kill switch.


async def test_a_frozen_agent_stops_at_once_and_takes_nothing(gateway: Gateway) -> None:
    cue, id = await begun(gateway)
    watching = asyncio.Event()

    async def watch() -> None:
        async with gateway.stream("SubscribeToTask", {"id": id}, agent="actor") as events:
            async for _ in events:
                watching.set()

    ended = asyncio.create_task(watch())
    await asyncio.wait_for(watching.wait(), BOUND)
    stopwatch = Stopwatch()
    await admin(gateway, "POST", "frozen", kind="agent", name="actor", reason="it misbehaves")
    try:
        await asyncio.wait_for(cue.stopped.wait(), BOUND)
        await asyncio.wait_for(ended, BOUND)
        assert stopwatch.seconds() < 1
        task = await shown(gateway, id)
        assert task["status"]["state"] == "TASK_STATE_CANCELED"
        assert task["status"]["message"]["parts"] == [{"text": "Stopped: the agent actor is frozen: it misbehaves"}]
        error = await gateway.error("SendMessage", {"message": message("hi")}, agent="actor")
        assert error["message"] == "SendMessage is refused: the agent actor is frozen: it misbehaves"
        assert [each["name"] for each in (await admin(gateway, "GET", "frozen"))["frozen"]] == ["actor"]
        door = Door(gateway)
        assert "agents__actor" not in await door.names()
        asked = {"principal": "ann", "action": "call", "target": "actor"}
        assert (await admin(gateway, "POST", "policy:explain", **asked))["change"] == "say gateway thaw agent actor"
    finally:
        await admin(gateway, "POST", "frozen:thaw", kind="agent", name="actor")
    cue, id = await begun(gateway)
    cue.done()


async def test_a_frozen_principal_can_do_nothing_and_nobody_for_it(gateway: Gateway) -> None:
    key = await gateway.key("mallory")
    cue, id = await begun(gateway, key)
    inner = Cue()
    await gateway.result(
        "SendMessage",
        {**fanned(("actor", inner.text)), "configuration": {"returnImmediately": True}},
        agent="fan",
        who=key,
    )
    other, _ = await begun(gateway)
    await asyncio.wait_for(inner.began.wait(), BOUND)
    watch = Stopwatch()
    await admin(gateway, "POST", "frozen", kind="principal", name="mallory")
    try:
        await asyncio.wait_for(asyncio.gather(cue.stopped.wait(), inner.stopped.wait()), BOUND)
        assert watch.seconds() < 1
        for method, params in (("SendMessage", {"message": message("hi")}), ("GetTask", {"id": id}), ("ListTasks", {})):
            error = await gateway.error(method, params, agent="echo", who=key)
            assert error["message"] == f"{method} is refused: the principal key:mallory is frozen"
        assert await Door(gateway, who=key).names() == []
        assert not other.stopped.is_set()
    finally:
        await admin(gateway, "POST", "frozen:thaw", kind="principal", name="mallory")
        other.done()


async def waiting(caller: Caller) -> str:
    """A task that asks its caller something, and that nobody is at."""
    cue = Cue()
    cue.ask()
    task = (await caller.send(cue.text))["task"]
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    return str(task["id"])


async def stopped(caller: Caller, id: str, freezing: Any) -> None:
    """Whoever watches the task sees its end within a second of the freezing."""
    async with caller.stream("SubscribeToTask", id=id) as events:
        assert state((await anext(events))["task"]) == "INPUT_REQUIRED"
        watch = Stopwatch()
        await freezing
        async with asyncio.timeout(BOUND):
            *_, last = [event async for event in events]
        assert watch.seconds() < 1
        assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
        assert last["statusUpdate"]["status"]["message"]["parts"][0]["text"].startswith("Stopped: ")


@pytest.mark.parametrize("binding", [*BINDINGS, "grpc"])
@pytest.mark.parametrize("kind", ["agent", "principal"])
async def test_what_waits_for_an_answer_ends_with_whom_it_would_go_on_for(
    tmp_path: Path, binding: str, kind: str
) -> None:
    async with running(tmp_path, AGENTS, grpc_port=0) as gateway:
        mallory, ann = await gateway.key("mallory"), await gateway.key("ann")
        caller = replace(rpc.caller(gateway, binding, "actor"), who=mallory)
        id = await waiting(caller)
        other = await waiting(replace(caller, who=ann))
        name = {"agent": "actor", "principal": "mallory"}[kind]
        await stopped(caller, id, admin(gateway, "POST", "frozen", kind=kind, name=name))
        expected = {"agent": "CANCELED", "principal": "INPUT_REQUIRED"}[kind]
        assert state(await replace(caller, who=ann).get(other)) == expected
        await admin(gateway, "POST", "frozen:thaw", kind=kind, name=name)
        assert state(await caller.get(id)) == "CANCELED"
        entries = [entry for entry in await gateway.record() if entry.task_id == id]
        assert [(entry.outcome, entry.rule) for entry in entries][-1] == ("CANCELED", "frozen")


async def test_what_waits_ends_with_whoever_acts_for_its_owner_also_after_a_restart(tmp_path: Path) -> None:
    """The token's `act`: the task is the subject's, and would go on for the actor."""
    async with issuing() as issuer:
        config = f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n{AGENTS}"
        async with running(tmp_path, config) as gateway:

            def acting(gateway: Gateway, **claims: Any) -> Caller:
                return replace(rpc.caller(gateway, "jsonrpc", "actor"), who=issuer.token(gateway.url, **claims))

            robot = acting(gateway, sub="ada", act={"sub": "robot"})
            own, others = acting(gateway, sub="ada"), acting(gateway, sub="ada", act={"sub": "tin"})
            id, mine, tins = await waiting(robot), await waiting(own), await waiting(others)
            name = f"oauth:{issuer.url}#robot"
            await stopped(own, id, admin(gateway, "POST", "frozen", kind="principal", name=name))
            assert [state(await own.get(each)) for each in (mine, tins)] == ["INPUT_REQUIRED"] * 2
        async with running(tmp_path, config) as gateway:
            await admin(gateway, "POST", "frozen", kind="principal", name=f"oauth:{issuer.url}#tin")
            own = acting(gateway, sub="ada")
            assert [state(await own.get(each)) for each in (mine, tins)] == ["INPUT_REQUIRED", "CANCELED"]


async def test_all_that_wait_end_however_many_also_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS) as first:
        ids = [await waiting(rpc.caller(first, "jsonrpc", "actor")) for _ in range(250)]
    async with running(tmp_path, AGENTS) as second:
        caller = rpc.caller(second, "jsonrpc", "actor")
        await admin(second, "POST", "frozen", kind="agent", name="actor")
        states = {state(await caller.get(id)) for id in ids}
    assert states == {"CANCELED"}


async def test_what_is_frozen_and_thawed_is_in_the_record_with_what_it_was_before(tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS) as gateway:
        await admin(gateway, "POST", "frozen", kind="agent", name="actor", reason="it shouts")
        await admin(gateway, "POST", "frozen", kind="agent", name="actor", reason="it screams")
        await admin(gateway, "POST", "frozen:thaw", kind="agent", name="actor")
        entries = [entry for entry in await gateway.record() if entry.verb in ("Freeze", "Thaw")]
        told = [(entry.verb, entry.phase, entry.outcome) for entry in entries]
        assert told == [("Freeze", "outcome", "ok")] * 2 + [("Thaw", "outcome", "ok")]
        reasons = [
            {when: [each["reason"] for each in entry.change[when]] for when in ("before", "after")}
            for entry in entries
            if entry.change is not None
        ]
        assert reasons == [
            {"before": [], "after": ["it shouts"]},
            {"before": ["it shouts"], "after": ["it screams"]},
            {"before": ["it screams"], "after": []},
        ]


async def test_a_tool_call_in_flight_is_called_back(gateway: Gateway, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(params: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async with scripted(tool("slow")) as slow:
        slow.answers["slow"] = hang
        config = AGENTS + configured("grants: [{to: ann, tools: [slow]}]", slow=slow)
        async with running(tmp_path, config) as small:
            ann = Door(small, who=await small.key("ann"))
            calling = asyncio.create_task(ann.error("tools/call", {"name": "slow__slow", "arguments": {}}))
            await asyncio.wait_for(asked.wait(), BOUND)
            watch = Stopwatch()
            await admin(small, "POST", "frozen", kind="principal", name="ann", reason="enough")
            error = await asyncio.wait_for(calling, BOUND)
            assert watch.seconds() < 1
            assert error["message"] == "Stopped: the principal key:ann is frozen: enough"


async def test_a_question_about_a_servers_task_is_called_back_too(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(params: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async def begun(params: Any) -> Any:
        moment = "2026-11-26T09:00:00Z"
        times = {"createdAt": moment, "lastUpdatedAt": moment, "ttlMs": None}
        return {"resultType": "task", "taskId": "one", "status": "working", **times}

    async with scripted(tool("slow")) as slow:
        slow.answers |= {"slow": begun, "tasks/get": hang}
        config = AGENTS + configured("grants: [{to: ann, tools: [slow]}]", slow=slow)
        async with running(tmp_path, config) as small:
            ann = Door(small, who=await small.key("ann"))
            handle = await ann.call("slow__slow", TAKES)
            asking = asyncio.create_task(ann.error("tasks/get", {"taskId": handle["taskId"]}, capabilities=TAKES))
            await asyncio.wait_for(asked.wait(), BOUND)
            await admin(small, "POST", "frozen", kind="principal", name="ann", reason="enough")
            error = await asyncio.wait_for(asking, BOUND)
            assert error["message"] == "Stopped: the principal key:ann is frozen: enough"


async def test_what_is_frozen_stays_so_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS) as first:
        await begun(first)
        await admin(first, "POST", "frozen", kind="agent", name="echo")
    async with running(tmp_path, AGENTS) as second:
        error = await second.error("SendMessage", {"message": message("hi")})
        assert error["message"] == "SendMessage is refused: the agent echo is frozen"
        await admin(second, "POST", "frozen:thaw", kind="agent", name="echo")
        assert await second.send("hi")


async def test_a_slip_freezes_nothing(gateway: Gateway) -> None:
    for body, status in (
        ({"kind": "agent", "name": "actorr"}, 404),
        ({"kind": "agents", "name": "actor"}, 400),
        ({"kind": "principal", "name": "role:x"}, 400),
        ({"kind": "principal", "name": "local"}, 400),
    ):
        answer = await gateway.client.post("/admin/frozen", json=body, headers=gateway.bearer(None))
        assert answer.status_code == status, body
    answer = await gateway.client.post(
        "/admin/frozen:thaw", json={"kind": "agent", "name": "actor"}, headers=gateway.bearer(None)
    )
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("oauth:https://idp.example/realm#bob/1", "oauth:https://idp.example/realm#bob/1"),
        ("user:ada", "oauth:gateway#user:ada"),
        ("spiffe://example.org/a/b", "spiffe://example.org/a/b"),
    ],
)
async def test_whoever_can_be_frozen_can_be_thawed(gateway: Gateway, word: str, id: str) -> None:
    assert (await admin(gateway, "POST", "frozen", kind="principal", name=word))["name"] == id
    thawed = await gateway.client.post(
        "/admin/frozen:thaw", json={"kind": "principal", "name": word}, headers=gateway.bearer(None)
    )
    assert (thawed.status_code, (await admin(gateway, "GET", "frozen"))["frozen"]) == (204, [])


# HALT and loops.


async def test_halt_stops_the_whole_tree(gateway: Gateway) -> None:
    inner, outside = Cue(), (await begun(gateway))[0]
    params = fanned(("actor", inner.text), ("echo", "stop", inner.text))
    answer = await asyncio.wait_for(gateway.result("SendMessage", params, agent="fan"), BOUND)
    watch = Stopwatch()
    status = answer["task"]["status"]
    assert status["state"] == "TASK_STATE_CANCELED"
    assert status["message"]["parts"] == [{"text": "Stopped by the rule enough: it said stop"}]
    await asyncio.wait_for(inner.stopped.wait(), BOUND)
    assert watch.seconds() < 1
    assert not outside.stopped.is_set()
    outside.done()


async def test_halt_ends_what_waits_in_the_tree_and_nothing_else(gateway: Gateway) -> None:
    caller = rpc.caller(gateway, "jsonrpc", "actor")
    outside, inner, last = await waiting(caller), Cue(), Cue()
    inner.ask()

    async def asked() -> list[str]:
        tasks = (await caller.call("ListTasks"))["tasks"]
        return [task["id"] for task in tasks if state(task) == "INPUT_REQUIRED" and task["id"] != outside]

    turn = asyncio.create_task(
        gateway.result("SendMessage", fanned(("actor", inner.text), ("echo", "stop", last.text)), agent="fan")
    )
    (id,) = await soon(asked)
    last.began.set()
    answer = await asyncio.wait_for(turn, BOUND)
    assert answer["task"]["status"]["state"] == "TASK_STATE_CANCELED"

    async def ended() -> bool:
        return state(await caller.get(id)) == "CANCELED"

    watch = Stopwatch()
    await soon(ended)
    assert watch.seconds() < 1
    assert state(await caller.get(outside)) == "INPUT_REQUIRED"


async def test_halt_may_freeze_whoever_asked(gateway: Gateway) -> None:
    answer = await gateway.result("SendMessage", fanned(("echo", "stop for good")), agent="fan")
    assert answer["task"]["status"]["state"] == "TASK_STATE_CANCELED"
    (cold,) = (await admin(gateway, "GET", "frozen"))["frozen"]
    assert (cold["kind"], cold["name"], cold["by"]) == ("agent", "fan", "agent:fan")

    async def recorded() -> list[AuditEntry]:
        page = await gateway.app.store.search_audit(AuditQuery(10, verb="Freeze", principal="agent:fan"))
        return [entry for _, entry in page.entries]

    (entry,) = await soon(recorded)
    assert (entry.target, entry.rule, entry.outcome) == ("fan", "enough-for-good", "ok")
    assert [each["name"] for each in entry.change["after"]] == ["fan"]
    await admin(gateway, "POST", "frozen:thaw", kind="agent", name="fan")


async def test_agents_that_ask_each_other_in_a_ring_are_stopped_at_the_second_time_round(gateway: Gateway) -> None:
    error = await gateway.error("SendMessage", {"message": message("round and round")}, agent="left")
    assert error["message"] == "A loop: left was asked the same thing already (left → right → left)"


async def test_a_ring_of_gateways_ends_at_the_eighth_agent(tmp_path: Path) -> None:
    agents = f"agents: {{onward: {{run: 'tests.actors:onward', {CARD}}}}}"
    (tmp_path / "policy.yaml").write_text("rules: [{rule: r, who: 'agent:*', do: use, on: agents/peer, verdict: PASS}]")
    config = f"{agents}\npolicy: {{file: {tmp_path}/policy.yaml}}\n"
    async with (
        running(tmp_path / "one", config, anonymous=True) as one,
        running(tmp_path / "two", config, anonymous=True) as two,
    ):
        for here, there in ((one, two), (two, one)):
            await admin(
                here, "POST", "agents", cardUrl=f"{there.url}/agents/onward/.well-known/agent-card.json", id="peer"
            )
        answer = await asyncio.wait_for(one.rpc("SendMessage", {"message": message("on")}, agent="onward"), BOUND)
        assert "More than 8 agents asked each other in a row" in str(answer)
        asked = [entry for each in (one, two) for entry in await each.record()]
        accepted = {entry.request_id for entry in asked if entry.verb == "SendMessage" and entry.phase == "intent"}
        assert len(accepted) <= 9


# Limits.


async def test_who_is_too_fast_is_told_when_to_come_back(gateway: Gateway) -> None:
    key, before = await gateway.key("hurry"), time.monotonic()
    for _ in range(2):
        assert await gateway.send("hi", who=key)
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
    answer = await gateway.post(body, who=key)
    assert answer.status_code == 429
    assert 59 - (time.monotonic() - before) <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["data"][0]["metadata"] == {"limit": "hasty"}
    (entry,) = [
        each for each in await gateway.record() if (each.principal, each.outcome) == ("key:hurry", "OVERLOADED")
    ]
    assert "The limit hasty is used up" in str(entry.reason)
    assert await gateway.send("hi", who=await gateway.key("calm"))


async def test_one_at_a_time_until_the_run_is_over(gateway: Gateway) -> None:
    key = await gateway.key("patient")
    cue, _ = await begun(gateway, key)
    error = await gateway.error("SendMessage", {"message": message("hi")}, agent="actor", who=key)
    assert "one-at-a-time" in error["message"]
    cue.done()
    await soon(lambda: _begins(gateway, key))


async def _begins(gateway: Gateway, key: str) -> bool:
    cue = Cue()
    cue.done()
    return "result" in await gateway.rpc("SendMessage", {"message": message(cue.text)}, agent="actor", who=key)


async def test_a_task_may_ask_so_many_and_no_more(gateway: Gateway) -> None:
    three = fanned(*[("echo", f"hi {number}") for number in range(3)])
    assert "message" in await gateway.result("SendMessage", three, agent="fan")
    four = fanned(*[("echo", f"hi {number}") for number in range(4)])
    answer = await gateway.rpc("SendMessage", four, agent="fan")
    assert "The limit wide does not allow this: at most 3 calls of one task" in str(answer)


async def test_a_rule_may_look_at_what_is_left(gateway: Gateway) -> None:
    saver = Door(gateway, who=await gateway.key("saver"))
    call = {"name": "mail__send", "arguments": {}}
    assert "content" in await saver.result("tools/call", call)
    assert "waits for an approval" in (await saver.result("tools/call", call))["content"][0]["text"]
    asked = {"principal": "saver", "action": "call", "target": "mail/send"}
    found = await admin(gateway, "POST", "policy:explain", **asked)
    assert (found["verdict"], found["rule"]) == ("ESCALATE", "nearly")


# Labels.


@pytest.mark.parametrize("order", [("files/read", "web/get", "mail/send"), ("mail/send", "files/read", "web/get")])
async def test_of_three_labels_one_conversation_has_two(gateway: Gateway, order: tuple[str, ...]) -> None:
    key = await gateway.key(f"labels-{order[0][:4]}")

    async def call(name: str, context: str) -> Any:
        params = {"message": {**message(name, contextId=context), "parts": [{"text": name}, {"data": {}}]}}
        return await gateway.rpc("SendMessage", params, agent="tooled", who=key)

    first, second, third = order
    for name in (first, second, first):
        assert "result" in await call(name, "one")
    waits = (await call(third, "one"))["result"]["task"]
    assert waits["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    told = waits["status"]["message"]
    assert "read private data, met untrusted input, and be able to send out" in told["parts"][0]["text"]
    assert "waits for an approval" not in str(await call(third, "another"))
    await admin(gateway, "POST", f"approvals/{told['metadata']['approval']}:approve")

    async def done() -> bool:
        state = (await shown(gateway, waits["id"], "tooled", key))["status"]["state"]
        return bool(state == "TASK_STATE_COMPLETED")

    await soon(done)
    assert "waits for an approval" not in str(await call(third, "one")), "once agreed to, it is done"


async def test_a_clients_own_tool_calls_are_one_conversation(gateway: Gateway) -> None:
    client = Door(gateway, who=await gateway.key("client"))
    for name in ("files__read", "web__get"):
        assert "content" in await client.result("tools/call", {"name": name, "arguments": {}})
    told = (await client.result("tools/call", {"name": "mail__send", "arguments": {}}))["content"][0]["text"]
    assert "rule-of-two" not in told
    assert "waits for an approval" in told


# A policy over what was recorded.


async def test_another_policy_is_tried_on_what_was_recorded(tmp_path: Path) -> None:
    async with scripted(tool("read")) as docs:
        config = AGENTS + configured("grants: [{to: ann, tools: [docs]}]", docs=docs)
        async with running(tmp_path / "data", config) as gateway:
            ann, bob = await gateway.key("ann"), await gateway.key("bob")
            for who in (ann, ann, bob):
                await gateway.send("hi", who=who)
            await Door(gateway, who=ann).result("tools/call", {"name": "docs__read", "arguments": {"folder": "x"}})
            await gateway.error("AddKey", {}, who=bob)
            text = """
rules:
  - {rule: quiet, who: ann, do: call, on: agents/echo, verdict: BLOCK}
  - {rule: some, who: ann, on: docs, when: {arguments: {folder: [x]}}, verdict: ESCALATE}
"""
            found = await admin(gateway, "POST", "policy:replay", text=text)
            assert found["flips"] == [
                {
                    "principal": "key:ann",
                    "action": "SendMessage",
                    "target": "agents/echo",
                    "verdict": "PASS",
                    "rule": "public-agents",
                    "wouldBe": "BLOCK",
                    "byRule": "quiet",
                    "count": 2,
                }
            ]
            assert found["unsure"] == 1  # which folder was asked for is not in the record
            assert found["calls"] == found["same"] + found["unsure"] + 2
            same = await admin(gateway, "POST", "policy:replay", text="{}")
            assert (same["flips"], same["unsure"]) == ([], 0)
            answer = await gateway.client.post(
                "/admin/policy:replay", json={"text": "rules: [{}]", "name": "new.yaml"}, headers=gateway.bearer(None)
            )
            assert "new.yaml:1: rules[0].who: is required" in answer.json()["error"]["message"]


async def test_the_same_policy_flips_nothing_whatever_came_of_its_decisions(tmp_path: Path) -> None:
    """Approvals that were given and refused, findings of compliance, a halted tree and who was frozen for it."""
    policy = """
rules:
  - {rule: ask, who: ann, do: call, on: agents/desk, verdict: ESCALATE}
  - {rule: own, who: bob, do: call, on: agents/desk, verdict: ESCALATE, approver: caller}
  - {rule: out, who: eve, do: call, on: agents/desk, verdict: HALT, freeze: true}
  - {rule: tool, who: ann, do: tools/call, on: docs/wipe, verdict: ESCALATE}
  - {rule: use, who: "*", do: use, on: [agents/desk, docs], verdict: PASS}
approvals: {pause: [docs/read]}
"""
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "compliance.yaml").write_text(
        "rules:\n  - {rule: none, find: secrets, action: block}\n  - {rule: mail, find: email, action: redact}\n"
    )
    files = f"policy: {{file: {tmp_path}/policy.yaml}}\ncompliance: {{file: {tmp_path}/compliance.yaml}}\n"
    desk = f'agents: {{desk: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json}}}}\n'
    async with (
        scripted(tool("wipe"), tool("read")) as docs,
        running(tmp_path / "data", f"{desk}{files}{configured(docs=docs)}") as gateway,
    ):
        given, refused, own = [
            (who, await gateway.task("hello", agent="desk", who=await gateway.key(who)))
            for who in ("ann", "ann", "bob")
        ]
        for by, verb, (who, task) in ((None, "approve", given), (None, "reject", refused), ("bob", "approve", own)):
            await said(gateway, by, approval_of(task), verb)
            await ended(gateway, task, who=who)
        door = Door(gateway, who=await gateway.key("ann"))
        for name in ("docs__wipe", "docs__read"):
            await door.result("tools/call", {"name": name, "arguments": {}})
            (held,) = (await admin(gateway, "GET", "approvals"))["approvals"]
            await said(gateway, None, held["id"], "approve")
            await door.result("tools/call", {"name": name, "arguments": {}})
        assert len(docs.asked("tools/call")) == 2
        for text in ("the key is sk_live_a1b2c3d4e5", "ann@example.org"):
            await gateway.rpc("SendMessage", {"message": message(text)}, agent="desk", who=await gateway.key("lea"))
        await gateway.error("SendMessage", {"message": message("x")}, agent="desk", who=await gateway.key("eve"))
        found = await admin(gateway, "POST", "policy:replay", text=policy)
        assert (found["flips"], found["unsure"]) == ([], 0)
        other = await admin(
            gateway,
            "POST",
            "policy:replay",
            text=policy.replace("ann, do: call, on: agents/desk, verdict: ESCALATE", "ann, verdict: BLOCK"),
        )
        flipped = {(each["principal"], each["target"], each["verdict"], each["count"]) for each in other["flips"]}
        assert ("key:ann", "agents/desk", "ESCALATE", 2) in flipped
        # Of each call that was released the record says by which approval, and of others nothing.
        for rule, reason in (("ask", f"approval {approval_of(given[1])}"), ("use", None)):
            passed = [each for each in await gateway.record() if (each.rule, each.verdict) == (rule, "PASS")]
            assert {each.reason for each in passed} == {reason}
        # Whoever is named in it, as caller, as who was frozen or as who agreed, can be forgotten.
        await gateway.error("SendMessage", {"message": message("y")}, agent="desk", who=await gateway.key("eve"))
        await admin(gateway, "POST", "frozen", kind="principal", name="lea", reason="by key:ann")
        await gateway.app.store.commit()
        written = entries(tmp_path / "data" / "gateway.db")
        assert not [line for line in written if re.search(rb"(key|oauth):(?!~)", line)]
