"""The accept of a message: its idempotency key, the webhook that wants to be told and the audit intent, and how they
share a commit with what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from gateway.model.audit import AuditEntry
from gateway.model.changes import Change, CreateTask, PutApproval, PutPushConfig, Release, Reserve, SaveReply
from gateway.model.ports import Store
from gateway.model.rows import Reservation


class Held(Exception):
    """The message was accepted before: `holder` says what came of it. Nothing was written."""

    def __init__(self, holder: Reservation) -> None:
        super().__init__("accepted before")
        self.holder = holder


class Accept:
    """`write` makes it durable by itself; `commit` together with what the turn has to say, if that comes first (a new
    task brings its `push` along)."""

    __slots__ = ("_intent", "_push", "_reserve", "_spends", "_store", "_written")

    def __init__(
        self,
        store: Store,
        reserve: Reserve | None,
        intent: AuditEntry,
        push: PutPushConfig | None = None,
        spends: tuple[PutApproval, ...] = (),
    ) -> None:
        self._store = store
        self._push = push
        self._spends = spends
        self._reserve = reserve
        self._intent = intent
        self._written: asyncio.Future[Reservation | None] | None = None

    @property
    def owed(self) -> bool:
        """Neither written nor on its way."""
        return self._written is None

    @property
    def durable(self) -> bool:
        """The message is accepted: whatever happens now, it has to come to an end."""
        written = self._written
        return written is not None and written.done() and _refusal(written) is None

    def write(self) -> asyncio.Future[Reservation | None]:
        """On its way now, if it was not before."""
        if self._written is None:
            changes = [change for change in (self._reserve, self._push) if change is not None]
            written = self._store.commit(*changes, *self._spends, records=(self._intent,))
            self._written = asyncio.ensure_future(written)
        return self._written

    async def made(self) -> None:
        """Returns when the message is accepted, by itself or with something else. Raises Held."""
        written = self.write()
        if not written.done():
            await _over(written)
        holder = written.result()
        if holder is not None:
            raise Held(holder)

    def commit(self, *changes: Change, records: tuple[AuditEntry, ...]) -> Awaitable[Reservation | None]:
        """As the store's, never without the accept."""
        if self._written is None:
            if self._reserve is not None:
                changes = _behind(self._reserve, changes)
            written = self._store.commit(*changes, *self._spends, records=(self._intent, *records))
            self._written = asyncio.ensure_future(written)
            return self._written
        if self.durable:
            return self._store.commit(*changes, records=records)
        return self._after(changes, records)

    async def _after(self, changes: tuple[Change, ...], records: tuple[AuditEntry, ...]) -> Reservation | None:
        await self.made()
        return await self._store.commit(*changes, records=records)


async def _over(written: asyncio.Future[Reservation | None]) -> None:
    """Returns when the commit is over. Whoever waits may be canceled, a commit may not; this costs half a shield."""
    waiter = written.get_loop().create_future()
    written.add_done_callback(partial(_tell, waiter))
    await waiter


def _tell(waiter: asyncio.Future[None], written: asyncio.Future[Reservation | None]) -> None:
    if waiter.done():
        _refusal(written)  # nobody waits any more; what went wrong is not to be reported as overlooked
    else:
        waiter.set_result(None)


def problem(written: asyncio.Future[Reservation | None]) -> Exception | None:
    """Why a commit that has ended accepted nothing: Held, or what kept it from being written."""
    error = _refusal(written)
    return Held(error) if isinstance(error, Reservation) else error


def _refusal(written: asyncio.Future[Reservation | None]) -> Reservation | Exception | None:
    if written.cancelled():
        return RuntimeError("the event loop is closing")
    error = written.exception()
    return error if isinstance(error, Exception) else written.result()


def _behind(reserve: Reserve, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The key and what settles it as one row where that is possible."""
    held, first, rest = reserve.reservation, changes[0] if changes else None, changes[1:]
    if isinstance(first, SaveReply):
        return (Reserve(Reservation(held.key, held.digest, held.task_id, held.at, reply=first.reply)), *rest)
    if isinstance(first, CreateTask):
        settled = Reservation(held.key, held.digest, held.task_id, held.at, settled=True)
        return (Reserve(settled), CreateTask(first.row, first.node, first.records, push=first.push), *rest)
    if isinstance(first, Release):
        return rest
    return (reserve, *changes)
