"""The keeper of one MCP server: reads its lists, listens for what it says of them, tries again with patience."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Sequence

from gateway.core.tools.catalogs import seconds_good
from gateway.core.tools.lists import LIST_CHANGED, hashes
from gateway.core.tools.news import Board, News
from gateway.core.tools.served import Served
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import ACKNOWLEDGED, Change, Kind

RETRY_SECONDS = (1, 2, 5, 15, 30, 60)  # after so many failures in a row
RUMOUR_SECONDS = 0.1  # what is said in a caller's session is mostly said on the gateway's own stream too: that first

_UPDATED = "notifications/resources/updated"


class Keeper:
    """`refresh` reads the lists and says whether that worked; `told` are told when the server says that they changed,
    before they are read."""

    def __init__(
        self,
        served: Served,
        board: Board,
        refresh: Callable[[Served], Awaitable[bool]],
        told: Sequence[Callable[[Served], None]],
    ) -> None:
        self._served = served
        self._board = board
        self._refresh = refresh
        self._told = told

    async def keep(self) -> None:
        while True:
            if await self._refresh(self._served):
                with contextlib.suppress(GatewayError):
                    await self._follow()
            # The stream broke, or the server cannot be read: look again, and never in a tight loop.
            await asyncio.sleep(_patience(self._served))

    async def _follow(self) -> None:
        """Listen until the server ends the stream or cannot be heard any more."""
        while True:
            self._served.rewatch.clear()
            reading = asyncio.ensure_future(self._read(frozenset(self._served.watched)))
            overhearing = asyncio.ensure_future(self._overhear())
            turning = asyncio.ensure_future(self._served.rewatch.wait())
            tasks = (reading, overhearing, turning)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if overhearing.done():
                    overhearing.result()
                if reading.done():
                    reading.result()
                    return
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _overhear(self) -> None:
        """Look again for each rumour that has not been looked into since."""
        while True:
            await self._served.rumour.wait()
            await asyncio.sleep(RUMOUR_SECONDS)
            self._served.rumour.clear()
            while self._served.rumours:
                await self._heard(Change(self._served.rumours.pop(), {}))

    async def _read(self, uris: frozenset[str]) -> None:
        try:
            async with contextlib.aclosing(self._served.server.changes(uris)) as changes:  # type: ignore[type-var]
                async for change in changes:
                    await self._heard(change)
        except GatewayError as error:
            if error.reason is not Reason.UNSUPPORTED_OPERATION:
                raise
            self._served.watching.set()
            await self._poll()

    async def _heard(self, change: Change) -> None:
        if change.method == ACKNOWLEDGED:
            self._served.watching.set()
            await self._look()  # what happened while nobody listened
        elif change.method in LIST_CHANGED:
            before = {kind: hashes(self._served.offered.get(kind)) for kind in LIST_CHANGED[change.method]}
            for told in self._told:
                told(self._served)
            await self._look()
            same = [kind for kind, old in before.items() if old == hashes(self._served.offered.get(kind))]
            self._board.publish(News(self._served.id, kind, said=True) for kind in same)
        elif change.method == _UPDATED and isinstance(uri := change.params.get("uri"), str):
            self._board.publish([News(self._served.id, Kind.RESOURCE, uri)])

    async def _look(self) -> None:
        """Refresh, or stop listening: a server that cannot be read is tried again with patience, not when it speaks."""
        if not await self._refresh(self._served):
            raise GatewayError(Reason.UPSTREAM_FAILED, self._served.problem or "")

    async def _poll(self) -> None:
        while True:
            catalog = self._served.catalog
            await asyncio.sleep(seconds_good(None if catalog is None else catalog.ttl_ms))
            await self._look()


def _patience(served: Served) -> float:
    """Seconds until a server that failed is tried again; each server its own, so that they do not come all at once."""
    base = RETRY_SECONDS[min(max(served.failures, 1), len(RETRY_SECONDS)) - 1]
    return base * (1 + (zlib.crc32(served.id.encode()) % 100) / 400)
