"""Everything in one SQLite file: the store of a gateway that is one process.

Who does what: `datafolder` and `schema` open the file, `writer` turns many commits into few transactions,
`changes` turns a change into rows and `rows` turns rows back, `readers` reads beside the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gateway.model.audit import AuditEntry
from gateway.model.ports import (
    AgentRecord,
    Change,
    Delivery,
    KeyRecord,
    Record,
    Reservation,
    Store,
    TaskQuery,
    TaskRow,
    TaskRows,
)
from gateway.model.push import PushConfig
from gateway.stores import changes, rows, schema
from gateway.stores.clients import SqliteClients
from gateway.stores.datafolder import FolderLock, prepare
from gateway.stores.named_sql import SQL
from gateway.stores.readers import Readers
from gateway.stores.writer import Writer

# Reads share the machine with the loop: two keep a long ListTasks from standing in everybody's way, more would
# only compete for the GIL.
READERS = 2


async def open_sqlite(path: Path, *, now: Callable[[], int], node: str) -> SqliteStore:
    """The store in the file `path`, made if need be. `node` is the id of this life of the process.

    Raises StoreProblem when the file cannot be used; nothing is held then.
    """
    lock, writer, readers = await asyncio.to_thread(_open, path, now())
    return SqliteStore(lock, writer, Readers(readers), now, node)


def _open(path: Path, now: int) -> tuple[FolderLock, sqlite3.Connection, list[sqlite3.Connection]]:
    prepare(path)
    lock = FolderLock(path.parent)
    opened: list[sqlite3.Connection] = []
    try:
        opened.append(schema.open_writer(path))
        # The lock on the folder says that nobody delivers them any more.
        opened[0].execute(SQL["free_deliveries"], {"now": now})
        opened.extend(schema.open_reader(path) for _ in range(READERS))
    except BaseException:
        for connection in opened:
            connection.close()
        lock.release()
        raise
    return lock, opened[0], opened[1:]


class SqliteStore(Store):
    """Made by `open_sqlite`."""

    def __init__(
        self,
        lock: FolderLock,
        connection: sqlite3.Connection,
        readers: Readers,
        now: Callable[[], int],
        node: str,
    ) -> None:
        self._lock = lock
        self._connection = connection
        self._read = readers.run
        self._readers = readers
        self._now = now
        self._node = node
        self._sizes = changes.Sizes()
        self._writer = Writer(connection, on_lost=self._sizes.clear)
        self._clients = SqliteClients(self._writer.submit, self._read)

    @property
    def clients(self) -> SqliteClients:
        return self._clients

    @property
    def trouble(self) -> str | None:
        return self._writer.trouble

    def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> asyncio.Future[Reservation | None]:
        return self._writer.submit(partial(self._apply, changes, records))

    def later(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> None:
        self._writer.later(partial(self._apply, changes, records))

    def _apply(self, wanted: Sequence[Change], records: Sequence[AuditEntry], cursor: sqlite3.Cursor) -> None:
        changes.apply(changes.Transaction(cursor, self._now(), self._node, self._sizes), wanted, records)

    async def task(
        self, tenant: str, task_id: str, *, owner: str | None = None, agent: str | None = None
    ) -> TaskRow | None:
        row = await self._read(rows.task, tenant, task_id)
        if row is None or owner not in (None, row.owner) or agent not in (None, row.agent):
            return None
        return row

    async def tasks(self, query: TaskQuery) -> TaskRows:
        return await self._read(rows.tasks, query)

    async def events(self, tenant: str, task_id: str, after: int) -> list[Record]:
        return await self._read(rows.events, tenant, task_id, after)

    async def reservation(
        self, tenant: str, principal: str, message_id: str, *, agent: str | None = None
    ) -> list[Reservation]:
        return await self._read(rows.reservations, tenant, principal, message_id, agent)

    async def upstream_context(self, tenant: str, owner: str, agent: str, context_id: str) -> str | None:
        return await self._read(rows.upstream_context, tenant, owner, agent, context_id)

    async def push_config(self, tenant: str, task_id: str, id: str) -> PushConfig | None:
        return await self._read(rows.push_config, tenant, task_id, id)

    async def push_configs(self, tenant: str, task_id: str, *, limit: int, after: str = "") -> list[PushConfig]:
        return await self._read(rows.push_configs, tenant, task_id, after, limit)

    async def claim(self, node: str, now: int, lease_until: int, limit: int) -> list[TaskRow]:
        # The lock on the folder is the lease: a task of another node was left behind by an earlier life, and
        # one of ours is being worked on, whatever the clock says.
        claimed = await self._writer.submit(partial(_claim, node, limit))
        return await self._read(rows.tasks_by_id, claimed)

    async def unsettled(self, before: int) -> list[Reservation]:
        return await self._read(rows.unsettled, before)

    async def due(self, now: int, limit: int, lease_ms: int) -> list[Delivery]:
        leased = await self._writer.submit(partial(_lease_deliveries, now, limit, lease_ms))
        return await self._read(rows.deliveries, leased) if leased else []

    async def agents(self) -> list[AgentRecord]:
        return await self._read(rows.agents)

    async def keys(self) -> list[KeyRecord]:
        return await self._read(rows.keys)

    async def audit(self, after: int, limit: int) -> list[tuple[int, AuditEntry]]:
        return await self._read(rows.audit, after, limit)

    async def aclose(self) -> None:
        await self._writer.aclose()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.close()
        # The last connection takes the write-ahead log into the database and deletes it.
        self._connection.close()
        self._lock.release()


def _claim(node: str, limit: int, cursor: sqlite3.Cursor) -> list[rows.Row]:
    found = cursor.execute(SQL["claimable"], {"node": node, "limit": limit}).fetchall()
    cursor.executemany(SQL["claim"], [(node, *key) for key in found])
    return found


def _lease_deliveries(now: int, limit: int, lease_ms: int, cursor: sqlite3.Cursor) -> list[rows.Row]:
    found = cursor.execute(SQL["due"], (now, limit)).fetchall()
    leases = [(now + lease_ms, *key) for *key, _ in found]
    cursor.executemany(SQL["lease_delivery"], leases)
    return found
