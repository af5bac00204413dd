"""How rows become the port's values. Every function takes a connection that is inside one read transaction."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson

from gateway.model.agent import Upstream
from gateway.model.message import Message
from gateway.model.rows import AgentRecord, Key, KeyRecord, Record, Reservation, TaskQuery, TaskRow, TaskRows
from gateway.model.task import IllegalMove, Task, TaskState, open_envelope
from gateway.stores import principals, trails
from gateway.stores.agents import read as read_settings
from gateway.stores.named_sql import SQL

log = logging.getLogger(__name__)

Row = tuple[Any, ...]

# For values of bytes: sqlite3 looks for somebody who adapts those to its types, in vain and by way of an exception
# (1 µs each), but takes a bytearray as it is.
blob = bytearray

# The numbers that a2a.proto gives to its TaskState.
STATES = {
    TaskState.SUBMITTED: 1,
    TaskState.WORKING: 2,
    TaskState.COMPLETED: 3,
    TaskState.FAILED: 4,
    TaskState.CANCELED: 5,
    TaskState.INPUT_REQUIRED: 6,
    TaskState.REJECTED: 7,
    TaskState.AUTH_REQUIRED: 8,
}

# ListTasks' filters: the field of the query, its condition, and the index that serves it, the most selective
# first. Which index to take is said, not left to the planner: it knows no numbers of ours.
_FILTERS = (
    ("context_id", "context_id = :context_id", "task_by_context"),
    ("state", "state = :state", "task_by_state"),
    ("agent", "agent = :agent", "task_by_agent"),
    ("updated_since", "updated >= :updated_since", "task_by_owner"),
)


# Tasks.


# What one page of tasks may weigh: read whole, a hundred of the largest would take gigabytes.
PAGE_BYTES = 2 * 1024 * 1024


def task(
    db: sqlite3.Connection, tenant: str, task_id: str, owner: str | None = None, agent: str | None = None
) -> TaskRow | None:
    row = db.execute(SQL["task"], (tenant, task_id, owner, agent)).fetchone()
    return None if row is None else _task_row(db, row)[0]


def tasks_by_id(db: sqlite3.Connection, ids: list[Row]) -> list[TaskRow]:
    return [row for row in (task(db, *key) for key in ids) if row is not None]


def waiting(
    db: sqlite3.Connection, agent: str | None, principal: str | None, after: tuple[str, str], limit: int
) -> list[TaskRow]:
    values = {
        "agent": agent,
        "asker": None if agent is None else trails.needle(agent),
        "principal": principal,
        "actor": None if principal is None else principals.needle(principal),
        "tenant": after[0],
        "id": after[1],
        "limit": limit,
    }
    return [_task_row(db, row)[0] for row in db.execute(SQL["waiting_tasks"], values).fetchall()]


def in_tree(db: sqlite3.Connection, tenant: str, root: str, after: str, limit: int) -> list[TaskRow]:
    found = db.execute(SQL["tasks_in_tree"], (tenant, root, after, limit)).fetchall()
    return [_task_row(db, row)[0] for row in found]


def tasks(db: sqlite3.Connection, query: TaskQuery) -> TaskRows:
    page, count, values = list_statements(query)
    rows, weight, cursor = [], 0, db.execute(page, values)
    for row in cursor:
        task_row, size = _task_row(db, row)
        rows.append(task_row)
        weight += size
        if weight > PAGE_BYTES:
            break
    cut = cursor.fetchone() is not None
    return TaskRows(rows, db.execute(count, values).fetchone()[0], cut)


def list_statements(query: TaskQuery) -> tuple[str, str, dict[str, Any]]:
    """The statements for a page and for the count, with their values."""
    values = asdict(query)
    chosen = [(condition, index) for field, condition, index in _FILTERS if values[field] is not None]
    index = chosen[0][1] if chosen else "task_by_owner"
    filters = "".join(f" AND {condition}" for condition, _ in chosen)
    if query.state is not None:
        values["state"] = STATES[query.state]
    cursor = ""
    if query.after is not None:
        values["updated"], values["id"] = query.after
        cursor = " AND (updated, id) < (:updated, :id)"
    del values["after"]
    page = SQL["tasks"].format(index=index, filters=filters + cursor)
    return page, SQL["count_tasks"].format(index=index, filters=filters), values


def _task_row(db: sqlite3.Connection, row: Row) -> tuple[TaskRow, int]:
    """The task and how many bytes were read for it."""
    tenant, id, owner, agent, seq, fence, created, updated, deadline, message_id, upstream, doc_seq, doc, *rest = row
    root, way, caller = rest
    current = None if doc is None else Task.model_validate(orjson.loads(doc))
    size = 0 if doc is None else len(doc)
    if doc_seq < seq:
        tail = events(db, tenant, id, doc_seq)
        size += sum(len(record.body) for record in tail)
        current = _folded(current, tenant, id, tail)
    assert current is not None  # a log without a document begins with the whole task
    found = TaskRow(
        tenant=tenant,
        id=id,
        owner=owner,
        agent=agent,
        task=current,
        seq=seq,
        fence=fence,
        created=created,
        updated=updated,
        deadline=deadline,
        message_id=message_id,
        upstream=None if upstream is None else Upstream(**orjson.loads(upstream)),
        trail=trails.read(root, way),
        caller=principals.read(caller),
    )
    return found, size


def _folded(current: Task | None, tenant: str, id: str, tail: list[Record]) -> Task | None:
    for record in tail:
        if isinstance(record.event, Task):
            current = record.event
            continue
        assert current is not None
        try:
            current = current.apply(record.event)
        except IllegalMove:
            # Our own log was legal when it was written. One event less is better than no task.
            log.exception("event %d of task %s of tenant %r is skipped", record.seq, id, tenant)
    return current


def events(db: sqlite3.Connection, tenant: str, task_id: str, after: int) -> list[Record]:
    groups = db.execute(SQL["events_after"], (tenant, task_id, after)).fetchall()
    return [
        Record(seq, open_envelope(orjson.loads(body)), body, at)
        for first_seq, bodies, at in groups
        for seq, body in split_bodies(first_seq, bodies)
        if seq > after
    ]


def split_bodies(first_seq: int, bodies: bytes) -> Iterator[tuple[int, bytes]]:
    """The reverse of `changes.join_bodies`: each body with its number."""
    return enumerate(bodies[1:-1].split(b",\n"), first_seq)


# Reservations.


def reservation(row: Row) -> Reservation:
    tenant, principal, message_id, agent, digest, task_id, at, settled, reply = row
    return Reservation(
        key=Key(tenant, principal, agent, message_id),
        digest=digest,
        task_id=task_id,
        at=at,
        settled=bool(settled),
        reply=None if reply is None else Message.model_validate(orjson.loads(reply)),
    )


def unsettled(db: sqlite3.Connection, before: int) -> list[Reservation]:
    return [reservation(row) for row in db.execute(SQL["unsettled"], (before,))]


# The rest.


def upstream_context(db: sqlite3.Connection, tenant: str, owner: str, agent: str, context_id: str) -> Upstream | None:
    row = db.execute(SQL["upstream_context"], (tenant, owner, agent, context_id)).fetchone()
    return None if row is None else Upstream(row[0], context_id=row[1])


def agents(db: sqlite3.Connection) -> list[AgentRecord]:
    return [
        AgentRecord(id, card_url, bool(trusted), added, card, etag, fetched, read_settings(settings))
        for id, card_url, trusted, added, card, etag, fetched, settings in db.execute(SQL["agents"])
    ]


def keys(db: sqlite3.Connection) -> list[KeyRecord]:
    return [KeyRecord(*row) for row in db.execute(SQL["keys"])]
