"""The HTTP edge: uvicorn's httptools protocol with the doors closed that it leaves open.

Strategy: llhttp stays the parser (it refuses bare LF, obs-fold, bad tokens and CL+TE by itself); what it lets
pass is judged here when a head is complete, in one place and on the raw bytes. What uvicorn has no clock for
gets one.

Rule 1: the application is entered only with a whole, acceptable request. The body is gathered first (it is
small by rule), so a refusal can never meet a handler that has begun, and a slow body never occupies one.
Rule 2: a refusal is a small JSON answer, `connection: close`, and nothing further is parsed on that
connection.
Rule 3: one timer per server looks at all connections. A TimerHandle per request costs more than all judging
here.

Sources: RFC 9110 and 9112; the holes as measured: docs/adr and `tests/server/test_edge.py`. The Host
allow-list and the Origin check need configuration and live at ASGI level; this file only makes sure that
there is one sound Host.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal

import httptools
import uvicorn
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.server.cycle import Cycle
from gateway.server.head import EdgeLimits, Refused, judge_head, path_of, too_large, without_upgrade

DEFAULTS = EdgeLimits()
_ASGI = {"version": "3.0", "spec_version": "2.3"}


def _shortest(limits: EdgeLimits) -> float:
    return min(limits.head_deadline, limits.keep_alive, limits.body_deadline, limits.write_stall, limits.linger)


class Edge:
    """What the connections of one server share: the limits, the clock that enforces them, and who is told."""

    def __init__(self, limits: EdgeLimits, on_refused: Callable[[int], object]) -> None:
        self.limits = limits
        self.on_refused = on_refused
        self.connections: set[EdgeProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._interval = min(0.5, _shortest(limits) / 8)  # a deadline is at most an eighth late

    def enter(self, connection: EdgeProtocol, loop: asyncio.AbstractEventLoop) -> None:
        self.connections.add(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._interval, self._sweep, loop)

    def leave(self, connection: EdgeProtocol) -> None:
        self.connections.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        # Armed before looking: a surprise in one connection must not stop the clock of the others.
        self._timer = loop.call_later(self._interval, self._sweep, loop) if self.connections else None
        now = loop.time()
        for connection in tuple(self.connections):
            connection.check(now)
        self._shed()

    def _shed(self) -> None:
        """Cut off the slowest readers while all together have too much waiting for them."""
        waiting = [(size, connection) for connection in self.connections if (size := connection.unsent)]
        unsent = sum(size for size, _ in waiting)
        waiting.sort(key=lambda each: each[0])
        while unsent > self.limits.max_unsent:
            size, connection = waiting.pop()
            unsent -= size
            connection.transport.abort()


# --- one connection -----------------------------------------------------------------------------------------


class _Reading(IntEnum):
    """Where the parser stands."""

    BETWEEN = 0  # no byte of a request yet
    HEAD = 1
    BODY = 2
    REFUSED = 3  # and it will not be fed again


# Bound once: looking up an enum member twice per request is measurable at this place.
_BETWEEN, _HEAD, _BODY, _REFUSED = _Reading


def _see_progress(transport: asyncio.Transport) -> None:
    """Keep unsent bytes on our side of the socket, where it can be seen whether they get fewer.

    The kernel would take megabytes and ask for more only when a third is gone: a reader of 20 KiB/s then looks
    like one who does not read for half a minute. With this mark it asks again after 8 KiB; bytes on their way do
    not count, so throughput stays (Linux tcp(7), TCP_NOTSENT_LOWAT; not on every platform).
    """
    tcp = transport.get_extra_info("socket")
    if tcp is not None and tcp.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16 * 1024)


class EdgeProtocol(HttpToolsProtocol):
    """One connection. `edge` is set by the subclass that `server_config` makes for its server."""

    edge: Edge
    cycle: Cycle | None  # type: ignore[assignment]

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = self.edge.limits
        self._reading: _Reading = _BETWEEN
        self._patience = self.limits.head_deadline  # for silence before a request
        self._since = 0.0  # loop time of the first byte of a request, or when silence or lingering began
        self._head_bytes = 0  # of the present head, in reads after the one that began it
        self._gathering: Cycle | None = None
        self._waiting: deque[Cycle] = deque()  # requests behind the one that is being answered
        self._body = bytearray()  # the present one; not a list of pieces: two bytes of a chunk would weigh forty
        self._unanswered = 0  # whole requests whose answer is not complete
        self._offers_h2c = False
        self._refusal: Refused | None = None  # to be said when it is its turn
        self._dropped = 0  # bytes read since the refusal was said
        self._drain_mark: tuple[int, float] | None = None  # unsent bytes and time, at the last progress

    # Transport -> protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self.limits.write_buffer)
        _see_progress(transport)
        self._since = self.loop.time()
        self.edge.enter(self, self.loop)
        if len(self.edge.connections) > self.limits.max_connections:
            self._refuse(Refused(503, "Too many connections are open; try again shortly."))

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.leave(self)
        self.connections.discard(self)
        if self.cycle is not None:
            self.cycle.disconnect()
        for waiting in self._waiting:
            waiting.disconnect()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def stream(self) -> Cycle | None:
        """The answer that has begun and goes on, if there is one."""
        cycle = self.cycle
        return cycle if cycle is not None and cycle.started and not cycle.response_complete else None

    def cut(self) -> None:
        """Nothing more is sent, not even what waits for the client to read."""
        self.transport.abort()

    def resume_writing(self) -> None:
        # Drained, if only for a moment: the next full buffer is another one, even if no sweep saw the gap.
        self._drain_mark = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            self._drop(len(data))
            return
        if self._reading is _HEAD:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(self._translate(error))
            return
        if self._reading is _HEAD and self._head_bytes > self.limits.max_head + self.limits.max_target:
            self._refuse(Refused(431, f"Send at most {self.limits.max_head} bytes of header fields."))
        elif self._waiting:
            # A handler that waits for its client to go resumes reading; requests in waiting are a reason not to.
            self.flow.pause_reading()

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its offer of h2c.

        Java's HttpClient makes that offer with every cleartext request. Ignoring it is correct (RFC 9110
        §7.8), but llhttp takes an offer for a fact and has skipped the body.
        """
        self._offers_h2c = False
        head = without_upgrade(self.parser.get_method(), self.url, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
        self.data_received(head + rest)

    def _translate(self, error: httptools.HttpParserError) -> Refused:
        cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
        if isinstance(cause, Refused):
            return cause
        if cause is not None:
            self.logger.error("The HTTP edge failed on a request", exc_info=cause)
            return Refused(500, "The gateway failed to read this request.")
        return Refused(400, "This is not a well-formed HTTP/1.1 request.")

    # Parser -> protocol; an exception in here reaches data_received as the context of a parser error

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._body = bytearray()
        self._reading = _HEAD
        self._since = self.loop.time()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.max_target:
            raise Refused(414, f"Send a request target of at most {self.limits.max_target} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not _HEAD:
            # A trailer among the headers could pose as `authorization`.
            raise Refused(400, "Trailer fields are not accepted; send them as headers.")
        # llhttp leaves trailing whitespace, which is no part of a value (RFC 9110 §5.5).
        self.headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        parser = self.parser
        method, target = parser.get_method(), self.url
        fields = judge_head(method, parser.get_http_version(), target, self.headers, self.limits)
        if self._unanswered >= self.limits.max_pipelined:
            raise Refused(400, f"At most {self.limits.max_pipelined} requests may wait on one connection.")
        self._reading = _BODY
        if parser.should_upgrade():
            self._offers_h2c = True
            return
        before = self.cycle
        self.cycle = cycle = Cycle(
            self._scope(method, target, fields),
            self.transport,
            self.flow,
            keep_alive=parser.should_keep_alive(),
            waiting_for_100_continue=b"expect" in fields,
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._take_turn(cycle)
        else:
            self.flow.pause_reading()
            self._waiting.append(cycle)

    def _scope(self, method: bytes, target: bytes, fields: dict[bytes, bytes]) -> Scope:
        raw_path, _, query = target.partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "method": method.decode("ascii"),
            "scheme": self.scheme,
            "path": path_of(raw_path),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "fields": fields,  # ours: the same by name (cycle.fields)
            "server": self.server,
            "client": self.client,
            "state": {},
        }

    def on_body(self, body: bytes) -> None:
        if len(self._body) + len(body) > self.limits.max_body:
            raise too_large(self.limits)
        self._body += body

    def on_message_complete(self) -> None:
        if self._offers_h2c:
            return
        self._reading = _BETWEEN
        self._unanswered += 1
        cycle = self.cycle
        assert cycle is not None
        cycle.body, self._body = bytes(self._body), bytearray()
        cycle.more_body = cycle.waiting_for_100_continue = False
        if self._gathering is not None:
            self._gathering = None
            self._run(cycle)

    # Requests take their turn

    def _take_turn(self, cycle: Cycle) -> None:
        """It is this request's turn: start it if it is whole, else when it is."""
        if not cycle.more_body:
            self._run(cycle)
        elif self._refusal is not None:
            self._say_refusal(self._refusal)
        else:
            self._gathering = cycle
            if cycle.waiting_for_100_continue:
                cycle.waiting_for_100_continue = False
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _run(self, cycle: Cycle) -> None:
        task = self.loop.create_task(cycle.run(self.app))
        self.tasks.add(task)  # uvicorn waits for them when it stops
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """The sweep closes idle connections: no timer."""
        self.server_state.total_requests += 1
        self._unanswered -= 1
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        self._patience = self.limits.keep_alive
        self.flow.resume_reading()
        if self._waiting:
            self._take_turn(self._waiting.popleft())
        elif self._refusal is not None:
            self._say_refusal(self._refusal)

    # Refusing

    def _refuse(self, refusal: Refused) -> None:
        """Stop parsing, and answer once the requests before this one are answered."""
        self._refusal = refusal
        self.edge.on_refused(refusal.status)
        if self._unanswered:
            self.flow.pause_reading()
        else:
            self._say_refusal(refusal)

    def _say_refusal(self, refusal: Refused) -> None:
        self._reading = _REFUSED
        self._since = self.loop.time()
        transport = self.transport
        if transport.is_closing():
            return
        transport.write(refusal.response(with_body=self.parser.get_method() != b"HEAD"))
        if transport.can_write_eof():
            # Half-close, then read on for a moment: closing with unread input makes the kernel send a reset,
            # which may overtake the answer (RFC 9112 §9.6).
            transport.write_eof()
            self.flow.resume_reading()
        else:
            transport.close()  # TLS has no half-close

    def _drop(self, size: int) -> None:
        """Input after a refusal: read so that the answer arrives, never looked at."""
        if self._reading is not _REFUSED:
            self.flow.pause_reading()
            return
        self._dropped += size
        if self._dropped > self.limits.linger_bytes:
            self.transport.abort()

    # The clock

    def check(self, now: float) -> None:
        """Called by the sweep: end what takes too long."""
        limits = self.limits
        waited = now - self._since
        if self._reader_stalls(now):
            self.transport.abort()
        elif self._reading is _REFUSED:
            if waited > limits.linger and not self.transport.get_write_buffer_size():
                self.transport.abort()
        elif self._unanswered or self.transport.is_closing():
            return  # the handler's time is bounded behind the door, once
        elif self._reading is _BETWEEN:
            # Nothing was asked, so nothing is answered.
            if waited > self._patience:
                self.transport.close()
        elif self._reading is _HEAD:
            if waited > limits.head_deadline:
                self._refuse(Refused(408, f"Send the whole request head within {limits.head_deadline:g} s."))
        elif waited > limits.body_deadline or self._body_drips(waited):
            self._refuse(
                Refused(
                    408,
                    f"Send the whole body within {limits.body_deadline:g} s, "
                    f"and at least {limits.min_rate:g} bytes per second.",
                )
            )

    def _body_drips(self, waited: float) -> bool:
        return len(self._body) < self.limits.min_rate * (waited - self.limits.body_grace)

    def _reader_stalls(self, now: float) -> bool:
        """True if the peer leaves a full write buffer, or the rest before a close, where it is."""
        if not self.flow.write_paused and not self.transport.is_closing() and self._reading is not _REFUSED:
            self._drain_mark = None
            return False
        unsent = self.transport.get_write_buffer_size()
        mark = self._drain_mark
        if not unsent:
            self._drain_mark = None
        elif mark is None or mark[0] - unsent >= self.limits.min_rate * self.limits.write_stall:
            self._drain_mark = (unsent, now)
        else:
            return now - mark[1] > self.limits.write_stall
        return False


def edge_protocol(limits: EdgeLimits, on_refused: Callable[[int], object] = lambda status: None) -> type[EdgeProtocol]:
    """The protocol class for one server; `on_refused` is told the status of each refusal (for a counter)."""

    class Configured(EdgeProtocol):
        edge = Edge(limits, on_refused)

    return Configured


def server_config(
    app: ASGI3Application,
    host: str,
    port: int,
    limits: EdgeLimits = DEFAULTS,
    *,
    on_refused: Callable[[int], object] = lambda status: None,
    graceful_shutdown: int = 10,
    lifespan: Literal["on", "off"] = "on",
    loop: Literal["uvloop", "asyncio"] = "uvloop",
    tls: ssl.SSLContext | None = None,
) -> uvicorn.Config:
    """How the gateway runs uvicorn. `graceful_shutdown` in seconds; `tls` is what new connections begin with.

    Forwarded headers are not believed, nothing announces what we run, and the log is the application's own.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=edge_protocol(limits, on_refused),
        interface="asgi3",
        ws="none",
        loop=loop,
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=graceful_shutdown,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )
