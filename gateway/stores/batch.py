"""The requests of one transaction: executed without savepoints as long as all goes well.

A savepoint costs each request two statements and a copy of every page that it touches (9 µs a call). So a batch
runs without them. A request that fails before it has touched a row fails alone, at no cost; a key that is taken is
of this kind. When one fails later, the whole transaction is undone and the batch runs again, each request under a
savepoint of its own: so a bad one fails one caller, as ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

from gateway.stores.problems import BadChange

# Rows run for at most this long before the loop gets its turn (300–600 requests).
BATCH_SECONDS = 0.004

Work: TypeAlias = Callable[[], Any]

# Primary result codes that say something about the store, not about the request that met them.
STORE_FAULTS = {
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
PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL}


class Withdraw(Exception):
    """Raised by a request's work: undo its rows and answer with `answer`. Not an error."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class StoreFault(Exception):
    """The transaction cannot go on, whichever request it was that met the fault."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(slots=True, eq=False)
class Request:
    work: Work
    future: asyncio.Future[Any] | None  # None: nobody waits
    answer: Any = None
    error: Exception | None = None


def primary_code(error: BaseException) -> int:
    """The error's primary result code (the low byte of an extended one); 0 if SQLite did not give it."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


class Batch:
    """What is executed between BEGIN and COMMIT on `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.requests: list[Request] = []
        self._connection = connection
        self._cursor = connection.cursor()
        self._careful = 0  # so many of those that come next were in a batch that failed

    def execute(self, waiting: deque[Request]) -> bool:
        """Take requests from `waiting` until the time is up. False: the transaction has to be undone, and `undo`
        called. Raises StoreFault when it cannot go on at all."""
        until = perf_counter() + BATCH_SECONDS
        while waiting:
            request = waiting.popleft()
            self.requests.append(request)
            if self._careful:
                self._careful -= 1
                self._execute_alone(request)
            elif not self._execute(request):
                return False
            if perf_counter() > until:
                break
        return True

    def take_all(self, waiting: deque[Request]) -> None:
        """There is no transaction for anybody who waits."""
        self.requests.extend(waiting)
        waiting.clear()
        self._careful = 0

    def undo(self, waiting: deque[Request]) -> None:
        """The transaction was rolled back: its requests come next, each on its own."""
        self._careful = len(self.requests)
        waiting.extendleft(reversed(self.requests))
        self.requests.clear()

    def end(self) -> list[Request]:
        """The requests of the transaction that is over, however it ended."""
        ended, self.requests = self.requests, []
        return ended

    def close(self) -> None:
        """Let go of the connection."""
        self._cursor.close()

    def _execute(self, request: Request) -> bool:
        """Whether the transaction holds nothing that it should not."""
        before = self._connection.total_changes
        try:
            request.answer = request.work()
        except Exception as error:
            self._explain(request, error)
            return self._connection.total_changes == before
        return True

    def _execute_alone(self, request: Request) -> None:
        request.answer = request.error = None
        self._cursor.execute("SAVEPOINT request")
        try:
            request.answer = request.work()
        except Exception as error:
            self._explain(request, error)
            self._cursor.execute("ROLLBACK TO request")
        self._cursor.execute("RELEASE request")

    def _explain(self, request: Request, error: Exception) -> None:
        """What its caller is told. Raises StoreFault if the fault is not its own."""
        if isinstance(error, Withdraw):
            request.answer = error.answer
        elif isinstance(error, sqlite3.Error | ValueError | TypeError | OverflowError):
            if primary_code(error) in STORE_FAULTS or not self._connection.in_transaction:
                raise StoreFault(error) from error
            # What was wrong stays readable for the log, through the cause.
            request.error = BadChange(str(error))
            request.error.__cause__ = error
        else:
            request.error = error
