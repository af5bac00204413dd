"""One MCP server as the gateway knows it: what it offers, how it is, and which of its resources somebody watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.core.gate import Gate
from gateway.core.policy import Target, matches
from gateway.core.tools.breaker import Breaker
from gateway.core.tools.lists import LIST_CHANGED, Lists, Own
from gateway.core.tools.pins import Quarantine
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Login
from gateway.model.principal import Principal
from gateway.model.tool import Catalog, Change, Definition, Kind, ServerAccounts, ToolServer
from gateway.model.toolcall import Health, Waiting

WATCH_SECONDS = 5  # a subscriber waits at most so long for the server to confirm
MAX_WATCHED = 1_000  # resources of one server that are subscribed to


@dataclass(slots=True)
class Served(Lists):
    """One server as the gateway knows it, with the lists of all callers. `requires` is pattern of tool names ->
    permissions that a caller must hold."""

    id: str
    server: ToolServer
    gate: Gate
    at: str = ""  # where the operator says it is: a URL, a command
    quarantine: Quarantine = Quarantine.CHANGED
    requires: tuple[tuple[str, frozenset[str]], ...] = ()
    judged: Callable[[str], tuple[str, Target]] | None = None  # verb and target, where tools stand for something else
    login: Login | None = None  # how a person authorizes it, where one has to
    accounts: ServerAccounts | None = None  # where callers have their own authorization
    said: Callable[[], tuple[str, ...]] = tuple  # what its command says beside the protocol: the last lines of stderr
    own: OrderedDict[str, Own] = field(default_factory=OrderedDict)  # and their lists, by owner (own_lists.py)
    catalog: Catalog | None = None
    destructive: frozenset[str] = frozenset()  # tools that say so of themselves; what was offered last counts
    to_callers: bool = False  # the operator has no authorization there, and nothing is wrong with that
    problem: str | None = None
    gone: bool = False  # another one may have its name
    failures: int = 0
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    overdue: bool = False  # it has kept a list waiting, and keeps no other one
    watched: Counter[str] = field(default_factory=Counter)
    rewatch: asyncio.Event = field(default_factory=asyncio.Event)
    watching: asyncio.Event = field(default_factory=asyncio.Event)
    rumours: set[str] = field(default_factory=set)  # changes that were said in a caller's session
    rumour: asyncio.Event = field(default_factory=asyncio.Event)
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.id)

    @property
    def state(self) -> str:
        if self.to_callers:
            return "callers"
        if self.problem is not None:
            return "down"
        return "starting" if self.catalog is None else "up"

    def lists(self, who: Principal) -> Lists:
        """Those of this caller: their own, as far as they are there, else those of all."""
        return self if self.accounts is None else self.own.get(owner_in(who), self)

    def known(self, who: Principal) -> Lists | None:
        """The same; None where the caller has lists of their own that have not been read yet."""
        owner = owner_in(who)
        unread = self.accounts is not None and owner not in self.own and self.accounts.connected(owner)
        return None if unread else self.lists(who)

    def all_waiting(self) -> tuple[Waiting, ...]:
        """Whoever has seen it. The same thing may wait in more than one form."""
        if not self.own:
            return self.waiting
        every = (each for lists in (self, *self.own.values()) for each in lists.waiting)
        found = {form(each.definition): each for each in every}
        return tuple(found[key] for key in sorted(found))

    def question(self, verb: str, key: str) -> tuple[str, Target]:
        """What policy is asked about one thing of this server: the verb and the target."""
        return (verb, self.target(key)) if self.judged is None else self.judged(key)

    def target(self, key: str) -> Target:
        permissions = frozenset[str]().union(
            *(needs for pattern, needs in self.requires if matches(pattern, f"/{key}"))
        )
        return Target(f"{self.id}/{key}", permissions=permissions, destructive=key in self.destructive)

    async def watch(self, uri: str) -> None:
        """Ask for news of one resource. Returns when the server has confirmed, or after WATCH_SECONDS."""
        self.watched[uri] += 1
        if self.watched[uri] > 1:
            return
        if len(self.watched) > MAX_WATCHED:
            self.unwatch(uri)
            raise GatewayError(Reason.OVERLOADED, f"Too many resources of {self.id} are subscribed to", retry_after=5)
        self.watching.clear()
        self.rewatch.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_SECONDS):
                await self.watching.wait()

    def unwatch(self, uri: str) -> None:
        self.watched[uri] -= 1
        if self.watched[uri] <= 0:
            del self.watched[uri]
            self.rewatch.set()

    def overheard(self, change: Change) -> None:
        """Something was said in a caller's session."""
        if change.method in LIST_CHANGED:
            self.rumours.add(change.method)
            self.rumour.set()

    def health(self) -> Health:
        catalog = self.catalog
        return Health(
            self.id,
            self.state,
            catalog.face if catalog else None,
            self.problem,
            tuple(each for kind in Kind for each in self.offered.get(kind, ())),
            self.all_waiting(),
            {address: why for lists in (*self.own.values(), self) for address, why in lists.refused.items()},
            catalog.fetched if catalog else None,
            self.said() if self.state == "down" else (),
        )


def owner_in(who: Principal) -> str:
    """Whose lists and authorization go with a call (connections.py); for nobody, whose there are none of."""
    root = who.root
    return f"{root.tenant}/{root.id}"


def form(definition: Definition) -> tuple[Kind, str, str]:
    """What tells one definition of a server from all others, also of the same name."""
    return definition.kind, definition.key, definition.hash
