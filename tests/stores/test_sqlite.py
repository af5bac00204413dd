"""The SQLite store keeps the contract, and what only it promises: batches, snapshots, indexes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from gateway.model.changes import AdvanceTask
from gateway.model.errors import GatewayError, Reason
from gateway.model.task import TaskState
from gateway.stores import rows, writer
from gateway.stores.named_sql import SQL
from gateway.stores.problems import BadChange
from gateway.stores.snapshots import FEW_EVENTS
from gateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.contract import (
    NODE,
    NOW,
    StoreContract,
    advance,
    chunk,
    entry,
    fetched,
    key,
    new_task,
    query,
    records,
    reserve,
    status,
    written,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, now=lambda: NOW, node=NODE)
    yield store
    await store.aclose()


@pytest.fixture
def db(store: SqliteStore, path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else, as a person's sqlite3 shell would have."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


class TestSqliteStore(StoreContract):
    pass


# Durable.


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    store = await open_sqlite(path, now=lambda: NOW, node="first")
    await store.commit(reserve(key()), new_task(key=key(), node="first"), records=[entry("1")])
    row = await fetched(store)
    change = advance(row, chunk("x", append=False))
    await store.commit(change)
    store.later(records=[entry("2")])
    await store.aclose()
    again = await open_sqlite(path, now=lambda: NOW, node="second")
    assert await fetched(again) == change.row
    assert await written(again) == ["1", "2"]
    (claimed,) = await again.claim("second", NOW, NOW + 1, 10)
    await again.commit(advance(claimed, status(TaskState.COMPLETED, "after all")))
    assert (await fetched(again)).task.status.state is TaskState.COMPLETED
    await again.aclose()


async def test_a_closed_store_leaves_one_file_and_no_log(path: Path) -> None:
    store = await open_sqlite(path, now=lambda: NOW, node=NODE)
    await store.commit(records=[entry()])
    await store.aclose()
    assert sorted(file.name for file in path.parent.iterdir()) == ["gateway.db", "gateway.lock"]


async def test_an_audit_entry_is_a_line_of_canonical_json(store: SqliteStore, db: sqlite3.Connection) -> None:
    await store.commit(records=[entry(task_id="ü", principal="agent:ann"), entry(outcome="two\nlines")])
    (entries,) = db.execute("SELECT entries FROM audit").fetchone()
    body, other = entries.split(b"\n")
    assert json.loads(other)["outcome"] == "two\nlines"
    (_, one), (_, two) = await store.audit(0, 2)
    first, second = one.stamp, two.stamp
    assert first is not None
    assert second is not None
    assert (first.log, first.replica) == (second.log, second.replica) == (store.audit_log.name, NODE)
    assert 0 <= first.mono <= second.mono
    assert (
        body
        == (
            '{"action":"SendMessage","actor":{"sub":"agent:ann"},"at":1764000000000,'
            f'"decision":{{"effect":"PASS","rule":"allow"}},"log_id":"{store.audit_log.name}","mono":{first.mono},'
            f'"object":"echo","outcome":"ok","phase":"outcome","replica":"{NODE}",'
            '"request":{"id":"req-1"},"task":"ü","tenant":"t","v":2}'
        ).encode()
    )


# Batches.


async def test_a_row_that_cannot_be_written_at_all_fails_its_caller_only(store: SqliteStore) -> None:
    results = await asyncio.gather(
        store.commit(records=[entry("1")]),
        store.commit(reserve(key("\ud800")), records=[entry("surrogate")]),
        store.commit(reserve(key("big"), at=2**63), records=[entry("big")]),
        store.commit(records=[entry("2")]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), BadChange, BadChange, type(None)]
    assert await written(store) == ["1", "2"]


async def test_a_caller_that_goes_away_breaks_nobody_elses_commit(store: SqliteStore) -> None:
    callers = [asyncio.ensure_future(store.commit(records=[entry(str(n))])) for n in range(10)]
    await asyncio.sleep(0)  # all have asked; the transaction has not begun
    for caller in callers[::2]:
        caller.cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [result is None for result in results] == [n % 2 == 1 for n in range(10)]
    assert {str(n) for n in range(1, 10, 2)} <= set(await written(store))


async def test_callers_of_one_round_share_a_transaction(store: SqliteStore, db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA data_version").fetchone()
    seen = set()
    callers = [asyncio.ensure_future(store.commit(records=[entry(str(n))])) for n in range(50)]
    while not all(caller.done() for caller in callers):
        seen.add(db.execute("SELECT coalesce(max(last_idx), 0) FROM audit").fetchone()[0])
        await asyncio.sleep(0)
    assert seen <= {0, 50}
    assert db.execute("PRAGMA data_version").fetchone() != version


async def test_the_loop_gets_its_turn_while_much_is_written(store: SqliteStore) -> None:
    turns = 0
    body = "x" * 1000
    for n in range(5000):
        store.later(records=[entry(str(n), outcome=body)])
    last = asyncio.ensure_future(store.commit())
    while not last.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(await written(store)) == 5000
    assert turns > 5


async def test_more_than_the_queue_holds_is_refused_and_the_rest_is_written(store: SqliteStore) -> None:
    callers = [store.commit(records=[entry()]) for _ in range(writer.WAITING_LIMIT + 5)]
    results = await asyncio.gather(*callers, return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert len(refused) == 5
    assert all(isinstance(error, GatewayError) and error.reason is Reason.UNAVAILABLE for error in refused)
    assert (await store.audit(writer.WAITING_LIMIT - 1, 10))[-1][0] == writer.WAITING_LIMIT


def test_what_is_written_later_waits_for_no_more_than_five_milliseconds() -> None:
    assert writer.LATER_SECONDS <= 0.005


async def test_a_person_who_writes_too_delays_commits_and_not_the_loop(
    store: SqliteStore, db: sqlite3.Connection
) -> None:
    db.execute("BEGIN IMMEDIATE")
    caller = asyncio.ensure_future(store.commit(records=[entry()]))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not caller.done()
    db.execute("ROLLBACK")
    await caller
    assert await written(store) == ["req-1"]


async def test_closing_writes_what_waits(path: Path) -> None:
    store = await open_sqlite(path, now=lambda: NOW, node=NODE)
    for n in range(2000):
        store.later(records=[entry(str(n))])
    callers = [asyncio.ensure_future(store.commit(records=[entry("waits")])) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(store.aclose(), store.aclose())
    assert await asyncio.gather(*callers) == [None, None, None]
    again = await open_sqlite(path, now=lambda: NOW, node=NODE)
    assert len(await written(again)) == 2003
    await again.aclose()


# Snapshots.


async def test_a_long_stream_rewrites_its_document_a_few_times_only(store: SqliteStore, db: sqlite3.Connection) -> None:
    await store.commit(new_task())
    row = new_task().row
    snapshots: dict[int, int] = {}
    log = 0
    for n in range(400):
        change = advance(row, chunk(f"{n} " * 10, append=n > 0))
        await store.commit(change)
        row = change.row
        log += len(change.records[0].body)
        doc_seq, size = db.execute("SELECT doc_seq, coalesce(length(doc), 0) FROM task").fetchone()
        snapshots[doc_seq] = size
    assert len(snapshots) < 30
    assert sum(snapshots.values()) < 2 * log
    assert await fetched(store) == row


async def test_at_the_end_of_a_turn_there_is_next_to_nothing_to_fold(
    store: SqliteStore, db: sqlite3.Connection
) -> None:
    await store.commit(new_task())
    row = new_task().row
    turn = (TaskState.WORKING, TaskState.INPUT_REQUIRED)
    snapshots = set()
    for state in (*turn * 10, TaskState.COMPLETED):
        change = advance(row, status(state))
        await store.commit(change)
        row = change.row
        doc_seq, doc = db.execute("SELECT doc_seq, doc FROM task").fetchone()
        snapshots.add(doc_seq)
        assert (doc is None) == (doc_seq == 0)
        assert state is TaskState.WORKING or row.seq - doc_seq <= FEW_EVENTS
        assert await fetched(store) == row
    assert len(snapshots) < 10  # of 21 commits


async def test_a_short_log_that_tells_all_has_no_document(store: SqliteStore, db: sqlite3.Connection) -> None:
    change = new_task()
    done = advance(change.row, chunk("x", append=False), status(TaskState.COMPLETED, "done"))
    await store.commit(replace(change, row=done.row, records=(*change.records, *done.records)))
    assert db.execute("SELECT doc_seq, doc FROM task").fetchone() == (0, None)
    assert await fetched(store) == done.row
    assert (await store.tasks(query())).rows == [done.row]


async def test_a_log_that_tells_only_a_part_has_a_document(store: SqliteStore) -> None:
    change = new_task()
    grown = advance(change.row, chunk("x", append=False))
    await store.commit(replace(change, row=grown.row, records=grown.records))
    assert await fetched(store) == grown.row


async def test_a_stream_goes_on_after_a_write_that_was_undone(store: SqliteStore) -> None:
    await store.commit(new_task())
    row = new_task().row
    for n in range(30):
        change = advance(row, chunk("some text", append=n > 0))
        with pytest.raises(BadChange):
            await store.commit(change, new_task())
        await store.commit(change)
        row = change.row
        assert await fetched(store) == row


async def test_an_event_that_cannot_be_is_skipped_and_logged(
    store: SqliteStore, db: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await store.commit(new_task())
    snapshot = advance(new_task().row, chunk("long " * 1000, append=False))
    await store.commit(snapshot)
    await store.commit(advance(snapshot.row, chunk("short")))
    (impossible,) = records(3, [status(TaskState.SUBMITTED)])
    db.execute("UPDATE event SET bodies = ? WHERE last_seq = 3", (b"[%b]" % impossible.body,))
    assert (await fetched(store)).task == snapshot.row.task
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_the_database_too_keeps_terminal_tasks_terminal(store: SqliteStore, db: sqlite3.Connection) -> None:
    await store.commit(new_task(state=TaskState.CANCELED))
    with pytest.raises(sqlite3.IntegrityError, match="ended"):
        db.execute("UPDATE task SET state = 2")


async def test_an_advance_without_events_writes_no_event(store: SqliteStore, db: sqlite3.Connection) -> None:
    await store.commit(new_task())
    row = replace(new_task().row, deadline=NOW + 5)
    await store.commit(AdvanceTask(row, ()))
    assert await fetched(store) == row
    assert db.execute("SELECT count(*) FROM event").fetchone() == (1,)


# Indexes.

_FILTERS: dict[str, Any] = {
    "agent": "echo",
    "context_id": "ctx",
    "state": TaskState.WORKING,
    "updated_since": 1,
    "after": (1, "x"),
}
_COMBINATIONS = list(chain.from_iterable(combinations(_FILTERS, n) for n in range(len(_FILTERS) + 1)))


def plan(db: sqlite3.Connection, statement: str, values: Any) -> list[str]:
    return [step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


@pytest.mark.parametrize("names", _COMBINATIONS, ids=" ".join)
async def test_a_list_reads_only_the_rows_that_it_shows(
    store: SqliteStore, db: sqlite3.Connection, names: tuple[str, ...]
) -> None:
    page, count, values = rows.list_statements(query(**{name: _FILTERS[name] for name in names}))
    (step,) = plan(db, page, values)  # one step: no sorting, no scanning
    assert re.match(r"SEARCH task USING INDEX task_by_\w+ \(tenant=\? AND owner=\?", step)
    (step,) = plan(db, count, values)
    assert step.startswith("SEARCH task USING COVERING INDEX")


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "task_by_owner"),
        ({"agent": "echo"}, "task_by_agent (tenant=? AND owner=? AND agent=?)"),
        ({"state": TaskState.WORKING}, "task_by_state (tenant=? AND owner=? AND state=?)"),
        ({"context_id": "ctx"}, "task_by_context (tenant=? AND owner=? AND context_id=?)"),
        ({"agent": "echo", "after": (1, "x")}, "agent=? AND (updated,id)<(?,?)"),
        ({"agent": "echo", "updated_since": 1}, "agent=? AND updated>?"),
    ],
    ids=str,
)
async def test_each_filter_has_its_index(
    store: SqliteStore, db: sqlite3.Connection, filters: dict[str, Any], index: str
) -> None:
    page, _, values = rows.list_statements(query(**filters))
    assert index in plan(db, page, values)[0]


# The registry, keys, clients, users and what governs calls are read whole, and so is SQLite's own table of sequences:
# it has a row and no index.
# `tasks` and `count_tasks` are templates, tested above. A search by client looks once at the ends of names.
_WHOLE = {
    "agents",
    "keys",
    "clients",
    "users",
    "revoked_tokens",
    "frozen",
    "halted",
    "grants",
    "usage",
    "labels",
    "audit_end",
    "subjects_ending",
    "tasks",
    "count_tasks",
}


@pytest.mark.parametrize("name", sorted(SQL.keys() - _WHOLE))
async def test_no_statement_scans_a_table(store: SqliteStore, db: sqlite3.Connection, name: str) -> None:
    statement = SQL[name].replace("{but}", "AND host NOT IN ('a', 'b') AND owner NOT IN ('c')")
    named = set(re.findall(r":(\w+)", statement))
    values: Any = dict.fromkeys(named, 1) if named else (1,) * statement.count("?")
    for step in plan(db, statement, values):
        assert not re.match(r"SCAN (?!.*USING INDEX|\(subquery)", step), step
        assert "TEMP B-TREE" not in step


def test_every_statement_is_used() -> None:
    folder = Path(rows.__file__).parent
    code = "".join(file.read_text("utf-8") for file in folder.glob("*.py"))
    assert [name for name in SQL if f'"{name}"' not in code] == []
