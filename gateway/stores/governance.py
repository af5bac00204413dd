"""What is frozen, what is used of limits, which labels conversations have: in memory or in the database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from gateway.model.changes import DropFrozen, DropHalted, PutFrozen, PutHalted
from gateway.model.governance import Cold, Frozen, Halted, Labelled, Usage
from gateway.stores.named_sql import SQL


class MemoryGovernance:
    def __init__(self, frozen: dict[tuple[Cold, str], Frozen], halted: dict[tuple[str, str], Halted]) -> None:
        self._frozen = frozen
        self._halted = halted
        self._usage: dict[tuple[str, str], Usage] = {}
        self._labels: dict[str, Labelled] = {}

    async def frozen(self) -> list[Frozen]:
        return [self._frozen[key] for key in sorted(self._frozen)]

    async def halted(self) -> list[Halted]:
        return [self._halted[key] for key in sorted(self._halted)]

    def spend(self, rows: Sequence[Usage], now: int) -> Awaitable[None]:
        self._usage.update({(row.limit, row.key): row for row in rows})
        self._usage = {key: row for key, row in self._usage.items() if row.until > now}
        return _done()

    async def usage(self) -> list[Usage]:
        return [self._usage[key] for key in sorted(self._usage)]

    def label(self, row: Labelled, before: int) -> Awaitable[None]:
        self._labels[row.conversation] = row
        self._labels = {name: each for name, each in self._labels.items() if each.at >= before}
        return _done()

    async def labels(self) -> list[Labelled]:
        return sorted(self._labels.values(), key=lambda row: (row.at, row.conversation))


def _done() -> Awaitable[None]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


class SqliteGovernance:
    """`submit` runs work in the next transaction, `read` runs a function with a connection of its own (sqlite.py)."""

    def __init__(
        self, submit: Callable[[Callable[[sqlite3.Cursor], Any]], Awaitable[Any]], read: Callable[..., Awaitable[Any]]
    ) -> None:
        self._submit = submit
        self._read = read

    async def frozen(self) -> list[Frozen]:
        found: list[Frozen] = await self._read(_frozen)
        return found

    async def halted(self) -> list[Halted]:
        found: list[Halted] = await self._read(_halted)
        return found

    def spend(self, rows: Sequence[Usage], now: int) -> Awaitable[None]:
        return self._submit(partial(_spend, tuple(rows), now))

    async def usage(self) -> list[Usage]:
        found: list[Usage] = await self._read(_usage)
        return found

    def label(self, row: Labelled, before: int) -> Awaitable[None]:
        return self._submit(partial(_label, row, before))

    async def labels(self) -> list[Labelled]:
        found: list[Labelled] = await self._read(_labels)
        return found


def put_frozen(cursor: sqlite3.Cursor, change: PutFrozen) -> None:
    record = change.record
    cursor.execute(SQL["freeze"], (record.kind.value, record.name, record.by, record.at, record.reason))


def drop_frozen(cursor: sqlite3.Cursor, change: DropFrozen) -> None:
    cursor.execute(SQL["thaw"], (change.kind.value, change.name))


def put_halted(cursor: sqlite3.Cursor, change: PutHalted) -> None:
    record = change.record
    cursor.execute(SQL["halt"], (record.tenant, record.root, record.rule, record.reason))


def drop_halted(cursor: sqlite3.Cursor, change: DropHalted) -> None:
    cursor.execute(SQL["forget_halted"], (change.tenant, change.root))


def _halted(db: sqlite3.Connection) -> list[Halted]:
    return [Halted(*row) for row in db.execute(SQL["halted"])]


def _frozen(db: sqlite3.Connection) -> list[Frozen]:
    return [Frozen(Cold(kind), *rest) for kind, *rest in db.execute(SQL["frozen"])]


def _spend(rows: tuple[Usage, ...], now: int, cursor: sqlite3.Cursor) -> None:
    cursor.execute(SQL["forget_usage"], (now,))
    cursor.executemany(SQL["spend"], [(row.limit, row.key, row.until, row.used) for row in rows if row.until > now])


def _usage(db: sqlite3.Connection) -> list[Usage]:
    return [Usage(*row) for row in db.execute(SQL["usage"])]


def _label(row: Labelled, before: int, cursor: sqlite3.Cursor) -> None:
    cursor.execute(SQL["forget_labels"], (before,))
    cursor.execute(SQL["label"], (row.conversation, " ".join(sorted(row.labels)), row.at))


def _labels(db: sqlite3.Connection) -> list[Labelled]:
    return [Labelled(name, frozenset(labels.split()), at) for name, labels, at in db.execute(SQL["labels"])]
