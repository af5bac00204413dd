"""One HTTP/1.1 connection from the client's side: a request goes out, its one answer comes in.

Bytes in, bytes out, and a clock that the owner runs: nothing here knows addresses, pools or rules. llhttp (through
httptools) parses; what it lets pass and a client must not is judged here. Sources: RFC 9110, RFC 9112.

    IDLE ── ask ──> HEAD ── head of a final answer ──> BODY ── its end ──> DONE ── nothing more came ──> IDLE
     └─ bytes that nobody asked for ──> UNASKED          everything else that can happen ──> CLOSED

Rule 1: a connection that is not exactly where it should be is closed, never used again: broken framing, more bytes
than the answer has, a request that was given up or not sent to its end.
Rule 2: an answer belongs to its `Exchange`, an object of its own. A reader that is late, or gone, has nothing to do
with what the connection does next.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
from enum import IntEnum
from typing import Protocol, cast

import httptools

from gateway.upstream.exchange import (
    CLOSED,
    LATE,
    MALFORMED,
    UNASKED,
    UNCERTIFIED,
    Exchange,
    Failed,
    refused_certificate,
)
from gateway.upstream.head import MAX_FIELDS, MAX_HEAD, Fields, joined, too_large

# A body up to this size goes out in one write with its head, a longer one in slices of it, as fast as they are taken.
UPLOAD_PIECE = 64 * 1024
# What waits for a slow reader before the socket is no longer read; one read more (256 KiB at most) may come on top.
MAX_AHEAD = 64 * 1024


class Owner(Protocol):
    """Who keeps connections: told when one needs the clock, is free (or no longer wanted), and when it is gone."""

    def wake_by(self, when: float) -> None: ...

    def back(self, connection: Connection, *, reusable: bool) -> None: ...

    def gone(self, connection: Connection) -> None: ...


class _State(IntEnum):
    IDLE = 0  # nothing is asked, nothing is owed
    HEAD = 1  # asked; the head of the final answer is not complete
    BODY = 2
    DONE = 3  # the answer is complete; the rest of what was read with it is still to be looked at
    UNASKED = 4  # holds bytes that answer nothing
    CLOSED = 5


# Bound once: looking up an enum member several times per call is measurable at this place.
_IDLE, _HEAD, _BODY, _DONE, _UNASKED, _CLOSED = _State


class _Stop(Exception):
    """Raised in the parser's callbacks: this is as far as it is read."""


class Connection(asyncio.Protocol):
    """A connection for one request at a time. `deadline` (loop time) is the owner's clock to look at.

    `sock` is its socket when the bytes on it are plain HTTP, None under TLS.
    """

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, sock: socket.socket | None) -> None:
        self.deadline = math.inf
        self._owner = owner
        self._loop = loop
        self._sock = sock
        self._poll = select.poll()
        if sock is not None:
            self._poll.register(sock, select.POLLIN)
        self._state: _State = _IDLE
        self._exchange: Exchange | None = None
        self._served = False  # a whole answer came over it before
        self._keep = True  # what the present answer says about using it again
        self._fields: Fields = []
        self._bare = 0  # bytes read since the request, or since the last piece of body: head and framing
        self._paused = False  # reading
        self._uploading = False
        self._drained: asyncio.Future[None] | None = None
        self._full = False  # the write buffer

    # From the owner and its callers

    async def ask(self, head: bytes, body: bytes, until: float, *, enough: int, asked_head: bool) -> Exchange:
        """Send a request; return when the head of the answer and `enough` bytes of its body (or all) are there.

        It fails at `until` (loop time). Raises Failed; then, and when it is cancelled, the connection is closed.
        """
        if self._state is not _IDLE:
            self.close()
            self._owner.back(self, reusable=False)
            raise Failed(UNASKED, sent=False)
        exchange = self._exchange = Exchange(self, enough=enough, asked_head=asked_head)
        self._state = _HEAD
        # What the server of a new connection says first is nobody else's answer, so it may be taken for ours. But the
        # true one then comes later, and must not meet the next caller.
        self._keep = self._served or not self._poll.poll(0)
        self._bare = 0
        try:
            if len(body) <= UPLOAD_PIECE:
                self.transport.write(head + body)
            else:
                await self._upload(exchange, head, body, until)
            if not exchange.ended and exchange.failure is None:
                await self.wait(exchange, until)
        except BaseException:
            self.close()
            raise
        if exchange.failure is not None:
            raise exchange.failure
        return exchange

    async def wait(self, exchange: Exchange, until: float) -> None:
        """Until the exchange has what it waits for. While nobody waits, no deadline runs: a slow reader is no fault
        of the server."""
        waiter = exchange.waiter = self._loop.create_future()
        self.deadline = until
        self._owner.wake_by(until)
        try:
            await waiter
        finally:
            exchange.waiter = None
            if self._exchange is exchange:
                self.deadline = math.inf

    def read_on(self, exchange: Exchange) -> None:
        if self._paused and self._exchange is exchange:
            self._paused = False
            self.transport.resume_reading()

    def give_up(self, exchange: Exchange) -> None:
        if self._exchange is exchange:
            self.close()

    @property
    def closed(self) -> bool:
        return self._state is _CLOSED

    def idle(self) -> bool:
        """Whether it can be asked. One that holds unasked bytes can, so that somebody hears of it.

        Looks at the socket itself (1 µs): on a busy loop the server's goodbye may have waited there for a while, and
        a POST that is sent after it is lost for good. Under TLS only the loop can tell what bytes mean.
        """
        if self._state is _IDLE and self._poll.poll(0):
            self._peek()
        return self._state is _IDLE or self._state is _UNASKED

    def _peek(self) -> None:
        assert self._sock is not None
        try:
            found = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        if found:
            self._take_note()
        else:
            self.close()

    def expire(self) -> None:
        """The deadline has passed: of the exchange, or of idleness."""
        self._fail(Failed(LATE, late=True))

    def close(self) -> None:
        """At once and without a word: nothing that is still to be written has a reader."""
        self._fail(Failed(CLOSED))

    # The request

    async def _upload(self, exchange: Exchange, head: bytes, body: bytes, until: float) -> None:
        """Slice by slice, as fast as the server takes them; the rest is kept back if it has answered already."""
        self.deadline = until
        self._owner.wake_by(until)
        self._uploading = True
        self.transport.write(head)
        view = memoryview(body)
        for at in range(0, len(body), UPLOAD_PIECE):
            if self._full:
                self._drained = self._loop.create_future()
                await self._drained
            if self._exchange is not exchange:
                return
            self.transport.write(view[at : at + UPLOAD_PIECE])
        self._uploading = False

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # The answer: transport -> parser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self._take_note()
            return
        before = exchange.size
        self._bare += len(data)  # before the parser runs: its callbacks look at it
        whole = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            if cause is not None and not isinstance(cause, _Stop):
                raise cause from None  # a fault of ours: the loop logs it and closes
            whole = False
        state = self._state
        if state is _DONE:
            self._finish(exchange, reusable=whole and self._keep and not self._uploading)
        elif not whole or self._too_bare(exchange.size != before):
            self._fail(Failed(MALFORMED))
        elif state is _BODY and exchange.size >= exchange.enough:
            _wake(exchange)
            if exchange.size > MAX_AHEAD and not self._paused:
                self._paused = True
                self.transport.pause_reading()

    def _too_bare(self, brought_body: bool) -> bool:
        if brought_body:
            self._bare = 0
        return self._bare > MAX_HEAD

    def _take_note(self) -> None:
        if self._state is _IDLE:
            self._state = _UNASKED
            self.transport.pause_reading()  # one read of it is enough to know

    def connection_lost(self, error: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.until_close and error is None:
            self._finish(exchange, reusable=False)
        else:
            self._fail(self._broken(error))
        del self._parser  # which holds our methods
        self._owner.gone(self)

    def _broken(self, error: Exception | None) -> Failed:
        silent = self._state is _HEAD and self._bare == 0
        if self._served or self._sock is not None or not silent:
            return Failed(CLOSED, stale=self._served and silent)
        alert = refused_certificate(error)
        if alert is not None:
            return Failed(alert, sent=False)  # who is not let in was not listened to
        return Failed(f"{CLOSED}, {UNCERTIFIED}")

    # Parser -> exchange. An exception in here reaches data_received as the context of a parser error.

    def on_message_begin(self) -> None:
        if self._state is not _HEAD:
            raise _Stop  # a second answer, or what pretends to be one

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state is _HEAD:  # trailer fields are dropped
            if len(self._fields) == MAX_FIELDS:
                raise _Stop
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange, fields, status = self._exchange, self._fields, self._parser.get_status_code()
        self._fields = []
        if 100 <= status < 200 and status != 101:
            return  # RFC 9110 §15.2: the final answer is still to come
        # Nobody asked for another protocol (101). Only a read that is long enough needs counting.
        if exchange is None or status < 200 or (self._bare > MAX_HEAD and too_large(fields)):
            raise _Stop
        exchange.status = status
        exchange.headers = joined(fields)
        self._state = _BODY
        if status != 204 and status != 304:  # these have no body, and llhttp knows
            self._frame(exchange)
        if exchange.asked_head:
            # llhttp does not know the question, and now waits for a body. `_finish` takes a new one.
            self._keep = self._keep and self._parser.should_keep_alive()
            self._state = _DONE

    def _frame(self, exchange: Exchange) -> None:
        """RFC 9112 §6.3; llhttp has refused contradicting and malformed lengths already."""
        coding, length = exchange.headers.get("transfer-encoding"), exchange.headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise _Stop  # compressed for the hop, or chunked twice: nothing that we have offered
            # §6.1: HTTP/1.0 with it is faulty framing; what follows on the connection is not to be trusted.
            self._keep = self._keep and self._parser.get_http_version() == "1.1"
        elif length is not None:
            exchange.length = int(length)
            if exchange.length >= exchange.enough:
                exchange.enough = 0  # more than was wanted: say so before it comes
        else:
            exchange.until_close = not exchange.asked_head

    def on_body(self, data: bytes) -> None:
        if self._state is not _BODY or self._exchange is None:
            raise _Stop
        self._exchange.put(data)

    def on_message_complete(self) -> None:
        if self._state is _BODY:
            self._keep = self._keep and self._parser.should_keep_alive()
            self._state = _DONE

    # How it ends

    def _finish(self, exchange: Exchange, *, reusable: bool) -> None:
        exchange.ended = True
        self._exchange = None
        self._served = True
        if reusable:
            if exchange.asked_head:
                self._parser = httptools.HttpResponseParser(self)
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            self._state = _IDLE
        self._over(exchange, reusable=reusable)

    def _fail(self, failure: Failed) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self._shut()
        else:
            exchange.failure = failure
            self._over(exchange, reusable=False)

    def _over(self, exchange: Exchange, *, reusable: bool) -> None:
        if not reusable:
            self._shut()
        self._owner.back(self, reusable=reusable)
        _wake(exchange)
        self.resume_writing()  # an upload that waits looks up and sees that it is over

    def _shut(self) -> None:
        if self._state is not _CLOSED:
            self._state = _CLOSED
            self.transport.abort()


def _wake(exchange: Exchange) -> None:
    waiter = exchange.waiter
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
