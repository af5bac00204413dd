"""Approvals in memory and in SQLite: the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.model.approval import Approval, ApprovalQuery, ApprovalState, Asked, Outdated, Said, Terms, Word
from gateway.model.changes import PutApproval
from gateway.model.ports import Store
from gateway.model.principal import Kind, Principal
from gateway.stores import principals
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import open_sqlite
from tests.stores.contract import NODE, NOW, entry

ANN = Principal(Kind.OAUTH, "gateway#ann", "t", roles=frozenset({"staff"}), scopes=frozenset({"a", "b"}), client="app")
ASKED = Asked(ANN.delegate("desk"), "tools/call", "bank/pay", {"amount": 10, "to": "bob"}, "hash", "task-1", "rule")

ALL = ApprovalQuery(9, targets=frozenset({ASKED.target}))


def approval(id: str, created: int = NOW) -> Approval:
    terms = Terms(caller=False, persons=2, within_ms=1000, rule="as the file has it")
    return Approval(
        id, ASKED, ASKED.digest, "money", "it is gone then", terms, created, created + 1000, approvers=("lea",),
        tasks=("task-1", "task-2"), agent="desk", request="req-1",
    )  # fmt: skip


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(now=lambda: NOW, node=NODE)
    if request.param == "sqlite":
        made = await open_sqlite(tmp_path / "gateway.db", now=lambda: NOW, node=NODE)
    yield made
    await made.aclose()


async def test_an_approval_comes_back_as_it_was_written(store: Store) -> None:
    first = approval("a1")
    await store.commit(PutApproval(first), records=(entry(),))
    assert await store.approvals.find("a1") == first
    word = Word("key:lea", Said.EDIT, NOW + 1, "less", frozenset({"lead", "staff"}))
    second = first.moved(ApprovalState.WAITING, words=(word,), edited={"amount": 1})
    await store.commit(PutApproval(second, 1))
    found = await store.approvals.find("a1")
    assert found == second
    assert (found.asked, found.edited, found.released) == (ASKED, {"amount": 1}, second.released)
    assert found.released != found.digest == ASKED.digest


async def test_a_caller_from_another_gateway_is_as_deep_in_the_chain_as_before(store: Store) -> None:
    """As deep as it said it is; one that was written before that was kept is as deep as its chain."""
    there = replace(ASKED, principal=ANN._replace(hops=3).delegate("desk"))
    await store.commit(PutApproval(replace(approval("a1"), asked=there)))
    found = await store.approvals.find("a1")
    assert found is not None
    assert found.asked == there
    assert found.asked.principal.hops == 4
    tree = principals.tree(ASKED.principal)
    del tree["hops"], tree["behalf"]["hops"]
    assert principals.principal(tree) == ASKED.principal


async def test_an_old_revision_writes_nothing_of_its_commit(store: Store) -> None:
    first = approval("a1")
    await store.commit(PutApproval(first))
    used = first.moved(ApprovalState.APPROVED)
    await store.commit(PutApproval(used, 1))
    for before in (1, 3):
        with pytest.raises(Outdated):
            await store.commit(PutApproval(approval("a2")), PutApproval(used, before), records=(entry("late"),))
    assert await store.approvals.find("a2") is None
    assert [each.request_id for _, each in await store.audit(0, 10)] == []


async def test_open_ones_come_oldest_first_and_pages_newest_first(store: Store) -> None:
    for number in (3, 1, 2):
        await store.commit(PutApproval(approval(f"a{number}", NOW + number)))
    await store.commit(PutApproval(approval("a2", NOW + 2).moved(ApprovalState.REJECTED), 1))
    assert [each.id for each in await store.approvals.open()] == ["a1", "a3"]
    assert await shown(store, replace(ALL, limit=2)) == (["a3", "a2"], "a2")
    assert await shown(store, replace(ALL, limit=2, before="a2")) == (["a1"], None)
    assert await shown(store, replace(ALL, limit=3)) == (["a3", "a2", "a1"], None), "a full page is the last one here"


async def shown(store: Store, query: ApprovalQuery) -> tuple[list[str], str | None]:
    page = await store.approvals.page(query)
    return [each.id for each in page.approvals], page.before


def of(id: str, who: Principal, target: str) -> Approval:
    asked = replace(ASKED, principal=who, target=target)
    return replace(approval(id), asked=asked, digest=asked.digest)


async def test_a_page_is_full_of_what_its_reader_may_see(store: Store) -> None:
    bob, far = ANN._replace(name="gateway#bob"), ANN._replace(tenant="u")
    for number in range(100, 130):
        whose, target = [(bob, "bank/pay"), (ANN.delegate("desk"), "docs/wipe"), (far, "bank/pay")][number % 3]
        await store.commit(PutApproval(of(f"a{number}", whose, target)))
    mine = ApprovalQuery(4, tenant="t", targets=frozenset(), owner=ANN.id)
    assert await shown(store, mine) == (["a127", "a124", "a121", "a118"], "a118")
    assert await shown(store, replace(mine, before="a118")) == (["a115", "a112", "a109", "a106"], "a106")
    assert await shown(store, replace(mine, before="a106")) == (["a103", "a100"], None)
    either = replace(mine, targets=frozenset({"bank/pay", "other"}), before="a110")
    assert await shown(store, either) == (["a109", "a108", "a106", "a105"], "a105")
    every = ApprovalQuery(4, targets=frozenset({"bank/pay"}))
    assert await shown(store, every) == (["a129", "a128", "a126", "a125"], "a125")
    assert await shown(store, replace(every, tenant="nobody")) == ([], None)
    assert await store.approvals.targets() == ["bank/pay", "docs/wipe"]


async def test_what_has_ended_is_forgotten_a_few_at_a_time_and_what_is_open_is_not(store: Store) -> None:
    for number in range(6):
        held = approval(f"a{number}", NOW + number)  # until a second later
        await store.commit(PutApproval(held))
        if number != 1:
            await store.commit(PutApproval(held.moved(ApprovalState.REJECTED), 1))
    assert await store.approvals.forget(NOW + 1004, 2) == 2
    assert await store.approvals.forget(NOW + 1004, 2) == 1
    assert await store.approvals.forget(NOW + 1004, 2) == 0
    assert (await shown(store, ALL))[0] == ["a5", "a4", "a1"]
    assert [each.id for each in await store.approvals.open()] == ["a1"]


def test_every_part_of_a_call_is_in_its_digest() -> None:
    others = [
        Asked(ANN, *_rest(ASKED)),
        Asked(ANN._replace(tenant="u").delegate("desk"), *_rest(ASKED)),
        Asked(ANN._replace(name="gateway#bob").delegate("desk"), *_rest(ASKED)),
        Asked(ANN.delegate("desk"), *_rest(ASKED, verb="prompts/get")),
        Asked(ANN.delegate("desk"), *_rest(ASKED, target="bank/pay2")),
        Asked(ANN.delegate("desk"), *_rest(ASKED, arguments={"amount": 10.5, "to": "bob"})),
        Asked(ANN.delegate("desk"), *_rest(ASKED, ground="other")),
        Asked(ANN.delegate("desk"), *_rest(ASKED, task="task-9")),
    ]
    assert len({each.digest for each in (ASKED, *others)}) == 9
    said = {"to": "bob", "amount": 10}
    same = Asked(ANN._replace(roles=frozenset()).delegate("desk"), *_rest(ASKED, arguments=said, policy="other"))
    assert same.digest == ASKED.digest


def _rest(asked: Asked, **other: Any) -> tuple[Any, ...]:
    names = ("verb", "target", "arguments", "policy", "task", "ground")
    return tuple(other.get(name, getattr(asked, name)) for name in names)


def test_what_has_ended_stays_so() -> None:
    for state in (ApprovalState.USED, ApprovalState.REJECTED, ApprovalState.EXPIRED, ApprovalState.VOID):
        before = approval("a1") if state is not ApprovalState.USED else approval("a1").moved(ApprovalState.APPROVED)
        for after in ApprovalState:
            with pytest.raises(Outdated):
                before.moved(state).moved(after)
