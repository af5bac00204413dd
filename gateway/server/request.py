"""One HTTP request as the doors see it, and the two kinds of answer: a whole one and a stream of events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from gateway.core.watch import Replay, Watch
from gateway.dialects.sse import COMMENT
from gateway.model.errors import GatewayError, invalid, whole_seconds
from gateway.model.rows import Record
from gateway.model.value import value
from gateway.server.cycle import fields

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

JSON_TYPE = b"application/json"
JSON_HEADERS: Headers = ((b"content-type", JSON_TYPE),)
# `no-store` and nginx's own switch: nothing on the way may keep or gather a stream (a2a.md: observed of the SDK).
STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


def peer_of(scope: Scope) -> str:
    """The address of the connection, whatever headers say."""
    client = scope.get("client")
    return str(client[0]) if client else ""


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query_string: bytes
    headers: dict[bytes, bytes]
    receive: Receive
    peer: str = ""  # the address of the connection

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Request:
        return cls(scope["method"], scope["path"], scope["query_string"], fields(scope), receive, peer_of(scope))

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def query(self) -> dict[str, str]:
        """Raises INVALID_PARAMS for a name that is there twice: readers differ about which of them counts."""
        if not self.query_string:
            return {}
        pairs = parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True)
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise invalid(twice[:100], "is in the query twice; send it once")
        return found

    @property
    def media_type(self) -> str:
        if self.headers.get(b"content-type") == JSON_TYPE:  # as nearly everybody writes it
            return "application/json"
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    @property
    def has_content(self) -> bool:
        """Whether a body was announced; without one there is no media type to judge (RFC 9112 §6.3)."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0").strip(b"0") != b""

    async def body(self) -> bytes:
        """The whole body. The edge has gathered and bounded it before the application is entered (edge.py)."""
        message = await self.receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await self.receive()
            body += message.get("body", b"")
        return body

    async def left(self) -> None:
        """Returns when the client has gone away."""
        while (await self.receive())["type"] != "http.disconnect":
            pass  # the rest of a body that nobody wants


@value
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    headers: Headers = JSON_HEADERS

    async def __call__(self, send: Send) -> None:
        # The cycle measures a whole body by itself, and so knows its headers again.
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers, "whole": True})
        await send({"type": "http.response.body", "body": self.body})


@value
class Stream:
    """Events as they come, one write per group. `frame` writes a record, `broken` what ends a stream too early.
    `ends` is for dialects whose streams end before their task does: after which record."""

    events: Watch | Replay
    request: Request
    frame: Callable[[Record], bytes]
    broken: Callable[[GatewayError], bytes]
    headers: Headers = STREAM_HEADERS
    ends: Callable[[Record], bool] | None = None

    async def __call__(self, send: Send) -> None:
        gone = asyncio.ensure_future(self.request.left())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            async for group in self.events:
                if gone.done():
                    return
                last = None if self.ends is None else self._last(group)
                shown = group if last is None else group[:last]
                body = b"".join(map(self.frame, shown)) if shown else COMMENT
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if last is not None:
                    break
        except GatewayError as error:
            await send({"type": "http.response.body", "body": self.broken(error), "more_body": True})
        finally:
            gone.cancel()
            await self.events.aclose()
        await send({"type": "http.response.body", "body": b""})

    def _last(self, group: Sequence[Record]) -> int | None:
        """How many records of a group are still to be sent, if the stream ends within it."""
        assert self.ends is not None
        return next((place for place, record in enumerate(group, 1) if self.ends(record)), None)


Answer: TypeAlias = Reply | Stream


def retry_after(error: GatewayError) -> Headers:
    return () if error.retry_after is None else ((b"retry-after", b"%d" % whole_seconds(error.retry_after)),)
