"""What changed at which server, for everybody who listens. One publisher per server, any number of readers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Change, Kind
from gateway.model.value import value

HEARTBEAT_SECONDS = 15  # silence after which a reader is told that there is none, to keep its connection alive
MAX_BACKLOG = 256  # changes that a reader may be behind; a list that changed twice has changed
MAX_READERS = 4096  # streams in all: each holds a connection and a small queue


@value
class News:
    """A list of `server` changed (`uri` None), or a resource did (the server's own URI). `said` means that the server
    says so, and that its list looks as before."""

    server: str
    kind: Kind
    uri: str | None = None
    said: bool = False


class Reader:
    """An async source of news, and of changes meant for this reader alone. `next` gives what there is, an empty tuple
    after a silence, None at the end."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._waiting: deque[News | Change] = deque()
        self._woken = asyncio.Event()
        self._over = False
        self.lost = False

    def put(self, news: News | Change) -> None:
        if news in self._waiting:
            return
        if len(self._waiting) >= MAX_BACKLOG:
            self.lost = self._over = True
        self._waiting.append(news)
        self._woken.set()

    def end(self) -> None:
        self._over = True
        self._woken.set()

    async def next(self) -> tuple[News | Change, ...] | None:
        if not self._waiting and not self._over:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                return ()
        self._woken.clear()
        if self._over:
            return None
        news = tuple(self._waiting)
        self._waiting.clear()
        return news

    def close(self) -> None:
        self._board.drop(self)


class Board:
    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self._closed = False

    def read(self) -> Reader:
        """Raises OVERLOADED beyond MAX_READERS."""
        if len(self._readers) >= MAX_READERS or self._closed:
            raise GatewayError(Reason.OVERLOADED, "Too many subscriptions are open here", retry_after=5)
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def drop(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def publish(self, news: Iterable[News]) -> None:
        for each in news:
            for reader in self._readers:
                reader.put(each)

    def close(self) -> None:
        """End every stream, and take no new one."""
        self._closed = True
        for reader in self._readers:
            reader.end()
