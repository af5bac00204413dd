"""The one writer: many requests, one fsync.

Requests queue up. Once per round of the event loop those that wait are executed, on the loop, in one
transaction (`batch.py`); then a thread of its own runs COMMIT (the fsync, and now and then a checkpoint) while the
loop serves others. What arrives meanwhile is the next transaction. Rows on the loop and not in the thread: two
threads that both need the GIL for every row cost more than the rows (75–100 µs a call).

A bad request fails one caller. A failed COMMIT fails everybody in it and acknowledges nothing. After a full disk
the next transaction may succeed; after any other I/O error what is on the disk is unknown, and the writer refuses
until the process is started again. So it does when another process has taken the database over (sequence.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from gateway.model.errors import GatewayError, Reason
from gateway.stores.batch import PASSING, STORE_FAULTS, Batch, Request, StoreFault, Work, primary_code
from gateway.stores.sequence import Deposed

log = logging.getLogger(__name__)

# What nobody waits for is written after this time, or with the next commit.
LATER_SECONDS = 0.004
# About a second of work: who would wait longer is better served by a refusal now.
WAITING_LIMIT = 8_192
# What nobody waits for cannot be refused, only lost, so it may queue up further.
QUEUE_LIMIT = 65_536
# How long another program (a person's sqlite3 shell) may hold the write lock before we call it a failure.
PATIENCE_MS = 5_000


class Aside(Protocol):
    """What a transaction keeps in memory. It must never know more than the file, nor less once that is durable."""

    def finish(self, cursor: sqlite3.Cursor) -> None:
        """All requests are executed: the last rows, just before COMMIT. Raises Deposed."""
        ...

    def durable(self) -> None:
        """COMMIT has succeeded."""
        ...

    def undone(self) -> None:
        """Nothing that was executed since BEGIN has happened."""
        ...


class Writer:
    """Owns `connection`, and tells `aside` how its transactions go."""

    def __init__(self, connection: sqlite3.Connection, aside: Aside) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._aside = aside
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Request] = deque()
        self._batch = Batch(connection)
        self._busy = False  # a round is scheduled or a transaction is open
        self._wanted = False  # somebody in the queue waits
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: str | None = None
        self._failing = False  # the last transaction was not written; the next one may be
        self._idle: asyncio.Future[None] | None = None
        self._jobs: queue.SimpleQueue[tuple[str, Callable[[sqlite3.Error | None], None]] | None]
        self._jobs = queue.SimpleQueue()
        # A daemon: a process that forgets to close must be able to end.
        self._thread = threading.Thread(target=self._run_jobs, name="store-commit", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        return self._refusal

    # Requests.

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """`work` runs in the next transaction; the future has its answer once that is durable."""
        future = self._loop.create_future()
        if self._refusal is not None or len(self._queue) >= WAITING_LIMIT:
            future.set_exception(_unavailable(self._refusal or "The store has more to write than it can take"))
            return future
        self._queue.append(Request(work, future))
        self._want()
        return future

    def later(self, work: Work) -> bool:
        """`work` runs with the next transaction, soon. Failures go to the log. False: it is not even tried, or what was
        tried last could not be written, so nobody should count on it."""
        if self._refusal is not None or len(self._queue) >= QUEUE_LIMIT:
            log.error("not written: %s", self._refusal or "too much is waiting already")
            return False
        self._queue.append(Request(work, None))
        if self._timer is None and not self._wanted:
            self._timer = self._loop.call_later(LATER_SECONDS, self._time_is_up)
        return not self._failing

    async def aclose(self) -> None:
        """Write what waits, then end the thread. The connection stays open."""
        if self._refusal is None:
            self._refusal = "The store is closed"
        if self._queue:
            self._want()
        if self._busy:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
        if self._timer is not None:
            self._timer.cancel()
        self._jobs.put(None)
        self._thread.join()
        # One that still holds a BEGIN keeps the connection from being closed, and the write-ahead log on the disk.
        with contextlib.suppress(sqlite3.ProgrammingError):  # it is closed already
            self._cursor.close()
            self._batch.close()

    # The round.

    def _want(self) -> None:
        self._wanted = True
        if not self._busy:
            self._busy = True
            # Not at once: all requests of this round of the loop share the transaction.
            self._loop.call_soon(self._begin)

    def _time_is_up(self) -> None:
        self._timer = None
        if self._queue:
            self._want()

    def _begin(self) -> None:
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                self._jobs.put(("BEGIN IMMEDIATE", self._begun))
            else:
                self._begun(error)
        else:
            self._begun(None)

    def _begun(self, error: sqlite3.Error | None) -> None:
        self._wanted = False
        if error is not None:
            self._batch.take_all(self._queue)
            self._end(error)
            return
        try:
            if self._batch.execute(self._queue):
                self._aside.finish(self._cursor)
                self._wanted = bool(self._queue)
                self._jobs.put(("COMMIT", self._end))
            else:
                self._begin_again()
        except StoreFault as fault:
            self._end(fault.error)
        except (sqlite3.Error, Deposed) as error:
            self._end(error)
        except Exception as unexpected:
            log.exception("a transaction was given up")
            self._end(unexpected)

    def _begin_again(self) -> None:
        self._cursor.execute("ROLLBACK")
        self._aside.undone()
        self._batch.undo(self._queue)
        self._loop.call_soon(self._begin)

    def _end(self, error: BaseException | None) -> None:
        batch = self._batch.end()
        self._failing = error is not None
        if error is None:
            self._aside.durable()
        else:
            self._lost(error, batch)
        for request in batch:
            _resolve(request)
        if self._queue and (self._wanted or self._refusal is not None):
            # Not at once: whom we just woke may have more to write, which then shares the transaction.
            self._loop.call_soon(self._begin)
        else:
            self._busy = False
            if self._idle is not None:
                self._idle.set_result(None)

    def _lost(self, error: BaseException, batch: list[Request]) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._cursor.execute("ROLLBACK")
        why = self._why_no_more(error)
        if why is not None:
            self._refusal = why
            batch += self._queue
            self._queue.clear()
            self._wanted = False
        log.error("%d requests were not written: %s", len(batch), error)
        for request in batch:
            request.error = _unavailable(self._refusal or "The store cannot write now")
            request.error.__cause__ = error
        self._aside.undone()

    def _why_no_more(self, error: BaseException) -> str | None:
        """None: the next transaction may succeed."""
        if isinstance(error, Deposed):
            return "Another gateway has taken this database over"
        if primary_code(error) in STORE_FAULTS - PASSING or self._connection.in_transaction:
            return "The store failed and needs a restart"
        return None

    # The thread.

    def _run_jobs(self) -> None:
        for statement, then in iter(self._jobs.get, None):
            error = self._run_job(statement)
            # A loop that was closed over our head has no waiters left either.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(then, error)

    def _run_job(self, statement: str) -> sqlite3.Error | None:
        try:
            if statement == "COMMIT":
                self._connection.execute(statement)
            else:
                self._connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
                try:
                    self._connection.execute(statement)
                finally:
                    # The loop itself must never sit in SQLite's busy handler.
                    self._connection.execute("PRAGMA busy_timeout = 0")
        except sqlite3.Error as error:
            return error
        return None


def _resolve(request: Request) -> None:
    future, error = request.future, request.error
    if future is None:
        # When the store failed, `_lost` has said it once for all.
        if error is not None and not isinstance(error, GatewayError):
            log.error("a change that nobody waits for was not written", exc_info=error)
    elif not future.done():  # done: the waiter was cancelled; its rows are written all the same
        if error is None:
            future.set_result(request.answer)
        else:
            future.set_exception(error)


def _unavailable(sentence: str) -> GatewayError:
    return GatewayError(Reason.UNAVAILABLE, sentence, retry_after=1.0)
