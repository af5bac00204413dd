"""Read-only connections, each lent to one thread at a time."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from gateway.model.errors import GatewayError, Reason

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """Runs read functions in threads. A read sees one state of the database, however many statements it has."""

    def __init__(self, connections: list[sqlite3.Connection]) -> None:
        self._connections = connections
        self._free: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for connection in connections:
            self._free.put(connection)
        self._threads = ThreadPoolExecutor(len(connections), "store-read")
        self._closed = False

    async def run(self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise GatewayError(Reason.UNAVAILABLE, "The store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self._run(read, *args, **kwargs))

    def _run(self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        db = self._free.get()
        try:
            db.execute("BEGIN")
            try:
                return read(db, *args, **kwargs)
            finally:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.exception("the store could not be read")
            raise GatewayError(Reason.UNAVAILABLE, "The store cannot read now", retry_after=1.0) from error
        finally:
            self._free.put(db)

    def close(self) -> None:
        """Waits for the reads that have begun."""
        self._closed = True
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()
