"""A tool server at which each caller has an authorization of its own: one token source and one connection for each.

Nothing of one owner's ever goes with a request of another's: they share no session, no token and no connection's state,
only what the operator's file says and who the gateway is at the issuers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from gateway.model.login import Ending, Login
from gateway.model.tool import ToolServer
from gateway.upstream.mcp.server import HttpServer
from gateway.upstream.oauth.source import GiveBack, TokenSource

# Owners whose connection is kept open. Tokens are on disk: who was away for long is connected anew.
MAX_OWNERS = 256
# For giving all authorizations back: so many at a time, so many seconds in all.
AT_ONCE = 8
ALL_SECONDS = 20.0  # a person waits for it

Make = Callable[[str], tuple[TokenSource, HttpServer]]
Owners = Callable[[], Awaitable[Sequence[str | None]]]


class CallerAccounts:
    """A `ServerAccounts`. `make` gives one owner's token source, and the server as it is reached with it; `has` says
    whether something is kept of an owner, `owners` of whom; `forget_all` removes it."""

    def __init__(self, make: Make, has: Callable[[str], bool], owners: Owners, forget_all: Callable[[], None]) -> None:
        self._make = make
        self._has = has
        self._owners = owners
        self._forget_all = forget_all
        self._known: OrderedDict[str, tuple[TokenSource, HttpServer]] = OrderedDict()
        self._leaving: set[asyncio.Task[None]] = set()

    def server(self, owner: str) -> ToolServer:
        return self._of(owner)[1]

    def login(self, owner: str) -> Login:
        return self._of(owner)[0]

    def connected(self, owner: str) -> bool:
        """Who has never been here costs a look at the disk, and nobody's connection its place."""
        return (owner in self._known or self._has(owner)) and self._of(owner)[0].connected

    async def end(self, owner: str) -> Ending:
        source, server = self._of(owner)
        ending = await source.end() or Ending.UNASKED
        self._known.pop(owner, None)
        await server.aclose()  # a session of the server's knows who it was opened for
        return ending

    async def end_all(self) -> Counter[Ending]:
        """All are forgotten before the first issuer is told: nobody's token is used on while others wait for theirs."""
        owners = await self._owners()
        forgotten = [None if owner is None else await self._of(owner)[0].forget() for owner in owners]
        self._forget_all()  # what cannot be read, and who the gateway is there
        await self.aclose()
        ends = await _given_back([each for each in forgotten if each is not None])
        ends[Ending.UNASKED] += forgotten.count(None)
        return +ends

    async def aclose(self) -> None:
        known, self._known = self._known, OrderedDict()
        for _, server in known.values():
            await server.aclose()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _of(self, owner: str) -> tuple[TokenSource, HttpServer]:
        found = self._known.get(owner)
        if found is None:
            self._make_room()
            found = self._known[owner] = self._make(owner)
        self._known.move_to_end(owner)
        return found

    def _make_room(self) -> None:
        """The one that was used longest ago goes, unless it is at work."""
        if len(self._known) < MAX_OWNERS:
            return
        idle = next((owner for owner, (_, server) in self._known.items() if not server.busy), None)
        if idle is not None:
            _, server = self._known.pop(idle)
            task = asyncio.get_running_loop().create_task(server.aclose())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


async def _given_back(given: Sequence[GiveBack]) -> Counter[Ending]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(give_back: GiveBack) -> Ending:
        async with places:
            return await give_back()

    tasks = [asyncio.ensure_future(one(each)) for each in given]
    if not tasks:
        return Counter()
    try:
        done, late = await asyncio.wait(tasks, timeout=ALL_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
    ends = Counter(task.result() for task in done)
    ends[Ending.FAILED] += len(late)
    return ends
