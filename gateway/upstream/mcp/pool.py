"""Sessions with one server, each for one principal with one set of capabilities: nobody ever gets another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import orjson

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller
from gateway.upstream.mcp.limits import NOBODY
from gateway.upstream.mcp.session import Chores, Session

Key: TypeAlias = tuple[str, bytes]
S = TypeVar("S", bound=Session)

# Seconds before a session that could not be opened, or was lost soon after, is opened again: none the first time, for
# servers are restarted, and then ever longer. The factor of chance keeps many gateways from coming all at once.
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# The longest between two looks at what is idle or old.
LOOK_SECONDS = 30.0
# Whoever has just got a session has yet to use it.
FRESH_SECONDS = 0.05
# Failures that are remembered at the same time; the oldest is forgotten first.
REMEMBERED = 1024


def key_of(caller: Caller) -> Key:
    return caller.principal, orjson.dumps(caller.capabilities, option=orjson.OPT_SORT_KEYS)


OWN: Key = key_of(NOBODY)
"""The gateway's own session, for lists and changes."""


class Backoff:
    """When something that fails may be tried again. Pure: seconds of any clock go in."""

    def __init__(self) -> None:
        self._failures = 0
        self._next = 0.0

    def failed(self, now: float, chance: float) -> None:
        """`chance` is from 0 to 1."""
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        self._next = now + pause * (0.5 + chance / 2)

    def wait(self, now: float) -> float:
        """Seconds until the next try may be made."""
        return max(0.0, self._next - now)


class _Place(Generic[S]):
    __slots__ = ("born", "session", "used")

    def __init__(self, session: S, now: float) -> None:
        self.session = session
        self.born = now
        self.used = now


class Pool(Generic[S]):
    """At most `most` sessions. One that has had nothing to do for `idle` seconds is closed, and one that is older than
    `lifetime` as soon as it has nothing to do. One that is lost before it was `steady` seconds old counts as failed,
    like one that could not be opened. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        open: Callable[[Caller], Awaitable[S]],
        *,
        most: int,
        idle: float,
        lifetime: float | None,
        steady: float,
        chance: Callable[[], float],
    ) -> None:
        self._open = open
        self._most = most
        self._idle = idle
        self._lifetime = lifetime
        self._steady = steady
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._places: dict[Key, _Place[S]] = {}
        self._opening: dict[Key, asyncio.Task[S]] = {}
        self._backoffs: dict[Key, Backoff] = {}
        self._chores = Chores()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def put(self, key: Key, session: S) -> None:
        """A session that was opened elsewhere, to find out what the server is."""
        self._places[key] = _Place(session, self._loop.time())
        self._watch()

    async def get(self, caller: Caller, key: Key) -> S:
        """The session of `key`, opened for `caller` if there is none. Many may wait for one opening; if one of them
        gives up, it goes on for the others.

        Raises OVERLOADED when all places are taken and in use, UNAVAILABLE while a session that failed has to wait,
        and whatever `open` raises."""
        place = self._places.get(key)
        if place is not None and place.session.alive:
            place.used = self._loop.time()
            return place.session
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = self._loop.create_task(self._opened(caller, key, place))
            opening.add_done_callback(lambda task: self._settled(key, task))
        return await asyncio.shield(opening)

    async def aclose(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._opening.values()):
            task.cancel()
        places, self._places = self._places, {}
        await asyncio.gather(*(place.session.aclose() for place in places.values()), return_exceptions=True)
        await self._chores.drain()

    async def _opened(self, caller: Caller, key: Key, dead: _Place[S] | None) -> S:
        if self._closed:
            raise GatewayError(Reason.UNAVAILABLE, "The gateway is stopping")
        now = self._loop.time()
        if dead is not None:
            del self._places[key]
            self._chores.add(dead.session.aclose())
            if now - dead.born < self._steady:
                self._failed(key, now)
            else:
                self._backoffs.pop(key, None)
        if key in self._backoffs and (wait := self._backoffs[key].wait(now)):
            what = "The server failed and is not tried again yet"
            raise GatewayError(Reason.UNAVAILABLE, what, retry_after=wait, metadata={"delivered": "no"})
        self._make_room()
        try:
            session = await self._open(caller)
        except Exception:
            self._failed(key, self._loop.time())
            raise
        self._places[key] = _Place(session, self._loop.time())
        self._watch()
        return session

    def _settled(self, key: Key, task: asyncio.Task[S]) -> None:
        del self._opening[key]
        if not task.cancelled():
            task.exception()  # whoever waited knows; if nobody did, nobody needs to

    def _failed(self, key: Key, now: float) -> None:
        backoff = self._backoffs.pop(key, None) or Backoff()
        backoff.failed(now, self._chance())
        self._backoffs[key] = backoff
        if len(self._backoffs) > REMEMBERED:
            del self._backoffs[next(iter(self._backoffs))]

    def _make_room(self) -> None:
        taken = len(self._places) + len(self._opening) - 1  # the one that is being opened has its place already
        if taken < self._most:
            return
        free = [(place.used, key) for key, place in self._places.items() if not place.session.busy and key != OWN]
        if not free:
            raise GatewayError(
                Reason.OVERLOADED, "The server has as many sessions as it may have", metadata={"delivered": "no"}
            )
        self._let_go(min(free)[1])

    def _let_go(self, key: Key) -> None:
        self._chores.add(self._places.pop(key).session.aclose())

    # What nobody asks for: closing what is idle or old.

    def _watch(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(min(self._idle / 2, LOOK_SECONDS), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for key, place in tuple(self._places.items()):
            if place.session.busy:
                place.used = now
            elif now - place.used < FRESH_SECONDS:
                continue
            elif not place.session.alive:
                # Until somebody wants it again it keeps its place, and with it the memory of when it began.
                if now - place.used > self._steady:
                    self._let_go(key)
            elif now - place.used >= self._idle or (self._lifetime is not None and now - place.born >= self._lifetime):
                self._let_go(key)
        if self._places:
            self._watch()
