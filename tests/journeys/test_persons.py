"""Principals that are one person: what one of them has asked none of them approves, and to four eyes they are two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.journeys.test_approvals import approval_of, ended, reached, said, waiting
from tests.journeys.test_approvals_and_rules import POLICY, _is, rule, ruled, shown
from tests.mcp import Door, soon

LEADS = POLICY.replace("[lea, lou]", "[lea, lou, lea-phone, ann-phone]")
OWN = "call of their own"


def one(*persons: str) -> str:
    return f"{LEADS}people: {{{', '.join(persons)}}}\n"


ANN, LEA = "ann: [ann, ann-phone]", "lea: [lea, key:lea-phone]"


def problem(answer: Any) -> str:
    told: str = answer.json()["error"]["message"]
    return told


async def test_nobody_approves_a_call_of_their_own_by_another_name(tmp_path: Path) -> None:
    async with ruled(tmp_path, one(ANN)) as gateway:
        task = await waiting(gateway)
        for verb in ("approve", "reject"):
            assert OWN in problem(await said(gateway, "ann-phone", approval_of(task), verb))
        edited = {"arguments": {"message": {"parts": [{"text": "other"}]}}}
        assert OWN in problem(await said(gateway, "ann-phone", approval_of(task), "edit", **edited))
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "used"
        assert reached(await ended(gateway, task))["message"]["parts"] == [{"text": "hello"}]


async def test_without_a_word_about_them_each_principal_is_a_person(tmp_path: Path) -> None:
    async with ruled(tmp_path, LEADS) as gateway:
        task = await waiting(gateway)
        assert (await said(gateway, "ann-phone", approval_of(task), "approve")).json()["state"] == "used"


async def test_two_people_are_not_one_with_two_keys(tmp_path: Path) -> None:
    async with ruled(tmp_path, one(LEA)) as gateway:
        id = approval_of(await waiting(gateway, agent="bank"))
        assert (await said(gateway, "lea", id, "approve")).json()["missing"] == 1
        assert "You have approved it" in problem(await said(gateway, "lea-phone", id, "approve"))
        assert (await said(gateway, "lou", id, "approve")).json()["state"] == "used"


async def test_whoever_began_it_may_answer_by_another_name_where_callers_answer(tmp_path: Path) -> None:
    policy = one(ANN).replace("because: people read them", "approver: caller, because: people read them")
    async with ruled(tmp_path, policy) as gateway:
        id = approval_of(await waiting(gateway))
        assert (await said(gateway, "ann-phone", id, "approve")).json()["state"] == "used"


async def test_two_who_turn_out_to_be_one_have_agreed_once(tmp_path: Path) -> None:
    policy = LEADS.replace("approvers: 2", "approvers: 3")
    async with ruled(tmp_path, policy) as gateway:
        id = approval_of(await waiting(gateway, agent="bank"))
        for who in ("lea", "lea-phone"):
            assert (await said(gateway, who, id, "approve")).json()["state"] == "waiting"
        await rule(gateway, tmp_path, f"{policy}people: {{{LEA}}}\n")
        await soon(lambda: _missing(gateway, id, 2))
        assert [word["by"] for word in (await shown(gateway, id))["words"]] == ["key:lea"]


async def _missing(gateway: Any, id: str, persons: int) -> bool:
    return bool((await shown(gateway, id))["missing"] == persons)


async def test_a_yes_of_somebody_who_turns_out_to_be_the_caller_is_void(tmp_path: Path) -> None:
    async with ruled(tmp_path, LEADS) as gateway:
        ann = Door(gateway, who=await gateway.key("ann"))
        id = (await ann.call("docs__wipe", which="one"))["_meta"]["gateway/approval"]["approval"]
        assert (await said(gateway, "ann-phone", id, "approve")).json()["state"] == "approved"
        await rule(gateway, tmp_path, one(ANN))
        await soon(lambda: _is(gateway, id, "void"))
        told = await ann.call("docs__wipe", which="one")
        assert "waits for an approval" in told["content"][0]["text"], "it is asked for anew"


WRONG = {
    "people: {ann: [ann, ann-phone], lea: [lea, key:ann-phone]}": "people.lea[1]: key:ann-phone is ann already",
    "people: {ann: ['role:lead']}": "people.ann[0]: 'role:lead' is not one principal",
    "people: {ann: ['ann-*']}": "people.ann[0]: 'ann-*' is not one principal",
    "people: {ann: []}": "people.ann: must have at least one entry",
    "people: {'key:ann': [bob]}": "must be a name of a-z",
}


@pytest.mark.parametrize("people", WRONG)
async def test_a_file_that_says_it_wrongly_changes_nothing_and_says_where(tmp_path: Path, people: str) -> None:
    async with ruled(tmp_path, LEADS) as gateway:
        (tmp_path / "policy.yaml").write_text(f"{LEADS}{people}\n")
        answer = await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
        assert (answer.status_code, WRONG[people] in problem(answer)) == (400, True), answer.text
