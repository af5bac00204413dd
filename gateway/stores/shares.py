"""Who may read whose task: in memory or in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.model.changes import DropShare, PutShare
from gateway.model.sharing import Share
from gateway.stores.named_sql import SQL


class MemoryShares:
    def __init__(self, shares: Mapping[tuple[str, str, str], Share]) -> None:
        self._shares = shares

    async def given(self, tenant: str, task_id: str, principal: str) -> Share | None:
        return self._shares.get((tenant, task_id, principal))

    async def of(self, tenant: str, task_id: str) -> list[Share]:
        return [self._shares[key] for key in sorted(self._shares) if key[:2] == (tenant, task_id)]


class SqliteShares:
    """`read` runs a function with a connection of its own (sqlite.py)."""

    def __init__(self, read: Callable[..., Awaitable[Any]]) -> None:
        self._read = read

    async def given(self, tenant: str, task_id: str, principal: str) -> Share | None:
        found: Share | None = await self._read(_given, tenant, task_id, principal)
        return found

    async def of(self, tenant: str, task_id: str) -> list[Share]:
        found: list[Share] = await self._read(_of, tenant, task_id)
        return found


def put_share(cursor: sqlite3.Cursor, change: PutShare) -> None:
    made = change.share
    values = (made.tenant, made.task_id, made.principal, made.owner, made.granted_by, made.created, made.until)
    cursor.execute(SQL["put_share"], values)


def drop_share(cursor: sqlite3.Cursor, change: DropShare) -> None:
    cursor.execute(SQL["drop_share"], (change.tenant, change.task_id, change.principal))


def _given(db: sqlite3.Connection, *key: str) -> Share | None:
    row = db.execute(SQL["share"], key).fetchone()
    return None if row is None else Share(*row)


def _of(db: sqlite3.Connection, *task: str) -> list[Share]:
    return [Share(*row) for row in db.execute(SQL["shares"], task)]
