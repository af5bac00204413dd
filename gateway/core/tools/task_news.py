"""News of tasks for one subscription (ext-tasks, task status notifications)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing

from gateway.core.tools.news import Reader
from gateway.model.errors import GatewayError
from gateway.model.tool import TASK_CHANGED, Change, Tree

log = logging.getLogger(__name__)

MAX_TASKS = 64  # of one subscription: each is followed on its own
MAX_FOLLOWED = 2_000  # in all; a server's task costs a small request a second


class Followed:
    """How many tasks all subscriptions follow."""

    def __init__(self) -> None:
        self.count = 0


class TaskNews:
    """Puts `notifications/tasks` for each task into the subscription's own reader."""

    def __init__(self, reader: Reader, followed: Followed) -> None:
        self._reader = reader
        self._followed = followed
        self._following: dict[str, asyncio.Task[None]] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._following)

    def add(self, id: str, changes: AsyncIterator[Tree]) -> bool:
        """False when too many are followed; polling is always there."""
        if len(self._following) >= MAX_TASKS or self._followed.count >= MAX_FOLLOWED:
            return False
        self._followed.count += 1
        self._following[id] = asyncio.create_task(self._follow(changes), name="mcp-task")
        return True

    async def aclose(self) -> None:
        following = list(self._following.values())
        self._followed.count -= len(following)
        self._following.clear()
        for each in following:
            each.cancel()
        if following:
            await asyncio.wait(following)

    async def _follow(self, changes: AsyncIterator[Tree]) -> None:
        try:
            async with aclosing(changes):  # type: ignore[type-var]
                async for task in changes:
                    self._reader.put(Change(TASK_CHANGED, task))
        except GatewayError as error:
            # Its client still can poll, and will hear of it there.
            log.info("a task is not followed any more: %s", error.message)
