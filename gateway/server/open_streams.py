"""Streams that are open when a credential is taken back: each shows its own again, and ends if that is good no longer.

A stream may last for days, and its credential is looked at when it begins. Nothing that it tells is lost by its end:
tasks go on, and whoever may subscribes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from gateway.server.auth import Authenticator
from gateway.server.cycle import Cycle, fields

log = logging.getLogger(__name__)


class OpenStreams:
    """Of all listeners that speak HTTP. gRPC looks by itself (a2a_grpc.py)."""

    def __init__(self, auth: Authenticator) -> None:
        self._auth = auth
        self._listeners: list[Collection[Any]] = []
        self._due = False
        self._looking: asyncio.Task[None] | None = None

    def among(self, connections: Collection[Any]) -> None:
        """The connections of a listener: a set that it keeps up to date, of EdgeProtocol."""
        self._listeners.append(connections)

    def look(self) -> None:
        """Something was taken back. Returns at once."""
        self._auth.revocations += 1
        self._due = True
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="open-streams")
            self._looking.add_done_callback(self._looked)

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look(self) -> None:
        while self._due:
            self._due = False
            for connection in [each for connections in self._listeners for each in tuple(connections)]:
                stream: Cycle | None = connection.stream
                if stream is None or await self._auth.still_good(fields(stream.scope)):
                    continue
                if connection.stream is stream:  # after a wait for an issuer it may be at another request
                    connection.cut()

    def _looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled() and (error := looking.exception()) is not None:
            log.error("looking at open streams failed", exc_info=error)
