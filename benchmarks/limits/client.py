"""The least an HTTP client in Python can be: asyncio.Protocol, httptools, a pool of connections.

No TLS, timeouts, limits, redirects or retries: it marks a limit and is for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast
from urllib.parse import urlsplit

import httptools


class Client:
    """POST to one origin, over as many connections as there are requests at the same time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self._head = f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode()
        self._head += b"content-type: application/json\r\n"
        self._idle: list[_Connection] = []
        self._loop = asyncio.get_running_loop()

    async def post(self, body: bytes) -> tuple[int, bytes]:
        connection = await self._connection()
        whole: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        connection.whole = whole
        connection.write(b"%scontent-length: %d\r\n\r\n%s" % (self._head, len(body), body))
        return await whole

    async def stream(self, body: bytes, headers: bytes) -> AsyncIterator[bytes]:
        """The chunks of the answer as they come."""
        connection = await self._connection()
        chunks: asyncio.Queue[bytes] = asyncio.Queue()
        connection.chunks = chunks
        connection.write(b"%s%scontent-length: %d\r\n\r\n%s" % (self._head, headers, len(body), body))
        while chunk := await chunks.get():
            yield chunk

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        _, connection = await self._loop.create_connection(lambda: _Connection(self._idle), self._host, self._port)
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle
        self._body: list[bytes] = []
        self.alive = True
        self.whole: asyncio.Future[tuple[int, bytes]] | None = None
        self.chunks: asyncio.Queue[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self.write = self._transport.write
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.alive = False
        if self.whole is not None:
            self.whole.set_exception(ConnectionError("closed"))
        if self.chunks is not None:
            self.chunks.put_nowait(b"")

    def on_message_begin(self) -> None:
        self._body = []

    def on_body(self, data: bytes) -> None:
        if self.chunks is not None:
            self.chunks.put_nowait(data)
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        whole, self.whole = self.whole, None
        chunks, self.chunks = self.chunks, None
        if self._parser.should_keep_alive():
            self._idle.append(self)
        else:
            self.alive = False
            self._transport.close()
        if chunks is not None:
            chunks.put_nowait(b"")
        elif whole is not None:
            whole.set_result((self._parser.get_status_code(), b"".join(self._body)))
