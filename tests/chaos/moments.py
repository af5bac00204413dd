"""When to kill: not only at random, but at the moments where something could fall between two chairs.

No hook in the gateway: the moments are seen from outside, in the bytes of its clients and of its files.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.wire import ANSWER_READ, EVENT_READ, FIRST_BYTE, REQUEST_SENT, Signals

AT_RANDOM = "at random"
LOG_WRITTEN = "log written"  # bytes of a commit are in the file, perhaps not yet on the disk
COMMITTED = "committed"  # a commit is durable and its callers have not been told
STARTING = "starting"  # in the middle of taking up what the life before left

MOMENTS = (REQUEST_SENT, COMMITTED, FIRST_BYTE, AT_RANDOM, LOG_WRITTEN, ANSWER_READ, STARTING, EVENT_READ)

PATIENCE_S = 3.0  # for the moment to come; then any moment is good enough


class Executioner:
    """Kills once per `strike`, as close to the moment as it can be seen."""

    def __init__(self, signals: Signals, database: Path, chance: random.Random) -> None:
        self._signals = signals
        self._database = database
        self._chance = chance

    async def strike(self, moment: str, kill: Callable[[], None]) -> str:
        """Returns the moment at which it was done: the one asked for, or `at random` when that did not come."""
        if moment == AT_RANDOM:
            await asyncio.sleep(self._chance.uniform(0, 0.3))
            kill()
            return moment
        if moment in (LOG_WRITTEN, COMMITTED):
            wait = threading.Event()
            watch = _Watch(self._database, moment, self._chance.randint(1, 20), wait)
            try:
                came = await asyncio.to_thread(watch.until_due, kill)
            finally:
                wait.set()
        else:
            came = await self._signaled(moment, kill)
        if not came:
            kill()
        return moment if came else AT_RANDOM

    async def _signaled(self, moment: str, kill: Callable[[], None]) -> bool:
        done = asyncio.Event()

        def act() -> None:
            kill()
            done.set()

        self._signals.arm(moment, self._chance.randint(1, 20), act)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await done.wait()
        except TimeoutError:
            self._signals.disarm()
        return done.is_set()


class _Watch:
    """Counts commits from outside and kills in its own thread, so that no event loop stands in between.

    The first page of the shared-memory file holds `iChange`, "incremented with each transaction" (SQLite, WAL-index
    file format); it moves after the log is synced and before the writer returns from COMMIT. The log file itself
    changes before that.
    """

    CHANGE = slice(8, 12)

    def __init__(self, database: Path, moment: str, nth: int, stop: threading.Event) -> None:
        self._log = Path(f"{database}-wal")
        self._index = Path(f"{database}-shm")
        self._moment = moment
        self._nth = nth
        self._stop = stop

    def until_due(self, kill: Callable[[], None]) -> bool:
        try:
            if self._moment == LOG_WRITTEN:
                return self._watch(self._written, kill)
            with self._index.open("rb") as file, mmap.mmap(file.fileno(), 12, access=mmap.ACCESS_READ) as page:
                return self._watch(lambda: page[self.CHANGE], kill)
        except (OSError, ValueError):  # no such file (yet)
            return False

    def _written(self) -> bytes:
        state = os.stat(self._log)
        return b"%d %d" % (state.st_size, state.st_mtime_ns)

    def _watch(self, look: Callable[[], bytes], kill: Callable[[], None]) -> bool:
        until = time.monotonic() + PATIENCE_S
        seen, left = look(), self._nth
        while time.monotonic() < until and not self._stop.is_set():
            now = look()
            if now != seen:
                seen, left = now, left - 1
                if left == 0:
                    kill()
                    return True
            time.sleep(0.00005)
        return False
