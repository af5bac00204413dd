"""A store whose writers hear late of what they have written. Databases are like that: readers may be faster."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.stores.memory import MemoryStore


class Late(MemoryStore):
    """What is committed can be read at once; whoever committed it hears of it when the test says so."""

    def __init__(self) -> None:
        super().__init__(node="life-1")
        self.hear = asyncio.Event()
        self.hear.set()
        self.committed = asyncio.Event()

    async def commit(self, *changes: Any, records: Any = ()) -> Any:
        holder = await super().commit(*changes, records=records)
        self.committed.set()
        await self.hear.wait()
        return holder
