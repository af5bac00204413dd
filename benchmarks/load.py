"""The load generator: so many connections, each sending its next request when the last one is answered.

It runs in the program that says `python -m benchmarks`, on a core of its own, and reports its share of that core:
near 1.0 it was the generator that was measured, and not the server.
"""

from __future__ import annotations

import asyncio
import resource
from array import array
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol, cast

import httptools

from benchmarks import machine
from benchmarks.answers import Answer, fault
from benchmarks.calls import Target
from benchmarks.figures import percentile

TIMEOUT_S = 30.0
SAMPLE_CHARACTERS = 600  # of the first wrong answer: enough to see what a server says about itself


@dataclass(slots=True)
class Round:
    """What one stretch of load brought."""

    seconds: float
    requests: int
    p50_ms: float
    p99_ms: float
    generator_cpu: float  # share of a core
    server_cpu_s: float | None = None  # where the system tells
    errors: dict[str, int] = field(default_factory=dict)
    first_error: str | None = None

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float | None:
        """Processor time of the server per request."""
        if self.server_cpu_s is None or not self.requests:
            return None
        return self.server_cpu_s / self.requests * 1e6


async def run(target: Target, *, connections: int, seconds: float, warm_up: float, server: int | None = None) -> Round:
    """Load for `warm_up` + `seconds`. Only the latter is measured, but errors count from the beginning.

    `server` is the process whose processor time is read."""
    load = _Load(target)
    await asyncio.gather(*(load.connect() for _ in range(connections)))
    guard = asyncio.create_task(load.guard())
    try:
        return await measured(load, seconds, warm_up, server)
    finally:
        load.stop()
        guard.cancel()


class Loading(Protocol):
    """Load that is under way: what its calls have taken, and what was wrong."""

    latencies: array[float]
    errors: Counter[str]
    first_error: str | None


async def measured(load: Loading, seconds: float, warm_up: float, server: int | None) -> Round:
    """A stretch of it, after the warm-up."""
    await asyncio.sleep(warm_up)
    load.latencies = array("d")
    began, own, theirs = perf_counter(), _cpu(), _cpu_of(server)
    await asyncio.sleep(seconds)
    lasted, used, spent = perf_counter() - began, _cpu() - own, _cpu_of(server)
    taken = sorted(load.latencies)
    p50, p99 = (percentile(taken, share) * 1000 if taken else 0.0 for share in (0.50, 0.99))
    return Round(
        lasted, len(taken), p50, p99, used / lasted, None if theirs is None or spent is None else spent - theirs,
        dict(load.errors), load.first_error,
    )  # fmt: skip


async def one(target: Target) -> str | None:
    """One request on a connection of its own; what was wrong with the answer, None if nothing was."""
    load = _Load(target)
    load.once = asyncio.get_running_loop().create_future()
    await load.connect()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await load.once
    finally:
        load.stop()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cpu_of(server: int | None) -> float | None:
    return None if server is None else machine.cpu_seconds(server)


class _Load:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.latencies = array("d")
        self.errors: Counter[str] = Counter()
        self.first_error: str | None = None
        self.once: asyncio.Future[str | None] | None = None
        self.stopped = False
        self._connections: set[_Connection] = set()
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), self.target.host, self.target.port)
        self._connections.add(connection)
        connection.send()

    def answered(self, connection: _Connection, answer: Answer) -> None:
        taken = perf_counter() - connection.sent
        if self.stopped:
            return
        wrong = fault(answer, self.target.call, connection.number)
        if self.once is not None:
            self.once.set_result(wrong)
            return
        if wrong is None:
            self.latencies.append(taken)
        else:
            self.failed(wrong, answer.body)
        if connection.reusable:
            connection.send()
        else:
            connection.close()

    def failed(self, kind: str, sample: bytes = b"") -> None:
        self.errors[kind] += 1
        if self.first_error is None:
            self.first_error = f"{kind}: {sample[:SAMPLE_CHARACTERS].decode('utf-8', 'replace')}"

    def lost(self, connection: _Connection) -> None:
        """A server may close a connection between two answers; during one it is an error."""
        self._connections.discard(connection)
        if self.stopped:
            return
        if connection.waiting:
            self.failed("connection closed")
            if self.once is not None:
                self.once.set_result("connection closed")
                return
        again = asyncio.get_running_loop().create_task(self._reconnect())
        self._reconnecting.add(again)
        again.add_done_callback(self._reconnecting.discard)

    async def _reconnect(self) -> None:
        while not self.stopped:
            try:
                return await self.connect()
            except OSError as error:
                self.failed(f"connect: {type(error).__name__}")
                await asyncio.sleep(0.2)

    async def guard(self) -> None:
        """Gives up on answers that do not come."""
        while True:
            await asyncio.sleep(1)
            for connection in tuple(self._connections):
                if connection.waiting and perf_counter() - connection.sent > TIMEOUT_S:
                    connection.waiting = False
                    self.failed("timeout")
                    connection.close()

    def stop(self) -> None:
        self.stopped = True
        for connection in tuple(self._connections):
            connection.close()


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self.waiting = False
        self.reusable = True
        self.number = 0
        self.sent = 0.0
        self._chunks: list[bytes] = []
        self._streamed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self._parser = httptools.HttpResponseParser(self)

    def send(self) -> None:
        self.number, request = self._load.target.request()
        self.waiting = True
        self._chunks, self._streamed = [], False
        self.sent = perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.waiting = False
            self._load.failed("not HTTP", data)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._streamed = value.startswith(b"text/event-stream")

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        self.waiting = False
        self.reusable = bool(self._parser.should_keep_alive())
        self._load.answered(self, Answer(self._parser.get_status_code(), self._streamed, b"".join(self._chunks)))
