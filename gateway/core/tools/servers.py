"""Which MCP servers there are, and what each of them offers just now.

Each server has a keeper of its own: it reads the catalogue, listens for changes, and tries again with patience when
the server fails. Nobody waits for a keeper: calls and lists use what is known. So one server that is dead, slow or
talks nonsense costs the others nothing; its own last good list stays for a grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from gateway.core.act import Act
from gateway.core.standing import pin, standing
from gateway.core.tools.catalogs import READ_SECONDS, read
from gateway.core.tools.hygiene import CheckSchema, objection
from gateway.core.tools.keeper import Keeper
from gateway.core.tools.lists import Lists, by_kind, differing
from gateway.core.tools.news import Board, News
from gateway.core.tools.pins import Pins, Quarantine
from gateway.core.tools.served import Served, form
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import LoginNeeded
from gateway.model.tool import Catalog, Definition, Kind

log = logging.getLogger(__name__)

START_SECONDS = 10  # how long a call for what is not there waits for servers that are still starting: a slow command
FIRST_SECONDS = 1  # how long the first list after a start waits for servers that nobody has heard of yet
GRACE_MS = 600_000  # the last good list of a server that fails is kept so long: a deployment takes minutes


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
        served.server.overhear(served.overheard)

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
        served.gone = True
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
        keeper = Keeper(served, self.board, self.refresh, self.when_said)
        self._keepers[served.id] = asyncio.create_task(keeper.keep(), name=f"mcp-{served.id}")

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

    async def refresh(self, served: Served) -> bool:
        """Read the whole catalogue again. A failure keeps what was known, for a while."""
        served.rumours.clear()
        worked = False
        try:
            catalog = await read(served.id, served.server, self._now)
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
            known = {form(each): each for each in (*before.definitions, *served.definitions)}
        refused: dict[str, str] = {}
        passed: list[Definition] = []
        for definition in definitions:
            same = known.get(form(definition))
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
        held = {(form(each.definition), each.why) for each in served.all_waiting()}
        for each in lists.waiting:
            if (form(each.definition), each.why) not in held:
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


async def _tried(awaited: list[Served], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(served.tried.wait() for served in awaited))


async def _closed(served: Served) -> None:
    await served.server.aclose()
    if served.accounts is not None:
        await served.accounts.aclose()


def _destroys(definition: Definition) -> bool:
    """MCP's hint (server/tools, annotations). Its default is true for whatever is not read-only, which would be nearly
    every tool there is: only what a server says counts."""
    hints = definition.tree.get("annotations") if definition.kind is Kind.TOOL else None
    return isinstance(hints, dict) and hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True
