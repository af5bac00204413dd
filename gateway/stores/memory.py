"""Everything in dictionaries: for trials, and for other people's tests.

The contract is the port's (`model/ports.py`) except for the one word "durable". Nothing is ever forgotten, so
it is not meant for long service.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gateway.model.agent import Upstream
from gateway.model.approval import Approval, Outdated
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.clients import ClientRecord
from gateway.model.errors import GatewayError, Reason
from gateway.model.governance import Cold, Frozen, Halted
from gateway.model.message import Message
from gateway.model.people import GrantRecord, UserRecord
from gateway.model.ports import (
    NOBODY,
    AdvanceTask,
    AgentRecord,
    BuryDelivery,
    Change,
    CreateTask,
    DeadDelivery,
    Delivery,
    DropAgent,
    DropCards,
    DropFrozen,
    DropHalted,
    DropPin,
    DropPushConfig,
    EndGrant,
    Fenced,
    Key,
    KeyRecord,
    PinRecord,
    PushQueue,
    PutAgent,
    PutApproval,
    PutCard,
    PutClient,
    PutFrozen,
    PutHalted,
    PutKey,
    PutPin,
    PutPushConfig,
    PutUpstreamContext,
    PutUser,
    Record,
    Release,
    ReplayDelivery,
    Reservation,
    Reserve,
    RevokeToken,
    SaveReply,
    SettleDelivery,
    Store,
    TaskQuery,
    TaskRow,
    TaskRows,
)
from gateway.model.provenance import CardRecord
from gateway.model.push import PushConfig
from gateway.model.task import ACTIVE
from gateway.stores.approvals import MemoryApprovals
from gateway.stores.clients import MemoryClients
from gateway.stores.governance import MemoryGovernance
from gateway.stores.people import MemoryPeople
from gateway.stores.problems import BadChange

log = logging.getLogger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Held:
    """A task and who executes it."""

    row: TaskRow
    node: str


_Queue = tuple[str, str, str]  # tenant, task, configuration


@dataclass(frozen=True, slots=True)
class _Queued:
    """An event that a webhook has not taken; `due` is None while an earlier one waits for the same webhook."""

    queued: int
    due: int | None
    attempts: int = 0
    problem: str | None = None


@dataclass(slots=True)
class _Tables:
    reservations: dict[Key, Reservation] = field(default_factory=dict)
    tasks: dict[tuple[str, str], _Held] = field(default_factory=dict)
    logs: dict[tuple[str, str], list[Record]] = field(default_factory=dict)
    configs: dict[tuple[str, str, str], PushConfig] = field(default_factory=dict)
    outbox: dict[_Queue, dict[int, _Queued]] = field(default_factory=dict)
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
    audit: list[AuditEntry] = field(default_factory=list)


class _Taken(Exception):
    def __init__(self, holder: Reservation) -> None:
        self.holder = holder


class _Transaction:
    """One commit: every write leaves behind how to undo it."""

    def __init__(self, tables: _Tables, now: int, node: str | None) -> None:
        self.tables = tables
        self.now = now
        self.node = node
        self._undo: list[Callable[[], object]] = []

    def put(self, table: dict[_K, _V], key: _K, value: _V) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def drop(self, table: dict[_K, _V], key: _K) -> None:
        if key in table:
            old = table.pop(key)
            self._undo.append(lambda: table.__setitem__(key, old))

    def extend(self, table: list[_V], rows: Iterable[_V]) -> None:
        size = len(table)
        self._undo.append(lambda: table.__delitem__(slice(size, None)))
        table.extend(rows)

    def undo(self) -> None:
        for step in reversed(self._undo):
            step()


def _reserve(tx: _Transaction, change: Reserve) -> None:
    holder = tx.tables.reservations.get(change.reservation.key)
    if holder is not None:
        raise _Taken(holder)
    tx.put(tx.tables.reservations, change.reservation.key, change.reservation)


def _release(tx: _Transaction, change: Release) -> None:
    held = tx.tables.reservations.get(change.key)
    if held is not None and not held.settled and held.reply is None:
        tx.drop(tx.tables.reservations, change.key)


def _save_reply(tx: _Transaction, change: SaveReply) -> None:
    _update_reservation(tx, change.key, reply=change.reply)


def _update_reservation(tx: _Transaction, key: Key | None, **changes: Any) -> None:
    if key is not None and (held := tx.tables.reservations.get(key)) is not None:
        tx.put(tx.tables.reservations, key, replace(held, **changes))


def _create_task(tx: _Transaction, change: CreateTask) -> None:
    row = change.row
    key = (row.tenant, row.id)
    if key in tx.tables.tasks:
        raise BadChange(f"there is a task {row.id} already")
    tx.put(tx.tables.tasks, key, _Held(row, change.node))
    tx.put(tx.tables.logs, key, [replace(record, at=tx.now) for record in change.records])
    for config in change.push:
        _put_push_config(tx, PutPushConfig(row.tenant, config.model_copy(update={"task_id": row.id})))
    _queue(tx, row, change.records)
    _update_reservation(tx, change.key, settled=True)


def _advance_task(tx: _Transaction, change: AdvanceTask) -> None:
    row = change.row
    key = (row.tenant, row.id)
    held = tx.tables.tasks.get(key)
    if held is None or held.row.fence != row.fence:
        raise Fenced
    if held.row.seq != row.seq - len(change.records):
        raise BadChange(f"task {row.id} stands at {held.row.seq}, not before {row.seq}")
    if held.row.task.status.state.terminal:
        raise BadChange(f"task {row.id} has ended")
    tx.put(tx.tables.tasks, key, _Held(row, tx.node or held.node))
    tx.extend(tx.tables.logs[key], [replace(record, at=tx.now) for record in change.records])
    if change.push:
        _queue(tx, row, change.records)
    _update_reservation(tx, change.key, settled=True)


def _queue(tx: _Transaction, row: TaskRow, records: tuple[Record, ...]) -> None:
    told = [record for record in records if not isinstance(record.event, Message)]
    for key in [key for key in tx.tables.configs if key[:2] == (row.tenant, row.id)]:
        for record in told:
            _enqueue(tx, key, record.seq)


def _enqueue(tx: _Transaction, key: _Queue, seq: int) -> None:
    """A webhook hears of one task in order: only the first of a queue has a time."""
    queue = tx.tables.outbox.get(key, {})
    tx.put(tx.tables.outbox, key, {**queue, seq: _Queued(tx.now, None if queue else tx.now)})


def _put_push_config(tx: _Transaction, change: PutPushConfig) -> None:
    config = change.config
    if config.id is None or config.task_id is None:
        raise BadChange("a push configuration needs its id and its task's")
    tx.put(tx.tables.configs, (change.tenant, config.task_id, config.id), config)


def _drop_push_config(tx: _Transaction, change: DropPushConfig) -> None:
    key = (change.tenant, change.task_id, change.id)
    tx.drop(tx.tables.configs, key)
    tx.drop(tx.tables.outbox, key)
    for id in [id for id, letter in tx.tables.dead.items() if (letter.tenant, letter.task_id, letter.config_id) == key]:
        tx.drop(tx.tables.dead, id)


def _put_upstream_context(tx: _Transaction, change: PutUpstreamContext) -> None:
    key = (change.tenant, change.owner, change.agent, change.context_id)
    tx.put(tx.tables.contexts, key, Upstream(change.url, context_id=change.upstream_context_id))


def _settle_delivery(tx: _Transaction, change: SettleDelivery) -> None:
    if change.retry_at is None:
        _take_out(tx, change)
        return
    key = (change.tenant, change.task_id, change.config_id)
    queue = tx.tables.outbox.get(key, {})
    if (held := queue.get(change.seq)) is not None:
        later = replace(held, due=change.retry_at, attempts=held.attempts + 1, problem=change.problem)
        tx.put(tx.tables.outbox, key, {**queue, change.seq: later})


def _take_out(tx: _Transaction, done: SettleDelivery | BuryDelivery) -> _Queued | None:
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


def _bury_delivery(tx: _Transaction, change: BuryDelivery) -> None:
    held = _take_out(tx, change)
    if held is None:
        return
    key = (change.tenant, change.task_id, change.config_id)
    tx.tables.last_dead += 1  # a number that was given is not given again, whatever becomes of this commit
    id, host = tx.tables.last_dead, tx.tables.configs[key].host
    letter = DeadDelivery(id, *key, change.seq, host, held.attempts + 1, change.problem, held.queued, change.at)
    tx.put(tx.tables.dead, id, letter)


def _replay_delivery(tx: _Transaction, change: ReplayDelivery) -> None:
    if (letter := tx.tables.dead.get(change.id)) is not None:
        tx.drop(tx.tables.dead, change.id)
        _enqueue(tx, (letter.tenant, letter.task_id, letter.config_id), letter.seq)


def _put_agent(tx: _Transaction, change: PutAgent) -> None:
    tx.put(tx.tables.agents, change.record.id, change.record)


def _drop_agent(tx: _Transaction, change: DropAgent) -> None:
    tx.drop(tx.tables.agents, change.id)


def _put_key(tx: _Transaction, change: PutKey) -> None:
    tx.put(tx.tables.keys, (change.record.tenant, change.record.id), change.record)


def _put_card(tx: _Transaction, change: PutCard) -> None:
    tx.put(tx.tables.cards, (change.record.agent, change.record.card_url), change.record)


def _drop_cards(tx: _Transaction, change: DropCards) -> None:
    for key in [key for key in tx.tables.cards if key[0] == change.agent]:
        tx.drop(tx.tables.cards, key)


def _put_pin(tx: _Transaction, change: PutPin) -> None:
    tx.put(tx.tables.pins, (change.record.server, change.record.kind, change.record.key), change.record)


def _drop_pin(tx: _Transaction, change: DropPin) -> None:
    tx.drop(tx.tables.pins, (change.server, change.kind, change.key))


def _put_approval(tx: _Transaction, change: PutApproval) -> None:
    found = tx.tables.approvals.get(change.approval.id)
    if (0 if found is None else found.revision) != change.before:
        raise Outdated(f"approval {change.approval.id} is not at revision {change.before}")
    tx.put(tx.tables.approvals, change.approval.id, change.approval)


def _revoke_token(tx: _Transaction, change: RevokeToken) -> None:
    for jti in [jti for jti, until in tx.tables.revoked.items() if until <= change.now]:
        tx.drop(tx.tables.revoked, jti)
    tx.put(tx.tables.revoked, change.token.jti, change.token.until)


_APPLY: dict[type[Any], Callable[[_Transaction, Any], None]] = {
    Reserve: _reserve,
    Release: _release,
    SaveReply: _save_reply,
    CreateTask: _create_task,
    AdvanceTask: _advance_task,
    PutPushConfig: _put_push_config,
    DropPushConfig: _drop_push_config,
    PutUpstreamContext: _put_upstream_context,
    SettleDelivery: _settle_delivery,
    BuryDelivery: _bury_delivery,
    ReplayDelivery: _replay_delivery,
    PutAgent: _put_agent,
    DropAgent: _drop_agent,
    PutKey: _put_key,
    PutPin: _put_pin,
    DropPin: _drop_pin,
    PutCard: _put_card,
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
}


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class MemoryStore(Store):
    """A store that lives as long as the process.

    `node` is for trying out a restart: advancing a task that an earlier life had begun makes it ours.
    """

    def __init__(self, *, now: Callable[[], int] = _wall_clock, node: str | None = None) -> None:
        self._tables = _Tables()
        self._now = now
        self._node = node
        self._closed = False
        tables = self._tables
        self._approvals = MemoryApprovals(tables.approvals)
        self._clients = MemoryClients(tables.clients, tables.revoked)
        self._governance = MemoryGovernance(tables.frozen, tables.halted)
        self._people = MemoryPeople(tables.users, tables.grants)

    @property
    def approvals(self) -> MemoryApprovals:
        return self._approvals

    @property
    def clients(self) -> MemoryClients:
        return self._clients

    @property
    def governance(self) -> MemoryGovernance:
        return self._governance

    @property
    def people(self) -> MemoryPeople:
        return self._people

    @property
    def trouble(self) -> str | None:
        return "The store is closed" if self._closed else None

    async def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> Reservation | None:
        if self._closed:
            raise GatewayError(Reason.UNAVAILABLE, "The store is closed")
        tx = _Transaction(self._tables, self._now(), self._node)
        try:
            for change in changes:
                _APPLY[type(change)](tx, change)
            tx.extend(self._tables.audit, records)
        except _Taken as taken:
            tx.undo()
            return taken.holder
        except BaseException:
            tx.undo()
            raise
        return None

    def later(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> bool:
        # Nothing in `commit` waits, so one step of the coroutine is all of it.
        try:
            self.commit(*changes, records=records).send(None)
        except StopIteration:
            pass
        except Exception:
            log.exception("a change that nobody waits for was not written")
        return not self._closed

    async def task(
        self, tenant: str, task_id: str, *, owner: str | None = None, agent: str | None = None
    ) -> TaskRow | None:
        held = self._tables.tasks.get((tenant, task_id))
        if held is None or owner not in (None, held.row.owner) or agent not in (None, held.row.agent):
            return None
        return held.row

    async def tasks(self, query: TaskQuery) -> TaskRows:
        rows = sorted(self._matching(query), key=_newest, reverse=True)
        page = [row for row in rows if query.after is None or _newest(row) < query.after]
        return TaskRows(page[: query.limit], len(rows), cut=False)  # they are in memory already

    def _matching(self, query: TaskQuery) -> Iterator[TaskRow]:
        for (tenant, _), held in self._tables.tasks.items():
            row = held.row
            if (
                (tenant, row.owner) == (query.tenant, query.owner)
                and query.agent in (None, row.agent)
                and query.context_id in (None, row.task.context_id)
                and query.state in (None, row.task.status.state)
                and (query.updated_since is None or row.updated >= query.updated_since)
            ):
                yield row

    async def waiting(
        self, limit: int, *, agent: str | None = None, owner: str | None = None, after: tuple[str, str] = ("", "")
    ) -> list[TaskRow]:
        found = [
            held.row
            for key, held in sorted(self._tables.tasks.items())
            if key > after
            and held.row.task.status.state.interrupted
            and (agent in (None, held.row.agent) or (held.row.trail is not None and agent in held.row.trail.agents))
            and owner in (None, held.row.owner)
        ]
        return found[:limit]

    async def in_tree(self, tenant: str, root: str, limit: int, *, after: str = "") -> list[TaskRow]:
        found = [
            held.row
            for (there, id), held in sorted(self._tables.tasks.items())
            if (there, held.row.trail is not None and held.row.trail.root) == (tenant, root)
            and id > after
            and not held.row.task.status.state.terminal
        ]
        return found[:limit]

    async def events(self, tenant: str, task_id: str, after: int) -> list[Record]:
        return [record for record in self._tables.logs.get((tenant, task_id), ()) if record.seq > after]

    async def reservation(
        self, tenant: str, principal: str, message_id: str, *, agent: str | None = None
    ) -> list[Reservation]:
        asked = (tenant, principal, message_id)
        return [
            held
            for key, held in sorted(self._tables.reservations.items(), key=lambda item: item[0].agent)
            if (key.tenant, key.principal, key.message_id) == asked and agent in (None, key.agent)
        ]

    async def upstream_context(self, tenant: str, owner: str, agent: str, context_id: str) -> Upstream | None:
        return self._tables.contexts.get((tenant, owner, agent, context_id))

    async def push_config(self, tenant: str, task_id: str, id: str) -> PushConfig | None:
        return self._tables.configs.get((tenant, task_id, id))

    async def push_configs(self, tenant: str, task_id: str, *, limit: int, after: str = "") -> list[PushConfig]:
        keys = [key for key in self._tables.configs if key[:2] == (tenant, task_id) and key[2] > after]
        return [self._tables.configs[key] for key in sorted(keys)[:limit]]

    async def claim(self, node: str, now: int, lease_until: int, limit: int) -> list[TaskRow]:
        # One process: a task of our own node is being worked on, whatever its lease says.
        claimed: list[TaskRow] = []
        for key, held in list(self._tables.tasks.items()):
            if held.node != node and held.row.task.status.state in ACTIVE and len(claimed) < limit:
                row = replace(held.row, fence=held.row.fence + 1)
                self._tables.tasks[key] = _Held(row, node)
                claimed.append(row)
        return claimed

    async def unsettled(self, before: int) -> list[Reservation]:
        held = self._tables.reservations.values()
        return sorted((r for r in held if r.at < before and not r.settled and r.reply is None), key=lambda r: r.at)

    async def due(
        self, now: int, limit: int, lease_ms: int, *, per_host: int = 2**31, busy: Mapping[str, int] = NOBODY
    ) -> list[Delivery]:
        tables, room, taken = self._tables, dict[str, int](), list[Delivery]()
        for key, seq, held in self._waiting():
            if held.due is None or held.due > now or len(taken) == limit:
                break
            host = tables.configs[key].host
            left = room.setdefault(host, per_host - busy.get(host, 0))
            if left > 0:
                room[host] = left - 1
                tables.outbox[key][seq] = replace(held, due=now + lease_ms)
                taken.append(self._delivery(key, seq, held))
        return taken

    def _waiting(self) -> list[tuple[_Queue, int, _Queued]]:
        """Of each queue the one that has its turn, what is due first before the rest."""
        turns = [
            (key, seq, held)
            for key, queue in self._tables.outbox.items()
            for seq, held in queue.items()
            if held.due is not None
        ]
        return sorted(turns, key=lambda turn: (turn[2].due, *turn[0]))

    def _delivery(self, key: _Queue, seq: int, held: _Queued) -> Delivery:
        tenant, task_id, _ = key
        body = next(record.body for record in self._tables.logs[tenant, task_id] if record.seq == seq)
        return Delivery(tenant, task_id, self._tables.configs[key], seq, body, held.attempts + 1, held.queued)

    async def queues(self, limit: int, *, tenant: str | None = None, owner: str | None = None) -> list[PushQueue]:
        return [
            PushQueue(
                *key,
                self._tables.configs[key].host,
                len(self._tables.outbox[key]),
                held.attempts,
                held.queued,
                held.due or 0,
                held.problem,
            )
            for key, _, held in self._waiting()
            if self._of(key[0], key[1], tenant, owner)
        ][:limit]

    async def dead(
        self, after: int, limit: int, *, tenant: str | None = None, owner: str | None = None, id: int | None = None
    ) -> list[DeadDelivery]:
        return [
            letter
            for letter in self._tables.dead.values()
            if letter.id > after and id in (None, letter.id) and self._of(letter.tenant, letter.task_id, tenant, owner)
        ][:limit]

    def _of(self, found: str, task_id: str, tenant: str | None, owner: str | None) -> bool:
        held = self._tables.tasks.get((found, task_id))
        return tenant in (None, found) and (owner is None or (held is not None and held.row.owner == owner))

    async def agents(self) -> list[AgentRecord]:
        return sorted(self._tables.agents.values(), key=lambda record: record.id)

    async def cards(self) -> list[CardRecord]:
        return [self._tables.cards[key] for key in sorted(self._tables.cards)]

    async def keys(self) -> list[KeyRecord]:
        return [self._tables.keys[key] for key in sorted(self._tables.keys)]

    async def pins(self) -> list[PinRecord]:
        return [self._tables.pins[key] for key in sorted(self._tables.pins)]

    async def audit(self, after: int, limit: int) -> list[tuple[int, AuditEntry]]:
        page = self._tables.audit[max(after, 0) : max(after, 0) + limit]
        return list(enumerate(page, max(after, 0) + 1))

    async def search_audit(self, query: AuditQuery) -> AuditPage:
        numbered = list(enumerate(self._tables.audit, 1))
        end = len(numbered) + 1 if query.before is None else query.before
        found = [(idx, each) for idx, each in reversed(numbered) if idx < end and query.matches(each)]
        more = found[query.limit - 1][0] if len(found) > query.limit else None
        return AuditPage(found[: query.limit], more)

    async def forget_subject(self, principal: str, record: Callable[[str], AuditEntry]) -> str | None:
        kept = self._tables.audit
        if not any(principal in (entry.principal, *entry.chain) for entry in kept):
            return None
        pseudonym = f"{principal.partition(':')[0]}:~{len(kept):032x}"
        kept[:] = [
            replace(
                entry,
                principal=pseudonym if entry.principal == principal else entry.principal,
                chain=tuple(pseudonym if each == principal else each for each in entry.chain),
            )
            for entry in kept
        ]
        await self.commit(records=(record(pseudonym),))
        return pseudonym

    async def aclose(self) -> None:
        self._closed = True


def _newest(row: TaskRow) -> tuple[int, str]:
    return row.updated, row.id
