"""The one way out: every HTTP call of the gateway is a method of `Egress`; no other file imports aiohttp.

What holds for each call, whoever makes it:

* **Address.** The socket factory sees the very address that is about to be connected to and refuses what
  the rules do not admit. A name is not resolved a second time, a redirect is never followed, no proxy
  setting is read.
* **Trust.** Two pools. In the *named* pool are connections to origins that the operator named, in the
  *guarded* pool all others. The pool decides which question its sockets are asked, so a call for a
  stranger's URL can never ride on a connection that was allowed for the operator's.
* **Size and time.** Each answer has a byte limit, counted after decompression; each wait has a deadline.
* **Once.** A POST is sent at most once: aiohttp repeats a request on a broken connection only for idempotent
  methods (RFC 9110 §9.2.2), and a test holds it to that. Retries belong to callers, who know what is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import NamedTuple, Self

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import BadUrl, EgressRules, Origin, locate

# Four times the largest request we take: answers of agents and tools carry files inline. MCP's own cap is
# the same.
ANSWER_LIMIT = 4 * 1024 * 1024
# What one step of decompression may produce: deflate makes a thousand bytes of one, so a single network read
# of 128 KiB could otherwise be 128 MiB at once.
PIECE = 64 * 1024
# A SYN that got no answer in this time gets none; the user should hear of a dead host before their own
# timeout.
CONNECT_TIMEOUT = 10.0
# Below the 5 s after which uvicorn and Node close an idle connection: we let go first, so that a POST is
# rarely sent into a connection that its server has just given up.
KEEPALIVE = 4.0
# 2 000 open streams to one agent is what we promise. More than that to a single host means it has stopped
# answering, and it must not take every file descriptor from the others.
CONNECTIONS_PER_HOST = 2048
# How long and how much a connection is read for its own sake; a new one costs a round trip or, with TLS, three.
SETTLE_SECONDS = 0.05
SETTLE_BYTES = 64 * 1024
# aiohttp warns (ResourceWarning) about longer bodies in one piece and sends a BytesIO in slices instead.
_ONE_PIECE = 1024 * 1024

_FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)  # TimeoutError is an OSError
_NOT_SENT = {"delivered": "no"}
_PERHAPS_SENT = {"delivered": "unknown"}


class Answer(NamedTuple):
    """A complete answer. Header names are lower-case; the body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Target(NamedTuple):
    url: URL
    origin: Origin
    named: bool


class _Refused(OSError):
    """Raised inside the socket factory. With errno and text, or aiohttp would show it as `[None]`."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, "refused by the egress rules")
        self.address = address


class _Unasked(aiohttp.ClientError):
    """The connection holds an answer already, before we have asked anything on it."""


class _Request(aiohttp.ClientRequest):
    """Never ask on a connection that holds an answer already.

    aiohttp pools it while idle and would hand that answer, maybe another caller's, to whoever asks next.
    `should_close` tells, but aiohttp looks at it only when a connection goes back to the pool.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise _Unasked
        return await super().send(conn)


class Egress:
    """Bytes out, bytes in. One per process; belongs to the event loop of its first call.

    Every method raises GatewayError and nothing else: EGRESS_REFUSED (the sentence names the setting),
    UPSTREAM_TIMEOUT, UPSTREAM_FAILED, UPSTREAM_TOO_LARGE. `metadata["delivered"]` is "no" when the request
    never left, else "unknown". A status such as 404 or 302 is an answer, not an error.

    `trusted=True` says that the URL comes from the operator, and so may point anywhere but to `egress.deny`.
    """

    def __init__(
        self,
        rules: EgressRules,
        *,
        tls: ssl.SSLContext | None = None,
        connections_per_host: int = CONNECTIONS_PER_HOST,
    ) -> None:
        self.rules = rules
        self._tls = tls  # None: the one verifying context that aiohttp makes at import
        self._per_host = connections_per_host
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._closed = False
        # Parsing and judging cost 20 µs, a proxied call has 150. Rules never change, so the verdict keeps.
        self._target = lru_cache(maxsize=1024)(self._judge)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        trusted: bool = False,
    ) -> Answer:
        """POST and read the whole answer. `timeout` is seconds for all of it, `limit` bytes of body."""
        return await self.request("POST", url, body, headers, timeout=timeout, limit=limit, trusted=trusted)

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        trusted: bool = False,
    ) -> Answer:
        """`post` for any method; `body=None` sends none."""
        target = self._target(url, trusted)
        try:
            response = await self._session(target.named).request(
                method,
                target.url,
                data=_data(body),
                headers=headers,
                allow_redirects=False,
                timeout=_whole(timeout),
            )
        except _FAILURES as error:
            raise self._failure(error, target) from error
        try:
            answer = StreamAnswer(response, target)
            return Answer(answer.status, answer.headers, await answer.read(limit))
        except BaseException:
            response.close()
            raise

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_timeout: float,
        trusted: bool = False,
    ) -> AsyncIterator[StreamAnswer]:
        """The answer as it arrives, without an end time: for SSE.

        Seconds: `connect_timeout` until connected, `idle_timeout` between two reads, their sum until the
        headers are complete. Leaving the block early closes the connection, and so tells the upstream to
        stop.
        """
        target = self._target(url, trusted)
        try:
            # One deadline over the header phase, or an upstream that drips a byte per idle_timeout never
            # ends it.
            async with asyncio.timeout(connect_timeout + idle_timeout):
                response = await self._session(target.named).request(
                    method,
                    target.url,
                    data=_data(body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=_idle(connect_timeout, idle_timeout),
                )
        except _FAILURES as error:
            raise self._failure(error, target) from error
        try:
            answer = StreamAnswer(response, target)
            try:
                yield answer
            finally:
                await answer.chunks.aclose()
        finally:
            response.close()  # after the last byte the connection is back in its pool, and this does nothing

    async def aclose(self) -> None:
        """Close every connection; later calls are UNAVAILABLE."""
        self._closed = True
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _judge(self, url: str, trusted: bool) -> _Target:
        try:
            location = locate(url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, str(error), metadata=_NOT_SENT) from None
        origin = location.origin
        if refusal := self.rules.judge_text(origin, trusted=trusted):
            raise GatewayError(Reason.EGRESS_REFUSED, refusal, metadata=_NOT_SENT)
        return _Target(URL(str(location), encoded=True), origin, trusted or self.rules.named(origin))

    def _session(self, named: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(named)
        if session is None:
            if self._closed:
                raise GatewayError(Reason.UNAVAILABLE, "the gateway is stopping", metadata=_NOT_SENT)
            session = self._sessions[named] = self._open(named)
        return session

    def _open(self, named: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            socket_factory=partial(self._socket, named),
            ssl=self._tls or True,
            limit=0,  # how many calls run at once is decided at the doors; here only how many go to one host
            limit_per_host=self._per_host,
            keepalive_timeout=KEEPALIVE,
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers={"Accept-Encoding": "identity", "User-Agent": "gateway"},
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    def _socket(self, named: bool, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (address, port, *_) = info
        if not self.rules.admits(str(address), int(port), named=named):
            raise _Refused(str(address))
        return socket.socket(family, kind, protocol)

    def _failure(self, error: BaseException, target: _Target) -> GatewayError:
        """`_failure`, and what only the connect phase can meet: an address that the rules refused."""
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        if isinstance(cause, _Refused):
            sentence = self.rules.judge(target.origin, cause.address, trusted=target.named)
            return GatewayError(Reason.EGRESS_REFUSED, sentence or str(cause), metadata=_NOT_SENT)
        return _failure(error, target.origin)


class StreamAnswer:
    """An answer whose body is still arriving. Read it once, by `chunks` or by `read`.

    `chunks` yields bytes as one read brought them, decompressed; it raises GatewayError as `Egress` does.
    """

    def __init__(self, response: aiohttp.ClientResponse, target: _Target) -> None:
        self._response = response
        self._origin = target.origin
        self.status = response.status
        headers = _headers(response.raw_headers)
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in _WINDOWS and coding != "identity":
            raise self._failed(f"used the content-encoding {coding[:40]!r}, which was not asked for")
        self._inflate = _Inflate(coding) if coding in _WINDOWS else None
        if self._inflate:
            # What we hand on is plain: nobody after us shall decompress it once more, without a cap.
            headers = {k: v for k, v in headers.items() if k not in ("content-encoding", "content-length")}
        self.headers: Mapping[str, str] = headers
        self.chunks: AsyncGenerator[bytes, None] = self._read()

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """The whole body; UPSTREAM_TOO_LARGE as soon as it is clear that it has more than `limit` bytes."""
        declared = self._response.content_length
        if declared is not None and declared > limit and self._response.method != "HEAD":
            raise self._too_large(limit)
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks:
            size += len(chunk)
            if size > limit:
                raise self._too_large(limit)
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def settle(self) -> None:
        """Nothing more is wanted. Read to the end if it is near, so that the connection can be used again: servers
        send a stream's last event and its end in two writes."""
        left = SETTLE_BYTES
        with contextlib.suppress(TimeoutError, GatewayError):
            async with asyncio.timeout(SETTLE_SECONDS):
                async for chunk in self.chunks:
                    left -= len(chunk)
                    if left < 0:
                        return

    async def _read(self) -> AsyncGenerator[bytes, None]:
        content, inflate = self._response.content, self._inflate
        try:
            while chunk := await content.readany():
                if inflate is None:
                    yield chunk
                else:
                    for piece in inflate.feed(chunk):
                        yield piece
            if inflate is not None:
                inflate.finish()
        except _FAILURES as error:
            raise _failure(error, self._origin) from error
        except zlib.error as error:
            raise self._failed("sent compressed data that cannot be read") from error

    def _failed(self, what: str) -> GatewayError:
        return GatewayError(Reason.UPSTREAM_FAILED, f"{self._origin.authority} {what}", metadata=_PERHAPS_SENT)

    def _too_large(self, limit: int) -> GatewayError:
        return GatewayError(
            Reason.UPSTREAM_TOO_LARGE,
            f"{self._origin.authority} answered with more than {limit} bytes",
            metadata=_PERHAPS_SENT,
        )


# Content coding -> zlib's window bits: 15 bits, with gzip's header and trailer (+16) or zlib's.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class _Inflate:
    """One layer of gzip or deflate, never more than PIECE bytes at a time. Raises zlib.error."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream = zlib.decompressobj(_WINDOWS[coding])
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not self._started and self._coding == "deflate" and data[0] & 15 != 8:
            # RFC 9110 §8.4.1.2: some implementations send deflate without the zlib wrapper.
            self._stream = zlib.decompressobj(-15)
        self._started = True
        more = True
        while more:
            piece = self._stream.decompress(data, PIECE)
            data = self._stream.unconsumed_tail
            more = bool(data) or len(piece) == PIECE  # a full piece may have left output inside zlib
            if piece:
                yield piece
        if self._stream.unused_data:
            raise zlib.error("data after the end")

    def finish(self) -> None:
        if self._started and not self._stream.eof:
            raise zlib.error("ended too early")


def _failure(error: BaseException, origin: Origin) -> GatewayError:
    """A foreign exception as ours: who failed and how, nothing of our inside (addresses, files, Python)."""
    where = origin.authority
    unsent = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, _Unasked))
    metadata = _NOT_SENT if unsent else _PERHAPS_SENT
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, TimeoutError):
        what = "could not be connected to in time" if unsent else "did not answer in time"
        return GatewayError(Reason.UPSTREAM_TIMEOUT, f"{where} {what}", metadata=metadata)
    return GatewayError(Reason.UPSTREAM_FAILED, f"{where} {_what_failed(error)}", metadata=metadata)


def _what_failed(error: BaseException) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "could not be resolved to an address"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as bad):
            return f"showed a certificate that is not accepted: {bad.verify_message}"
        case aiohttp.ClientSSLError():
            return "could not be reached: TLS failed"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "refused the connection"
        case aiohttp.ClientConnectorError():
            return "could not be reached"
        case _Unasked():
            return "sent an answer to a question that nobody had asked"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return "did not answer with well-formed HTTP"
        case _:
            return "closed the connection before its answer was complete"


def _headers(raw: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    """Lower-case names; fields of one name joined as RFC 9110 §5.3 allows. Latin-1 takes every byte."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _data(body: bytes | None) -> bytes | io.BytesIO | None:
    return body if body is None or len(body) <= _ONE_PIECE else io.BytesIO(body)


@lru_cache(maxsize=64)
def _whole(timeout: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)


@lru_cache(maxsize=64)
def _idle(connect: float, idle: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=connect, sock_connect=connect, sock_read=idle)
