"""One endpoint of an MCP server over HTTP: a message goes out, and what comes back is handed to its exchange.

Whatever headers go out are made here: the transport's own, MCP's, and those that the operator configured. There is no
place where a caller's headers could come in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn

from gateway.dialects.mcp import client as wire
from gateway.dialects.mcp.message import Response
from gateway.dialects.sse import Event, Reader
from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import PeerError, Tree
from gateway.model.trail import HOPS
from gateway.upstream.egress import CONNECT_TIMEOUT, Answer, Outbound, StreamAnswer
from gateway.upstream.mcp.clock import Clock
from gateway.upstream.mcp.exchange import Exchange
from gateway.upstream.mcp.limits import Limits
from gateway.upstream.secret import Secret, settle

_EVENTS = "text/event-stream"
# The clock of the call is the one that counts; this only ends what nobody waits for. An hour is what a person may take.
_LONGEST = 3600.0
# How long a credential from a file is believed. One that the server refuses is read again at once.
SECRET_SECONDS = 5.0
# Made by the transport or by MCP: an operator's header of this name would contradict the message.
OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "last-event-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Refused(PeerError):
    """A JSON-RPC error that came with an HTTP status other than 200."""

    def __init__(self, status: int, error: PeerError) -> None:
        super().__init__(error.code, error.message, error.data)
        self.status = status


class Unexpected(GatewayError):
    """An HTTP status without a JSON-RPC error: a server of another kind, or something in front of it."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(Reason.UPSTREAM_FAILED, message, retry_after=retry_after)
        self.status = status


class Broken(GatewayError):
    """A stream that ended without the answer. `last` is the id to go on from, `retry` seconds to wait before."""

    def __init__(self, last: str, retry: float) -> None:
        super().__init__(
            Reason.UPSTREAM_FAILED, "The server ended its answer too early", metadata={"delivered": "unknown"}
        )
        self.last = last
        self.retry = retry


class Endpoint:
    """`url` comes from the operator, or is `trusted=False`. `headers` are the operator's own, values by reference."""

    def __init__(
        self,
        url: str,
        egress: Outbound,
        limits: Limits,
        *,
        headers: Mapping[str, str | Secret],
        ours: Mapping[str, str],
        trusted: bool,
    ) -> None:
        self.url = url
        self.limits = limits
        self._egress = egress
        self._trusted = trusted
        self._configured = headers
        self._environ = ours
        self._common: dict[str, str] = {}
        self._changing = any(isinstance(each, Secret) and each.file is not None for each in headers.values())
        self._read_at = 0.0
        self.streams = False  # whether it has ever answered a call with a stream

    def moved(self, url: str) -> Endpoint:
        """Another endpoint of the same server, at the same origin."""
        return Endpoint(
            url,
            self._egress,
            self.limits,
            headers=self._configured,
            ours=self._environ,
            trusted=self._trusted,
        )

    async def call(self, body: bytes, headers: Tree, exchange: Exchange, *, quiet: bool = False) -> Tree:
        """Send a request and return its result. `quiet` says that nobody wants to hear anything before it.

        Raises PeerError, Refused (for an error with a status), Unexpected (for a status without an error), Broken, and
        GatewayError."""
        sent = self._headers(headers)
        if exchange.caller.hops:  # that a ring of gateways may end; it says nothing of anybody
            sent = {**sent, HOPS: str(exchange.caller.hops)}
        if quiet and not self.streams:
            return await self._at_once(body, sent, exchange)
        assert exchange.clock is not None
        async with in_time(exchange.clock), self._stream("POST", body, sent, _LONGEST) as answer:
            if answer.status != 200 or not is_stream(answer):
                exchange.clock.heard()
                whole = await answer.read(self.limits.answer_bytes)
                return self._judged(answer.status, answer.headers, whole, exchange)
            self.streams = True
            return await self.follow(answer, exchange)

    async def begin(self, body: bytes, exchange: Exchange) -> tuple[Tree, str | None]:
        """Send `initialize`; the result and the id of the session that the server opened, if it has such a thing."""
        assert exchange.clock is not None
        async with in_time(exchange.clock), self._stream("POST", body, self._headers({}), _LONGEST) as answer:
            id = answer.headers.get("mcp-session-id")
            if id is not None and not (id.isascii() and id.isprintable() and " " not in id and 0 < len(id) <= 1024):
                raise wire.failed("gave its session an id that is none")
            if answer.status == 200 and is_stream(answer):
                self.streams = True
                return await self.follow(answer, exchange), id
            whole = await answer.read(self.limits.answer_bytes)
            return self._judged(answer.status, answer.headers, whole, exchange), id

    async def _at_once(self, body: bytes, headers: dict[str, str], exchange: Exchange) -> Tree:
        """The way of nearly every call: one request, one answer, one look."""
        answer: Answer = await self._egress.post(
            self.url,
            body,
            headers,
            timeout=self.limits.call_seconds,
            limit=self.limits.answer_bytes,
            trusted=self._trusted,
        )
        if answer.status == 200 and is_stream(answer):
            self.streams = True
            reader = Reader(self.limits.answer_bytes)
            events = reader.feed(answer.body)
            if (result := await self._heard(events, exchange)) is not None:
                return result
            raise broken(reader, events[-1].id if events else "")
        return self._judged(answer.status, answer.headers, answer.body, exchange)

    async def resume(self, headers: Tree, exchange: Exchange, last: str) -> Tree:
        """Go on with a stream that broke off (2025-11-25, resumability: GET with Last-Event-ID)."""
        sent = {**self._headers(headers), "accept": _EVENTS, "last-event-id": last}
        assert exchange.clock is not None
        async with in_time(exchange.clock), self._stream("GET", None, sent, _LONGEST) as answer:
            if answer.status != 200 or not is_stream(answer):
                raise unexpected(answer.status, answer.headers)
            return await self.follow(answer, exchange)

    async def follow(self, answer: StreamAnswer, exchange: Exchange) -> Tree:
        """Read a stream until the answer is there. What belongs to the request goes to its caller on the way."""
        reader, last = Reader(self.limits.answer_bytes), ""
        chunks = aiter(answer.chunks)
        while (chunk := await _next(chunks, last)) is not None:
            if exchange.clock is not None:
                exchange.clock.heard()
            events = reader.feed(chunk)
            if events:
                last = events[-1].id or last
            if (result := await self._heard(events, exchange)) is not None:
                await answer.settle()
                return result
        raise broken(reader, last)

    async def _heard(self, events: list[Event], exchange: Exchange) -> Tree | None:
        for event in events:
            for message in wire.messages(tree_of(event.data)) if event.data else ():
                if (result := await exchange.take(message)) is not None:
                    return result
        return None

    async def tell(self, body: bytes, headers: Tree, seconds: float) -> None:
        """Send a notification or a response (sessions only). Anything but 2xx is an error."""
        answer = await self._egress.post(
            self.url, body, self._headers(headers), timeout=seconds, limit=64 * 1024, trusted=self._trusted
        )
        if not 200 <= answer.status < 300:
            raise unexpected(answer.status, answer.headers)

    async def delete(self, headers: Tree, seconds: float) -> None:
        """End a session; a server that does not allow it says 405, and that is well (2025-11-25, transports)."""
        await self._egress.request(
            "DELETE",
            self.url,
            None,
            self._headers(headers),
            timeout=seconds,
            limit=64 * 1024,
            trusted=self._trusted,
        )

    @asynccontextmanager
    async def listening(
        self, headers: Tree, idle: float, *, body: bytes | None = None, last: str = ""
    ) -> AsyncIterator[tuple[Reader, AsyncIterator[Event]]]:
        """A stream of its own: a GET, after event `last` of one that broke off, or the POST of `body`. Raises
        Unexpected when the server opens none."""
        method = "GET" if body is None else "POST"
        sent = self._headers(headers)
        if body is None:
            sent["accept"] = _EVENTS
            del sent["content-type"]
        if last:
            sent["last-event-id"] = last
        async with self._stream(method, body, sent, idle) as answer:
            if answer.status != 200 or not is_stream(answer):
                self._refuse(answer.status, answer.headers, await answer.read(64 * 1024))
            reader = Reader(self.limits.answer_bytes)
            yield reader, _events(reader, answer)

    def _stream(
        self, method: str, body: bytes | None, headers: dict[str, str], idle: float
    ) -> AbstractAsyncContextManager[StreamAnswer]:
        return self._egress.stream(
            method,
            self.url,
            body,
            headers,
            connect_timeout=CONNECT_TIMEOUT,
            idle_timeout=idle,
            trusted=self._trusted,
        )

    def _judged(self, status: int, headers: Mapping[str, str], body: bytes, exchange: Exchange) -> Tree:
        if status != 200:
            self._refuse(status, headers, body)
        tree = tree_of(body)
        result = wire.result(tree, exchange.id)
        if result is not None:
            return exchange.judged(result)
        for message in wire.messages(tree):
            if not isinstance(message, Response):
                continue  # an array may hold notifications too; without a stream they come too late for anybody
            return exchange.answered(message)
        raise wire.failed("answered without an answer")

    def _refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> NoReturn:
        if status in (401, 403):
            self._common = {}  # what was rotated is read again
            # Its WWW-Authenticate is about the gateway's credential: it is of no use to the caller, and not theirs.
            raise unexpected(status, headers)
        try:
            error = wire.unnamed_error(read(body))
        except GatewayError:
            error = None
        if error is None:
            raise unexpected(status, headers)
        raise Refused(status, error)

    def _headers(self, headers: Tree) -> dict[str, str]:
        if self._changing and asyncio.get_running_loop().time() > self._read_at + SECRET_SECONDS:
            self._common = {}
        if not self._common:
            self._read_at = asyncio.get_running_loop().time()
            self._common = {
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
                **configured(self._configured, self._environ),
            }
        return {**self._common, **headers}


def configured(headers: Mapping[str, str | Secret], ours: Mapping[str, str]) -> dict[str, str]:
    """The operator's headers for one server. Raises GatewayError(UNAVAILABLE) for one that cannot be sent."""
    found = {}
    for name, setting in headers.items():
        key, value = name.lower(), settle(setting, ours)
        if key in OURS or key.startswith("mcp-"):
            raise GatewayError(Reason.UNAVAILABLE, f"The header {name!r} is made by the gateway and cannot be set")
        if not value.isprintable() or not value.isascii() or not key.isascii():
            raise GatewayError(Reason.UNAVAILABLE, f"The value for the header {name!r} cannot stand in a header")
        found[key] = value
    return found


@asynccontextmanager
async def in_time(clock: Clock) -> AsyncIterator[None]:
    """The clock, saying so in our words."""
    try:
        async with clock:
            yield
    except TimeoutError as error:
        raise late() from error


def late() -> GatewayError:
    return GatewayError(Reason.UPSTREAM_TIMEOUT, "The server did not answer in time", metadata={"delivered": "unknown"})


def is_stream(answer: Answer | StreamAnswer) -> bool:
    return answer.headers.get("content-type", "").lower().startswith(_EVENTS)


async def _events(reader: Reader, answer: StreamAnswer) -> AsyncIterator[Event]:
    async for chunk in answer.chunks:
        for event in reader.feed(chunk):
            yield event


async def _next(chunks: AsyncIterator[bytes], last: str) -> bytes | None:
    """None at the end. A stream that can be gone on with may end in any way."""
    try:
        return await anext(chunks, None)
    except GatewayError as error:
        if not last or error.reason is not Reason.UPSTREAM_FAILED:
            raise
        return None


def tree_of(data: bytes) -> JSON:
    try:
        return read(data)
    except GatewayError as error:
        raise wire.failed(f"answered with something that is not strict JSON ({error.message})") from error


def unexpected(status: int, headers: Mapping[str, str]) -> Unexpected:
    after = headers.get("retry-after", "")
    what = "does not accept the gateway's credential" if status in (401, 403) else "did not answer as an MCP server"
    return Unexpected(
        status, f"The server {what} (HTTP {status})", float(after) if after.isdigit() and len(after) < 6 else None
    )


def broken(reader: Reader, last: str) -> Broken:
    return Broken(last, 1.0 if reader.retry is None else reader.retry / 1000)
