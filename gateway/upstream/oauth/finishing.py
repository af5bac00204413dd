"""What is asked of an issuer is taken to its end, even if whoever waits for it goes away.

It does not take a refresh token or a code a second time, so an answer that nobody reads would be the end of the
authorization that somebody has given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Finishing:
    def __init__(self) -> None:
        self._at_work: set[asyncio.Task[Any]] = set()

    async def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._at_work.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; nobody needs to hear of it then
