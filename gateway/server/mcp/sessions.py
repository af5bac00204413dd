"""Sessions of the revisions before 2026-07-28: who opened them, what they said of themselves, what is open in them.

Source: 2025-11-25, basic/transports (session management), basic/lifecycle. A session is no credential: each request
brings its own, and a session of somebody else's does not exist. It outlives the token that it began with: whoever comes
back with another one is the same caller, and each request may do what its own token says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.core.tools.listening import Listening
from gateway.dialects.mcp.message import Id, Response
from gateway.dialects.mcp.versions import PRIMED
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import PeerError, Tree
from gateway.server.mcp.exchange import Exchange
from gateway.server.mcp.track import Memory, Track, place

IDLE_MS = 1_800_000  # a client that asked nothing and listened to nothing for half an hour has gone
SWEEP_MS = 60_000  # how often it is looked for such ones; a look at 10 000 takes a millisecond
MAX_SESSIONS = 10_000  # in all, some 2 kB each
MAX_SESSIONS_EACH = 256  # of one principal; the one that was idle longest makes room
MAX_IN_FLIGHT = 64  # requests of one session at the same time
MAX_BACKLOG = 64  # messages that wait for the session's own stream
MAX_STREAMS = 16  # streams of one session that are over and may be asked for again; the oldest makes room

DEFAULT_LEVEL = "info"  # until logging/setLevel says otherwise: servers of that time send unasked


@dataclass(slots=True)
class Session:
    id: str
    owner: tuple[str, ...]  # the identity of whoever opened it
    mount: str
    version: str
    capabilities: Tree
    client: Tree | None
    seen: int
    memory: Memory
    new_id: Callable[[], str]
    level: str = DEFAULT_LEVEL
    in_flight: dict[Id, Exchange] = field(default_factory=dict)
    listening: Listening | None = None
    stream: asyncio.Event | None = None  # set when whoever reads the session's own stream has to end
    own: Track | None = None  # what is said on it
    streams: dict[int, tuple[Track, Exchange]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: dict[Id, asyncio.Future[Tree]] = field(default_factory=dict)
    _count: int = 0
    _tracks: int = 0

    # Streams.

    def track(self) -> Track:
        """For one more stream."""
        self._tracks += 1
        return Track(self._tracks, self.memory, primes=self.version in PRIMED)

    def listened(self, track: Track) -> None:
        """The session's own stream is this one from here on."""
        if self.own is not None and self.own is not track:
            self.own.close()
        self.own = track

    def remember(self, track: Track, exchange: Exchange) -> None:
        """A request's stream, which its client may ask for again."""
        self.streams[track.number] = (track, exchange)

    def settle(self, track: Track, exchange: Exchange) -> None:
        """The request is over, or left to itself: forget a stream that never was, and the oldest of those that are."""
        if not exchange.resumable:
            self._forget(track.number)
        over = [number for number, (_, each) in self.streams.items() if each.over]
        for number in over[: max(0, len(over) - MAX_STREAMS)]:
            self._forget(number)

    def rewound(self, event: str) -> Track | Exchange | None:
        """What goes on after `event`: the session's own stream or a request's; None when that is not known any more."""
        where = place(event)
        if where is None:
            return None
        number, after = where
        if self.own is not None and self.own.number == number:
            return self.own if self.own.rewind(after) else None
        track, exchange = self.streams.get(number, (None, None))
        return exchange if track is not None and track.rewind(after) else None

    def _forget(self, number: int) -> None:
        track, _ = self.streams.pop(number)
        track.close()

    # Asker.

    def begin(self) -> tuple[Id, asyncio.Future[Tree]]:
        self._count += 1
        id = f"gateway-{self._count}"
        future = self._asked[id] = asyncio.get_running_loop().create_future()
        return id, future

    def end(self, id: Id) -> None:
        self._asked.pop(id, None)

    def push(self, body: bytes) -> bool:
        if self.stream is None or self.own is None or len(self.own) >= MAX_BACKLOG:
            return False
        self.own.put(body)
        self.news.set()
        return True

    def answered(self, response: Response) -> None:
        """What the client says to a question. Answers to nothing are ignored, as JSON-RPC has no answer to them."""
        future = self._asked.pop(response.id, None)
        if future is None or future.done():
            return
        if response.error is None:
            future.set_result(response.result)
            return
        text: Any = response.error.get("message")
        future.set_exception(PeerError(response.error["code"], str(text)[:2000], response.error.get("data")))

    async def aclose(self) -> None:
        for exchange in list(self.in_flight.values()):
            exchange.cancel()
        for number in tuple(self.streams):
            self._forget(number)
        if self.own is not None:
            self.own.close()
        if self.stream is not None:
            self.stream.set()
            self.news.set()
        if self.listening is not None:
            listening, self.listening = self.listening, None
            await listening.aclose()


class Sessions:
    def __init__(self, now: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._now = now
        self._new_id = new_id
        self._sessions: dict[str, Session] = {}
        self._each: Counter[tuple[str, ...]] = Counter()
        self._swept = now()
        self._memory = Memory()

    async def open(self, who: Principal, mount: str, version: str, capabilities: Tree, client: Tree | None) -> Session:
        """Raises OVERLOADED when there are too many and none is idle."""
        await self._sweep()
        owner = who.identity
        if self._each[owner] >= MAX_SESSIONS_EACH:
            await self._evict([each for each in self._sessions.values() if each.owner == owner])
        if len(self._sessions) >= MAX_SESSIONS:
            await self._evict(list(self._sessions.values()))
        session = Session(
            self._new_id(), owner, mount, version, capabilities, client, self._now(), self._memory, self._new_id
        )
        self._sessions[session.id] = session
        self._each[owner] += 1
        return session

    def get(self, id: str, who: Principal, mount: str) -> Session | None:
        """None when there is none, and when it is another's: the two must not be told apart."""
        session = self._sessions.get(id)
        if session is None or session.owner != who.identity or session.mount != mount:
            return None
        session.seen = self._now()
        return session

    async def close(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is not None:
            self._each[session.owner] -= 1
            if not self._each[session.owner]:
                del self._each[session.owner]
            await session.aclose()

    async def _sweep(self) -> None:
        now = self._now()
        if now - self._swept < SWEEP_MS:
            return
        self._swept = now
        late = now - IDLE_MS
        for session in [each for each in self._sessions.values() if each.seen < late and _idle(each)]:
            await self.close(session)

    async def _evict(self, among: list[Session]) -> None:
        idle = [session for session in among if _idle(session)]
        if not idle:
            raise GatewayError(Reason.OVERLOADED, "Too many sessions are open", retry_after=30)
        await self.close(min(idle, key=lambda session: session.seen))


def _idle(session: Session) -> bool:
    return not session.in_flight and session.stream is None
