"""Everything in one SQLite file: the store of a gateway that is one process.

Who does what: `datafolder` and `schema` open the file, `writer` turns many commits into few transactions,
`changes` turns a change into rows and `rows` turns rows back, `readers` reads beside the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway.model.agent import Upstream
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.changes import Change
from gateway.model.ports import NOBODY, Store
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
from gateway.stores import auditlog, opencalls, outbox, rows, schema
from gateway.stores.approvals import SqliteApprovals
from gateway.stores.cards import cards
from gateway.stores.changes import Transaction, apply
from gateway.stores.clients import SqliteClients
from gateway.stores.datafolder import FolderLock, prepare
from gateway.stores.governance import SqliteGovernance
from gateway.stores.named_sql import SQL
from gateway.stores.people import SqlitePeople
from gateway.stores.pins import pins
from gateway.stores.readers import Readers
from gateway.stores.reservations import find
from gateway.stores.shares import SqliteShares
from gateway.stores.writer import Writer

# Reads share the machine with the loop: two keep a long ListTasks from standing in everybody's way, more would
# only compete for the GIL.
READERS = 2


async def open_sqlite(path: Path, *, now: Callable[[], int], node: str, host: str = "gateway") -> SqliteStore:
    """The store in the file `path`, made if need be. `node` is the id of this life of the process; `host` goes into the
    name of a new audit log.

    Raises StoreProblem when the file cannot be used; nothing is held then.
    """
    lock, transaction, writer, readers = await asyncio.to_thread(_open, path, now, node, host)
    return SqliteStore(path, lock, transaction, writer, Readers(readers))


def _open(
    path: Path, now: Callable[[], int], node: str, host: str
) -> tuple[FolderLock, Transaction, sqlite3.Connection, list[sqlite3.Connection]]:
    prepare(path)
    lock = FolderLock(path.parent)
    opened: list[sqlite3.Connection] = []
    try:
        opened.append(schema.open_writer(path))
        with schema.problems(path):
            # The lock on the folder says that nobody delivers them any more.
            opened[0].execute(SQL["free_deliveries"], {"now": now()})
            transaction = Transaction.of(opened[0], now, node, host)
        opened.extend(schema.open_reader(path) for _ in range(READERS))
    except BaseException:
        for connection in opened:
            connection.close()
        lock.release()
        raise
    return lock, transaction, opened[0], opened[1:]


class SqliteStore(Store):
    """Made by `open_sqlite`."""

    def __init__(
        self, path: Path, lock: FolderLock, transaction: Transaction, connection: sqlite3.Connection, readers: Readers
    ) -> None:
        self._path = path
        self._lock = lock
        self._transaction = transaction
        self._connection = connection
        self._read = self.read = readers.run
        self._readers = readers
        self._writer = Writer(connection, transaction)
        self._approvals = SqliteApprovals(self._write, self._read)
        self._clients = SqliteClients(self._read)
        self._governance = SqliteGovernance(self._write, self._read)
        self._people = SqlitePeople(self._write, self._read)
        self._shares = SqliteShares(self._read)

    @property
    def approvals(self) -> SqliteApprovals:
        return self._approvals

    @property
    def clients(self) -> SqliteClients:
        return self._clients

    @property
    def governance(self) -> SqliteGovernance:
        return self._governance

    @property
    def people(self) -> SqlitePeople:
        return self._people

    @property
    def shares(self) -> SqliteShares:
        return self._shares

    # For whoever makes a tree of the audit log (notary.py).

    @property
    def audit_log(self) -> auditlog.AuditLog:
        return self._transaction.audit

    def _write(self, work: Callable[[sqlite3.Cursor], Any]) -> asyncio.Future[Any]:
        return self._writer.submit(partial(work, self._transaction.cursor))

    write = _write

    @property
    def trouble(self) -> str | None:
        return self._writer.trouble

    def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> asyncio.Future[Reservation | None]:
        return self._writer.submit(partial(apply, self._transaction, changes, records))

    def later(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> bool:
        return self._writer.later(partial(apply, self._transaction, changes, records))

    async def task(
        self, tenant: str, task_id: str, *, owner: str | None = None, agent: str | None = None
    ) -> TaskRow | None:
        return await self._read(rows.task, tenant, task_id, owner, agent)

    async def tasks(self, query: TaskQuery) -> TaskRows:
        return await self._read(rows.tasks, query)

    async def waiting(
        self, limit: int, *, agent: str | None = None, principal: str | None = None, after: tuple[str, str] = ("", "")
    ) -> list[TaskRow]:
        return await self._read(rows.waiting, agent, principal, after, limit)

    async def in_tree(self, tenant: str, root: str, limit: int, *, after: str = "") -> list[TaskRow]:
        return await self._read(rows.in_tree, tenant, root, after, limit)

    async def events(self, tenant: str, task_id: str, after: int) -> list[Record]:
        return await self._read(rows.events, tenant, task_id, after)

    async def reservation(
        self, tenant: str, principal: str, message_id: str, *, agent: str | None = None
    ) -> list[Reservation]:
        recent = self._transaction.reservations.recent(tenant, principal, message_id)
        return await self._read(find, recent, tenant, principal, message_id, agent)

    async def upstream_context(self, tenant: str, owner: str, agent: str, context_id: str) -> Upstream | None:
        return await self._read(rows.upstream_context, tenant, owner, agent, context_id)

    async def push_config(self, tenant: str, task_id: str, id: str) -> PushConfig | None:
        return await self._read(outbox.push_config, tenant, task_id, id)

    async def push_configs(self, tenant: str, task_id: str, *, limit: int, after: str = "") -> list[PushConfig]:
        return await self._read(outbox.push_configs, tenant, task_id, after, limit)

    async def claim(self, node: str, now: int, lease_until: int, limit: int) -> list[TaskRow]:
        # The lock on the folder is the lease: a task of another node was left behind by an earlier life, and
        # one of ours is being worked on, whatever the clock says.
        claimed = await self._writer.submit(partial(_claim, self._transaction.cursor, node, limit))
        return await self._read(rows.tasks_by_id, claimed)

    async def unsettled(self, before: int) -> list[Reservation]:
        return await self._read(rows.unsettled, before)

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
        taking = outbox.Taking(now, limit, lease_ms, per_host, busy, silent)
        leased = await self._writer.submit(partial(taking.lease, self._transaction.cursor))
        return await self._read(outbox.deliveries, leased) if leased else []

    async def queues(self, limit: int, *, tenant: str | None = None, owner: str | None = None) -> list[PushQueue]:
        return await self._read(outbox.queues, limit, tenant, owner)

    async def dead(
        self, after: int, limit: int, *, tenant: str | None = None, owner: str | None = None, id: int | None = None
    ) -> list[DeadDelivery]:
        return await self._read(outbox.dead, after, limit, tenant, owner, id)

    async def agents(self) -> list[AgentRecord]:
        return await self._read(rows.agents)

    async def cards(self) -> list[CardRecord]:
        return await self._read(cards)

    async def keys(self) -> list[KeyRecord]:
        return await self._read(rows.keys)

    async def pins(self) -> list[PinRecord]:
        return await self._read(pins)

    async def audit(self, after: int, limit: int) -> list[tuple[int, AuditEntry]]:
        return await self._read(auditlog.read, after, limit)

    async def search_audit(self, query: AuditQuery) -> AuditPage:
        return await self._read(auditlog.search, query)

    async def left_open(self) -> list[AuditEntry]:
        return await self._read(opencalls.left_open, self.audit_log.began)

    async def forget_subject(self, principal: str, record: Callable[[str], AuditEntry]) -> str | None:
        pseudonym: str | None = await self._writer.submit(partial(_forget, self._transaction, principal, record))
        if pseudonym is not None:
            await asyncio.to_thread(schema.empty_log, self._path)
        return pseudonym

    async def aclose(self) -> None:
        await self._writer.aclose()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.close()
        # The last connection takes the write-ahead log into the database and deletes it.
        self._connection.close()
        self._lock.release()


def _claim(cursor: sqlite3.Cursor, node: str, limit: int) -> list[rows.Row]:
    found = cursor.execute(SQL["claimable"], {"node": node, "limit": limit}).fetchall()
    cursor.executemany(SQL["claim"], [(node, *key) for key in found])
    return found


def _forget(tx: Transaction, principal: str, record: Callable[[str], AuditEntry]) -> str | None:
    pseudonym = tx.subjects.erase(tx.cursor, principal)
    if pseudonym is not None:
        apply(tx, (), (record(pseudonym),))
    return pseudonym
