"""Calls that wait for a person and that a compliance profile looks at: nobody is asked for what may not be sent, and no
approval is used up by a call that is blocked after all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.model.audit import AuditEntry
from tests.journeys.test_approvals import approval_of, ended, listed, reached, said, waiting
from tests.mcp import Door, configured, scripted, tool
from tests.serving import ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARD = f"card: {ROOT}/agent_cards/echo.json"
AGENTS = f"""
agents:
  desk: {{run: "tests.actors:mirror", {CARD}}}
  tooled: {{run: "tests.actors:tooled", {CARD}, public: true}}
  fan: {{run: "tests.actors:fan", {CARD}, public: true}}
grants: [{{to: "agent:tooled", tools: [docs]}}]
"""
POLICY = """
rules:
  - {rule: letters, who: [ann, "agent:fan"], do: call, on: agents/desk, verdict: ESCALATE}
  - {rule: wipe, who: [ann, "agent:tooled"], do: tools/call, on: docs/wipe, verdict: ESCALATE}
  - {rule: rest, who: ann, do: use, on: [agents/desk, docs], verdict: PASS}
  - {rule: leads, who: [lea, lou], do: approve, on: [agents/*, docs], verdict: PASS}
limits:
  - {limit: one, who: ann, on: docs/wipe, concurrency: 1, per: principal}
"""
BLOCKS = "  - {{rule: {name}, pattern: '{what}', places: [message, arguments], action: block}}\n"
PROFILE = (
    "rules:\n"
    "  - {rule: mask, find: [email], places: [message, arguments], action: redact}\n"
    "  - {rule: shout, pattern: '!!', places: [message, arguments], action: flag}\n"
    + BLOCKS.format(name="secret", what="secret")
)  # fmt: skip
STERNER = PROFILE + BLOCKS.format(name="gossip", what="gossip")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("both")
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "compliance.yaml").write_text(PROFILE)
    async with scripted(tool("wipe")) as docs:
        files = f"policy: {{file: {folder}/policy.yaml}}\ncompliance: {{file: {folder}/compliance.yaml}}\n"
        async with running(folder / "data", f"{AGENTS}{files}{configured(docs=docs)}") as gateway:
            gateway.docs, gateway.folder = docs, folder  # type: ignore[attr-defined]
            yield gateway


async def holds(gateway: Gateway, profile: str) -> None:
    """From now on."""
    gateway.folder.joinpath("compliance.yaml").write_text(profile)  # type: ignore[attr-defined]
    answer = await gateway.client.post("/admin/compliance:reload", headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text


def wiped(gateway: Gateway) -> list[Any]:
    """What the server was called with."""
    found: list[Any] = gateway.docs.asked("tools/call")  # type: ignore[attr-defined]
    return [each["arguments"] for each in found]


async def asked(gateway: Gateway) -> int:
    """How many calls anybody was ever asked about."""
    return len(await listed(gateway, None, all="true", limit=1000))


async def entries(gateway: Gateway) -> list[AuditEntry]:
    """The whole record."""
    return await gateway.record()


async def stands(gateway: Gateway, id: str) -> str:
    """What an approval is, for whoever asks."""
    answer = await gateway.client.get(f"/admin/approvals/{id}", headers=gateway.bearer(None))
    state: str = answer.json()["state"]
    return state


async def ann(gateway: Gateway) -> Door:
    return Door(gateway, who=await gateway.key("ann"))


def tooled(arguments: Any) -> Any:
    return {"message": {**message(""), "parts": [{"text": "docs/wipe"}, {"data": arguments}]}}


async def test_nobody_is_asked_for_what_may_not_be_sent(gateway: Gateway) -> None:
    before, door = await asked(gateway), await ann(gateway)
    refused = "compliance rule secret found"
    assert refused in (await door.error("tools/call", {"name": "docs__wipe", "arguments": {"a": "secret"}}))["message"]
    told = await gateway.error("SendMessage", {"message": message("secret")}, agent="desk", who=door.who)
    assert refused in told["message"]
    told = await gateway.error("SendMessage", tooled({"a": "secret"}), agent="tooled", who=door.who)
    assert refused in told["message"]
    fanned = {"message": {**message(""), "parts": [{"data": [["desk", "secret"]]}]}}
    told = await gateway.error("SendMessage", fanned, agent="fan", who=door.who)
    assert refused in told["message"]
    assert await asked(gateway) == before
    blocked = [entry for entry in await entries(gateway) if entry.rule == "secret"]
    assert len(blocked) == 4


async def test_whoever_is_asked_sees_what_will_be_sent_and_what_is_found_is_recorded_once(gateway: Gateway) -> None:
    door, id = await ann(gateway), ""
    call = {"name": "docs__wipe", "arguments": {"to": "ada@example.org", "how": "now!!"}}
    waits = await door.result("tools/call", call)
    id = waits["_meta"]["gateway/approval"]["approval"]
    (found,) = [each for each in await listed(gateway, "lea") if each["id"] == id]
    assert found["arguments"] == {"to": "[redacted: email]", "how": "now!!"}
    assert (await said(gateway, "lea", id, "approve")).json()["state"] == "approved"
    assert "isError" not in await door.result("tools/call", call)
    assert wiped(gateway)[-1] == found["arguments"]
    record = await entries(gateway)
    assert sorted(entry.rule for entry in record if entry.rule in ("mask", "shout")) == ["mask", "shout"]
    (made,) = [each for each in record if each.phase == "outcome" and each.marks and "mask" in each.marks]
    assert (made.outcome, made.marks) == ("ok", {"mask": "redacted", "shout": "flagged"})


async def test_an_approval_outlives_a_call_that_a_newer_profile_blocks(gateway: Gateway) -> None:
    door, call = await ann(gateway), {"name": "docs__wipe", "arguments": {"a": "gossip"}}
    id = (await door.result("tools/call", call))["_meta"]["gateway/approval"]["approval"]
    await said(gateway, "lea", id, "approve")
    before = len(wiped(gateway))
    await holds(gateway, STERNER)
    try:
        for _ in range(2):  # nor does it keep a place of the limit
            assert "compliance rule gossip found" in (await door.error("tools/call", call))["message"]
        assert await stands(gateway, id) == "approved"
    finally:
        await holds(gateway, PROFILE)
    assert "isError" not in await door.result("tools/call", call)
    assert wiped(gateway)[before:] == [{"a": "gossip"}]
    assert await stands(gateway, id) == "used"


@pytest.mark.parametrize("agent", ["tooled", "fan"])
async def test_what_an_agent_waited_for_is_not_used_up_when_it_is_blocked_meanwhile(
    gateway: Gateway, agent: str
) -> None:
    before, who = len(wiped(gateway)), await gateway.key("ann")
    said_so = {"message": {**message(""), "parts": [{"data": [["desk", "gossip"]]}]}}
    params = tooled({"b": "gossip"}) if agent == "tooled" else said_so
    task = (await gateway.result("SendMessage", params, agent=agent, who=who))["task"]
    id = approval_of(task)
    await holds(gateway, STERNER)
    try:
        await said(gateway, "lea", id, "approve")
        task = await ended(gateway, task, agent=agent)
    finally:
        await holds(gateway, PROFILE)
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "compliance rule gossip found" in task["status"]["message"]["parts"][0]["text"]
    assert await stands(gateway, id) == "approved"
    assert len(wiped(gateway)) == before


async def test_a_message_that_is_blocked_when_its_time_comes_ends_and_reaches_nobody(gateway: Gateway) -> None:
    task = await waiting(gateway, "gossip")
    id = approval_of(task)
    await holds(gateway, STERNER)
    try:
        await said(gateway, "lea", id, "approve")
    finally:
        await holds(gateway, PROFILE)
    task = await ended(gateway, task)
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "compliance rule gossip found" in task["status"]["message"]["parts"][0]["text"]
    assert await stands(gateway, id) == "void"


async def test_nobody_edits_a_call_into_one_that_may_not_pass(gateway: Gateway) -> None:
    task, door = await waiting(gateway, "hello"), await ann(gateway)
    letter = approval_of(task)
    call = {"name": "docs__wipe", "arguments": {"c": 1}}
    wipe = (await door.result("tools/call", call))["_meta"]["gateway/approval"]["approval"]
    refused = [
        await said(gateway, "lea", letter, "edit", arguments={"parts": [{"text": "the secret"}]}),
        await said(gateway, "lea", wipe, "edit", arguments={"c": "secret"}),
    ]
    for answer in refused:
        assert answer.status_code == 403
        assert "compliance rule secret found" in answer.json()["error"]["message"]
    assert {letter, wipe} <= {each["id"] for each in await listed(gateway, "lea")}
    await said(gateway, "lea", letter, "edit", arguments={"parts": [{"text": "to ada@example.org"}]})
    await said(gateway, "lea", wipe, "edit", arguments={"c": "ada@example.org"})
    assert reached(await ended(gateway, task))["message"]["parts"] == [{"text": "to [redacted: email]"}]
    await door.result("tools/call", call)
    assert wiped(gateway)[-1] == {"c": "[redacted: email]"}
