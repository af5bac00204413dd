"""The accept of a message: its idempotency key and the audit intent, and how they share a commit with what follows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.model.audit import AuditEntry
from gateway.model.ports import Change, CreateTask, Release, Reservation, Reserve, SaveReply, Store


class Held(Exception):
    """The message was accepted before: `holder` says what came of it. Nothing was written."""

    def __init__(self, holder: Reservation) -> None:
        super().__init__("accepted before")
        self.holder = holder


class Accept:
    """`write` makes it durable by itself; `commit` together with what the turn has to say, if that comes first.

    Raises Held from whichever learns it.
    """

    def __init__(self, store: Store, reserve: Reserve | None, intent: AuditEntry) -> None:
        self._store = store
        self._reserve = reserve
        self._intent = intent
        self._written: asyncio.Future[Reservation | None] | None = None
        self._merged = False

    @property
    def owed(self) -> bool:
        """Neither written nor on its way."""
        return self._written is None and not self._merged

    async def write(self) -> None:
        if self._merged:
            return
        if self._written is None:
            changes = () if self._reserve is None else (self._reserve,)
            self._written = asyncio.ensure_future(self._store.commit(*changes, records=(self._intent,)))
        # Shielded: whoever waits may be canceled, a commit may not.
        _check(await asyncio.shield(self._written))

    async def commit(self, changes: tuple[Change, ...], records: tuple[AuditEntry, ...]) -> None:
        if self._merged or self._written is not None:
            await self.write()
            await self._store.commit(*changes, records=records)
            return
        self._merged = True
        if self._reserve is not None:
            changes = _behind(self._reserve, changes)
        _check(await self._store.commit(*changes, records=(self._intent, *records)))


def _behind(reserve: Reserve, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The key and what settles it as one row where that is possible."""
    held, first, rest = reserve.reservation, changes[0] if changes else None, changes[1:]
    if isinstance(first, SaveReply):
        return (Reserve(replace(held, reply=first.reply)), *rest)
    if isinstance(first, CreateTask):
        return (Reserve(replace(held, settled=True)), replace(first, key=None), *rest)
    if isinstance(first, Release):
        return rest
    return (reserve, *changes)


def _check(holder: Reservation | None) -> None:
    if holder is not None:
        raise Held(holder)
