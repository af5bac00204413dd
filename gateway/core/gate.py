"""How much one agent may have in hand: so many runs at once, so many waiting, and then a clear no."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.model.errors import GatewayError, Reason


class Gate:
    """`enter` before anything is accepted (raises OVERLOADED at once when the queue is full), `async with` around
    the work (waits for a slot), `leave` when the run is over."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
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
        await self._slots.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._slots.release()
