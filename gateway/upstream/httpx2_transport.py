"""httpx2 over our egress: for libraries that send their own requests (mcp, authlib) and the control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import httpx2

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.egress import ANSWER_LIMIT, CONNECT_TIMEOUT, Outbound, StreamAnswer

# Ours to say (host, framing, encoding), or about the one hop only; the rest of the request goes out as it is.
_NOT_FORWARDED = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}
# A library that asks for no read timeout still gets one: mcp's own default for a silent stream.
_READ_TIMEOUT = 300.0


class EgressTransport(httpx2.AsyncBaseTransport):
    """Raises httpx2's exceptions, since the libraries catch those; `gateway_error` finds ours again.

    Bodies come decompressed and have at most `limit` bytes, except event streams, which have no end.
    Cookies are dropped. Closing a client leaves the shared egress open.
    """

    def __init__(self, egress: Outbound, *, trusted: bool = False, limit: int = ANSWER_LIMIT) -> None:
        self._egress = egress
        self._trusted = trusted
        self._limit = limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeout = request.extensions.get("timeout", {})
        exchange = self._egress.stream(
            request.method,
            str(request.url),
            await request.aread() or None,
            {k: v for k, v in request.headers.items() if k not in _NOT_FORWARDED},
            connect_timeout=timeout.get("connect") or CONNECT_TIMEOUT,
            idle_timeout=timeout.get("read") or _READ_TIMEOUT,
            trusted=self._trusted,
        )
        try:
            answer = await exchange.__aenter__()
        except GatewayError as error:
            raise _httpx2_error(error, request) from error
        headers = {k: v for k, v in answer.headers.items() if k != "set-cookie"}
        return httpx2.Response(answer.status, headers=headers, stream=_Body(exchange, answer, request, self._limit))


class _Body(httpx2.AsyncByteStream):
    def __init__(
        self,
        exchange: AbstractAsyncContextManager[StreamAnswer],
        answer: StreamAnswer,
        request: httpx2.Request,
        limit: int,
    ) -> None:
        self._exchange = exchange
        self._answer = answer
        self._request = request
        endless = answer.headers.get("content-type", "").startswith("text/event-stream")
        self._limit = None if endless else limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._answer.chunks:
                size += len(chunk)
                if self._limit is not None and size > self._limit:
                    raise GatewayError(
                        Reason.UPSTREAM_TOO_LARGE,
                        f"{self._request.url.host} answered with more than {self._limit} bytes",
                    )
                yield chunk
        except GatewayError as error:
            raise _httpx2_error(error, self._request) from error

    async def aclose(self) -> None:
        await self._exchange.__aexit__(None, None, None)


def control_client(egress: Outbound, *, trusted: bool = False, limit: int = ANSWER_LIMIT) -> httpx2.AsyncClient:
    """For cards, metadata and keys: no redirects, no environment, 10 s for each step. Closing it is cheap."""
    return httpx2.AsyncClient(
        transport=EgressTransport(egress, trusted=trusted, limit=limit),
        follow_redirects=False,
        trust_env=False,
        timeout=CONNECT_TIMEOUT,
    )


def gateway_error(error: BaseException) -> GatewayError | None:
    """Our error inside what a library made of it: in the causes, or in a group (mcp's task groups)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, GatewayError):
            return seen
        if isinstance(seen, BaseExceptionGroup):
            return next((found for part in seen.exceptions if (found := gateway_error(part))), None)
        seen = seen.__cause__ or seen.__context__
    return None


def _httpx2_error(error: GatewayError, request: httpx2.Request) -> httpx2.TransportError:
    unsent = error.metadata.get("delivered") == "no"
    kind: type[httpx2.TransportError]
    if error.reason is Reason.UPSTREAM_TIMEOUT:
        kind = httpx2.ConnectTimeout if unsent else httpx2.ReadTimeout
    else:
        kind = httpx2.ConnectError if unsent else httpx2.ReadError
    return kind(error.message, request=request)
