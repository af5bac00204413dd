"""The one writer: many requests, one fsync.

Requests queue up. Once per round of the event loop those that wait are executed, on the loop, in one
transaction; then a thread of its own runs COMMIT (the fsync, and now and then a checkpoint) while the loop
serves others. What arrives meanwhile is the next transaction. Rows on the loop and not in the thread: two
threads that both need the GIL for every row cost more than the rows (research/hotpath.md §2: 75–100 µs a call).

Each request stands under its own savepoint, so a bad one fails one caller. A failed COMMIT fails everybody in
it and acknowledges nothing. After a full disk the next transaction may succeed; after any other I/O error what
is on the disk is unknown, and the writer refuses until the process is started again.
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
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

from gateway.model.errors import GatewayError, Reason
from gateway.stores.problems import BadChange

log = logging.getLogger(__name__)

# Rows run for at most this long before the loop gets its turn (300–600 requests).
BATCH_SECONDS = 0.004
# What nobody waits for is written after this time, or with the next commit.
LATER_SECONDS = 0.004
# About a second of work: who would wait longer is better served by a refusal now.
WAITING_LIMIT = 8_192
# What nobody waits for cannot be refused, only lost, so it may queue up further.
QUEUE_LIMIT = 65_536
# How long another program (a person's sqlite3 shell) may hold the write lock before we call it a failure.
PATIENCE_MS = 5_000

Work: TypeAlias = Callable[[sqlite3.Cursor], Any]

# Primary result codes that say something about the store, not about the request that met them.
_STORE_FAULTS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}
# Those after which the next transaction starts from a known state.
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL}


class Withdraw(Exception):
    """Raised by a request's work: undo its rows and answer with `answer`. Not an error."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class _StoreFault(Exception):
    """The transaction cannot go on, whichever request it was that met the fault."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(slots=True, eq=False)
class _Request:
    work: Work
    future: asyncio.Future[Any] | None
    answer: Any = None
    error: Exception | None = None


def primary_code(error: BaseException) -> int:
    """The error's primary result code (the low byte of an extended one); 0 if SQLite did not give it."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


class Writer:
    """Owns `connection`. `on_lost` is called when a transaction did not become durable."""

    def __init__(self, connection: sqlite3.Connection, *, on_lost: Callable[[], object]) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Request] = deque()
        self._batch: list[_Request] = []
        self._busy = False  # a round is scheduled or a transaction is open
        self._wanted = False  # somebody in the queue waits
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: str | None = None
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
        self._queue.append(_Request(work, future))
        self._want()
        return future

    def later(self, work: Work) -> None:
        """`work` runs with the next transaction, soon. Failures go to the log."""
        if self._refusal is not None or len(self._queue) >= QUEUE_LIMIT:
            log.error("not written: %s", self._refusal or "too much is waiting already")
            return
        self._queue.append(_Request(work, None))
        if self._timer is None and not self._wanted:
            self._timer = self._loop.call_later(LATER_SECONDS, self._time_is_up)

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
            self._batch = list(self._queue)
            self._queue.clear()
            self._end(error)
            return
        try:
            self._execute_batch()
        except _StoreFault as fault:
            self._end(fault.error)
        except Exception as unexpected:
            log.exception("a transaction was given up")
            self._end(unexpected)
        else:
            self._jobs.put(("COMMIT", self._end))

    def _execute_batch(self) -> None:
        waiting, batch = self._queue, self._batch
        until = perf_counter() + BATCH_SECONDS
        while waiting:
            request = waiting.popleft()
            batch.append(request)
            self._execute(request)
            if perf_counter() > until:
                self._wanted = bool(waiting)
                break

    def _execute(self, request: _Request) -> None:
        execute = self._cursor.execute
        execute("SAVEPOINT request")
        try:
            request.answer = request.work(self._cursor)
        except Withdraw as withdraw:
            request.answer = withdraw.answer
            execute("ROLLBACK TO request")
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            if primary_code(error) in _STORE_FAULTS or not self._connection.in_transaction:
                raise _StoreFault(error) from error
            execute("ROLLBACK TO request")
            # What was wrong stays readable for the log, through the cause.
            request.error = BadChange(str(error))
            request.error.__cause__ = error
        except Exception as error:
            execute("ROLLBACK TO request")
            request.error = error
        execute("RELEASE request")

    def _end(self, error: BaseException | None) -> None:
        batch, self._batch = self._batch, []
        if error is not None:
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

    def _lost(self, error: BaseException, batch: list[_Request]) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._cursor.execute("ROLLBACK")
        if primary_code(error) in _STORE_FAULTS - _PASSING or self._connection.in_transaction:
            self._refusal = "The store failed and needs a restart"
            batch += self._queue
            self._queue.clear()
            self._wanted = False
        log.error("%d requests were not written: %s", len(batch), error)
        for request in batch:
            request.error = _unavailable(self._refusal or "The store cannot write now")
            request.error.__cause__ = error
        self._on_lost()

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


def _resolve(request: _Request) -> None:
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
