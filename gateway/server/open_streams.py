"""Streams that are open when their credential ends: each shows its own again when something is taken back, somebody is
frozen or a token's time is over, and ends if that is good no longer.

A stream may last for days, and its credential is looked at when it begins. Nothing that it tells is lost by its end:
tasks go on, and whoever may subscribes again. The answer to a call ends with what is taken back, but has its own time:
the call was let in, and to cut it off would cancel it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any

from gateway.server.auth import Authenticator
from gateway.server.cycle import ANSWER, Cycle, fields
from gateway.server.request import peer_of

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # how often it is looked whose time is over; among 10 000 streams that costs some 15 ms
AGAIN_SECONDS = 5.0  # until a token is looked at once more that lives in its leeway, or of which nobody can say now

_CREDENTIAL = "gateway.credential"  # in a stream's scope, once it was looked at


class OpenCredential:
    """What a stream was let in with. `now` gives milliseconds; `timed`: it ends when a token's time is over, too."""

    def __init__(
        self, auth: Authenticator, headers: dict[bytes, bytes], peer: str, now: Callable[[], int], *, timed: bool = True
    ) -> None:
        self._auth = auth
        self._headers = headers
        self._peer = peer
        self._now = now
        self._timed = timed
        self._revocations = -1
        self._until = 0.0

    @property
    def due(self) -> bool:
        """Whether it has to be looked at before the stream says another word."""
        if self._revocations != self._auth.revocations:
            return True
        return self._timed and self._until <= self._now() / 1000

    async def holds(self) -> bool:
        if not self.due:
            return True
        self._revocations = self._auth.revocations
        until = await self._auth.good_until(self._headers, self._peer, timed=self._timed)
        self._until = max(until or 0, self._now() / 1000 + AGAIN_SECONDS)
        return until is not None


class OpenStreams:
    """Of all listeners that speak HTTP. gRPC looks by itself (a2a_grpc.py). `now` gives milliseconds."""

    def __init__(self, auth: Authenticator, now: Callable[[], int]) -> None:
        self._auth = auth
        self._now = now
        self._listeners: list[Collection[Any]] = []
        self._wanted = False
        self._looking: asyncio.Task[None] | None = None
        self._clock: asyncio.TimerHandle | None = None

    def among(self, connections: Collection[Any]) -> None:
        """The connections of a listener: a set that it keeps up to date, of EdgeProtocol."""
        self._listeners.append(connections)
        if self._clock is None and self._auth.timed:
            self._tick()

    def look(self) -> None:
        """Something was taken back, or somebody frozen. Returns at once."""
        self._auth.revocations += 1
        self._begin()

    async def aclose(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _tick(self) -> None:
        self._clock = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._tick)
        if any(self._credential(stream).due for _, stream in self._open()):
            self._begin()

    def _begin(self) -> None:
        self._wanted = True
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="open-streams")
            self._looking.add_done_callback(self._looked)

    async def _look(self) -> None:
        while self._wanted:
            self._wanted = False
            # All at once: an issuer that is slow about one token must not keep other streams open.
            due = [each for each in self._open() if self._credential(each[1]).due]
            await asyncio.gather(*(self._look_at(connection, stream) for connection, stream in due))

    async def _look_at(self, connection: Any, stream: Cycle) -> None:
        good = await self._credential(stream).holds()
        if not good and connection.stream is stream:  # after a wait for an issuer it may be at another request
            connection.cut()

    def _open(self) -> Iterator[tuple[Any, Cycle]]:
        for connections in self._listeners:
            for connection in tuple(connections):
                if (stream := connection.stream) is not None:
                    yield connection, stream

    def _credential(self, stream: Cycle) -> OpenCredential:
        scope = stream.scope
        found: OpenCredential | None = scope.get(_CREDENTIAL)
        if found is None:
            timed = not scope.get(ANSWER, False)
            found = OpenCredential(self._auth, fields(scope), peer_of(scope), self._now, timed=timed)
            scope[_CREDENTIAL] = found
        return found

    def _looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled() and (error := looking.exception()) is not None:
            log.error("looking at open streams failed", exc_info=error)
