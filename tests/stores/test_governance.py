"""What is frozen, used and labelled: the same in memory and in SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.model.changes import DropFrozen, DropHalted, PutFrozen, PutHalted
from gateway.model.governance import Cold, Frozen, Halted, Labelled, Usage
from gateway.model.ports import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import open_sqlite
from tests.stores.contract import NODE, NOW

ECHO = Frozen(Cold.AGENT, "echo", "local:local", NOW, "it shouts")
ANN = Frozen(Cold.PRINCIPAL, "key:ann", "key:ops", NOW + 1)


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(now=lambda: NOW, node=NODE)
    if request.param == "sqlite":
        made = await open_sqlite(tmp_path / "gateway.db", now=lambda: NOW, node=NODE)
    yield made
    await made.aclose()


async def test_what_is_frozen_is_kept_until_it_is_thawed(store: Store) -> None:
    kept = store.governance
    assert await kept.frozen() == []
    for record in (ANN, ECHO, ECHO):
        await store.commit(PutFrozen(record))
    assert await kept.frozen() == [ECHO, ANN]
    await store.commit(DropFrozen(Cold.AGENT, "key:ann"))
    await store.commit(DropFrozen(Cold.PRINCIPAL, "key:ann"))
    assert await kept.frozen() == [ECHO]


async def test_a_halted_tree_is_kept_until_nothing_is_left_of_it(store: Store) -> None:
    kept = store.governance
    first, other = Halted("t", "task-1", "enough", "it said stop"), Halted("u", "task-1", "enough", "")
    for record in (other, first, first):
        await store.commit(PutHalted(record))
    assert await kept.halted() == [first, other]
    await store.commit(DropHalted("t", "task-1"), DropHalted("t", "task-2"))
    assert await kept.halted() == [other]


async def test_windows_are_kept_until_they_end(store: Store) -> None:
    kept = store.governance
    await kept.spend([Usage("a", "x", NOW + 10, 1.5), Usage("a", "y", NOW + 20, 2)], NOW)
    await kept.spend([Usage("a", "x", NOW + 10, 2.5)], NOW)
    assert await kept.usage() == [Usage("a", "x", NOW + 10, 2.5), Usage("a", "y", NOW + 20, 2)]
    await kept.spend([], NOW + 10)
    assert await kept.usage() == [Usage("a", "y", NOW + 20, 2)]


async def test_labels_are_kept_until_a_conversation_was_long_still(store: Store) -> None:
    kept = store.governance
    first = Labelled("\nkey:ann\nc", frozenset({"private-data"}), NOW)
    more = Labelled("\nkey:ann\nc", frozenset({"private-data", "can-send-out"}), NOW + 5)
    other = Labelled("\nkey:bob\nc", frozenset({"untrusted-input"}), NOW + 1)
    for row in (first, other, more):
        await kept.label(row, 0)
    assert await kept.labels() == [other, more]
    await kept.label(more, NOW + 5)
    assert await kept.labels() == [more]


async def test_all_of_it_survives_a_restart(tmp_path: Path) -> None:
    path, usage = tmp_path / "gateway.db", Usage("a", "x", NOW + 10, 1)
    label = Labelled("c", frozenset({"private-data"}), NOW)
    before = await open_sqlite(path, now=lambda: NOW, node=NODE)
    await before.commit(PutFrozen(ECHO))
    await before.governance.spend([usage], NOW)
    await before.governance.label(label, 0)
    await before.aclose()
    after = await open_sqlite(path, now=lambda: NOW, node="later")
    kept = after.governance
    assert (await kept.frozen(), await kept.usage(), await kept.labels()) == ([ECHO], [usage], [label])
    await after.aclose()
