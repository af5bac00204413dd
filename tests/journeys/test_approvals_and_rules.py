"""Rules that change while a call waits for a person, or between a yes and the call: what stands, and what ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.approvals import retention
from gateway.core.tools import consents
from tests.issuer import Clock
from tests.journeys.test_approvals import approval_of, ended, listed, reached, said, waiting
from tests.mcp import Door, Scripted, configured, scripted, soon, tool
from tests.serving import ROOT, Gateway, running

CARD = f"card: {ROOT}/agent_cards/echo.json"
AGENTS = f"""
agents:
  desk: {{run: "tests.actors:mirror", {CARD}}}
  bank: {{run: "tests.actors:mirror", {CARD}}}
  asking: {{run: "tests.actors:asking", {CARD}, public: true}}
"""
POLICY = """
rules:
  - {rule: letters, who: [ann, "agent:*"], do: call, on: agents/desk, verdict: ESCALATE, because: people read them}
  - {rule: money, who: ann, do: call, on: agents/bank, verdict: ESCALATE, approvers: 2}
  - {rule: wipe, who: ann, do: tools/call, on: docs/wipe, verdict: ESCALATE, because: it is gone then}
  - {rule: rest, who: ann, do: use, on: [agents/desk, agents/bank, docs], verdict: PASS}
  - {rule: leads, who: [lea, lou], do: approve, on: [agents/*, docs], verdict: PASS}
"""
# The same rules, written differently, with others about other things before and behind them.
RETOLD = """
# The letters are still read.
rules:
  - {rule: shut, who: bob, do: call, on: agents/desk, verdict: BLOCK}
  - {rule: loud, who: ann, do: call, on: agents/desk, when: {arguments: {text: LOUD}}, verdict: BLOCK}
  - rule: letters
    who:
      - ann
      - agent:*
    do: call
    on: agents/desk
    verdict: ESCALATE
    because: people read them
  - {rule: money, who: ann, do: call, on: agents/bank, verdict: ESCALATE, approvers: 2}
  - {rule: wipe, who: ann, do: tools/call, on: docs/wipe, verdict: ESCALATE, because: it is gone then}
  - {rule: rest, who: ann, do: use, on: [agents/desk, agents/bank, docs], verdict: PASS}
  - {rule: leads, who: [lea, lou, liz], do: approve, on: [agents/*, docs], verdict: PASS}
limits:
  - {limit: calm, per: caller, rate: 100/minute}
"""
OTHERS = {
    "another reason": POLICY.replace("people read them", "the board reads them"),
    "more people": POLICY.replace("because: people read them", "approvers: 2, because: people read them"),
    "the caller itself": POLICY.replace("because: people read them", "approver: caller, because: people read them"),
    "no rule": POLICY.replace("rule: letters, who: [ann,", "rule: letters, who: [bob,"),
    "another rule first": POLICY.replace(
        "rules:\n", "rules:\n  - {rule: first, who: ann, do: call, on: agents/desk, verdict: ESCALATE}\n"
    ),
    "a refusal first": POLICY.replace(
        "rules:\n", "rules:\n  - {rule: first, who: ann, do: call, on: agents/desk, verdict: BLOCK}\n"
    ),
}


@contextlib.asynccontextmanager
async def ruled(
    folder: Path, policy: str = POLICY, *, shadow: str = "", docs: Scripted | None = None, **more: Any
) -> AsyncIterator[Gateway]:
    (folder / "policy.yaml").write_text(policy)
    async with scripted(tool("wipe")) if docs is None else contextlib.nullcontext(docs) as docs:
        config = f"{AGENTS}policy: {{file: {folder}/policy.yaml{shadow}}}\n{configured(docs=docs)}"
        async with running(folder / "data", config, **more) as gateway:
            yield gateway


async def rule(gateway: Gateway, folder: Path, policy: str) -> None:
    (folder / "policy.yaml").write_text(policy)
    answer = await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text


async def shown(gateway: Gateway, id: str) -> Any:
    answer = await gateway.client.get(f"/admin/approvals/{id}", headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text
    return answer.json()


# Between the question and the yes.


async def test_a_comment_and_rules_about_other_things_leave_what_waits_alone(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway)
        await rule(gateway, tmp_path, RETOLD)
        before, now = (await shown(gateway, approval_of(task)))["policy"], await policy_hash(gateway)
        assert before != now, "other rules hold"
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "used"
        assert reached(await ended(gateway, task))["message"]["parts"] == [{"text": "hello"}]
        made = [each for each in await gateway.record() if (each.verb, each.target) == ("SendMessage", "desk")]
        assert made[-1].policy == now, "the record names the rules that the call was made under"


async def policy_hash(gateway: Gateway) -> str:
    found: str = (await gateway.client.get("/admin/policy", headers=gateway.bearer(None))).json()["hash"]
    return found


@pytest.mark.parametrize("other", OTHERS)
async def test_a_message_whose_rule_changes_waits_no_more(tmp_path: Path, other: str) -> None:
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway)
        await rule(gateway, tmp_path, OTHERS[other])
        gone = await ended(gateway, task)
        assert gone["status"]["state"] == "TASK_STATE_FAILED"
        assert "other rules hold" in gone["status"]["message"]["parts"][0]["text"]
        late = await said(gateway, "lea", approval_of(task), "approve")
        assert "void already" in late.json()["error"]["message"]


async def test_an_agents_call_is_decided_anew_when_its_rule_changes(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway, "desk", agent="asking")
        await rule(gateway, tmp_path, RETOLD)
        assert (await shown(gateway, approval_of(task)))["state"] == "waiting"
        await rule(
            gateway,
            tmp_path,
            POLICY.replace('letters, who: [ann, "agent:*"]', "letters, who: nobody").replace(
                "rest, who: ann", 'rest, who: [ann, "agent:*"]'
            ),
        )
        done = await ended(gateway, task, agent="asking")
        assert done["status"]["state"] == "TASK_STATE_COMPLETED", "nobody has to be asked any more"
        assert (await shown(gateway, approval_of(task)))["state"] == "void"


async def test_who_is_asked_follows_the_rules_and_a_word_counts_only_while_it_could_be_said(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway, agent="bank")
        id = approval_of(task)
        assert (await said(gateway, "lea", id, "approve")).json()["missing"] == 1
        await rule(gateway, tmp_path, POLICY.replace("who: [lea, lou]", "who: [lou, liz]"))

        async def asked_anew() -> bool:
            return bool((await shown(gateway, id))["approvers"] == ["lou", "liz", "local"])

        await soon(asked_anew)
        found = await shown(gateway, id)
        assert (found["state"], found["words"], found["missing"]) == ("waiting", [], 2)
        assert (await said(gateway, "lea", id, "approve")).status_code == 403
        assert (await said(gateway, "lou", id, "approve")).json()["missing"] == 1
        assert (await said(gateway, "liz", id, "approve")).json()["state"] == "used"
        await ended(gateway, task, agent="bank")


async def test_an_edit_is_not_a_way_around_the_people_of_another_rule(tmp_path: Path) -> None:
    big = "who: ann, do: call, on: agents/desk, when: {arguments: {text: big}}, verdict: ESCALATE, approvers: 2"
    async with ruled(tmp_path, POLICY.replace("rules:\n", f"rules:\n  - {{rule: big, {big}}}\n")) as gateway:
        task = await waiting(gateway, "small")
        edited = {"arguments": {"parts": [{"text": "big"}]}}
        refused = await said(gateway, "lea", approval_of(task), "edit", **edited)
        assert refused.status_code == 403
        assert "This would be for others to approve (big:" in refused.json()["error"]["message"]
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "used"
        await ended(gateway, task)


async def test_an_edit_does_not_lead_to_another_skill_or_task(tmp_path: Path) -> None:
    skilled = POLICY.replace(
        "rules:\n", "rules:\n  - {rule: off, who: ann, do: call, on: agents/desk/burn, verdict: BLOCK}\n"
    )
    async with ruled(tmp_path, skilled) as gateway:
        task = await waiting(gateway)
        for wrong in ({"metadata": {"skillId": "burn"}}, {"parts": [{"data": {"tool": "burn"}}]}):
            edited = {"parts": [{"text": "x"}], **wrong}
            refused = await said(gateway, "lea", approval_of(task), "edit", arguments=edited)
            assert refused.status_code == 400
            assert "another skill or tool" in refused.json()["error"]["message"]
        edited = {"parts": [{"text": "x"}], "taskId": "another", "contextId": "another"}
        assert (await said(gateway, "lea", approval_of(task), "edit", arguments=edited)).status_code == 200
        got = reached(await ended(gateway, task))["message"]
        assert (got["taskId"], got["contextId"]) == (task["id"], task["contextId"])


async def test_an_edit_does_not_put_what_an_agent_asks_into_another_task(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway, "desk", agent="asking")
        edited = {"parts": [{"text": "x"}], "taskId": "another"}
        answer = await said(gateway, "lea", approval_of(task), "edit", arguments=edited)
        assert answer.status_code == 200
        assert "taskId" not in answer.json()["arguments"]["message"]


async def test_what_it_was_edited_to_is_judged_by_the_rules_of_the_day(tmp_path: Path) -> None:
    less = "  - {rule: never, who: ann, do: call, on: agents/bank, when: {arguments: {text: less}}, verdict: BLOCK}\n"
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway, agent="bank")
        edited = {"arguments": {"parts": [{"text": "less"}]}}
        assert (await said(gateway, "lea", approval_of(task), "edit", **edited)).json()["missing"] == 1
        await rule(gateway, tmp_path, POLICY.replace("rules:\n", f"rules:\n{less}"))
        assert (await said(gateway, "lou", approval_of(task), "approve")).status_code == 400
        gone = await ended(gateway, task, agent="bank")
        assert "what it was edited to is decided otherwise since" in gone["status"]["message"]["parts"][0]["text"]


# Between the yes and the call.


async def released(gateway: Gateway, which: str) -> tuple[Door, str]:
    """A tool call of ann's that lea has approved, and that ann has yet to make."""
    ann = Door(gateway, who=await gateway.key("ann"))
    id = (await ann.call("docs__wipe", which=which))["_meta"]["gateway/approval"]["approval"]
    assert (await said(gateway, "lea", id, "approve")).json()["state"] == "approved"
    return ann, id


async def test_a_yes_outlives_a_comment_and_rules_about_other_things(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        ann, id = await released(gateway, "one")
        await rule(gateway, tmp_path, RETOLD)
        assert (await ann.call("docs__wipe", which="one"))["content"][0]["text"] == "wipe"
        assert (await shown(gateway, id))["state"] == "used"


async def test_a_yes_under_another_rule_is_none(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        ann, id = await released(gateway, "one")
        await rule(gateway, tmp_path, POLICY.replace("it is gone then", "there is no way back"))
        told = await ann.call("docs__wipe", which="one")
        assert told["_meta"]["gateway/approval"]["approval"] != id
        assert "there is no way back" in told["content"][0]["text"]
        assert (await shown(gateway, id))["state"] == "void"


async def test_a_client_that_comes_back_with_its_state_is_asked_again_under_the_other_rule(tmp_path: Path) -> None:
    """It has done nothing wrong: the call is the same."""
    forms: dict[str, Any] = {"elicitation": {"form": {}}}
    async with ruled(tmp_path) as gateway:
        ann = Door(gateway, who=await gateway.key("ann"))
        call = {"name": "docs__wipe", "arguments": {"which": "one"}}
        first = await ann.result("tools/call", call, capabilities=forms)
        (before,) = [each["id"] for each in await listed(gateway, "lea")]
        assert (await said(gateway, "lea", before, "approve")).status_code == 200
        await rule(gateway, tmp_path, POLICY.replace("it is gone then", "there is no way back"))
        back = {
            **call,
            "requestState": first["requestState"],
            "inputResponses": {"approval": {"action": "decline"}},
        }
        again = await ann.result("tools/call", back, capabilities=forms)
        assert "there is no way back" in again["content"][0]["text"]
        (after,) = [each["id"] for each in await listed(gateway, "lea")]
        assert after != before
        assert (await shown(gateway, before))["state"] == "void"


async def test_a_yes_of_somebody_who_may_not_say_it_any_more_is_none(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        ann, id = await released(gateway, "one")
        await rule(gateway, tmp_path, POLICY.replace("who: [lea, lou]", "who: lou"))
        told = await ann.call("docs__wipe", which="one")
        assert "waits for an approval by lou" in told["content"][0]["text"]
        assert told["_meta"]["gateway/approval"]["approval"] != id
        found = await shown(gateway, id)
        assert (found["state"], found["why"]) == ("void", "not all who approved it still may")


async def test_a_yes_does_not_stand_against_a_rule_that_refuses(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        ann, id = await released(gateway, "one")
        shut = "rules:\n  - {rule: shut, who: ann, do: tools/call, on: docs/wipe, verdict: BLOCK, because: not today}\n"
        await rule(gateway, tmp_path, POLICY.replace("rules:\n", shut))
        refused = await ann.error("tools/call", {"name": "docs__wipe", "arguments": {"which": "one"}})
        assert refused["message"] == "Unknown tool: docs__wipe", "what is refused outright is not shown"
        await rule(gateway, tmp_path, POLICY)
        assert (await shown(gateway, id))["state"] == "void", "and it does not come back with the old rules"
        assert "waits for an approval" in (await ann.call("docs__wipe", which="one"))["content"][0]["text"]


async def test_a_yes_is_none_after_its_time_though_no_timer_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has slept has not counted the time."""
    monkeypatch.setattr(consents, "HOLD_SECONDS", 0.01)
    clock = Clock()
    async with ruled(tmp_path, POLICY, now=clock.now) as gateway:
        ann, id = await released(gateway, "one")
        clock.ahead += 2 * 3600
        told = await ann.call("docs__wipe", which="one")
        assert told["_meta"]["gateway/approval"]["approval"] != id
        assert (await shown(gateway, id))["state"] == "expired"


async def test_a_message_that_was_approved_does_not_go_out_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with ruled(tmp_path, POLICY, now=clock.now) as gateway:
        task = await waiting(gateway)
        go_on = gateway.app.gateway.held.go_on

        async def late(approval: Any) -> None:
            clock.ahead += 2 * 3600
            await go_on(approval)

        monkeypatch.setattr(gateway.app.gateway.held, "go_on", late)
        await said(gateway, "lea", approval_of(task), "approve")
        assert (await ended(gateway, task))["status"]["state"] == "TASK_STATE_FAILED"
        assert (await shown(gateway, approval_of(task)))["state"] == "expired"


# After a restart.


@pytest.mark.parametrize("approved", [False, True])
async def test_what_waits_or_is_released_outlives_a_restart_with_a_policy_file_that_says_the_same(
    tmp_path: Path, approved: bool
) -> None:
    async with scripted(tool("wipe")) as docs:
        await _outlives(tmp_path, docs, approved)


async def _outlives(tmp_path: Path, docs: Scripted, approved: bool) -> None:
    async with ruled(tmp_path, docs=docs) as gateway:
        task = await waiting(gateway)
        ann = Door(gateway, who=await gateway.key("ann"))
        id = (await ann.call("docs__wipe", which="one"))["_meta"]["gateway/approval"]["approval"]
        if approved:
            await said(gateway, "lea", id, "approve")
        key = await gateway.key("ann")
    async with ruled(tmp_path, RETOLD, docs=docs) as gateway:
        if not approved:
            assert (await local(gateway, id, "approve")).json()["state"] == "approved"
        ann = Door(gateway, who=key)
        assert (await ann.call("docs__wipe", which="one"))["content"][0]["text"] == "wipe"
        assert (await local(gateway, approval_of(task), "approve")).json()["state"] == "used"


async def test_what_another_policy_file_stops_otherwise_ends_at_the_restart(tmp_path: Path) -> None:
    async with ruled(tmp_path) as gateway:
        task = await waiting(gateway)
        _, id = await released(gateway, "one")
        key = await gateway.key("ann")
    async with ruled(tmp_path, POLICY.replace("because: ", "approvers: 2, because: ")) as gateway:
        for each in (id, approval_of(task)):
            await soon(lambda each=each: _is(gateway, each, "void"))  # type: ignore[misc]
        told = await Door(gateway, who=key).call("docs__wipe", which="one")
        assert "waits for an approval by 2 of lea, lou, local" in told["content"][0]["text"]
        found = await gateway.result("GetTask", {"id": task["id"]}, agent="desk", who=key)
        assert found["status"]["state"] == "TASK_STATE_FAILED"


async def _is(gateway: Gateway, id: str, state: str) -> bool:
    return bool((await shown(gateway, id))["state"] == state)


async def local(gateway: Gateway, id: str, verb: str) -> Any:
    return await gateway.client.post(f"/admin/approvals/{id}:{verb}", headers=gateway.bearer(None), json={})


async def test_a_policy_that_is_tried_out_counts_a_call_that_waits_once(tmp_path: Path) -> None:
    (tmp_path / "tried.yaml").write_text(POLICY.replace("letters, who: [ann,", "letters, who: [bob,"))
    async with ruled(tmp_path, shadow=f", shadow: {tmp_path}/tried.yaml") as gateway:
        task = await waiting(gateway)
        (tmp_path / "policy.yaml").write_text(RETOLD)
        await gateway.app.policies[0].reload()
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "used"
        await ended(gateway, task)
        answer = await gateway.client.get("/admin/policy/shadow", headers=gateway.bearer(None))
        about = [each for each in answer.json()["flips"] if each["rule"] == "letters"]
        assert [each["count"] for each in about] == [1], answer.text


# Rules that look at more than the call.

NIGHT = """
rules:
  - {rule: nights, who: ann, do: call, on: agents/desk, when: {time: {from: "BEGIN", until: "END"}}, verdict: ESCALATE}
  - {rule: rest, who: ann, do: use, on: agents/desk, verdict: PASS}
  - {rule: leads, who: lea, do: approve, on: agents/*, verdict: PASS}
"""


async def test_what_was_stopped_at_night_goes_on_when_it_is_approved_in_the_morning(tmp_path: Path) -> None:
    clock = Clock()
    hour = (clock.now() // 3_600_000) % 24
    night = NIGHT.replace("BEGIN", f"{hour:02}:00").replace("END", f"{(hour + 1) % 24:02}:00")
    night = night.replace("verdict: ESCALATE", "verdict: ESCALATE, within: 1 day")
    async with ruled(tmp_path, night, now=clock.now) as gateway:
        task = await waiting(gateway)
        clock.ahead += 2 * 3600
        await rule(gateway, tmp_path, f"# in the morning\n{night}")
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "used"
        await ended(gateway, task)


# How long it is known.


async def test_what_was_decided_is_forgotten_after_its_days_and_the_audit_log_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    clock = Clock()
    async with ruled(tmp_path, POLICY.replace("approvers: 2", "within: 30 days"), now=clock.now) as gateway:
        ids = [approval_of(await waiting(gateway, text)) for text in ("one", "two", "three", "four", "five")]
        for id in ids[1:]:
            await said(gateway, "lea", id, "reject")
        patient = approval_of(await waiting(gateway, agent="bank"))
        assert {each["id"] for each in await listed(gateway, None, all="true")} == {*ids, patient}
        clock.ahead += 3_600 + 89 * 86_400
        # Its time was over a month ago; another two remain to it.
        assert {each["id"] for each in await listed(gateway, None, all="true")} == {*ids, patient}
        clock.ahead += 86_400 + 60

        async def forgotten() -> bool:
            return {each["id"] for each in await listed(gateway, None, all="true")} == {ids[0], patient}

        await soon(forgotten)
        gone = await gateway.client.get(f"/admin/approvals/{ids[1]}", headers=gateway.bearer(None))
        assert gone.status_code == 404
        rejected = [entry for entry in await gateway.record() if entry.verb == "RejectCall"]
        told = [entry.change["after"]["id"] for entry in rejected if entry.change]
        assert sorted(told) == sorted(ids[1:])
