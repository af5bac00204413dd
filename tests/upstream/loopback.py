"""A real HTTP server on loopback whose answers a test writes down byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from tests.ports import reserved


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Upstream:
    """What the server has seen. `connections` counts accepted sockets: a canary must keep it at 0."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    close: Callable[[], Awaitable[None]] | None = None  # stop listening, and end what is open

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Script = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """A complete answer with content-length; `content_type="…"` becomes `content-type: …`."""
    fields = {"content-length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def always(data: bytes, *, then_close: bool = False) -> Script:
    """Answer every request with these bytes."""

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if then_close:
            writer.close()

    return script


@asynccontextmanager
async def serve(
    script: Script, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    seen = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while not writer.is_closing():
                request = await _read(reader)
                seen.requests.append(request)
                await script(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over: asyncio logs a handler that ends cancelled
        finally:
            writer.close()
            tasks.discard(task)

    async def close() -> None:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks)

    # A test that stops listening may call there still, or listen again: nobody else gets the port before the end.
    with reserved() if (host, port) == ("127.0.0.1", 0) else nullcontext(port) as own:
        server = await asyncio.start_server(connection, host, own, ssl=tls)
        seen.port, seen.close = server.sockets[0].getsockname()[1], close
        try:
            yield seen
        finally:
            await close()


@asynccontextmanager
async def canary(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Upstream]:
    """A server that nobody may reach: the test fails if a single connection was accepted."""
    async with serve(always(answer()), host=host, port=port) as seen:
        yield seen
        await asyncio.sleep(0)  # let an accepted socket show itself
        assert seen.connections == 0, "the canary was reached"


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, body)
