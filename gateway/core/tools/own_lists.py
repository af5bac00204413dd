"""Lists of a server where each caller has an authorization of their own, as that caller's account gets them.

What one caller's list holds is for nobody else: not offered to others, not trusted at first sight, not the reason why
a call of somebody else's is refused. What the operator has approved is for all, so a definition is offered when it is
the approved one to the last character, and waits otherwise, as it would of any server.

Lists are read when their owner asks, and kept as long as there is room; who has none of their own sees those of all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from gateway.core.connections import tool_server
from gateway.core.tools.catalogs import READ_SECONDS, read, seconds_good
from gateway.core.tools.lists import LIST_CHANGED, Lists, Own, differing
from gateway.core.tools.news import News
from gateway.core.tools.served import Served, owner_in
from gateway.core.tools.servers import FIRST_SECONDS, GRACE_MS, Servers
from gateway.model.errors import GatewayError
from gateway.model.login import LoginNeeded
from gateway.model.principal import Kind as Who
from gateway.model.principal import Principal
from gateway.model.tool import Change

log = logging.getLogger(__name__)

MAX_OWNERS = 256  # whose lists are kept, of one server; who was away the longest has theirs read again
MAX_KEPT = 50_000  # definitions of one server in all of them, of which those that are approved are there once
MAX_READING = 16  # read at one time: after a restart everybody asks
REST_MS = 5_000  # a list that could not be read makes nobody wait for it again so soon
LATE_MS = 1000 * READ_SECONDS  # nor one that takes longer than the first who asked would wait
MAX_RESTING = 1_000  # owners of which that is remembered

_Key = tuple[str, str]  # server, owner


class OwnLists:
    def __init__(self, servers: Servers, now: Callable[[], int]) -> None:
        self.when_changed: list[Callable[[str], None]] = []  # told whose
        self._servers = servers
        self._now = now
        self._reading: dict[_Key, asyncio.Task[None]] = {}
        self._again: set[_Key] = set()
        self._resting: dict[_Key, int] = {}
        self._closed = False
        self._room = asyncio.Semaphore(MAX_READING)
        servers.when_said.append(self._said)
        servers.when_approved.append(self._judge)

    async def settled(self, who: Principal, servers: Iterable[Served] | None = None) -> None:
        """Returns when the caller's own lists are there, where they are connected, or FIRST_SECONDS have passed."""
        if not self._servers.personal or who.root.kind is Who.ANONYMOUS:
            return
        owner = owner_in(who)
        chosen = self._servers.personal if servers is None else servers
        awaited = {task: each.id for each in chosen if (task := self._due(each, owner)) is not None}
        if awaited:
            _, late = await asyncio.wait(awaited, timeout=FIRST_SECONDS)
            for task in late:  # once is enough: no other request waits for it
                self._rest((awaited[task], owner), LATE_MS)

    async def connected(self, place: str, who: Principal) -> None:
        """Somebody has just been there, perhaps as another person than before."""
        for served in self._servers.personal:
            if tool_server(served.id) == place:
                self._resting.pop((served.id, owner_in(who)), None)
                self._begin(served, owner_in(who))

    async def aclose(self) -> None:
        self._closed = True
        for task in self._reading.values():
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading.values())

    def _due(self, served: Served, owner: str) -> asyncio.Task[None] | None:
        """What to wait for, if anything. Lists that are merely old are used while they are read again."""
        if served.accounts is None:
            return None
        if not served.accounts.connected(owner):
            self._put(served, owner, None)
            return None
        key, own = (served.id, owner), served.own.get(owner)
        if own is not None:
            served.own.move_to_end(owner)
            if own.until <= self._now():
                self._begin(served, owner)
            return None
        if self._now() < self._resting.get(key, 0):
            return None
        return self._reading.get(key) or self._begin(served, owner)

    def _begin(self, served: Served, owner: str) -> asyncio.Task[None]:
        key = (served.id, owner)
        if (running := self._reading.get(key)) is not None:
            self._again.add(key)
            return running
        task = self._reading[key] = asyncio.create_task(self._read(served, owner), name=f"mcp-{served.id}-own")
        return task

    async def _read(self, served: Served, owner: str) -> None:
        key = (served.id, owner)
        try:
            async with self._room:
                await self._taken(served, owner)
        except (GatewayError, TimeoutError) as error:
            self._failed(served, owner, error)
        except Exception:
            log.exception("MCP server %s: reading a caller's lists failed", served.id)
        finally:
            del self._reading[key]
            if key in self._again:
                self._again.discard(key)
                if not self._closed:
                    self._begin(served, owner)

    async def _taken(self, served: Served, owner: str) -> None:
        if not self._there(served, owner) or served.accounts is None:
            return
        server = served.accounts.server(owner)
        server.overhear(lambda change: self._overheard(served, owner, change))
        catalog = await read(served.id, server, self._now)
        definitions = (each for found in catalog.definitions.values() for each in found)
        lists = await self._servers.judged(served, definitions, owner)
        if not self._there(served, owner):  # it was ended meanwhile
            return
        self._resting.pop((served.id, owner), None)
        now = self._now()
        self._put(served, owner, _own(lists, lists.refused, now, now + int(1000 * seconds_good(catalog.ttl_ms))))

    async def _judge(self, served: Served) -> None:
        """The operator has approved something."""
        for owner, own in tuple(served.own.items()):
            lists = await self._servers.judged(served, own.definitions, owner)
            if served.own.get(owner) is own:
                self._put(served, owner, _own(lists, own.refused, own.fetched, own.until))

    def _failed(self, served: Served, owner: str, error: GatewayError | TimeoutError) -> None:
        # Of what is in lists nothing is said here: they are somebody's own.
        log.info("MCP server %s: a caller's lists could not be read: %r", served.id, str(error) or "no answer in time")
        self._rest((served.id, owner), REST_MS)
        own = served.own.get(owner)
        if own is None:
            return
        own.until = self._now() + REST_MS
        if isinstance(error, LoginNeeded) or self._now() - own.fetched > GRACE_MS:
            self._put(served, owner, None)

    def _rest(self, key: _Key, ms: int) -> None:
        while len(self._resting) >= MAX_RESTING:
            del self._resting[next(iter(self._resting))]
        self._resting[key] = self._now() + ms

    def _there(self, served: Served, owner: str) -> bool:
        """Whether the server is still configured as it was, and its owner connected."""
        accounts = served.accounts
        return self._servers.get(served.id) is served and accounts is not None and accounts.connected(owner)

    def _put(self, served: Served, owner: str, own: Own | None) -> None:
        before: Lists | None = served.own.pop(owner, None)
        if own is not None:
            served.own[owner] = own
        elif before is None:
            return
        self._told(served, owner, before or served, own or served)
        kept = sum(map(_size, served.own.values()))
        while len(served.own) > MAX_OWNERS or (kept > MAX_KEPT and len(served.own) > 1):
            other, least = served.own.popitem(last=False)
            kept -= _size(least)
            self._told(served, other, least, served)

    def _told(self, served: Served, owner: str, before: Lists, after: Lists) -> None:
        kinds = differing(before, after)
        if not kinds:
            return
        for told in self.when_changed:
            told(owner)
        self._servers.board.publish(News(served.id, kind) for kind in kinds)

    def _overheard(self, served: Served, owner: str, change: Change) -> None:
        if change.method in LIST_CHANGED and owner in served.own:
            self._begin(served, owner)

    def _said(self, served: Served) -> None:
        """The server has told everybody that its lists have changed."""
        for owner in served.own:
            self._begin(served, owner)


def _own(lists: Lists, refused: dict[str, str], fetched: int, until: int) -> Own:
    return Own(offered=lists.offered, waiting=lists.waiting, refused=refused, fetched=fetched, until=until)


def _size(own: Own) -> int:
    return sum(len(each) for each in own.offered.values()) + len(own.waiting)
