"""Calls that wait for a person: what their callers hear, who may answer, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from a2a.client import ClientCallContext
from a2a.types.a2a_pb2 import GetTaskRequest, Task, TaskState

from conformance.peers import Peer, tried
from gateway.core.approvals import approvals
from gateway.core.tools import consents
from gateway.model.approval import ApprovalState, RejectCall, Said, Word
from gateway.model.call import SendMessage
from gateway.model.changes import AdvanceTask, PutApproval
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.stores.sqlite import open_sqlite
from tests.acp import Acp
from tests.mcp import Door, configured, scripted, soon, tool
from tests.receiver import receiving
from tests.serving import BOUND, ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARD = f"card: {ROOT}/agent_cards/echo.json"
AGENTS = f"""
agents:
  echo: {{run: "agents.echo:Echo", {CARD}, public: true}}
  desk: {{run: "tests.actors:mirror", {CARD}}}
  bank: {{run: "tests.actors:mirror", {CARD}}}
  own: {{run: "tests.actors:mirror", {CARD}}}
  open: {{run: "tests.actors:mirror", {CARD}, public: true}}
  short: {{run: "tests.actors:mirror", {CARD}}}
  tooled: {{run: "tests.actors:tooled", {CARD}, public: true}}
  asking: {{run: "tests.actors:asking", {CARD}, public: true}}
grants: [{{to: "agent:tooled", tools: [docs]}}]
"""
POLICY = """
rules:
  - {rule: never, who: ann, do: call, on: agents/desk, when: {arguments: {text: forbidden}}, verdict: BLOCK}
  - {rule: letters, who: [ann, bob, "agent:*"], do: call, on: [agents/desk, agents/open], verdict: ESCALATE,
     because: people read them}
  - {rule: money, who: ann, do: call, on: agents/bank, verdict: ESCALATE, approvers: 2}
  - {rule: mine, who: ann, do: call, on: agents/own, verdict: ESCALATE, approver: caller}
  - {rule: hurry, who: ann, do: call, on: agents/short, verdict: ESCALATE, within: 1 second}
  - {rule: wipe, who: [ann, "agent:tooled"], do: tools/call, on: docs/wipe, verdict: ESCALATE, because: it is gone then}
  - {rule: tools, who: [ann, "agent:tooled"], do: tools/call, on: docs, verdict: PASS}
  - {rule: rest, who: [ann, bob], do: use, on: [agents/desk, agents/bank, agents/own, agents/short], verdict: PASS}
  - {rule: leads, who: [lea, lou, bob], do: approve, on: [agents/*, docs], verdict: PASS}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("approvals")
    (folder / "policy.yaml").write_text(POLICY)
    async with scripted(tool("wipe"), tool("read")) as docs:
        config = f"{AGENTS}policy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config) as gateway:
            yield gateway


async def waiting(gateway: Gateway, text: str = "hello", *, who: str = "ann", agent: str = "desk", **more: Any) -> Any:
    return await gateway.task(text, agent=agent, who=await gateway.key(who), **more)


def approval_of(task: Any) -> str:
    id: str = task["status"]["message"]["metadata"]["approval"]
    return id


async def said(gateway: Gateway, who: str | None, id: str, verb: str, **body: Any) -> Any:
    key = None if who is None else await gateway.key(who)
    return await gateway.client.post(f"/admin/approvals/{id}:{verb}", headers=gateway.bearer(key), json=body)


async def listed(gateway: Gateway, who: str | None, **query: Any) -> list[Any]:
    key = None if who is None else await gateway.key(who)
    answer = await gateway.client.get("/admin/approvals", headers=gateway.bearer(key), params=query)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["approvals"]
    return found


async def shown(gateway: Gateway, task: Any, *, who: str = "ann", agent: str = "desk") -> Any:
    return await gateway.result("GetTask", {"id": task["id"]}, agent=agent, who=await gateway.key(who))


async def ended(gateway: Gateway, task: Any, *, who: str = "ann", agent: str = "desk") -> Any:
    async def over() -> bool:
        state = (await shown(gateway, task, who=who, agent=agent))["status"]["state"]
        return state.removeprefix("TASK_STATE_") in ("COMPLETED", "FAILED", "REJECTED", "CANCELED")

    await soon(over)
    return await shown(gateway, task, who=who, agent=agent)


async def test_what_was_released_is_recorded_with_the_digest_of_what_its_agent_got(gateway: Gateway) -> None:
    task = await waiting(gateway, "to be measured")
    assert (await said(gateway, "lea", approval_of(task), "approve")).status_code == 200
    await ended(gateway, task)
    entries = (
        await gateway.client.get("/admin/audit", params={"task": task["id"]}, headers=gateway.bearer(None))
    ).json()["entries"]
    kept, *_ = (await shown(gateway, task))["history"]
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
    made = [entry for entry in entries if entry["rule"] == "letters" and entry["effect"] == "PASS"]
    assert [entry["phase"] for entry in made] == ["outcome", "intent"]
    for entry in made:
        assert (entry["digest"], entry["length"]) == (hashlib.sha256(canonical).hexdigest(), len(canonical))
        assert len(entry["upstreamHash"]) == 64


def reached(task: Any) -> Any:
    """What the mirror says that it got."""
    return task["status"]["message"]["parts"][0]["data"]


# Messages.


@pytest.mark.requirement("a2a.task.auth-required-explained", "a2a.send.waits-until-settled")
async def test_a_message_that_waits_says_for_whom_and_until_when_and_goes_on_once_it_is_approved(
    gateway: Gateway,
) -> None:
    task = await waiting(gateway)
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    told = task["status"]["message"]
    assert "waits for an approval by lea, lou, bob, local until 20" in told["parts"][0]["text"]
    assert told["parts"][0]["text"].endswith("people read them")
    assert told["metadata"]["approvers"] == ["lea", "lou", "bob", "local"]
    found = next(each for each in await listed(gateway, "lea") if each["id"] == approval_of(task))
    assert (found["caller"], found["target"], found["rule"], found["task"]) == (
        "key:ann", "agents/desk", "letters", task["id"],
    )  # fmt: skip
    assert found["arguments"]["message"]["parts"] == [{"text": "hello"}]
    answer = await said(gateway, "lea", found["id"], "approve", reason="fine")
    assert answer.json()["state"] == "used"
    task = await ended(gateway, task)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert reached(task)["message"]["parts"] == [{"text": "hello"}]
    again = await said(gateway, "lou", found["id"], "approve")
    assert again.status_code == 400
    assert "used already" in again.json()["error"]["message"]


async def test_an_approver_may_edit_what_is_said_and_both_are_on_record(gateway: Gateway) -> None:
    task = await waiting(gateway, "send all")
    id = approval_of(task)
    edited = {"arguments": {"parts": [{"text": "send one"}]}}
    answer = (await said(gateway, "lea", id, "edit", **edited)).json()
    assert answer["digest"] != answer["released"]
    task = await ended(gateway, task)
    assert reached(task)["message"]["parts"] == [{"text": "send one"}]
    assert [part["text"] for each in task["history"] if each["role"] == "ROLE_USER" for part in each["parts"]] == [
        "send all", "send one",
    ]  # fmt: skip
    found = [entry for entry in await gateway.record() if entry.verb == "EditCall"]
    change = found[-1].change
    assert change is not None
    assert (change["before"]["state"], change["after"]["state"]) == ("waiting", "approved")
    assert change["after"]["digest"] == answer["digest"]
    assert change["after"]["released"] == answer["released"]


async def test_what_the_rules_forbid_the_caller_cannot_be_edited_into_a_call(gateway: Gateway) -> None:
    task = await waiting(gateway)
    id = approval_of(task)
    refused = await said(gateway, "lea", id, "edit", arguments={"parts": [{"text": "forbidden"}]})
    assert refused.status_code == 403
    assert "The caller may not do this at all (never" in refused.json()["error"]["message"]
    unfit: list[dict[str, Any]] = [{"parts": []}, {"parts": "x"}, {}]
    for wrong in unfit:
        assert (await said(gateway, "lea", id, "edit", arguments=wrong)).status_code == 400
    assert (await shown(gateway, task))["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    assert (await said(gateway, "lea", id, "reject")).status_code == 200


async def test_what_is_rejected_ends_with_the_reason(gateway: Gateway) -> None:
    task = await waiting(gateway)
    answer = await said(gateway, "lou", approval_of(task), "reject", reason="too long")
    assert answer.json()["state"] == "rejected"
    task = await shown(gateway, task)
    assert task["status"]["state"] == "TASK_STATE_REJECTED"
    assert task["status"]["message"]["parts"][0]["text"].endswith("was rejected: by key:lou: too long")
    assert (await said(gateway, "lea", approval_of(task), "approve")).status_code == 400


async def test_what_nobody_answers_in_time_fails(gateway: Gateway) -> None:
    task = await waiting(gateway, agent="short")
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    ended_task = await ended(gateway, task, agent="short")
    assert ended_task["status"]["state"] == "TASK_STATE_FAILED"
    assert "was not approved in time" in ended_task["status"]["message"]["parts"][0]["text"]
    late = await said(gateway, "lea", approval_of(task), "approve")
    assert "expired already" in late.json()["error"]["message"]


@pytest.mark.requirement("a2a.task.auth-required-out-of-band", "a2a.task.auth-required-accepts-messages")
async def test_nobody_answers_for_a_call_of_their_own(gateway: Gateway) -> None:
    task = await waiting(gateway, who="bob")
    id = approval_of(task)
    assert id in [each["id"] for each in await listed(gateway, "bob")]
    refused = await said(gateway, "bob", id, "approve")
    assert refused.status_code == 403
    assert refused.json()["error"]["message"] == "Nobody answers for a call of their own"
    message_back = await gateway.error(
        "SendMessage",
        {"message": message("approve", taskId=task["id"])},
        agent="desk",
        who=await gateway.key("bob"),
    )
    assert "A message does not release it" in message_back["message"]
    assert (await shown(gateway, task, who="bob"))["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    assert (await said(gateway, "lea", id, "approve")).status_code == 200
    await ended(gateway, task, who="bob")


async def test_who_may_answer_nothing_learns_nothing(gateway: Gateway) -> None:
    task = await waiting(gateway)
    id = approval_of(task)
    stranger = gateway.bearer(await gateway.key("stranger"))
    for path in (f"/admin/approvals/{id}", "/admin/approvals/nosuch", "/admin/approvals"):
        assert (await gateway.client.get(path, headers=stranger)).status_code == 403
    there = await said(gateway, "stranger", id, "approve")
    missing = await said(gateway, "stranger", "nosuch", "approve")
    assert (there.status_code, there.content) == (missing.status_code, missing.content)
    assert (await said(gateway, "lea", "nosuch", "approve")).status_code == 404
    await said(gateway, "lea", id, "reject")


async def test_four_eyes_are_two_people(gateway: Gateway) -> None:
    task = await waiting(gateway, agent="bank")
    id = approval_of(task)
    assert "by 2 of lea" in task["status"]["message"]["parts"][0]["text"]
    first = (await said(gateway, "lea", id, "approve")).json()
    assert (first["state"], first["missing"]) == ("waiting", 1)
    same = await said(gateway, "lea", id, "approve")
    assert "somebody else has to" in same.json()["error"]["message"]
    other = (await said(gateway, "lou", id, "edit", arguments={"parts": [{"text": "less"}]})).json()
    assert (other["state"], other["missing"]) == ("waiting", 1), "what was agreed to before was another call"
    assert (await said(gateway, "lea", id, "approve")).json()["state"] == "used"
    task = await ended(gateway, task, agent="bank")
    assert reached(task)["message"]["parts"] == [{"text": "less"}]


async def test_two_who_agree_at_one_moment_are_both_heard(gateway: Gateway) -> None:
    task = await waiting(gateway, agent="bank")
    both = await asyncio.gather(*(said(gateway, who, approval_of(task), "approve") for who in ("lea", "lou")))
    assert [each.status_code for each in both] == [200, 200], [each.text for each in both]
    assert (await ended(gateway, task, agent="bank"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_of_two_who_answer_at_one_moment_where_one_is_enough_the_other_hears_what_was_said(
    gateway: Gateway,
) -> None:
    task = await waiting(gateway)
    yes, no = await asyncio.gather(
        said(gateway, "lea", approval_of(task), "approve"), said(gateway, "lou", approval_of(task), "reject")
    )
    assert sorted((yes.status_code, no.status_code)) == [200, 400]
    late = yes if yes.status_code == 400 else no
    assert "waiting already" not in late.text
    await ended(gateway, task)


async def test_a_yes_that_comes_before_an_agent_has_begun_to_wait_is_heard(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told by webhook may be a program, and fast."""
    approvals = gateway.app.gateway.tools.calls.approvals
    wait, asked = approvals.wait, list[str]()

    async def late(id: str, seconds: float | None = None) -> Any:
        asked.append(id)
        assert (await said(gateway, "lea", id, "approve")).status_code == 200
        return await wait(id, seconds)

    monkeypatch.setattr(approvals, "wait", late)
    parts = [{"text": "docs/wipe"}, {"data": {"which": "early"}}]
    task = await gateway.task("", agent="tooled", who=await gateway.key("ann"), parts=parts)
    done = await ended(gateway, task, agent="tooled")
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    found = await approvals.find(asked[0])
    assert (len(asked), found and found.state) == (1, ApprovalState.USED)


class Leaving:
    """A call whose caller goes while its first commit is on its way to the disk."""

    def __init__(self, gateway: Gateway, patch: pytest.MonkeyPatch) -> None:
        self._gateway = gateway
        self._patch = patch

    async def handle(self, call: Any, who: Principal) -> None:
        store = self._gateway.app.store
        commit, leaving = store.commit, asyncio.ensure_future(self._gateway.app.gateway.handle(call, who))

        def canceled(*changes: Any, **records: Any) -> Any:
            self._patch.undo()
            asyncio.get_running_loop().call_soon(leaving.cancel)
            return commit(*changes, **records)

        self._patch.setattr(store, "commit", canceled)
        with contextlib.suppress(asyncio.CancelledError):
            await leaving


async def test_a_caller_or_an_approver_who_goes_in_the_middle_leaves_nothing_half_done(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.key("lea")
    leaving, words = Leaving(gateway, monkeypatch), Message.model_validate(message("I am gone"))
    await leaving.handle(SendMessage("desk", words, digest=b"1"), Principal.of("key:ann", ""))

    async def filed() -> list[Any]:
        return [each for each in await listed(gateway, "lea") if "I am gone" in str(each["arguments"])]

    (waits,) = await soon(filed)
    await leaving.handle(RejectCall(waits["id"]), Principal.of("key:lea", ""))

    async def over() -> bool:
        return await filed() == []

    await soon(over)
    ended = await gateway.app.store.task("", waits["task"])
    assert ended is not None
    assert ended.task.status.state.name == "REJECTED"


@pytest.mark.parametrize("agent", ["desk", "tooled"])
async def test_a_cancel_and_a_yes_at_one_moment_end_the_task_and_nothing_else(gateway: Gateway, agent: str) -> None:
    ann, approvals = await gateway.key("ann"), gateway.app.gateway.tools.calls.approvals
    for n in range(6):
        parts = [{"text": "docs/wipe"}, {"data": {"which": n}}]
        task = await waiting(gateway, agent=agent, parts=parts)
        yes, canceled = await asyncio.gather(
            said(gateway, "lea", approval_of(task), "approve"),
            gateway.rpc("CancelTask", {"id": task["id"]}, agent=agent, who=ann),
        )
        assert "Internal error" not in f"{yes.text} {canceled}"
        await ended(gateway, task, agent=agent)

        async def over(id: str = approval_of(task)) -> bool:
            return (found := await approvals.find(id)) is not None and not found.state.open

        await soon(over)


async def test_what_is_to_come_to_nothing_does_though_somebody_says_a_word_meanwhile(gateway: Gateway) -> None:
    approvals = gateway.app.gateway.tools.calls.approvals
    id = approval_of(await waiting(gateway, agent="bank"))
    before = await approvals.find(id)
    assert before is not None
    assert (await said(gateway, "lea", id, "approve")).json()["state"] == "waiting"
    await approvals.void(before, "its task was canceled")
    found = await approvals.find(id)
    assert found is not None
    assert (found.state, found.revision) == (ApprovalState.VOID, before.revision + 2)


@pytest.mark.requirement("a2a.task.input-required-continues")
async def test_a_caller_that_may_answer_for_itself_does_so_in_its_task(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    task = await waiting(gateway, agent="own")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    unclear = await gateway.error("SendMessage", {"message": message("hm", taskId=task["id"])}, agent="own", who=ann)
    assert "answer approve or reject" in unclear["message"]
    foreign = await gateway.error(
        "SendMessage", {"message": message("approve", taskId=task["id"])}, agent="own", who=await gateway.key("bob")
    )
    assert foreign["message"] == "Task not found"
    yes = message("approve", taskId=task["id"])
    done = (await gateway.result("SendMessage", {"message": yes}, agent="own", who=ann))["task"]
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    again = (await gateway.result("SendMessage", {"message": yes}, agent="own", who=ann))["task"]
    assert again["id"] == done["id"]
    other = await waiting(gateway, agent="own")
    no = {"message": {**message("", taskId=other["id"]), "parts": [{"data": {"decision": "reject"}}]}}
    for _ in ("said", "said again, since the answer was lost"):
        done = (await gateway.result("SendMessage", no, agent="own", who=ann))["task"]
        assert (done["id"], done["status"]["state"]) == (other["id"], "TASK_STATE_REJECTED")


@pytest.mark.requirement("a2a.cancel.interrupted")
async def test_a_canceled_task_cannot_be_approved(gateway: Gateway) -> None:
    task = await waiting(gateway)
    ann = await gateway.key("ann")
    gone = await gateway.result("CancelTask", {"id": task["id"]}, agent="desk", who=ann)
    assert gone["status"]["state"] == "TASK_STATE_CANCELED"
    late = await said(gateway, "lea", approval_of(task), "approve")
    assert "void already" in late.json()["error"]["message"]


async def test_the_same_message_again_is_the_same_task_and_approval(gateway: Gateway) -> None:
    ann, same = await gateway.key("ann"), {"message": message("once")}
    first = (await gateway.result("SendMessage", same, agent="desk", who=ann))["task"]
    second = (await gateway.result("SendMessage", same, agent="desk", who=ann))["task"]
    assert (first["id"], approval_of(first)) == (second["id"], approval_of(second))
    await said(gateway, "lea", approval_of(first), "approve")
    done = await ended(gateway, first)
    third = (await gateway.result("SendMessage", same, agent="desk", who=ann))["task"]
    assert third == done


@pytest.mark.requirement("a2a.stream.auth-required-stays-open")
async def test_a_stream_stays_open_until_the_approved_message_is_answered(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    seen: list[str] = []
    async with asyncio.timeout(BOUND):
        async with gateway.stream("SendStreamingMessage", {"message": message("hi")}, agent="desk", who=ann) as events:
            async for event in events:
                status = (event.get("task") or event["statusUpdate"])["status"]
                seen.append(status["state"].removeprefix("TASK_STATE_"))
                if seen[-1] == "AUTH_REQUIRED":
                    assert (await said(gateway, "lea", approval_of({"status": status}), "approve")).status_code == 200
    assert seen == ["AUTH_REQUIRED", "WORKING", "COMPLETED"]


# Calls of agents.


async def test_an_agent_waits_in_the_middle_of_its_work_for_a_tool(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    params = {"message": {**message("docs/wipe"), "parts": [{"text": "docs/wipe"}, {"data": {"all": True}}]}}
    task = (await gateway.result("SendMessage", params, agent="tooled", who=ann))["task"]
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    found = next(each for each in await listed(gateway, "lea") if each["task"] == task["id"])
    assert (found["caller"], found["chain"], found["action"]) == ("agent:tooled", ["key:ann"], "tools/call")
    assert found["arguments"] == {"all": True}
    refused = await said(gateway, "ann", found["id"], "approve")
    assert refused.status_code == 403
    await said(gateway, "lea", found["id"], "edit", arguments={"all": False})
    task = await ended(gateway, task, agent="tooled")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["status"]["message"]["parts"][0]["data"]["failed"] is False
    assert (await said(gateway, "lou", found["id"], "approve")).status_code == 400


async def test_an_agent_hears_that_its_call_was_rejected(gateway: Gateway) -> None:
    params = {"message": {**message("docs/wipe"), "parts": [{"text": "docs/wipe"}, {"data": {"all": 1}}]}}
    task = (await gateway.result("SendMessage", params, agent="tooled", who=await gateway.key("ann")))["task"]
    await said(gateway, "lea", approval_of(task), "reject", reason="no")
    task = await ended(gateway, task, agent="tooled")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "was rejected: by key:lea: no" in task["status"]["message"]["parts"][0]["text"]


async def test_a_canceled_agent_waits_for_nobody(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    params = {"message": {**message("docs/wipe"), "parts": [{"text": "docs/wipe"}, {"data": {"all": 2}}]}}
    task = (await gateway.result("SendMessage", params, agent="tooled", who=ann))["task"]
    await gateway.result("CancelTask", {"id": task["id"]}, agent="tooled", who=ann)
    late = await said(gateway, "lea", approval_of(task), "approve")
    assert "void already" in late.json()["error"]["message"]


async def test_who_is_frozen_meanwhile_does_not_go_on(gateway: Gateway) -> None:
    key = await gateway.key("ann")
    params = {"message": {**message("docs/wipe"), "parts": [{"text": "docs/wipe"}, {"data": {"all": 3}}]}}
    task = (await gateway.result("SendMessage", params, agent="tooled", who=key))["task"]
    held = await waiting(gateway, agent="bank")
    frozen = {"kind": "principal", "name": "ann"}
    local = gateway.bearer(None)
    assert (await gateway.client.post("/admin/frozen", json=frozen, headers=local)).status_code < 300
    try:
        assert (await said(gateway, "lea", approval_of(task), "approve")).status_code in (200, 400)
        late = await said(gateway, "lou", approval_of(held), "approve")
        assert "void already" in late.json()["error"]["message"]
    finally:
        assert (
            await gateway.client.post("/admin/frozen:thaw", json={"kind": "principal", "name": "ann"}, headers=local)
        ).status_code == 204
    for each, agent in ((task, "tooled"), (held, "bank")):
        assert (await ended(gateway, each, agent=agent))["status"]["state"] == "TASK_STATE_CANCELED", agent


@pytest.mark.requirement("a2a.task.auth-required-passed-on")
async def test_agents_that_ask_each_other_wait_together(gateway: Gateway) -> None:
    task = await waiting(gateway, "desk", agent="asking")
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    found = next(each for each in await listed(gateway, "lea") if each["id"] == approval_of(task))
    assert (found["caller"], found["target"], found["task"]) == ("agent:asking", "agents/desk", task["id"])
    await said(gateway, "lea", found["id"], "approve")
    task = await ended(gateway, task, agent="asking")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_tool_call_from_outside_is_told_what_it_waits_for_and_made_once_it_is_approved(
    gateway: Gateway,
) -> None:
    ann = Door(gateway, who=await gateway.key("ann"))
    told = await ann.call("docs__wipe", which="one")
    assert "waits for an approval by lea, lou, bob, local" in told["content"][0]["text"]
    found = [each for each in await listed(gateway, "lea") if each["target"] == "docs/wipe"]
    assert [each["id"] for each in found] == [told["_meta"]["gateway/approval"]["approval"]]
    await said(gateway, "lea", found[0]["id"], "approve")
    assert "waits for an approval" in (await ann.call("docs__wipe", which="two"))["content"][0]["text"]
    assert (await ann.call("docs__wipe", which="one"))["content"][0]["text"] == "wipe"
    assert "waits for an approval" in (await ann.call("docs__wipe", which="one"))["content"][0]["text"]


# Other dialects, and somebody else's client.


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_sdks_client_sees_its_message_wait_and_go_on(gateway: Gateway, version: str) -> None:
    """Over each binding that the card offers; a2a-sdk's own client knows nothing of approvals."""
    states: list[int] = []

    async def a_message_waits_and_goes_on(peer: Peer) -> None:
        task = await peer.send("waits", headers=peer.credential)
        assert isinstance(task, Task)
        assert task.status.state == TaskState.TASK_STATE_AUTH_REQUIRED, task.status
        metadata = dict(task.status.message.metadata.items())
        assert (await said(gateway, "lea", str(metadata["approval"]), "approve")).status_code == 200

        async def completed() -> bool:
            context = ClientCallContext(service_parameters=peer.credential)
            found = await peer.plain.get_task(GetTaskRequest(id=task.id), context=context)
            return bool(found.status.state == TaskState.TASK_STATE_COMPLETED)

        await soon(completed)
        states.append(task.status.state)

    ann = await gateway.key("ann")
    bindings, wrong = await tried(f"{gateway.url}/agents/open", (a_message_waits_and_goes_on,), ann, version)
    assert wrong == []
    assert len(states) == len(bindings) >= 2


async def test_a_run_of_acp_awaits_and_goes_on(gateway: Gateway) -> None:
    acp = Acp(gateway, "desk", await gateway.key("ann"))
    run = await acp.run("from acp")
    assert run["status"] == "awaiting"
    assert "waits for an approval by lea" in str(run["await_request"])
    found = next(each for each in await listed(gateway, "lea") if "from acp" in str(each["arguments"]))
    await said(gateway, "lea", found["id"], "approve")

    async def completed() -> bool:
        return bool((await acp.get(f"/runs/{run['run_id']}"))["status"] == "completed")

    await soon(completed)


async def test_a_task_of_the_older_messages_is_in_progress_until_it_is_approved(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    create = {"agent_id": "desk", "task": {"id": "older-1", "description": "an older one"}, "wait": 0}
    answer = await gateway.result("agents/tasks/create", create, agent="", who=ann)
    assert answer["status"] == "in_progress"
    assert answer["metadata"]["a2a_state"] == "TASK_STATE_AUTH_REQUIRED"
    found = next(each for each in await listed(gateway, "lea") if "an older one" in str(each["arguments"]))
    await said(gateway, "lea", found["id"], "reject")
    answer = await gateway.result("agents/tasks/result", {"task_id": "older-1"}, agent="", who=ann)
    assert answer["metadata"]["a2a_state"] == "TASK_STATE_REJECTED"


# What waits whatever the rules let through.

PAUSES = """
rules:
  - {rule: tools, who: [ann, "agent:*"], do: tools/call, on: docs, verdict: PASS}
  - {rule: leads, who: lea, do: approve, verdict: PASS}
approvals: {pause: docs/send, pause_delegated: docs/read, approvers: 2, within: 5 minutes}
"""


@contextlib.asynccontextmanager
async def paused(folder: Path, policy: str) -> AsyncIterator[Gateway]:
    (folder / "policy.yaml").write_text(policy)
    drop = tool("drop", annotations={"destructiveHint": True})
    look = tool("look", annotations={"destructiveHint": True, "readOnlyHint": True})
    async with scripted(tool("send"), tool("read"), drop, look) as docs:
        config = f"{AGENTS}policy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config) as gateway:
            yield gateway


async def test_a_list_says_what_waits_whatever_the_rules_let_through(tmp_path: Path) -> None:
    async with paused(tmp_path, PAUSES) as gateway:
        ann = Door(gateway, who=await gateway.key("ann"))
        for name in ("send", "drop"):
            told = (await ann.call(f"docs__{name}"))["content"][0]["text"]
            assert "waits for an approval by 2 of lea, local" in told, name
        for name in ("read", "look"):
            assert (await ann.call(f"docs__{name}"))["content"][0]["text"] == name
        params = {"message": {**message(""), "parts": [{"text": "docs/read"}, {"data": {}}]}}
        task = (await gateway.result("SendMessage", params, agent="tooled", who=await gateway.key("ann")))["task"]
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        local = Door(gateway)
        assert (await local.call("docs__send"))["content"][0]["text"] == "send"
        asked = {"principal": "ann", "action": "call", "target": "docs/send"}
        found = (await gateway.client.post("/admin/policy:explain", json=asked, headers=gateway.bearer(None))).json()
        assert (found["verdict"], found["rule"]) == ("ESCALATE", "approvals")
        assert found["approval"] == {
            "approvers": ["lea", "local"], "byCaller": False, "needed": 2, "withinSeconds": 300,
        }  # fmt: skip
        shown = (await gateway.client.get("/admin/policy", headers=gateway.bearer(None))).json()["approvals"]
        assert shown["pause"] == ["docs/send"]


async def test_what_a_tool_says_of_itself_can_be_left_out_of_account(tmp_path: Path) -> None:
    async with paused(tmp_path, PAUSES.replace("approvals: {", "approvals: {destructive: false, ")) as gateway:
        ann = Door(gateway, who=await gateway.key("ann"))
        assert (await ann.call("docs__drop"))["content"][0]["text"] == "drop"
    without = tmp_path / "without"
    without.mkdir()
    async with paused(without, PAUSES.partition("approvals:")[0]) as gateway:
        ann = Door(gateway, who=await gateway.key("ann"))
        assert (await ann.call("docs__drop"))["content"][0]["text"] == "drop"


async def test_every_page_is_full_of_what_its_reader_may_answer(tmp_path: Path) -> None:
    """Between what lou may answer there is a lot that lou may not."""
    lou = "{rule: lou, who: lou, do: approve, on: agents/bank, verdict: PASS}\n  - {rule: leads,"
    policy = POLICY.replace("who: [lea, lou, bob]", "who: [lea, bob]").replace("{rule: leads,", lou)
    async with paused(tmp_path, policy) as gateway:
        agents = ("bank", "desk", "desk", "bank", "desk", "bank")
        held = [approval_of(await waiting(gateway, agent=agent)) for agent in agents]
        reader = gateway.bearer(await gateway.key("lou"))
        for every in ({}, {"all": "true"}):
            pages: list[list[str]] = []
            query: dict[str, Any] = {"limit": 2, **every}
            while query.get("before", "") is not None:
                page = (await gateway.client.get("/admin/approvals", headers=reader, params=query)).json()
                pages.append([each["id"] for each in page["approvals"]])
                query["before"] = page["before"]
            assert pages == [[held[5], held[3]], [held[0]]]


async def test_what_was_approved_just_before_the_gateway_died_goes_on_after_it(tmp_path: Path) -> None:
    async with paused(tmp_path, POLICY) as gateway:
        task = await waiting(gateway)
    store = await open_sqlite(tmp_path / "data" / "gateway.db", now=lambda: 1, node="between")
    before = await store.approvals.find(approval_of(task))
    assert before is not None
    word = Word("key:lea", Said.APPROVE, before.created)
    await store.commit(PutApproval(before.moved(ApprovalState.APPROVED, words=(word,)), before.revision))
    await store.aclose()
    async with paused(tmp_path, POLICY) as gateway:
        assert reached(await ended(gateway, task))["message"]["parts"] == [{"text": "hello"}]
        found = await gateway.app.store.approvals.find(before.id)
        assert found is not None
        assert found.state is ApprovalState.USED


async def test_what_only_stands_in_the_way_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "RETRY_SECONDS", 0.05)
    async with paused(tmp_path, POLICY) as gateway:
        task = await waiting(gateway)
        commit, times = gateway.app.store.commit, iter(range(3))

        def full(*changes: Any, records: Any = ()) -> Any:
            if any(isinstance(each, AdvanceTask) for each in changes) and next(times, None) is not None:
                raise GatewayError(Reason.UNAVAILABLE, "The disk is full", retry_after=1)
            return commit(*changes, records=records)

        monkeypatch.setattr(gateway.app.store, "commit", full)
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "approved"
        assert reached(await ended(gateway, task))["message"]["parts"] == [{"text": "hello"}]
        assert next(times, None) is None, "it was tried so often"


@pytest.mark.parametrize("fails", [False, True])
async def test_two_that_ask_the_same_at_one_moment_hear_of_an_approval_that_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async with paused(tmp_path, PAUSES) as gateway:
        door, store = Door(gateway, who=await gateway.key("ann")), gateway.app.store
        entered, second, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        commit, ask, filings, askings = store.commit, gateway.app.approvals.ask, itertools.count(), itertools.count()

        async def late(*changes: Any, records: Any = ()) -> Any:
            if any(isinstance(each, PutApproval) for each in changes) and next(filings) == 0:
                entered.set()
                await go_on.wait()
                if fails:
                    raise GatewayError(Reason.UNAVAILABLE, "The disk is full", retry_after=1)
            return await commit(*changes, records=records)

        async def asking(*words: Any, **more: Any) -> Any:
            if next(askings) == 1:
                second.set()
            found = await ask(*words, **more)
            assert await store.approvals.find(found.id) is not None, "nobody is told of what is not on disk"
            return found

        monkeypatch.setattr(consents, "HOLD_SECONDS", 0.05)
        monkeypatch.setattr(store, "commit", late)
        monkeypatch.setattr(gateway.app.approvals, "ask", asking)
        call = {"name": "docs__send", "arguments": {}}
        first = asyncio.create_task(door.ask("tools/call", call))
        await asyncio.wait_for(entered.wait(), BOUND)
        other = asyncio.create_task(door.result("tools/call", call))
        await asyncio.wait_for(second.wait(), BOUND)
        go_on.set()
        answer, told = await asyncio.gather(first, other)
        (kept,) = (each.id for each in gateway.app.approvals.all())
        assert told["_meta"]["gateway/approval"]["approval"] == kept
        if fails:
            assert answer["error"]["message"] == "The disk is full"
        else:
            assert answer["result"]["_meta"]["gateway/approval"]["approval"] == kept


# The operator's webhook.


async def test_the_operators_webhook_hears_what_waits_and_how_it_was_decided(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with receiving() as receiver, scripted(tool("wipe")) as docs:
        config = f"{AGENTS}policy: {{file: {tmp_path}/policy.yaml}}\n{configured(docs=docs)}"
        config += f"push: {{approvals_url: {receiver.url}}}\n"
        async with running(tmp_path / "data", config) as gateway:
            yes, no = [await waiting(gateway, text) for text in ("a secret text", "no")]
            await said(gateway, "lea", approval_of(yes), "approve")
            await said(gateway, "lea", approval_of(no), "reject", reason="never")
            ann = Door(gateway, who=await gateway.key("ann"))
            assert "waits for an approval" in (await ann.call("docs__wipe"))["content"][0]["text"]
            told = [each for each in await receiver.until(5) if each.taken]
            assert all("v1a," in each.headers["webhook-signature"] for each in told)
            assert "a secret text" not in str([each.tree for each in told])
            for task, states in ((yes, ["waiting", "approved"]), (no, ["waiting", "rejected"])):
                about = receiver.about(approval_of(task))
                assert [_data(each.tree)["state"] for each in about] == states
            assert _data(receiver.about(approval_of(no))[1].tree)["words"] == [
                {"by": "key:lea", "said": "reject", "reason": "never"}
            ]
            listed_tasks = await gateway.client.get("/admin/tasks", headers=gateway.bearer(None))
            assert listed_tasks.json()["tasks"] == [], "what the webhook is told is nobody's task"


def _data(tree: Any) -> Any:
    return (tree.get("task") or tree["statusUpdate"])["status"]["message"]["parts"][0]["data"]
