"""The transport of 2024-11-05: what we send are POSTs, what comes back are events of one stream.

Source: 2024-11-05, basic/transports (HTTP with SSE). Deprecated there and eligible for removal; servers remain.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urljoin

from gateway.dialects.mcp import client as wire
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, Tree
from gateway.upstream.address import BadUrl, origin_of
from gateway.upstream.mcp.duplex import Duplex
from gateway.upstream.mcp.fanout import Overheard
from gateway.upstream.mcp.http import Endpoint, late


class EventChannel:
    """One stream, and the endpoint that it named."""

    def __init__(self, endpoint: Endpoint, info: Tree, overheard: Overheard) -> None:
        self.duplex = Duplex(self._send, self._close, self._give_up, endpoint.limits, info, overheard)
        self._endpoint = endpoint
        loop = asyncio.get_running_loop()
        self._posts: asyncio.Future[Endpoint] = loop.create_future()
        self._reading = loop.create_task(self._read())

    async def opened(self) -> None:
        """Until the server has named its endpoint. Raises GatewayError."""
        seconds = self._endpoint.limits.handshake_seconds
        both: tuple[asyncio.Future[Any], ...] = (self._posts, self._reading)
        await asyncio.wait(both, timeout=seconds, return_when="FIRST_COMPLETED")
        if self._posts.done():
            return
        if self._reading.done():
            self._reading.result()
            raise wire.failed("closed its stream at once")
        raise late()

    async def _read(self) -> None:
        error = wire.failed("closed its stream")
        try:
            async with self._endpoint.listening({}, self._endpoint.limits.quiet_seconds) as (_, events):
                async for event in events:
                    if event.event == "endpoint" and not self._posts.done():
                        self._posts.set_result(self._named(event.data))
                    elif self._posts.done() and event.data:
                        self.duplex.receive(event.data)
        except GatewayError as failure:
            error = failure
            if not self._posts.done():
                raise
        finally:
            self.duplex.lost(error)

    def _named(self, data: bytes) -> Endpoint:
        """Where to POST. At the same origin, or a server could send our credential and our calls to another."""
        try:
            url = urljoin(self._endpoint.url, data.decode())
            if origin_of(url) != origin_of(self._endpoint.url):
                raise wire.failed("names an endpoint at another origin")
        except (BadUrl, ValueError) as error:
            raise wire.failed("names an endpoint that is no URL") from error
        return self._endpoint.moved(url)

    async def _send(self, body: bytes) -> None:
        if not self.duplex.alive:
            raise GatewayError(Reason.UPSTREAM_FAILED, "The server has closed its stream", metadata={"delivered": "no"})
        await self._posts.result().tell(body, {}, self._endpoint.limits.handshake_seconds)

    async def _close(self) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})

    def _give_up(self) -> None:
        self._reading.cancel()


async def open_channel(endpoint: Endpoint, owner: Caller, info: Tree, overheard: Overheard) -> Duplex:
    """A session over the old transport. Raises GatewayError; Unexpected when there is no such thing."""
    channel = EventChannel(endpoint, info, overheard)
    try:
        await channel.opened()
        await channel.duplex.initialize(owner)
    except BaseException:
        await channel.duplex.aclose()
        raise
    return channel.duplex
