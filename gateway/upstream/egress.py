"""The one way out: every HTTP call of the gateway is a method of `Egress`; nobody else opens a connection.

What holds for each call, whoever makes it:

* **Address.** The rules are asked about the very address that a socket is about to connect to, and refuse what they do
  not admit. A name is not resolved a second time, a redirect is never followed, no proxy setting is read.
* **Trust.** Two pools. In the *named* pool are connections to origins that the operator named, in the
  *guarded* pool all others. The pool decides which question its sockets are asked, so a call for a
  stranger's URL can never ride on a connection that was allowed for the operator's.
* **Size and time.** Each answer has a byte limit, counted after decompression; each wait has a deadline.
* **Once.** A POST is sent at most once. Only a GET or HEAD is sent again, once, when a connection that had been kept
  turns out to be closed (RFC 9110 §9.2.2). Other retries belong to callers, who know what is safe.

The way is `pool.py` (which connection), `http1.py` (what goes over it) and this file (what may be asked, and what is
said when it fails).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from gateway.model.errors import GatewayError, Reason
from gateway.model.problems import BadCertificate
from gateway.upstream.address import BadUrl, EgressRules, Origin, locate
from gateway.upstream.answer import ANSWER_LIMIT, NOT_SENT, Answer, StreamAnswer, failure
from gateway.upstream.exchange import Exchange, Failed
from gateway.upstream.head import Unsendable, request_head
from gateway.upstream.pool import CONNECTIONS_PER_HOST, Pool, Refused

__all__ = ["ANSWER_LIMIT", "CONNECT_TIMEOUT", "Answer", "Egress", "Outbound", "StreamAnswer", "Way"]

# A SYN that got no answer in this time gets none; the user should hear of a dead host before their own
# timeout.
CONNECT_TIMEOUT = 10.0

_AGAIN = frozenset({"GET", "HEAD"})


class _Target(NamedTuple):
    path: str
    origin: Origin
    authority: str
    named: bool


class Outbound(Protocol):
    """What `Egress` does for those who call; see there."""

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
    ) -> Answer: ...

    def stream(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_timeout: float,
        trusted: bool = False,
    ) -> AbstractAsyncContextManager[StreamAnswer]: ...


class Way(Outbound, Protocol):
    """A way out with the rules that it keeps."""

    @property
    def rules(self) -> EgressRules: ...


def showing(shown: tuple[Path, Path] | None, ca: Path | None) -> ssl.SSLContext:
    """For connections that show this certificate with this key (RFC 8446 §4.4.2), and trust `ca` alone if it is there:
    as the files are now. Raises BadCertificate."""
    try:
        tls = ssl.create_default_context(cafile=ca)
        tls.set_alpn_protocols(["http/1.1"])
        if shown is not None:
            tls.load_cert_chain(*shown, password=_nobody_to_ask)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BadCertificate(f"cannot be used: {reason}") from error
    return tls


def _nobody_to_ask() -> str:
    """The password of a key that has one. Without this OpenSSL would ask at the terminal, and everybody would wait."""
    return ""


class Egress(Outbound):
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
        self._tls = tls
        self._per_host = connections_per_host
        self._pools: dict[bool, Pool] = {}
        self._retired: list[Pool] = []  # with calls that were under way when what is shown changed
        self._closed = False
        # Parsing and judging cost 20 µs, as much as the rest of a call. Rules never change, so the verdict keeps.
        self._target = lru_cache(maxsize=1024)(self._judge)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

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
        until = asyncio.get_running_loop().time() + timeout
        exchange = await self._ask(
            target, method, body, headers, until=until, connect=(until, CONNECT_TIMEOUT), enough=limit + 1
        )
        try:
            answer = StreamAnswer(exchange, target.origin, until=until)
            return Answer(answer.status, answer.headers, await answer.read(limit))
        finally:
            exchange.leave()

    def stream(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_timeout: float,
        trusted: bool = False,
    ) -> AbstractAsyncContextManager[StreamAnswer]:
        """The answer as it arrives, without an end time: for SSE.

        Seconds: `connect_timeout` until connected, `idle_timeout` between two reads, their sum until the
        headers are complete. Leaving the block early closes the connection, and so tells the upstream to
        stop.
        """
        return _Block(partial(self._begin, method, url, body, headers, connect_timeout, idle_timeout, trusted))

    async def _begin(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        connect_timeout: float,
        idle_timeout: float,
        trusted: bool,
    ) -> StreamAnswer:
        target = self._target(url, trusted)
        now = asyncio.get_running_loop().time()
        # One deadline over the header phase, or an upstream that drips a byte per idle_timeout never ends it.
        connect = (now + connect_timeout, connect_timeout)
        until = now + connect_timeout + idle_timeout
        exchange = await self._ask(target, method, body, headers, until=until, connect=connect, enough=0)
        try:
            return StreamAnswer(exchange, target.origin, idle=idle_timeout)
        except BaseException:
            exchange.leave()
            raise

    async def aclose(self) -> None:
        """Close every connection; later calls are UNAVAILABLE."""
        self._closed = True
        pools, self._pools, self._retired = [*self._pools.values(), *self._retired], {}, []
        for pool in pools:
            await pool.aclose()

    def renew(self, tls: ssl.SSLContext) -> None:
        """Make connections so from now on. A call that is under way ends on the one that it has, and no other call has
        that one."""
        self._tls = tls
        pools, self._pools = [*self._pools.values(), *self._retired], {}
        self._retired = [pool for pool in pools if pool.retire()]

    async def _ask(
        self,
        target: _Target,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        until: float,
        connect: tuple[float, float],
        enough: int,
    ) -> Exchange:
        """The answer, when its head and `enough` bytes of it (or all) are there. `connect` is as `Pool.connect` takes
        it: until when it must be this call's turn, and how many seconds connecting may take."""
        pool = self._pool(target.named)
        try:
            head = request_head(method, target.path, target.authority, headers, None if body is None else len(body))
            connection = pool.take(target.origin) or await pool.connect(target.origin, *connect)
            try:
                return await connection.ask(head, body or b"", until, enough=enough, asked_head=method == "HEAD")
            except Failed as error:
                if not error.stale or method not in _AGAIN:
                    raise
            connection = await pool.connect(target.origin, *connect, fresh=True)
            return await connection.ask(head, body or b"", until, enough=enough, asked_head=method == "HEAD")
        except Refused as error:
            sentence = self.rules.judge(target.origin, error.address, trusted=target.named)
            raise GatewayError(Reason.EGRESS_REFUSED, sentence or error.what, metadata=NOT_SENT) from error
        except Failed as error:
            raise failure(error, target.origin) from error
        except Unsendable as error:
            raise GatewayError(Reason.EGRESS_REFUSED, str(error), metadata=NOT_SENT) from None

    def _judge(self, url: str, trusted: bool) -> _Target:
        try:
            location = locate(url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, str(error), metadata=NOT_SENT) from None
        origin = location.origin
        if refusal := self.rules.judge_text(origin, trusted=trusted):
            raise GatewayError(Reason.EGRESS_REFUSED, refusal, metadata=NOT_SENT)
        return _Target(location.target, origin, origin.authority, trusted or self.rules.named(origin))

    def _pool(self, named: bool) -> Pool:
        pool = self._pools.get(named)
        if pool is None:
            if self._closed:
                raise GatewayError(Reason.UNAVAILABLE, "the gateway is stopping", metadata=NOT_SENT)
            admits = partial(self.rules.admits, named=named)
            pool = self._pools[named] = Pool(admits, self._context, per_host=self._per_host)
        return pool

    def roots(self) -> bytes:
        """The certificates that are trusted here, as PEM, for who makes its connections elsewhere (grpc.py)."""
        trusted = self._context().get_ca_certs(binary_form=True)
        return "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode("ascii")

    def _context(self) -> ssl.SSLContext:
        """One for all: to load the certificates of the world takes some 20 ms."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class _Block:
    """The `async with` of `Egress.stream`. A generator and its decorator would cost 1 µs more."""

    def __init__(self, begin: Callable[[], Awaitable[StreamAnswer]]) -> None:
        self._begin = begin

    async def __aenter__(self) -> StreamAnswer:
        self._answer = await self._begin()
        return self._answer

    async def __aexit__(self, *_: object) -> None:
        self._answer.leave()
