"""Signs the audit log: every ten seconds or thousand entries, and at the end.

The checkpoint is made in a thread and written like any other row; nobody waits for it. `head` (the newest checkpoint)
and `closed` (how many entries there were at an orderly end) lie beside the keys, not in the database: whoever can write
to that alone can neither shorten the log nor add to it between two runs without being noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gateway.model.errors import GatewayError, Reason
from gateway.stores.auditlog import Rows, rows_after
from gateway.stores.named_sql import SQL
from gateway.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from gateway.stores.sealing import Sealed, Sealer
    from gateway.stores.witnesses import Witnesses

log = logging.getLogger(__name__)

SECONDS = 10.0  # at the latest; so much of the log is without a signature when the machine goes up in smoke
ENTRIES = 1_000
PAUSE_SECONDS = 1.0  # between two checkpoints, however much is written: a signature and a commit each
AT_ONCE = 4_096  # entries that wait for the tree meanwhile: under load a second has 17 000 of them, 14 MB
LAST_SECONDS = 3.0  # that witnesses have for the last head
WITNESS_MS = 60_000  # between two heads that the witnesses are shown
ROWS = 2_000  # at once, when entries are read back

CLOSED = "closed"

Announce: TypeAlias = Callable[[list[str], list[str], str], Awaitable[None]]
"""Says in the log that these keys are followed by those; the third is the word of the first ones for it."""


class Notary:
    """`folder` holds the keys. `trouble` says why nothing is signed any more; None while all is well."""

    def __init__(
        self,
        store: SqliteStore,
        folder: Path,
        now: Callable[[], int],
        witnesses: Witnesses | None = None,
    ) -> None:
        self._store = store
        self._witnesses = witnesses
        self._shown = 0  # the size of the head that the witnesses have seen
        self._show_at = 0
        self._folder = folder
        self._now = now
        self._wanted = asyncio.Event()
        self._ending = asyncio.Event()
        self._sealing = asyncio.Lock()
        self._sealer: Sealer | None = None
        self._signed = 0  # so many entries are under a checkpoint
        self._keeper: asyncio.Task[None] | None = None
        self.trouble: str | None = None

    async def start(self) -> None:
        """Before anything is written in this life of the process."""
        self._signed = await self._store.read(_size)
        closed = await asyncio.to_thread(self._reopen)
        began = self._store.audit_log.began
        if closed is not None and closed != began:
            await self._stop(f"the log had {closed} entries when it was closed, and has {began} now", keep=closed)
        self._store.audit_log.room = ENTRIES
        self._store.audit_log.full = self._wanted.set
        self._keeper = asyncio.create_task(self._keep(), name="audit-notary")

    async def aclose(self) -> None:
        """The last checkpoint. The store must still be open, and nobody writing to it."""
        if self._keeper is None:
            return
        # Not canceled: a checkpoint that is being made has taken its entries already.
        self._ending.set()
        self._wanted.set()
        await asyncio.wait({self._keeper})
        if self._store.trouble is not None:
            return  # it cannot be written to; the next life of the process signs what is there
        await self._store.commit()  # what was to be written later
        await self._try(self.seal)
        if self._sealer is not None and self.trouble is None:
            with contextlib.suppress(TimeoutError):  # a witness that is away must not keep the gateway from ending
                async with asyncio.timeout(LAST_SECONDS):
                    await self._show(self._sealer)
        if self.trouble is None and self._signed == self._store.audit_log.last:
            await asyncio.to_thread(self._close, self._signed)

    def forsake(self) -> None:
        """Leave everything as it stands, as a kill does."""
        if self._keeper is not None:
            self._keeper.cancel()

    async def _keep(self) -> None:
        while self.trouble is None:
            await _within(SECONDS, self._wanted)
            if self._ending.is_set():
                return
            self._wanted.clear()
            await self._try(self.seal)
            await self._pause()

    async def _pause(self) -> None:
        """Nothing is signed, but where much is written the tree takes it."""
        if self._sealer is None:  # what could not be loaded is not tried anew for each commit
            await _within(PAUSE_SECONDS, self._ending)
            return
        clock = asyncio.get_running_loop().time
        until, took = clock() + PAUSE_SECONDS, False
        while (left := until - clock()) > 0 and self.trouble is None and not self._ending.is_set():
            await _within(left, self._wanted)
            if self._wanted.is_set() and not self._ending.is_set():
                self._wanted.clear()
                await self._try(self._take)
                took = True
        if took:
            self._wanted.set()  # there is enough for a checkpoint, though nobody may say so again

    async def _try(self, act: Callable[[], Awaitable[None]]) -> None:
        if self._signed == self._store.audit_log.last:
            return
        from gateway.stores.sealing import Inconsistent

        try:
            await act()
        except Inconsistent as error:
            await self._stop(str(error))
        except Exception:
            log.exception("the audit log could not be signed; trying again")

    async def seal(self) -> None:
        """A checkpoint over all that is durable now, unless there is one. Raises Inconsistent and what the store or the
        keys raise."""
        if self.trouble is not None or self._signed == self._store.audit_log.last:
            return
        async with self._sealing:
            await self._seal(await self._loaded())

    async def _seal(self, sealer: Sealer) -> None:
        await self._taken(sealer, ENTRIES)
        await self._put(sealer, await asyncio.to_thread(sealer.seal))
        if self._now() >= self._show_at:
            await self._show(sealer)

    async def _take(self) -> None:
        async with self._sealing:
            await self._taken(await self._loaded(), AT_ONCE)

    async def _taken(self, sealer: Sealer, room: int) -> None:
        """The tree has all that is durable now, and the next call of `full` is `room` entries away."""
        upto = self._store.audit_log.last
        rows = self._store.audit_log.take(room)
        try:
            if rows is None:
                await self._read_back(sealer, upto)
            else:
                await self._grow(sealer, rows)
        except BaseException:
            self._store.audit_log.lose()
            raise

    async def _show(self, sealer: Sealer) -> None:
        """The newest head to the witnesses, and the head with their signatures into the database."""
        if self._witnesses is None or sealer.last is None or sealer.last.size == self._shown:
            return
        from gateway.stores.witnesses import Disputed

        self._show_at = self._now() + WITNESS_MS
        try:
            head = await self._witnesses.cosigned(sealer.last)
        except Disputed as error:
            await self._stop(str(error))
            return
        if head != sealer.last:
            await self._put(sealer, sealer.cosigned(head))
        await asyncio.to_thread(self._witnesses.tell, head)
        self._shown = head.size

    async def rotate(self, announce: Announce) -> list[str]:
        """New keys. `announce` writes into the log which they are; the checkpoint over that is signed by old and new
        ones, those after it by the new ones alone. Gives the new verifier keys. Raises GatewayError."""
        if self.trouble is not None:
            raise GatewayError(Reason.UNAVAILABLE, self.trouble)
        async with self._sealing:
            sealer = await self._loaded()
            before = sealer.public
            after, word = await asyncio.to_thread(sealer.follow)
            await announce(before, after, word)
            await self._seal(sealer)
            await asyncio.to_thread(sealer.advance)
        return after

    async def _put(self, sealer: Sealer, sealed: Sealed) -> None:
        from gateway.stores.sealing import put

        await self._store.write(partial(put, sealed, self._now()))
        await asyncio.to_thread(sealer.written, sealed)
        self._signed = sealed.checkpoint.size

    async def _loaded(self) -> Sealer:
        """At the first checkpoint: a gateway that does nothing needs no cryptography."""
        if self._sealer is None:
            from gateway.stores.sealing import Sealer

            sealer = Sealer(self._folder, self._store.audit_log.name, self._now)
            await self._store.read(sealer.load)
            self._sealer = sealer
        return self._sealer

    async def _read_back(self, sealer: Sealer, upto: int) -> None:
        while sealer.size < upto:
            rows: Rows = await self._store.read(rows_after, sealer.size, ROWS)
            rows = [(first, body) for first, body in rows if first <= upto]
            if not rows:
                break
            await self._grow(sealer, rows)

    async def _grow(self, sealer: Sealer, rows: Rows) -> None:
        while rows := await asyncio.to_thread(sealer.grow, rows):
            await self._put(sealer, await asyncio.to_thread(sealer.seal))

    async def _stop(self, why: str, keep: int | None = None) -> None:
        self.trouble = f"The audit log is not signed any more: {why}"
        log.error("%s. `gateway audit verify` shows what is wrong", self.trouble)
        if keep is not None:
            await asyncio.to_thread(self._close, keep)

    def _reopen(self) -> int | None:
        path = self._folder / CLOSED
        try:
            text = path.read_text().strip()
            path.unlink()
        except OSError:
            return None
        return int(text) if text.isdecimal() else -1

    def _close(self, size: int) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / CLOSED).write_text(f"{size}\n")


def _size(db: sqlite3.Connection) -> int:
    row = db.execute(SQL["last_checkpoint"]).fetchone()
    return 0 if row is None else int(row[0])


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Until it is set, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
