"""How each change of the port becomes rows: one function per change, and the table that finds it.

The functions take the transaction and never open or end one; that is the writer's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.model.agent import Upstream
from gateway.model.audit import AuditEntry
from gateway.model.message import Message
from gateway.model.ports import (
    AdvanceTask,
    Change,
    CreateTask,
    DropAgent,
    DropPin,
    DropPushConfig,
    Fenced,
    Key,
    PutAgent,
    PutKey,
    PutPin,
    PutPushConfig,
    PutUpstreamContext,
    Record,
    Release,
    Reserve,
    SaveReply,
    SettleDelivery,
    TaskRow,
)
from gateway.model.push import PushConfig
from gateway.stores.named_sql import SQL
from gateway.stores.pins import drop_pin, put_pin
from gateway.stores.problems import BadChange
from gateway.stores.rows import STATES, reservation
from gateway.stores.writer import Withdraw

# Active tasks whose sizes we remember. One that was forgotten gets a snapshot it could have done without.
SIZES_LIMIT = 20_000


@dataclass(slots=True)
class Size:
    """What a task's snapshot weighs, and the events since."""

    doc: int
    tail: int = 0


class Sizes(dict[tuple[str, str], Size]):
    """Sizes of active tasks. Memory only: the store is right without it, and writes more."""

    def remember(self, task: tuple[str, str], size: Size) -> None:
        if len(self) >= SIZES_LIMIT:
            del self[next(iter(self))]
        self[task] = size


@dataclass(slots=True)
class Transaction:
    cursor: sqlite3.Cursor
    now: int
    node: str
    sizes: Sizes

    def run(self, name: str, *values: object) -> int:
        """Run a named statement; how many rows it touched."""
        return self.cursor.execute(SQL[name], values).rowcount


def apply(tx: Transaction, changes: Sequence[Change], records: Sequence[AuditEntry]) -> None:
    """All changes and the audit records. Raises Withdraw, Fenced or BadChange: nothing must be kept then."""
    try:
        for change in changes:
            _APPLY[type(change)](tx, change)
        for entry in records:
            tx.cursor.execute(_APPEND_AUDIT, (audit_body(entry),))
    except BaseException:
        for change in changes:
            if isinstance(change, CreateTask | AdvanceTask):
                tx.sizes.pop((change.row.tenant, change.row.id), None)
        raise


def _reserve(tx: Transaction, change: Reserve) -> None:
    held = change.reservation
    key = _key(held.key)
    reply = None if held.reply is None else held.reply.wire()
    if tx.run("reserve", *key, held.digest, held.task_id, held.at, held.settled, reply) == 0:
        holder = tx.cursor.execute(SQL["holder"], key).fetchone()
        raise Withdraw(reservation(holder))


def _release(tx: Transaction, change: Release) -> None:
    tx.run("release", *_key(change.key))


def _save_reply(tx: Transaction, change: SaveReply) -> None:
    tx.run("save_reply", change.reply.wire(), *_key(change.key))


def _settle(tx: Transaction, key: Key | None) -> None:
    if key is not None:
        tx.run("settle", *_key(key))


def _key(key: Key) -> tuple[str, str, str, str]:
    """In the order of the primary key."""
    return key.tenant, key.principal, key.message_id, key.agent


def _create_task(tx: Transaction, change: CreateTask) -> None:
    row, task = change.row, change.row.task
    doc = task.wire()
    tx.run(
        "create_task",
        row.tenant,
        row.id,
        row.owner,
        row.agent,
        task.context_id,
        STATES[task.status.state],
        row.created,
        row.updated,
        row.deadline,
        row.message_id,
        row.seq,
        row.fence,
        change.node,
        _upstream(row.upstream),
        row.seq,
        doc,
    )
    if not task.status.state.terminal:
        tx.sizes.remember((row.tenant, row.id), Size(len(doc)))
    _append(tx, row, change.records)
    for config in change.push:
        _put_config(tx, row.tenant, row.id, config)
    if change.push:
        _queue(tx, row, change.records)
    _settle(tx, change.key)


def _advance_task(tx: Transaction, change: AdvanceTask) -> None:
    row, records = change.row, change.records
    state = row.task.status.state
    values = (STATES[state], row.updated, row.deadline, row.seq, tx.node, _upstream(row.upstream))
    where = (row.tenant, row.id, row.fence, row.seq - len(records))
    doc = _snapshot(tx.sizes, row, sum(len(record.body) for record in records))
    if doc is None:
        moved = tx.run("advance_task", *values, *where)
    else:
        moved = tx.run("advance_task_with_snapshot", *values, row.seq, doc, *where)
    if moved == 0:
        raise _why_not(tx, row)
    _append(tx, row, records)
    if change.push:
        _queue(tx, row, records)
    _settle(tx, change.key)


def _snapshot(sizes: Sizes, row: TaskRow, weight: int) -> bytes | None:
    """The task's document if it is time to write it.

    At the end of a turn, because then it is read most. In between only when the events since the last one weigh
    as much as it does: all snapshots of a stream together then weigh no more than twice its log.
    """
    task = (row.tenant, row.id)
    state = row.task.status.state
    size = sizes.get(task)
    if size is not None and not state.terminal and not state.interrupted:
        size.tail += weight
        if size.tail < size.doc:
            return None
    doc = row.task.wire()
    if state.terminal:
        sizes.pop(task, None)
    else:
        sizes.remember(task, Size(len(doc)))
    return doc


def _why_not(tx: Transaction, row: TaskRow) -> Exception:
    standing = tx.cursor.execute(SQL["standing"], (row.tenant, row.id)).fetchone()
    if standing is None or standing[0] != row.fence:
        return Fenced()
    return BadChange(f"task {row.id} stands at {standing[1]}, not before {row.seq}")


def _append(tx: Transaction, row: TaskRow, records: tuple[Record, ...]) -> None:
    if records:
        bodies = join_bodies([record.body for record in records])
        tx.run("append_events", row.tenant, row.id, records[0].seq, records[-1].seq, bodies)


def join_bodies(bodies: list[bytes]) -> bytes:
    """A JSON array with one body per line, so that it can be taken apart again without reading JSON."""
    # A line break in JSON is either escaped or mere layout, and ours has no layout.
    lines = [body if b"\n" not in body else orjson.dumps(orjson.loads(body)) for body in bodies]
    return b"[%b]" % b",\n".join(lines)


def _queue(tx: Transaction, row: TaskRow, records: tuple[Record, ...]) -> None:
    for record in records:
        if not isinstance(record.event, Message):  # history, which callers said themselves
            tx.run("queue_delivery", record.seq, tx.now, row.tenant, row.id)


def _upstream(upstream: Upstream | None) -> bytes | None:
    return None if upstream is None else orjson.dumps(upstream)


def _put_push_config(tx: Transaction, change: PutPushConfig) -> None:
    if change.config.task_id is None:
        raise BadChange("a push configuration needs its task's id")
    _put_config(tx, change.tenant, change.config.task_id, change.config)


def _put_config(tx: Transaction, tenant: str, task_id: str, config: PushConfig) -> None:
    if config.id is None:
        raise BadChange("a push configuration needs its id")
    if config.task_id != task_id:
        config = config.model_copy(update={"task_id": task_id})
    tx.run("put_push_config", tenant, task_id, config.id, config.wire())


def _drop_push_config(tx: Transaction, change: DropPushConfig) -> None:
    key = (change.tenant, change.task_id, change.id)
    tx.run("drop_push_config", *key)
    tx.run("drop_deliveries", *key)


def _put_upstream_context(tx: Transaction, change: PutUpstreamContext) -> None:
    key = (change.tenant, change.owner, change.agent, change.context_id)
    tx.run("put_upstream_context", *key, change.upstream_context_id)


def _settle_delivery(tx: Transaction, change: SettleDelivery) -> None:
    queue = (change.tenant, change.task_id, change.config_id)
    if change.retry_at is not None:
        tx.run("retry_delivery", change.retry_at, *queue, change.seq)
        return
    tx.run("drop_delivery", *queue, change.seq)
    values = dict(zip(("tenant", "task_id", "config_id"), queue, strict=True))
    tx.cursor.execute(SQL["next_delivery"], {**values, "now": tx.now})


def _put_agent(tx: Transaction, change: PutAgent) -> None:
    r = change.record
    tx.run("put_agent", r.id, r.card_url, r.trusted, r.added, r.card, r.etag, r.fetched)


def _drop_agent(tx: Transaction, change: DropAgent) -> None:
    tx.run("drop_agent", change.id)


def _put_key(tx: Transaction, change: PutKey) -> None:
    r = change.record
    tx.run("put_key", r.tenant, r.id, r.name, r.prefix, r.hash, r.created, r.revoked)


_APPLY: dict[type[Any], Callable[[Transaction, Any], None]] = {
    Reserve: _reserve,
    Release: _release,
    SaveReply: _save_reply,
    CreateTask: _create_task,
    AdvanceTask: _advance_task,
    PutPushConfig: _put_push_config,
    DropPushConfig: _drop_push_config,
    PutUpstreamContext: _put_upstream_context,
    SettleDelivery: _settle_delivery,
    PutAgent: _put_agent,
    DropAgent: _drop_agent,
    PutKey: _put_key,
    PutPin: lambda tx, change: put_pin(tx.cursor, change),
    DropPin: lambda tx, change: drop_pin(tx.cursor, change),
}

_APPEND_AUDIT = SQL["append_audit"]


def audit_body(entry: AuditEntry) -> bytes:
    """The canonical form: fields in alphabetical order, as the entry declares them."""
    return orjson.dumps(entry)
