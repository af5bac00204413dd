"""One request and its answer, as the application sees them (ASGI 3): what stands between the edge and the doors.

uvicorn's own cycle does the same for any application and any server. This one knows that the body is whole before the
application is entered (edge.py), and sends a head together with the first bytes behind it: one system call per answer
instead of two, and half the processor time. `whole` in a `http.response.start` is ours: the body follows at once. So is
`answer`: the stream is the answer to one call, and no news that go on.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Scope

log = logging.getLogger(__name__)

ANSWER = "gateway.answer"  # in the scope of such a stream

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BODILESS = frozenset({204, 304})  # RFC 9110 §6.4.1
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_FAILED = (
    b'{"error":{"code":500,"status":"INTERNAL","message":"The gateway failed to answer this request.","details":[]}}'
)


class Flow(Protocol):
    """Whether the client keeps up with what it is sent (uvicorn's FlowControl)."""

    write_paused: bool

    async def drain(self) -> None: ...

    def resume_reading(self) -> None: ...


class Cycle:
    """`run` enters the application once the request is whole. `on_response` is called when the answer is complete."""

    __slots__ = (
        "_bare",
        "_chunked",
        "_head",
        "_left",
        "_on_response",
        "_transport",
        "_waiter",
        "body",
        "disconnected",
        "flow",
        "keep_alive",
        "more_body",
        "response_complete",
        "scope",
        "started",
        "taken",
        "waiting_for_100_continue",
    )

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: Flow,
        *,
        keep_alive: bool,
        waiting_for_100_continue: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.scope = scope
        self.flow = flow
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = waiting_for_100_continue
        self.body = b""
        self.more_body = True
        self.taken = False  # the application has the body
        self.disconnected = False
        self.started = False  # the head of the answer is with the transport
        self.response_complete = False
        self._transport = transport
        self._on_response = on_response
        self._waiter: asyncio.Future[None] | None = None
        self._head: Message | None = None  # said by the application, not sent yet
        self._bare = False  # no body is sent, whatever the application says
        self._chunked = False
        self._left: int | None = None  # bytes that the announced Content-Length still lacks

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the application returned without completing its answer")
        except BaseException as error:
            log.error("the application failed on a request", exc_info=error)
            self._fail()

    def disconnect(self) -> None:
        """The client has gone."""
        self.disconnected = not self.response_complete
        self._wake()

    # What the application calls.

    async def receive(self) -> Message:
        """The body, whole; after it, when it happens, that the client has gone."""
        if not self.taken:
            self.taken = True
            body, self.body = self.body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._head is None and not self.started:
            self._head = message
            if not message.get("whole"):
                if message.get("answer"):
                    self.scope[ANSWER] = True
                # The head of a stream waits for its first bytes no longer than this round of the loop.
                asyncio.get_running_loop().call_soon(self._send_head)
        elif kind == "http.response.body" and not self.response_complete and (self.started or self._head is not None):
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} does not belong at this point of an answer")

    def _send_body(self, body: bytes, more: bool) -> None:
        head = b"" if self.started else self._begin(len(body), whole=not more)
        if self._bare:
            body = b""
        elif self._chunked:
            body = _chunk(body, last=not more)
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as its Content-Length says")
        if head or body:
            self._transport.write(head + body)
        if not more:
            self._complete()

    def _send_head(self) -> None:
        if self._head is not None and not self.disconnected:
            self._transport.write(self._begin(0, whole=False))

    def _begin(self, size: int, *, whole: bool) -> bytes:
        assert self._head is not None
        status, headers = self._head["status"], self._head.get("headers", ())
        block, length, chunked, close = _block(headers if type(headers) is tuple else tuple(map(tuple, headers)))
        self._head = None
        self.started = True
        self._bare = self.scope["method"] == "HEAD" or status in _BODILESS
        if close:
            self.keep_alive = False
        lines = [_STATUS_LINES[status], block]
        if not self.keep_alive and not close:
            lines.append(b"connection: close\r\n")
        if length is not None:
            self._left = length
        elif whole and status not in _BODILESS:
            lines.append(b"content-length: %d\r\n" % size)
        elif self._bare:
            pass  # how long the body would be is not known
        else:
            self._chunked = True
            if not chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _complete(self) -> None:
        self.response_complete = True
        self._wake()
        if not self.keep_alive:
            self._transport.close()
        self._on_response()

    def _fail(self) -> None:
        """What the application leaves open, the connection cannot go on with."""
        if self.response_complete or self.disconnected:
            return
        if self.started:
            self._transport.close()
            return
        self._head = {"status": 500, "headers": [(b"content-type", b"application/json"), (b"connection", b"close")]}
        self._send_body(_FAILED, more=False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _chunk(body: bytes, *, last: bool) -> bytes:
    """RFC 9112 §7.1. An empty chunk would be the last one."""
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return chunk + b"0\r\n\r\n" if last else chunk


@lru_cache(maxsize=256)  # nearly all answers have one of a handful of sets of headers
def _block(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[bytes, int | None, bool, bool]:
    """The header lines, and what they say: Content-Length, chunked, close."""
    lines: list[bytes] = []
    length, chunked, close = None, False, False
    for raw, value in headers:
        name = raw.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RuntimeError(f"{name!r} is not a header that can be sent")
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = value.lower() == b"chunked"
        elif name == b"connection":
            close = b"close" in value.lower()
        lines += (name, b": ", value, b"\r\n")
    return b"".join(lines), length, chunked, close


def fields(scope: dict[str, Any] | Scope) -> dict[bytes, bytes]:
    """The request's header fields by lower-case name. The edge has made them already; other servers have not."""
    known: dict[bytes, bytes] | None = scope.get("fields")
    return dict(scope["headers"]) if known is None else known
