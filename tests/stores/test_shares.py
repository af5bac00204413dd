"""Who may read whose task: the same in memory and in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.model.changes import DropShare, PutShare
from gateway.model.ports import Store
from gateway.model.sharing import Share
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import open_sqlite
from tests.stores.contract import NODE, NOW, new_task

BOB = Share("t", "task", "key:bob", "key:ann", "local:local", NOW, NOW + 1)
EVE = replace(BOB, principal="key:eve", until=None)


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(now=lambda: NOW, node=NODE)
    if request.param == "sqlite":
        made = await open_sqlite(tmp_path / "gateway.db", now=lambda: NOW, node=NODE)
    yield made
    await made.aclose()


async def test_a_share_is_found_by_its_whole_key_and_no_other(store: Store) -> None:
    assert await store.shares.of("t", "task") == []
    await store.commit(PutShare(EVE), PutShare(BOB))
    assert await store.shares.of("t", "task") == [BOB, EVE]
    assert await store.shares.given("t", "task", "key:bob") == BOB
    for key in (("", "task", "key:bob"), ("t", "other", "key:bob"), ("t", "task", "key:ann")):
        assert await store.shares.given(*key) is None
    assert await store.shares.of("", "task") == await store.shares.of("t", "other") == []


async def test_what_is_given_again_takes_the_place_of_what_was(store: Store) -> None:
    later = replace(BOB, until=NOW + 9, granted_by="key:ann")
    await store.commit(PutShare(BOB))
    await store.commit(PutShare(later))
    assert await store.shares.of("t", "task") == [later]


async def test_what_is_taken_back_is_gone_and_what_never_was_is_no_error(store: Store) -> None:
    await store.commit(PutShare(BOB), PutShare(EVE))
    for _ in range(2):
        await store.commit(DropShare("t", "task", "key:bob"))
    await store.commit(DropShare("", "task", "key:eve"))
    assert await store.shares.of("t", "task") == [EVE]


@pytest.mark.parametrize("fails", [PutShare(BOB), DropShare("t", "task", "key:eve")])
async def test_a_share_comes_and_goes_with_its_whole_commit(store: Store, fails: PutShare | DropShare) -> None:
    await store.commit(PutShare(EVE))
    bad = new_task("made")
    await store.commit(bad)
    with pytest.raises(Exception):  # noqa: B017, PT011 (each store says in its own way that there is such a task)
        await store.commit(fails, bad)
    assert await store.shares.of("t", "task") == [EVE]


async def test_shares_are_there_again_and_go_with_their_task(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    made = await open_sqlite(path, now=lambda: NOW, node=NODE)
    task = new_task("made")
    share = replace(BOB, tenant=task.row.tenant, task_id=task.row.id)
    await made.commit(task, PutShare(share), PutShare(BOB))
    await made.aclose()
    again = await open_sqlite(path, now=lambda: NOW, node=NODE)
    assert await again.shares.of(task.row.tenant, task.row.id) == [share]
    await again.aclose()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM task WHERE tenant = ? AND id = ?", (task.row.tenant, task.row.id))
        assert [row[0] for row in db.execute("SELECT task_id FROM share")] == ["task"]
