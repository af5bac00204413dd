"""How much one agent may have in hand: so many runs at once, so many waiting, and then a clear no."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

from gateway.model.errors import GatewayError, Reason


class Gate:
    """`enter` before anything is accepted (raises OVERLOADED at once when the queue is full), `async with` around
    the work (waits for a slot, first come first served), `leave` when the run is over."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self._free = concurrency
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._room = concurrency + queue
        self.inside = 0

    def enter(self, *, force: bool = False) -> None:
        """`force` is for work that was accepted in an earlier life and has a right to a place."""
        if self.inside >= self._room and not force:
            raise GatewayError(
                Reason.OVERLOADED, "This agent has too much in hand; try again in a moment", retry_after=1
            )
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    async def __aenter__(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the slot came in the same moment
            raise

    @asynccontextmanager
    async def outside(self) -> AsyncIterator[None]:
        """In the middle of the work, for as long as it waits for somebody: its place and its slot are for others."""
        self.leave()
        self._pass_on()
        slot = False
        try:
            yield
            await self.__aenter__()
            slot = True
        finally:
            self.inside += 1
            if not slot:
                self._free -= 1  # the work ends now, and is about to give back what it does not have

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        """A slot goes to whoever has waited longest, without being free in between."""
        if self._free < 0:
            self._free += 1
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
