"""The time one request may take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Clock:
    """`async with Clock(total, idle):` raises TimeoutError when the body takes more than `total` seconds, or `idle`
    seconds pass without a `heard()`. Within `stopped()` neither runs: somebody else's turn."""

    def __init__(self, total: float, idle: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = total
        self._idle = idle
        self._stops = 0
        self._started = self._loop.time()
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Clock:
        await self._timeout.__aenter__()
        self._started = self._loop.time()
        self._timeout.reschedule(self._started + min(self._left, self._idle))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._timeout.__aexit__(kind, error, trace)

    def heard(self) -> None:
        """A sign of life."""
        if not self._stops and not self._timeout.expired():
            now = self._loop.time()
            self._timeout.reschedule(min(self._started + self._left, now + self._idle))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self._stops += 1
        if self._stops == 1 and not self._timeout.expired():
            self._left -= self._loop.time() - self._started
            self._timeout.reschedule(None)
        try:
            yield
        finally:
            self._stops -= 1
            if not self._stops:
                self._started = self._loop.time()
                self.heard()
