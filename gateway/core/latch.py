"""A value that comes once and that any number of others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Latch(Generic[T]):
    """Like a future whose waiters are independent: one that is canceled takes nothing away from the others, so
    nobody needs a shield, and a latch that nobody waits for costs nothing. `value` is None until it comes."""

    __slots__ = ("_waiters", "value")

    def __init__(self) -> None:
        self.value: T | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    def put(self, value: T) -> None:
        """The first value counts."""
        if self.value is not None:
            return
        self.value = value
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def __await__(self) -> Generator[Any, None, T]:
        if self.value is None:
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            yield from waiter
        assert self.value is not None
        return self.value
