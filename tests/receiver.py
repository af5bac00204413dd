"""A webhook on a loopback port that remembers what it was told and answers what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.serving import BOUND


@dataclass(frozen=True)
class Told:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def tree(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Receiver:
    port: int = 0
    statuses: list[int] = field(default_factory=list)  # answers in order; then 200
    told: list[Told] = field(default_factory=list)
    hold: asyncio.Event | None = None  # while unset, no request is answered
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, count: int) -> list[Told]:
        """All requests once there are `count` of them."""
        async with asyncio.timeout(BOUND), self._news:
            await self._news.wait_for(lambda: len(self.told) >= count)
            return list(self.told)

    async def ended(self, id: str) -> list[Told]:
        """All requests once the end of the task has come."""
        async with asyncio.timeout(BOUND), self._news:
            await self._news.wait_for(lambda: any(_ends(told.tree, id) for told in self.told))
            return list(self.told)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                async with self._news:
                    self.told.append(Told(head[0], headers, body, time.monotonic()))
                    self._news.notify_all()
                if self.hold is not None:
                    await self.hold.wait()
                status = self.statuses.pop(0) if self.statuses else 200
                writer.write(b"HTTP/1.1 %d Told\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        for writer in self._writers:
            writer.close()


def _ends(tree: Any, id: str) -> bool:
    event = tree.get("statusUpdate") or tree.get("task") or (tree if tree.get("kind") == "task" else {})
    ended = ("COMPLETED", "FAILED", "CANCELED", "REJECTED")
    same = id in (event.get("taskId"), event.get("id"))
    return same and event["status"]["state"].removeprefix("TASK_STATE_").upper() in ended


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(statuses=list(statuses))
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        receiver.close()
