"""A session: what the revisions before 2026-07-28 have in common, over whatever transport.

Source: 2025-11-25, basic/lifecycle, basic/utilities (cancellation, ping), server/utilities/logging, server/resources.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Protocol

from gateway.dialects.mcp.message import LEVELS, Notification, least
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import ACKNOWLEDGED, Caller, Change, Face, Tree
from gateway.upstream.mcp.fanout import Fanout
from gateway.upstream.mcp.limits import NOBODY
from gateway.upstream.mcp.modern import declares

log = logging.getLogger(__name__)

# Messages about what has already ended (cancel, delete, unsubscribe) are worth this many seconds.
FAREWELL_SECONDS = 5.0


class Lost(Exception):
    """The server does not know the session any more, and did nothing. A new one may be opened."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(str(error))
        self.error = error


class Session(Protocol):
    """One session with one server, for one principal with one set of capabilities. `request` raises Lost."""

    face: Face

    @property
    def alive(self) -> bool: ...

    @property
    def busy(self) -> bool:
        """Whether something is in flight or somebody listens."""
        ...

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree: ...

    def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]: ...

    async def aclose(self) -> None: ...


class Chores:
    """Small tasks that nobody waits for. They end with the session."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def aclose(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Wait for what is under way; each chore has an end of its own."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GatewayError):
            log.error("a chore of a session failed", exc_info=error)


class Levels:
    """`logging/setLevel` belongs to a session, a caller's wish to one request: the session gets the least severe level
    that anybody wanted, and each caller what it asked for."""

    def __init__(self, face: Face) -> None:
        self._offered = isinstance(face.capabilities.get("logging"), dict)
        self._rank = len(LEVELS)

    def lower(self, caller: Caller) -> str | None:
        """The level to set now, None when the session hears enough already."""
        wanted = least(caller.log_level)
        if not self._offered or wanted is None or wanted >= self._rank:
            return None
        self._rank = wanted
        return LEVELS[wanted]


async def listen(
    session: Session, fanout: Fanout, uris: frozenset[str], chores: Chores
) -> AsyncGenerator[Change, None]:
    """`changes` of a session, once its notifications arrive at `fanout`. Raises UNSUPPORTED_OPERATION."""
    face = session.face
    lists = [name for name in ("tools", "prompts", "resources") if declares(face, name, "listChanged")]
    follows = uris if declares(face, "resources", "subscribe") else frozenset()
    if not lists and not follows:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The server sends no notifications about changes")

    async def subscribe(uri: str, wanted: bool) -> None:
        if wanted:
            await session.request("resources/subscribe", {"uri": uri}, NOBODY)
        elif session.alive:
            chores.add(_unsubscribe(session, uri))

    honoured: Tree = {f"{name}ListChanged": True for name in lists}
    if follows:
        honoured["resourceSubscriptions"] = sorted(follows)
    first = Change(ACKNOWLEDGED, {"notifications": honoured})
    async with aclosing(fanout.listen(follows, first, subscribe)) as stream:
        async for change in stream:
            yield change


async def _unsubscribe(session: Session, uri: str) -> None:
    with contextlib.suppress(Lost, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await session.request("resources/unsubscribe", {"uri": uri}, NOBODY)


def canceled(id: int, reason: str) -> Notification:
    return Notification("notifications/cancelled", {"requestId": id, "reason": reason})
