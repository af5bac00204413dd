"""Which MCP servers there are, and what each of them offers just now.

Each server has a keeper of its own: it reads the catalogue, listens for changes, and tries again with patience when
the server fails. Nobody waits for a keeper: calls and lists use what is known. So one server that is dead, slow or
talks nonsense costs the others nothing; its own last good list stays for a grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from gateway.core.act import Act
from gateway.core.gate import Gate
from gateway.core.policy import Target, matches
from gateway.core.standing import pin, standing
from gateway.core.tools.breaker import Breaker
from gateway.core.tools.hygiene import CheckSchema, objection
from gateway.core.tools.lists import Lists, Own, by_kind, differing, hashes
from gateway.core.tools.news import Board, News
from gateway.core.tools.pins import Pins, Quarantine
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import Login, LoginNeeded
from gateway.model.principal import Principal
from gateway.model.tool import ACKNOWLEDGED, Catalog, Change, Definition, Kind, ServerAccounts, ToolServer, Tree
from gateway.model.toolcall import Health, Waiting

log = logging.getLogger(__name__)

READ_SECONDS = 30  # for a whole catalogue, connecting included; a package runner may have to unpack one first
START_SECONDS = 10  # how long a call for what is not there waits for servers that are still starting: a slow command
FIRST_SECONDS = 1  # how long the first list after a start waits for servers that nobody has heard of yet
RETRY_SECONDS = (1, 2, 5, 15, 30, 60)  # after so many failures in a row
POLL_SECONDS = 60  # between looks at a server that sends no changes and says no `ttlMs`
MIN_POLL_SECONDS = 5  # however short a `ttlMs` is: lists are shared, and a server that says 0 means "ask me"
GRACE_MS = 600_000  # the last good list of a server that fails is kept so long: a deployment takes minutes
RUMOUR_SECONDS = 0.1  # what is said in a caller's session is mostly said on the gateway's own stream too: that first
WATCH_SECONDS = 5  # a subscriber waits at most so long for the server to confirm
MAX_DEFINITIONS = 5_000  # of one kind of one server; 300 tools are many
MAX_WATCHED = 1_000  # resources of one server that are subscribed to

LIST_CHANGED: dict[str, tuple[Kind, ...]] = {
    "notifications/tools/list_changed": (Kind.TOOL,),
    "notifications/prompts/list_changed": (Kind.PROMPT,),
    "notifications/resources/list_changed": (Kind.RESOURCE, Kind.TEMPLATE),
}
_UPDATED = "notifications/resources/updated"


@dataclass(slots=True)
class Served(Lists):
    """One server as the gateway knows it, with the lists of all callers. `requires` is pattern of tool names ->
    permissions that a caller must hold."""

    id: str
    server: ToolServer
    gate: Gate
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

    def all_waiting(self) -> tuple[Waiting, ...]:
        """Whoever has seen it. The same thing may wait in more than one form."""
        if not self.own:
            return self.waiting
        every = (each for lists in (self, *self.own.values()) for each in lists.waiting)
        found = {_form(each.definition): each for each in every}
        return tuple(found[key] for key in sorted(found))

    def question(self, verb: str, key: str) -> tuple[str, Target]:
        """What policy is asked about one thing of this server: the verb and the target."""
        return (verb, self.target(key)) if self.judged is None else self.judged(key)

    def target(self, key: str) -> Target:
        permissions = frozenset[str]().union(
            *(needs for pattern, needs in self.requires if matches(pattern, f"/{key}"))
        )
        return Target(f"{self.id}/{key}", permissions=permissions, destructive=key in self.destructive)

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


class Servers:
    """`generation` goes up with every change of what is offered; whatever is derived from it is kept by that number, or
    made anew by one of `when_changed`."""

    def __init__(self, pins: Pins, board: Board, now: Callable[[], int], check_schema: CheckSchema) -> None:
        self.board = board
        self.generation = 0
        self.when_changed: list[Callable[[], None]] = []
        self.when_held: list[Callable[[str, str], None]] = []  # of what is not offered, and why
        self.when_said: list[Callable[[Served], None]] = []  # of lists that are not what they were
        self.when_approved: list[Callable[[Served], Awaitable[None]]] = []
        self.personal: tuple[Served, ...] = ()  # those with accounts of callers
        self._pins = pins
        self._now = now
        self._check_schema = check_schema
        self._served: dict[str, Served] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    def get(self, id: str) -> Served | None:
        return self._served.get(id)

    def all(self) -> Iterable[Served]:
        return self._served.values()

    def put(self, served: Served) -> None:
        self._served[served.id] = served
        self._sort()
        served.server.overhear(lambda change: _overheard(served, change))

    async def start(self) -> None:
        if not self._served:
            return
        await self._pins.start()
        for server in self._pins.servers():
            if server not in self._served:
                await self._pins.forget(server)
        for served in self._served.values():
            self._begin(served)

    async def add(self, served: Served) -> None:
        """One more server, in place of the one of its name if there is one."""
        await self.remove(served.id)
        self.put(served)
        self._begin(served)

    async def remove(self, id: str) -> None:
        """Let a server go. What was approved of it stays approved, should it come back before the next start."""
        served = self._served.pop(id, None)
        if served is None:
            return
        self._sort()
        keeper = self._keepers.pop(id, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))
        before, served.offered = served.offered, {}
        served.own.clear()
        self.generation += 1
        self._announce(served, before)
        await _closed(served)

    def _sort(self) -> None:
        self.personal = tuple(each for each in self._served.values() if each.accounts is not None)

    def changed(self) -> None:
        """Who may see what has changed, or under which names: everybody who listens looks again."""
        self.generation += 1
        self.board.publish(News(served.id, kind) for served in self._served.values() for kind in Kind)

    def _begin(self, served: Served) -> None:
        self._keepers[served.id] = asyncio.create_task(self._keep(served), name=f"mcp-{served.id}")

    async def aclose(self) -> None:
        for keeper in self._keepers.values():
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers.values())
        self._keepers = {}
        await asyncio.gather(*map(_closed, self._served.values()), return_exceptions=True)

    async def settled(self) -> None:
        """Returns when every server has been tried once, or FIRST_SECONDS have passed since this was asked. Only a
        gateway that has just started makes anybody wait here."""
        awaited = [served for served in self._served.values() if not (served.overdue or served.tried.is_set())]
        if awaited:
            await _tried(awaited, FIRST_SECONDS)
            for served in awaited:
                served.overdue = not served.tried.is_set()  # once is enough: no other list waits for it

    async def started(self) -> bool:
        """For who asks for something that nobody has: it may be of a server that is still on its way. False when there
        is none such; else returns when all have been tried, or START_SECONDS have passed."""
        awaited = [served for served in self._served.values() if not served.tried.is_set()]
        if awaited:
            await _tried(awaited, START_SECONDS)
        return bool(awaited)

    async def approve(self, address: str, hash: str, act: Act) -> list[Definition]:
        """Let `server/name`, or all of `server`, out of quarantine; with `hash`, the one whose hash begins so. Raises
        NOT_FOUND when nothing of it waits, INVALID_PARAMS when it waits in more than one form."""
        server, _, key = address.partition("/")
        served = self._served.get(server)
        waiting = () if served is None else (each.definition for each in served.all_waiting())
        chosen = [each for each in waiting if key in ("", each.key) and each.hash.startswith(hash)]
        if served is None or not chosen:
            raise GatewayError(Reason.NOT_FOUND, f"Nothing called {address!r} waits for approval")
        forms = Counter((each.kind, each.key) for each in chosen)
        if twice := next((each.address for each in chosen if forms[each.kind, each.key] > 1), None):
            raise invalid("hash", f"must say which form of {twice} is meant: callers see different ones")
        act.before = standing(map(pin, self._pins.of(chosen)))
        await self._pins.approve(server, chosen, act.commit)
        if served.catalog is not None:
            await self._take(served, served.catalog)
        elif served.to_callers:
            self._approved(served)
        for judge in self.when_approved:
            await judge(served)
        return chosen

    async def watch(self, served: Served, uri: str) -> None:
        """Ask for news of one resource. Returns when the server has confirmed, or after WATCH_SECONDS."""
        served.watched[uri] += 1
        if served.watched[uri] > 1:
            return
        if len(served.watched) > MAX_WATCHED:
            self.unwatch(served, uri)
            raise GatewayError(Reason.OVERLOADED, f"Too many resources of {served.id} are subscribed to", retry_after=5)
        served.watching.clear()
        served.rewatch.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_SECONDS):
                await served.watching.wait()

    def unwatch(self, served: Served, uri: str) -> None:
        served.watched[uri] -= 1
        if served.watched[uri] <= 0:
            del served.watched[uri]
            served.rewatch.set()

    # Keeping one server.

    async def _keep(self, served: Served) -> None:
        while True:
            if await self.refresh(served):
                with contextlib.suppress(GatewayError):
                    await self._follow(served)
            # The stream broke, or the server cannot be read: look again, and never in a tight loop.
            await asyncio.sleep(_patience(served))

    async def _follow(self, served: Served) -> None:
        """Listen until the server ends the stream or cannot be heard any more."""
        while True:
            served.rewatch.clear()
            reading = asyncio.ensure_future(self._read(served, frozenset(served.watched)))
            overhearing = asyncio.ensure_future(self._overhear(served))
            turning = asyncio.ensure_future(served.rewatch.wait())
            tasks = (reading, overhearing, turning)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if overhearing.done():
                    overhearing.result()
                if reading.done():
                    reading.result()
                    return
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _overhear(self, served: Served) -> None:
        """Look again for each rumour that has not been looked into since."""
        while True:
            await served.rumour.wait()
            await asyncio.sleep(RUMOUR_SECONDS)
            served.rumour.clear()
            while served.rumours:
                await self._heard(served, Change(served.rumours.pop(), {}))

    async def _read(self, served: Served, uris: frozenset[str]) -> None:
        try:
            async with contextlib.aclosing(served.server.changes(uris)) as changes:  # type: ignore[type-var]
                async for change in changes:
                    await self._heard(served, change)
        except GatewayError as error:
            if error.reason is not Reason.UNSUPPORTED_OPERATION:
                raise
            served.watching.set()
            await self._poll(served)

    async def _heard(self, served: Served, change: Change) -> None:
        if change.method == ACKNOWLEDGED:
            served.watching.set()
            await self._look(served)  # what happened while nobody listened
        elif change.method in LIST_CHANGED:
            before = {kind: hashes(served.offered.get(kind)) for kind in LIST_CHANGED[change.method]}
            for told in self.when_said:
                told(served)
            await self._look(served)
            same = [kind for kind, old in before.items() if old == hashes(served.offered.get(kind))]
            self.board.publish(News(served.id, kind, said=True) for kind in same)
        elif change.method == _UPDATED and isinstance(uri := change.params.get("uri"), str):
            self.board.publish([News(served.id, Kind.RESOURCE, uri)])

    async def _look(self, served: Served) -> None:
        """Refresh, or stop listening: a server that cannot be read is tried again with patience, not when it speaks."""
        if not await self.refresh(served):
            raise GatewayError(Reason.UPSTREAM_FAILED, served.problem or "")

    async def _poll(self, served: Served) -> None:
        while True:
            ttl = served.catalog.ttl_ms if served.catalog is not None else None
            await asyncio.sleep(POLL_SECONDS if ttl is None else max(MIN_POLL_SECONDS, ttl / 1000))
            await self._look(served)

    async def refresh(self, served: Served) -> bool:
        """Read the whole catalogue again. A failure keeps what was known, for a while."""
        served.rumours.clear()
        worked = False
        try:
            async with asyncio.timeout(READ_SECONDS):
                catalog = await self.read(served, served.server)
        except TimeoutError:
            self._failed(served, f"did not list what it offers within {READ_SECONDS} s")
        except GatewayError as error:
            served.to_callers = served.accounts is not None and isinstance(error, LoginNeeded)
            self._failed(served, error.message)
        except Exception:
            log.exception("MCP server %s: reading its lists failed", served.id)
            self._failed(served, "its lists could not be read; the log says why")
        else:
            served.failures, served.problem, served.to_callers = 0, None, False
            served.breaker.worked()
            await self._take(served, catalog)
            worked = True
        if not served.tried.is_set():
            served.tried.set()
            self.generation += 1  # lists said until now that there may be more
        return worked

    async def read(self, served: Served, server: ToolServer) -> Catalog:
        """Its whole catalogue, as it is reached by `server`."""
        face = await server.face()
        definitions: dict[Kind, tuple[Definition, ...]] = {}
        ttls: list[int] = []
        private = False
        for kind in Kind:
            if not face.offers(kind):
                continue
            listing = await server.list(kind)
            definitions[kind] = tuple(_definitions(served.id, kind, listing.trees))
            ttls += [] if listing.ttl_ms is None else [listing.ttl_ms]
            private = private or listing.private
        return Catalog(served.id, face, definitions, self._now(), min(ttls, default=None), private)

    async def _take(self, served: Served, catalog: Catalog) -> None:
        """What of it may be offered; tell those who listen if that differs from before."""
        before = served.offered
        definitions = (each for kind in Kind for each in catalog.definitions.get(kind, ()))
        lists = await self.judged(served, definitions)
        served.catalog, served.refused, served.waiting = catalog, lists.refused, lists.waiting
        served.offered = lists.offered
        served.destructive = frozenset(each.key for each in lists.offered[Kind.TOOL] if _destroys(each))
        self._announce(served, before)

    async def judged(self, served: Served, definitions: Iterable[Definition], owner: str | None = None) -> Lists:
        """What may be offered of this, and what waits. What the account of one caller shows is trusted at no first
        sight, and the same object as what all others see of it."""
        known: dict[tuple[Kind, str, str], Definition] = {}
        if owner is not None:
            before = served.own.get(owner, served)
            known = {_form(each): each for each in (*before.definitions, *served.definitions)}
        refused: dict[str, str] = {}
        passed: list[Definition] = []
        for definition in definitions:
            same = known.get(_form(definition))
            reason = None if same is not None else objection(definition, self._check_schema)
            if reason is None:
                passed.append(same or definition)
            else:
                refused[definition.address] = reason
        first = owner is None or served.quarantine is Quarantine.OFF
        offered, waiting = await self._pins.judge(served.id, passed, served.quarantine if first else Quarantine.NEW)
        lists = Lists(offered=by_kind(offered), waiting=tuple(waiting), refused=refused)
        self._note(served, lists)
        if owner is not None:
            served.destructive |= {each.key for each in lists.offered[Kind.TOOL] if _destroys(each)}
        return lists

    def _note(self, served: Served, lists: Lists) -> None:
        """Say and record what is not offered, once."""
        told = {address for each in (served, *served.own.values()) for address in each.refused}
        for address in lists.refused.keys() - told:
            log.warning("MCP server %s: %r is not offered: %s", served.id, address, lists.refused[address])
            self._held(address, lists.refused[address])
        held = {(_form(each.definition), each.why) for each in served.all_waiting()}
        for each in lists.waiting:
            if (_form(each.definition), each.why) not in held:
                log.warning("MCP server %s: %r waits for approval: %r", served.id, each.definition.address, each.why)
                self._held(each.definition.address, each.why)

    def _approved(self, served: Served) -> None:
        """Where the operator has no list of their own, all see what is approved."""
        before, served.offered = served.offered, by_kind(self._pins.approved(served.id))
        served.destructive |= {each.key for each in served.offered[Kind.TOOL] if _destroys(each)}
        self._announce(served, before)

    def _held(self, address: str, why: str) -> None:
        for told in self.when_held:
            told(address, why)

    def _failed(self, served: Served, problem: str) -> None:
        served.failures += 1
        if served.problem != problem:
            log.warning("MCP server %s %s: %r", served.id, "has no list" if served.to_callers else "is down", problem)
        served.problem = problem
        stale = served.catalog is not None and self._now() - served.catalog.fetched > GRACE_MS
        if served.to_callers and (stale or served.catalog is None):
            served.catalog, served.waiting, served.refused = None, (), {}
            self._approved(served)
        elif stale and served.offered:
            before, served.offered = served.offered, {}
            self._announce(served, before)

    def _announce(self, served: Served, before: dict[Kind, tuple[Definition, ...]]) -> None:
        changed = differing(Lists(offered=before), served)
        if changed:
            self.generation += 1
            for told in self.when_changed:
                told()
            self.board.publish(News(served.id, kind) for kind in changed)


def _definitions(server: str, kind: Kind, trees: Iterable[Tree]) -> Iterable[Definition]:
    """A list without what names nothing and without what is there twice; of two of one name neither can be meant."""
    found: dict[str, Definition] = {}
    twice: set[str] = set()
    for tree in trees:
        try:
            definition = Definition.of(server, kind, tree)
        except ValueError as error:
            log.warning("MCP server %s lists one of its %s without a name: %s", server, kind, error)
            continue
        if definition.key in found:
            twice.add(definition.key)
        found[definition.key] = definition
    if len(found) > MAX_DEFINITIONS:
        raise GatewayError(Reason.UPSTREAM_TOO_LARGE, f"lists more than {MAX_DEFINITIONS} {kind}")
    for key in twice:
        log.warning("MCP server %s lists %r twice among its %s; neither is offered", server, key, kind)
    return [definition for key, definition in found.items() if key not in twice]


async def _tried(awaited: list[Served], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(served.tried.wait() for served in awaited))


async def _closed(served: Served) -> None:
    await served.server.aclose()
    if served.accounts is not None:
        await served.accounts.aclose()


def owner_in(who: Principal) -> str:
    """Whose lists and authorization go with a call (connections.py); for nobody, whose there are none of."""
    root = who.root
    return f"{root.tenant}/{root.id}"


def _overheard(served: Served, change: Change) -> None:
    if change.method in LIST_CHANGED:
        served.rumours.add(change.method)
        served.rumour.set()


def _form(definition: Definition) -> tuple[Kind, str, str]:
    """What tells one definition of a server from all others, also of the same name."""
    return definition.kind, definition.key, definition.hash


def _patience(served: Served) -> float:
    """Seconds until a server that failed is tried again; each server its own, so that they do not come all at once."""
    base = RETRY_SECONDS[min(max(served.failures, 1), len(RETRY_SECONDS)) - 1]
    return base * (1 + (zlib.crc32(served.id.encode()) % 100) / 400)


def _destroys(definition: Definition) -> bool:
    """MCP's hint (server/tools, annotations). Its default is true for whatever is not read-only, which would be nearly
    every tool there is: only what a server says counts."""
    hints = definition.tree.get("annotations") if definition.kind is Kind.TOOL else None
    return isinstance(hints, dict) and hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True
