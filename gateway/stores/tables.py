"""The tables of the memory store, and what each change does to them.

A transaction writes at once and keeps how to undo it, so a commit that fails leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gateway.model.agent import Upstream
from gateway.model.approval import Approval, Outdated
from gateway.model.audit import AuditEntry
from gateway.model.changes import (
    AdvanceTask,
    BuryDelivery,
    CreateTask,
    DropAgent,
    DropCards,
    DropFrozen,
    DropHalted,
    DropPin,
    DropPushConfig,
    DropShare,
    EndGrant,
    PutAgent,
    PutApproval,
    PutCard,
    PutClient,
    PutFrozen,
    PutHalted,
    PutKey,
    PutPin,
    PutPushConfig,
    PutShare,
    PutUpstreamContext,
    PutUser,
    Release,
    ReplayDelivery,
    Reserve,
    RevokeToken,
    SaveReply,
    SettleDelivery,
)
from gateway.model.clients import ClientRecord
from gateway.model.governance import Cold, Frozen, Halted
from gateway.model.message import Message
from gateway.model.people import GrantRecord, UserRecord
from gateway.model.ports import Fenced
from gateway.model.provenance import CardRecord
from gateway.model.push import PushConfig
from gateway.model.rows import AgentRecord, DeadDelivery, Key, KeyRecord, PinRecord, Record, Reservation, TaskRow
from gateway.model.sharing import Share
from gateway.stores.problems import BadChange

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Held:
    """A task and who executes it."""

    row: TaskRow
    node: str


Queue = tuple[str, str, str]  # tenant, task, configuration


@dataclass(frozen=True, slots=True)
class Queued:
    """An event that a webhook has not taken; `due` is None while an earlier one waits for the same webhook."""

    queued: int
    due: int | None
    attempts: int = 0
    problem: str | None = None


@dataclass(slots=True)
class Tables:
    reservations: dict[Key, Reservation] = field(default_factory=dict)
    tasks: dict[tuple[str, str], Held] = field(default_factory=dict)
    logs: dict[tuple[str, str], list[Record]] = field(default_factory=dict)
    configs: dict[tuple[str, str, str], PushConfig] = field(default_factory=dict)
    outbox: dict[Queue, dict[int, Queued]] = field(default_factory=dict)
    dead: dict[int, DeadDelivery] = field(default_factory=dict)
    last_dead: int = 0
    contexts: dict[tuple[str, str, str, str], Upstream] = field(default_factory=dict)
    agents: dict[str, AgentRecord] = field(default_factory=dict)
    cards: dict[tuple[str, str], CardRecord] = field(default_factory=dict)
    keys: dict[tuple[str, str], KeyRecord] = field(default_factory=dict)
    pins: dict[tuple[str, str, str], PinRecord] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    clients: dict[str, ClientRecord] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)
    users: dict[str, UserRecord] = field(default_factory=dict)
    grants: dict[str, GrantRecord] = field(default_factory=dict)
    frozen: dict[tuple[Cold, str], Frozen] = field(default_factory=dict)
    halted: dict[tuple[str, str], Halted] = field(default_factory=dict)
    shares: dict[tuple[str, str, str], Share] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)


class Taken(Exception):
    def __init__(self, holder: Reservation) -> None:
        self.holder = holder


class Transaction:
    """One commit: every write leaves behind how to undo it."""

    def __init__(self, tables: Tables, now: int, node: str | None) -> None:
        self.tables = tables
        self.now = now
        self.node = node
        self._undo: list[Callable[[], object]] = []

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def drop(self, table: dict[K, V], key: K) -> None:
        if key in table:
            old = table.pop(key)
            self._undo.append(lambda: table.__setitem__(key, old))

    def extend(self, table: list[V], rows: Iterable[V]) -> None:
        size = len(table)
        self._undo.append(lambda: table.__delitem__(slice(size, None)))
        table.extend(rows)

    def undo(self) -> None:
        for step in reversed(self._undo):
            step()


def _reserve(tx: Transaction, change: Reserve) -> None:
    holder = tx.tables.reservations.get(change.reservation.key)
    if holder is not None:
        raise Taken(holder)
    tx.put(tx.tables.reservations, change.reservation.key, change.reservation)


def _release(tx: Transaction, change: Release) -> None:
    held = tx.tables.reservations.get(change.key)
    if held is not None and not held.settled and held.reply is None:
        tx.drop(tx.tables.reservations, change.key)


def _update_reservation(tx: Transaction, key: Key | None, **changes: Any) -> None:
    if key is not None and (held := tx.tables.reservations.get(key)) is not None:
        tx.put(tx.tables.reservations, key, replace(held, **changes))


def _create_task(tx: Transaction, change: CreateTask) -> None:
    row = change.row
    key = (row.tenant, row.id)
    if key in tx.tables.tasks:
        raise BadChange(f"there is a task {row.id} already")
    tx.put(tx.tables.tasks, key, Held(row, change.node))
    tx.put(tx.tables.logs, key, [replace(record, at=tx.now) for record in change.records])
    for config in change.push:
        _put_push_config(tx, PutPushConfig(row.tenant, config.model_copy(update={"task_id": row.id})))
    _queue(tx, row, change.records)
    _update_reservation(tx, change.key, settled=True)


def _advance_task(tx: Transaction, change: AdvanceTask) -> None:
    row = change.row
    key = (row.tenant, row.id)
    held = tx.tables.tasks.get(key)
    if held is None or held.row.fence != row.fence:
        raise Fenced
    if held.row.seq != row.seq - len(change.records):
        raise BadChange(f"task {row.id} stands at {held.row.seq}, not before {row.seq}")
    if held.row.task.status.state.terminal:
        raise BadChange(f"task {row.id} has ended")
    tx.put(tx.tables.tasks, key, Held(row, tx.node or held.node))
    tx.extend(tx.tables.logs[key], [replace(record, at=tx.now) for record in change.records])
    if change.push:
        _queue(tx, row, change.records)
    _update_reservation(tx, change.key, settled=True)


def _queue(tx: Transaction, row: TaskRow, records: tuple[Record, ...]) -> None:
    told = [record for record in records if not isinstance(record.event, Message)]
    for key in [key for key in tx.tables.configs if key[:2] == (row.tenant, row.id)]:
        for record in told:
            _enqueue(tx, key, record.seq)


def _enqueue(tx: Transaction, key: Queue, seq: int) -> None:
    """A webhook hears of one task in order: only the first of a queue has a time."""
    queue = tx.tables.outbox.get(key, {})
    tx.put(tx.tables.outbox, key, {**queue, seq: Queued(tx.now, None if queue else tx.now)})


def _put_push_config(tx: Transaction, change: PutPushConfig) -> None:
    config = change.config
    if config.id is None or config.task_id is None:
        raise BadChange("a push configuration needs its id and its task's")
    tx.put(tx.tables.configs, (change.tenant, config.task_id, config.id), config)


def _drop_push_config(tx: Transaction, change: DropPushConfig) -> None:
    key = (change.tenant, change.task_id, change.id)
    tx.drop(tx.tables.configs, key)
    tx.drop(tx.tables.outbox, key)
    for id in [id for id, letter in tx.tables.dead.items() if (letter.tenant, letter.task_id, letter.config_id) == key]:
        tx.drop(tx.tables.dead, id)


def _put_upstream_context(tx: Transaction, change: PutUpstreamContext) -> None:
    key = (change.tenant, change.owner, change.agent, change.context_id)
    tx.put(tx.tables.contexts, key, Upstream(change.url, context_id=change.upstream_context_id))


def _settle_delivery(tx: Transaction, change: SettleDelivery) -> None:
    if change.retry_at is None:
        _take_out(tx, change)
        return
    key = (change.tenant, change.task_id, change.config_id)
    queue = tx.tables.outbox.get(key, {})
    if (held := queue.get(change.seq)) is not None:
        later = replace(held, due=change.retry_at, attempts=held.attempts + 1, problem=change.problem)
        tx.put(tx.tables.outbox, key, {**queue, change.seq: later})


def _take_out(tx: Transaction, done: SettleDelivery | BuryDelivery) -> Queued | None:
    """The event, out of its queue; the next one has its turn."""
    key = (done.tenant, done.task_id, done.config_id)
    queue = dict(tx.tables.outbox.get(key, {}))
    held = queue.pop(done.seq, None)
    if held is None:
        return None
    if not queue:
        tx.drop(tx.tables.outbox, key)
        return held
    first = min(queue)
    queue[first] = replace(queue[first], due=tx.now)
    tx.put(tx.tables.outbox, key, queue)
    return held


def _bury_delivery(tx: Transaction, change: BuryDelivery) -> None:
    held = _take_out(tx, change)
    if held is None:
        return
    key = (change.tenant, change.task_id, change.config_id)
    tx.tables.last_dead += 1  # a number that was given is not given again, whatever becomes of this commit
    id, host = tx.tables.last_dead, tx.tables.configs[key].host
    letter = DeadDelivery(id, *key, change.seq, host, held.attempts + 1, change.problem, held.queued, change.at)
    tx.put(tx.tables.dead, id, letter)


def _replay_delivery(tx: Transaction, change: ReplayDelivery) -> None:
    if (letter := tx.tables.dead.get(change.id)) is not None:
        tx.drop(tx.tables.dead, change.id)
        _enqueue(tx, (letter.tenant, letter.task_id, letter.config_id), letter.seq)


def _drop_cards(tx: Transaction, change: DropCards) -> None:
    for key in [key for key in tx.tables.cards if key[0] == change.agent]:
        tx.drop(tx.tables.cards, key)


def _put_approval(tx: Transaction, change: PutApproval) -> None:
    found = tx.tables.approvals.get(change.approval.id)
    if (0 if found is None else found.revision) != change.before:
        raise Outdated(f"approval {change.approval.id} is not at revision {change.before}")
    tx.put(tx.tables.approvals, change.approval.id, change.approval)


def _revoke_token(tx: Transaction, change: RevokeToken) -> None:
    for jti in [jti for jti, until in tx.tables.revoked.items() if until <= change.now]:
        tx.drop(tx.tables.revoked, jti)
    tx.put(tx.tables.revoked, change.token.jti, change.token.until)


APPLY: dict[type[Any], Callable[[Transaction, Any], None]] = {
    Reserve: _reserve,
    Release: _release,
    SaveReply: lambda tx, change: _update_reservation(tx, change.key, reply=change.reply),
    CreateTask: _create_task,
    AdvanceTask: _advance_task,
    PutPushConfig: _put_push_config,
    DropPushConfig: _drop_push_config,
    PutUpstreamContext: _put_upstream_context,
    SettleDelivery: _settle_delivery,
    BuryDelivery: _bury_delivery,
    ReplayDelivery: _replay_delivery,
    PutAgent: lambda tx, change: tx.put(tx.tables.agents, change.record.id, change.record),
    DropAgent: lambda tx, change: tx.drop(tx.tables.agents, change.id),
    PutKey: lambda tx, change: tx.put(tx.tables.keys, (change.record.tenant, change.record.id), change.record),
    PutPin: lambda tx, change: tx.put(
        tx.tables.pins, (change.record.server, change.record.kind, change.record.key), change.record
    ),
    DropPin: lambda tx, change: tx.drop(tx.tables.pins, (change.server, change.kind, change.key)),
    PutCard: lambda tx, change: tx.put(tx.tables.cards, (change.record.agent, change.record.card_url), change.record),
    DropCards: _drop_cards,
    PutApproval: _put_approval,
    PutClient: lambda tx, change: tx.put(tx.tables.clients, change.record.id, change.record),
    PutUser: lambda tx, change: tx.put(tx.tables.users, change.record.name, change.record),
    EndGrant: lambda tx, change: tx.drop(tx.tables.grants, change.id),
    RevokeToken: _revoke_token,
    PutFrozen: lambda tx, change: tx.put(tx.tables.frozen, (change.record.kind, change.record.name), change.record),
    DropFrozen: lambda tx, change: tx.drop(tx.tables.frozen, (change.kind, change.name)),
    PutHalted: lambda tx, change: tx.put(tx.tables.halted, (change.record.tenant, change.record.root), change.record),
    DropHalted: lambda tx, change: tx.drop(tx.tables.halted, (change.tenant, change.root)),
    PutShare: lambda tx, change: tx.put(
        tx.tables.shares, (change.share.tenant, change.share.task_id, change.share.principal), change.share
    ),
    DropShare: lambda tx, change: tx.drop(tx.tables.shares, (change.tenant, change.task_id, change.principal)),
}
