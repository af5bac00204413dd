"""A webhook on a loopback port that remembers what it was told and answers what a test wants, or misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from tests.serving import BOUND


class Fault(Enum):
    RESET = "the connection breaks in place of an answer"
    HANG = "no answer comes, however long"
    SLOW = "200, a byte at a time"
    ECHO = "200 with the validationToken, as one answers an ownership challenge"


@dataclass(frozen=True)
class Told:
    """One request as it came. `seq` is the number of the event in its task, as the message's id has it."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float

    answer: int | Fault = 200

    @property
    def tree(self) -> Any:
        return orjson.loads(self.body)

    @property
    def taken(self) -> bool:
        return self.answer in (200, Fault.SLOW)

    @property
    def seq(self) -> int:
        return int(self.headers["webhook-id"].split("-")[1])


@dataclass
class Receiver:
    port: int = 0
    statuses: list[int | Fault] = field(default_factory=list)  # answers in order; then `chance`, else 200
    chance: Callable[[], int | Fault] = lambda: 200
    headers: str = ""  # of every answer, each with its line break
    told: list[Told] = field(default_factory=list)
    hold: asyncio.Event | None = None  # while unset, no request is answered
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

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

    async def taken(self, id: str, count: int) -> list[Told]:
        """What came about a task once `count` of its events were taken, repeats and failures included."""
        async with asyncio.timeout(3 * BOUND), self._news:
            await self._news.wait_for(lambda: len({told.seq for told in self.about(id) if told.taken}) >= count)
            return self.about(id)

    def about(self, id: str) -> list[Told]:
        return [told for told in self.told if told.headers.get("webhook-id", "").startswith(id)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                answer = self.statuses.pop(0) if self.statuses else self.chance()
                async with self._news:
                    self.told.append(Told(head[0], headers, body, time.monotonic(), answer))
                    self._news.notify_all()
                if self.hold is not None:
                    await self.hold.wait()
                if not await self._answer(writer, head[0], answer):
                    break
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, line: str, answer: int | Fault) -> bool:
        """Whether the connection can be used again."""
        match answer:
            case Fault.RESET:
                writer.transport.abort()
                return False
            case Fault.HANG:
                await self._closing.wait()
                return False
            case Fault.SLOW:
                for byte in b"HTTP/1.1 200 Told\r\ncontent-length: 0\r\n\r\n":
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.001)
            case Fault.ECHO:
                token = line.split()[1].partition("validationToken=")[2].encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(token), token))
            case status:
                more = self.headers.encode()
                writer.write(b"HTTP/1.1 %d Told\r\n%bcontent-length: 0\r\n\r\n" % (status, more))
        await writer.drain()
        return True

    def close(self) -> None:
        self._closing.set()
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
async def receiving(*statuses: int | Fault, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(statuses=list(statuses), scheme="https" if tls else "http")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        receiver.close()
