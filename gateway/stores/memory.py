"""Everything in dictionaries: for trials, and for other people's tests.

The contract is the port's (`model/ports.py`) except for the one word "durable". Nothing is ever forgotten, so
it is not meant for long service.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from gateway.model.agent import Upstream
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.changes import Change
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import NOBODY, Store
from gateway.model.principal import is_client
from gateway.model.provenance import CardRecord
from gateway.model.push import PushConfig
from gateway.model.rows import (
    AgentRecord,
    DeadDelivery,
    Delivery,
    KeyRecord,
    PinRecord,
    PushQueue,
    Record,
    Reservation,
    TaskQuery,
    TaskRow,
    TaskRows,
)
from gateway.model.task import ACTIVE
from gateway.stores.approvals import MemoryApprovals
from gateway.stores.clients import MemoryClients
from gateway.stores.governance import MemoryGovernance
from gateway.stores.people import MemoryPeople
from gateway.stores.shares import MemoryShares
from gateway.stores.tables import APPLY, Held, Queue, Queued, Tables, Taken, Transaction

log = logging.getLogger(__name__)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class MemoryStore(Store):
    """A store that lives as long as the process.

    `node` is for trying out a restart: advancing a task that an earlier life had begun makes it ours.
    """

    def __init__(self, *, now: Callable[[], int] = _wall_clock, node: str | None = None) -> None:
        self._tables = Tables()
        self._now = now
        self._node = node
        self._closed = False
        tables = self._tables
        self._approvals = MemoryApprovals(tables.approvals)
        self._clients = MemoryClients(tables.clients, tables.revoked)
        self._governance = MemoryGovernance(tables.frozen, tables.halted)
        self._people = MemoryPeople(tables.users, tables.grants)
        self._shares = MemoryShares(tables.shares)

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
    def shares(self) -> MemoryShares:
        return self._shares

    @property
    def trouble(self) -> str | None:
        return "The store is closed" if self._closed else None

    async def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> Reservation | None:
        if self._closed:
            raise GatewayError(Reason.UNAVAILABLE, "The store is closed")
        tx = Transaction(self._tables, self._now(), self._node)
        try:
            for change in changes:
                APPLY[type(change)](tx, change)
            tx.extend(self._tables.audit, records)
        except Taken as taken:
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
        self, limit: int, *, agent: str | None = None, principal: str | None = None, after: tuple[str, str] = ("", "")
    ) -> list[TaskRow]:
        found = [
            held.row
            for key, held in sorted(self._tables.tasks.items())
            if key > after
            and held.row.task.status.state.interrupted
            and (agent in (None, held.row.agent) or (held.row.trail is not None and agent in held.row.trail.agents))
            and principal in (None, held.row.owner, *held.row.callers)
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
                self._tables.tasks[key] = Held(row, node)
                claimed.append(row)
        return claimed

    async def unsettled(self, before: int) -> list[Reservation]:
        held = self._tables.reservations.values()
        return sorted((r for r in held if r.at < before and not r.settled and r.reply is None), key=lambda r: r.at)

    async def due(
        self,
        now: int,
        limit: int,
        lease_ms: int,
        *,
        per_host: int = 2**31,
        busy: Mapping[str, int] = NOBODY,
        silent: Collection[str] = frozenset(),
    ) -> list[Delivery]:
        tables, room, taken = self._tables, dict[str, int](), list[Delivery]()
        for key, seq, held in self._waiting():
            if held.due is None or held.due > now or len(taken) == limit:
                break
            if tables.tasks[key[:2]].row.owner in silent:
                continue
            host = tables.configs[key].host
            left = room.setdefault(host, per_host - busy.get(host, 0))
            if left > 0:
                room[host] = left - 1
                tables.outbox[key][seq] = replace(held, due=now + lease_ms)
                taken.append(self._delivery(key, seq, held))
        return taken

    def _waiting(self) -> list[tuple[Queue, int, Queued]]:
        """Of each queue the one that has its turn, what is due first before the rest."""
        turns = [
            (key, seq, held)
            for key, queue in self._tables.outbox.items()
            for seq, held in queue.items()
            if held.due is not None
        ]
        return sorted(turns, key=lambda turn: (turn[2].due, *turn[0]))

    def _delivery(self, key: Queue, seq: int, held: Queued) -> Delivery:
        tenant, task_id, _ = key
        body = next(record.body for record in self._tables.logs[tenant, task_id] if record.seq == seq)
        owner, config = self._tables.tasks[tenant, task_id].row.owner, self._tables.configs[key]
        return Delivery(tenant, task_id, owner, config, seq, body, held.attempts + 1, held.queued)

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

    async def left_open(self) -> list[AuditEntry]:
        return []  # it has one life

    async def forget_subject(self, principal: str, record: Callable[[str], AuditEntry]) -> str | None:
        kept = self._tables.audit
        if not any(principal in (entry.principal, *entry.chain) for entry in kept):
            return None

        def own(entry: AuditEntry) -> bool:
            return principal in (entry.principal, *entry.chain) and is_client(principal, entry.client or "")

        pseudonym = f"{principal.partition(':')[0]}:~{len(kept):032x}"
        kept[:] = [
            replace(
                entry,
                principal=pseudonym if entry.principal == principal else entry.principal,
                chain=tuple(pseudonym if each == principal else each for each in entry.chain),
                client=pseudonym if own(entry) else entry.client,
            )
            for entry in kept
        ]
        await self.commit(records=(record(pseudonym),))
        return pseudonym

    async def aclose(self) -> None:
        self._closed = True


def _newest(row: TaskRow) -> tuple[int, str]:
    return row.updated, row.id
