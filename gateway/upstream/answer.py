"""The answers that `Egress` gives: whole, or still arriving. Limits and errors are as it promises them."""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import NamedTuple, Self

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import Origin
from gateway.upstream.exchange import Exchange, Failed
from gateway.upstream.inflate import CODINGS, Inflate

# Four times the largest request we take: answers of agents and tools carry files inline. MCP's own cap is
# the same.
ANSWER_LIMIT = 4 * 1024 * 1024
# How long and how much a connection is read for its own sake; a new one costs a round trip or, with TLS, three.
SETTLE_SECONDS = 0.05
SETTLE_BYTES = 64 * 1024

NOT_SENT: Mapping[str, str] = {"delivered": "no"}
PERHAPS_SENT: Mapping[str, str] = {"delivered": "unknown"}


class Answer(NamedTuple):
    """A complete answer. Header names are lower-case; the body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamAnswer:
    """An answer whose body is still arriving. Read it once, by `chunks` or by `read`.

    `chunks` yields bytes as one read brought them, decompressed; it raises GatewayError as `Egress` does.
    """

    def __init__(
        self, exchange: Exchange, origin: Origin, *, until: float = math.inf, idle: float | None = None
    ) -> None:
        self._exchange = exchange
        self._origin = origin
        self._until = until  # loop time
        self._idle = idle  # seconds: ends each wait, where it is set
        self.status = exchange.status
        self.headers: Mapping[str, str] = exchange.headers
        self._inflate: Inflate | None = None
        self._pieces: Iterator[bytes] = iter(())  # of what is being decompressed
        if "content-encoding" in exchange.headers:
            self._decode(exchange.headers)

    def _decode(self, headers: Mapping[str, str]) -> None:
        coding = headers["content-encoding"].lower()
        if coding in CODINGS:
            self._inflate = Inflate(coding)
            # What we hand on is plain: nobody after us shall decompress it once more, without a cap.
            self.headers = {k: v for k, v in headers.items() if k not in ("content-encoding", "content-length")}
        elif coding != "identity":
            raise self._failed(f"used the content-encoding {coding[:40]!r}, which was not asked for")

    @property
    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next(1)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """The whole body; UPSTREAM_TOO_LARGE as soon as it is clear that it has more than `limit` bytes."""
        exchange = self._exchange
        if exchange.length is not None and exchange.length > limit and not exchange.asked_head:
            raise self._too_large(limit)
        parts: list[bytes] = []
        size = 0
        while chunk := await self._next(1 if self._idle is not None else limit + 1):
            size += len(chunk)
            if size > limit:
                raise self._too_large(limit)
            parts.append(chunk)
        return b"".join(parts)

    async def settle(self) -> None:
        """Nothing more is wanted. Read to the end if it is near, so that the connection can be used again: servers
        send a stream's last event and its end in two writes."""
        left = SETTLE_BYTES
        until = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while left >= 0 and not self._exchange.ended:
            await self._exchange.more(1, until)
            if self._exchange.failure is not None:
                return
            left -= len(self._exchange.take())

    def leave(self) -> None:
        """Close the connection, unless the answer has ended: then it is back in its pool, and this does nothing."""
        self._exchange.leave()

    async def _next(self, enough: int) -> bytes:
        """What has arrived, when that is `enough` bytes or all of it; b"" at the end."""
        if self._inflate is not None:
            return await self._plain(self._inflate)
        return await self._raw(enough)

    async def _raw(self, enough: int) -> bytes:
        exchange = self._exchange
        if exchange.size < enough and not exchange.ended:
            idle = self._idle
            until = self._until if idle is None else asyncio.get_running_loop().time() + idle
            await exchange.more(enough, until)
            if exchange.failure is not None and not exchange.size:
                raise failure(exchange.failure, self._origin) from exchange.failure
        return exchange.take()

    async def _plain(self, inflate: Inflate) -> bytes:
        """The next piece of what is compressed."""
        try:
            while not (piece := next(self._pieces, b"")):
                packed = await self._raw(1)
                if not packed:
                    inflate.finish()
                    return b""
                self._pieces = inflate.feed(packed)
            return piece
        except zlib.error as error:
            raise self._failed("sent compressed data that cannot be read") from error

    def _failed(self, what: str) -> GatewayError:
        return GatewayError(Reason.UPSTREAM_FAILED, f"{self._origin.authority} {what}", metadata=PERHAPS_SENT)

    def _too_large(self, limit: int) -> GatewayError:
        return GatewayError(
            Reason.UPSTREAM_TOO_LARGE,
            f"{self._origin.authority} answered with more than {limit} bytes",
            metadata=PERHAPS_SENT,
        )


def failure(error: Failed, origin: Origin) -> GatewayError:
    """What happened, as ours: who failed and how, nothing of our inside (addresses, files, Python)."""
    reason = Reason.UPSTREAM_TIMEOUT if error.late else Reason.UPSTREAM_FAILED
    metadata = PERHAPS_SENT if error.sent else NOT_SENT
    return GatewayError(reason, f"{origin.authority} {error.what}", metadata=metadata)
