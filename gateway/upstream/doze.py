"""Waiting between two looks at a remote task: for a while, or until the agent rings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.model.errors import GatewayError
from gateway.model.ports import Bell

log = logging.getLogger(__name__)

# Between looks at a task whose agent has no streams, or whose stream broke.
POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
# A task that ends before so many looks is not worth a bell, which costs the agent a call.
MAX_LOOKS_WITHOUT_BELL = 2
# Once an agent has rung, a look is only for a ring that got lost.
RUNG_SECONDS = 30.0


class Doze:
    """`show` tells the agent of the bell, when one is wanted; an agent that takes none is polled."""

    def __init__(self, bell: Bell | None, show: Callable[[Bell], Awaitable[None]]) -> None:
        self._bell = bell
        self._show = show
        self._shown = False
        self._looks = 0

    async def wait(self, *, progress: bool) -> None:
        """`progress` says that something has moved since the last time, so it is looked again soon."""
        self._looks = 0 if progress else self._looks + 1
        if self._bell is None:
            await asyncio.sleep(self._pause())
            return
        if not self._shown and self._looks >= MAX_LOOKS_WITHOUT_BELL:
            await self._hang(self._bell)
        # However often it rings: the agent is not asked faster than it would be without.
        await asyncio.sleep(POLL_SECONDS[0])
        if await self._rings(self._pause() - POLL_SECONDS[0]):
            self._looks = 0

    def _pause(self) -> float:
        rang = self._bell is not None and self._bell.rang
        pauses = (*POLL_SECONDS, RUNG_SECONDS) if rang else POLL_SECONDS
        return pauses[min(self._looks, len(pauses) - 1)]

    async def _rings(self, seconds: float) -> bool:
        return self._bell is not None and await self._bell.wait(seconds)

    async def _hang(self, bell: Bell) -> None:
        self._shown = True
        try:
            await self._show(bell)
        except GatewayError as error:
            log.info("an agent takes no webhook of ours, so it is polled: %s", error.message)
            self._bell = None
