"""Many requests in one transaction of the SQLite store: what one of them does wrong is nobody else's matter."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model.changes import Release
from gateway.model.ports import Fenced
from gateway.model.task import TaskState
from gateway.stores.problems import BadChange
from gateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.contract import (
    NODE,
    NOW,
    advance,
    chunk,
    entry,
    fetched,
    key,
    new_task,
    reserve,
    says,
    status,
    written,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


async def open_store(path: Path) -> SqliteStore:
    return await open_sqlite(path, now=lambda: NOW, node=NODE)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(path)
    yield store
    await store.aclose()


async def audited(store: SqliteStore) -> dict[int, str]:
    return {idx: record.request_id for idx, record in await store.audit(0, 10_000)}


# One fails.


async def test_a_request_that_fails_after_rows_were_written_fails_alone(path: Path) -> None:
    store = await open_store(path)
    await store.commit(new_task("there"), records=[entry("first")])
    results = await asyncio.gather(
        *(store.commit(reserve(key(f"a{n}")), new_task(f"a{n}"), records=[entry(f"a{n}")]) for n in range(5)),
        store.commit(reserve(key("bad")), new_task("lost"), new_task("there"), records=[entry("bad")]),
        *(store.commit(reserve(key(f"b{n}")), new_task(f"b{n}"), records=[entry(f"b{n}")]) for n in range(5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 5 + [BadChange] + [type(None)] * 5
    expected = ["first", *(f"a{n}" for n in range(5)), *(f"b{n}" for n in range(5))]
    for _ in range(2):
        assert await audited(store) == dict(enumerate(expected, 1))
        for id in expected[1:]:
            assert [record.seq for record in await store.events("t", id, 0)] == [1]
            assert len(await store.reservation("t", "key:ann", id)) == 1
        assert await store.task("t", "lost") is None
        assert await store.reservation("t", "key:ann", "bad") == []
        await store.aclose()
        store = await open_store(path)
    await store.aclose()


async def test_every_second_request_may_fail(store: SqliteStore) -> None:
    await store.commit(new_task())
    callers = [
        store.commit(reserve(key(str(n))), *([new_task()] if n % 2 else []), records=[entry(str(n))])
        for n in range(1000)
    ]
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(result, BadChange) for result in results] == [n % 2 == 1 for n in range(1000)]
    assert await audited(store) == {n // 2 + 1: str(n) for n in range(0, 1000, 2)}


async def test_a_key_that_is_found_taken_late_undoes_its_request_only(store: SqliteStore) -> None:
    await store.commit(reserve(key()))
    before, holder, after = await asyncio.gather(
        store.commit(new_task("before"), records=[entry("before")]),
        store.commit(new_task("lost"), reserve(key()), records=[entry("lost")]),
        store.commit(new_task("after"), records=[entry("after")]),
    )
    assert (before, holder, after) == (None, reserve(key()).reservation, None)
    assert await store.task("t", "lost") is None
    assert await written(store) == ["before", "after"]


async def test_the_key_of_a_request_that_failed_is_free_in_the_same_batch(store: SqliteStore) -> None:
    await store.commit(new_task())
    stale = replace(new_task().row, fence=0)
    results = await asyncio.gather(
        store.commit(reserve(key()), advance(stale, chunk("x", append=False)), records=[entry("stale")]),
        store.commit(reserve(key(), task_id="mine"), records=[entry("mine")]),
        store.commit(reserve(key(), task_id="late"), records=[entry("late")]),
        return_exceptions=True,
    )
    assert isinstance(results[0], Fenced)
    assert list(results[1:]) == [None, reserve(key(), task_id="mine").reservation]
    assert await written(store) == ["mine"]


async def test_a_key_whose_release_was_undone_stays_taken(store: SqliteStore) -> None:
    await store.commit(reserve(key()), new_task())
    release = store.commit(Release(key()), new_task())
    neighbour = store.commit(reserve(key("other")))
    with pytest.raises(BadChange):
        await release
    await neighbour
    assert await store.commit(reserve(key(), task_id="again")) == reserve(key()).reservation


async def test_what_a_failed_batch_had_counted_is_not_counted_twice(store: SqliteStore) -> None:
    """The sizes of tasks are in memory: a stream that shares its batches with failures stays right."""
    await store.commit(new_task())
    row = new_task().row
    for n in range(40):
        change = advance(row, chunk("some text", append=n > 0))
        results = await asyncio.gather(
            store.commit(change, records=[entry(str(n))]),
            store.commit(new_task("lost"), new_task()),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), BadChange]
        row = change.row
    assert await fetched(store) == row
    end = advance(row, status(TaskState.COMPLETED, "done"))
    await store.commit(end)
    assert await fetched(store) == end.row
    assert len(await written(store)) == 40


async def test_a_person_who_writes_between_the_two_tries_delays_them_only(store: SqliteStore, path: Path) -> None:
    await store.commit(new_task())
    callers = [
        asyncio.ensure_future(store.commit(new_task("kept"), records=[entry("kept")])),
        asyncio.ensure_future(store.commit(new_task("lost"), new_task(), records=[entry("lost")])),
    ]
    await asyncio.sleep(0)  # the first try, which is undone
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as person:
        person.execute("BEGIN IMMEDIATE")
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(caller.done() for caller in callers)
        person.execute("ROLLBACK")
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), BadChange]
    assert await audited(store) == {1: "kept"}


# The record.


async def test_indexes_of_the_record_go_on_without_a_gap_over_restarts(path: Path) -> None:
    for life in range(4):
        store = await open_store(path)
        await store.commit(records=[entry(f"{life}.1"), entry(f"{life}.2")])
        await asyncio.gather(*(store.commit(records=[entry(f"{life}.{n}")]) for n in range(3, 6)))
        await store.aclose()
    store = await open_store(path)
    expected = [f"{life}.{n}" for life in range(4) for n in range(1, 6)]
    assert await audited(store) == dict(enumerate(expected, 1))
    for after in range(-1, 21):
        for limit in (0, 1, 2, 7):
            page = await store.audit(after, limit)
            assert [idx for idx, _ in page] == list(range(max(after, 0) + 1, 21))[:limit]
    await store.aclose()


async def test_an_index_is_never_used_twice(path: Path) -> None:
    store = await open_store(path)
    await store.commit(records=[entry("1"), entry("2")])
    await store.commit(records=[entry("3")])
    await store.aclose()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM audit")
    store = await open_store(path)
    await store.commit(records=[entry("4")])
    assert await audited(store) == {4: "4"}
    await store.aclose()


async def test_a_repeated_message_writes_nothing(store: SqliteStore) -> None:
    await store.commit(reserve(key()), records=[entry("1")])
    reply = replace(reserve(key()).reservation, reply=says("twice"))
    repeated = replace(reserve(key()), reservation=reply)
    assert await store.commit(repeated, records=[entry("2")]) == reserve(key()).reservation
    assert await audited(store) == {1: "1"}
