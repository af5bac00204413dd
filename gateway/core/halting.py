"""Work that is stopped from outside: by the operator who freezes somebody, or by a rule that says HALT."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from gateway.core.act import Act
from gateway.core.audit import Ticket
from gateway.core.engine import Engine
from gateway.core.flights import Flight, Flights
from gateway.core.freezer import Freezer, sentence
from gateway.core.live import Topic
from gateway.core.policy.checks import chain
from gateway.core.policy.refusals import Refused
from gateway.core.policy.rules import FREEZE, FROZEN
from gateway.core.registry import Registry
from gateway.core.services import Services
from gateway.core.standing import frozen, standing
from gateway.core.turn import Turn
from gateway.model.audit import Decision, Verdict
from gateway.model.call import SendMessage
from gateway.model.changes import DropHalted, PutHalted
from gateway.model.errors import GatewayError, Reason
from gateway.model.governance import Cold, Freeze, Frozen, Halted
from gateway.model.ports import Write
from gateway.model.principal import LOCAL, Kind, Principal
from gateway.model.rows import TaskRow
from gateway.model.trail import Trail

log = logging.getLogger(__name__)

PAGE = 200  # tasks that are ended at once
PUT_OUT_SECONDS = 0.5  # a run that takes longer to stop keeps nobody's stream open


class Halting:
    def __init__(
        self, services: Services, registry: Registry, engine: Engine, flights: Flights, freezer: Freezer
    ) -> None:
        self._services = services
        self._registry = registry
        self._engine = engine
        self._flights = flights
        self._freezer = freezer
        self._halted: dict[Topic, Halted] = {}  # by the outermost task; durable, too, until nothing is left of the tree
        self._working: set[asyncio.Task[None]] = set()  # the loop alone would not keep them
        self.laid_down = _nothing  # hears of each waiting task that was ended
        self.put_out: Callable[[], None] = lambda: None  # called when all that was frozen has ended
        freezer.stopping.append(self._stop)
        freezer.ending.append(self._end)
        engine.bar(self._barred)

    async def start(self) -> None:
        """Before anything of an earlier life goes on: what of it must not."""
        self._halted = {(each.tenant, each.root): each for each in await self._services.store.governance.halted()}

    async def finish(self) -> None:
        """End what waits and should have ended already, had the gateway not been stopped in the middle."""
        for halted in tuple(self._halted.values()):
            await self._end_tree(halted)
            self._keep(self._forget(halted))
        for cold in self._freezer.all():
            await self._end(cold)

    async def aclose(self) -> None:
        for work in self._working:
            work.cancel()
        if self._working:
            await asyncio.wait(self._working)

    async def heed(self, refusal: Refused, who: Principal, trail: Trail | None) -> None:
        """After a HALT: stop the whole tree of tasks that the call belongs to, and freeze who made it, if it says so.
        Once: the same refusal may come by again, as what an agent answers."""
        decision = refusal.decision
        if decision.verdict is not Verdict.HALT or refusal.heeded:
            return
        refusal.heeded = True
        # The run that is refused is one of those that are stopped: what follows from the rule is not part of it.
        await asyncio.shield(self._keep(self._heeded(decision, who, trail)))

    async def _heeded(self, decision: Decision, who: Principal, trail: Trail | None) -> None:
        halted = None if trail is None else Halted(who.tenant, trail.root, decision.rule, decision.reason)
        changes = () if halted is None else (PutHalted(halted),)
        if halted is not None:
            self._halted[halted.tenant, halted.root] = halted
            # What is written about their ends comes behind the commit that follows.
            self._engine.put_out(partial(_belongs, halted), _stopped(halted))
        if FREEZE in decision.obligations and who.id != LOCAL.id:  # which cannot be frozen
            await self._freeze(decision, who, changes)
        elif changes:
            await self._services.store.commit(*changes)
        if halted is not None:
            await self._end_tree(halted)
            self._keep(self._forget(halted))

    async def _freeze(self, decision: Decision, who: Principal, changes: tuple[PutHalted, ...]) -> None:
        agent = who.kind is Kind.AGENT
        kind, name = (Cold.AGENT, who.name) if agent else (Cold.PRINCIPAL, who.id)
        services = self._services
        ticket = Ticket(who, Freeze.verb, name, decision, services.new_id())
        act = Act(ticket, services.store, services.now, standing(map(frozen, self._freezer.stored(kind, name))))
        write: Write = partial(act.commit, *changes)
        await self._freezer.freeze(kind, name, who, f"by the rule {decision.rule}", write)

    def _barred(self, turn: Turn) -> str | None:
        if (halted := self._halted.get(turn.tree)) is not None:
            return _stopped(halted)
        who = turn.ticket.principal if turn.ticket is not None else Principal.of(turn.owner, turn.tenant)
        cold = self._freezer.bars(turn.entry.id, who, turn.came)
        return None if cold is None else _why(cold)

    def _stop(self, cold: Frozen) -> None:
        """What the frozen one has in hand: runs of the agent and all that it asked for, or of the principal."""
        self._engine.put_out(lambda turn: self._barred(turn) is not None, _why(cold))
        self._flights.call_back(
            lambda flight: _of(cold, flight), lambda: GatewayError(Reason.PERMISSION_DENIED, _why(cold))
        )

    # What waits for somebody.

    async def _end(self, cold: Frozen) -> None:
        """What waits for somebody's input or authorization and would go on for the frozen one."""
        decision = Decision(Verdict.BLOCK, FROZEN, sentence(cold))
        async for rows in self._waiting(cold):
            await self._lay_down(rows, _why(cold), decision)
        self._keep(self._ended())

    async def _ended(self) -> None:
        """Whoever listens hears of the end of what was stopped before they may hear nothing any more."""
        if left := self._engine.runs(lambda turn: self._barred(turn) is not None):
            await asyncio.wait(left, timeout=PUT_OUT_SECONDS)
        self.put_out()

    async def _waiting(self, cold: Frozen) -> AsyncIterator[list[TaskRow]]:
        """Page by page."""
        whose, after = _whose(cold), ("", "")
        while rows := await self._services.store.waiting(PAGE, after=after, **whose):
            yield [row for row in rows if self._freezer.bars(row.agent, row.asker, row.trail) is not None]
            after = rows[-1].tenant, rows[-1].id

    async def _end_tree(self, halted: Halted) -> None:
        decision = Decision(Verdict.HALT, halted.rule, halted.reason)
        store, after = self._services.store, ""
        root = await store.task(halted.tenant, halted.root)
        await self._lay_down([] if root is None else [root], _stopped(halted), decision)
        while rows := await store.in_tree(halted.tenant, halted.root, PAGE, after=after):
            await self._lay_down(rows, _stopped(halted), decision)
            after = rows[-1].id

    async def _lay_down(self, rows: list[TaskRow], why: str, decision: Decision) -> None:
        """Those that wait. What is at work is stopped as a run is, and may not begin if it has none here yet."""
        resting = [row for row in rows if row.task.status.state.interrupted]
        await asyncio.gather(*(self._lay_one_down(row, why, decision) for row in resting))

    async def _lay_one_down(self, row: TaskRow, why: str, decision: Decision) -> None:
        entry = self._registry.get(row.agent) or self._registry.unknown(row.agent)
        ticket = Ticket(row.asker, SendMessage.verb, row.agent, decision, self._services.new_id())
        if await self._engine.canceling.lay_down(row, entry, ticket, why):
            await self.laid_down(row.tenant, row.id)

    async def _forget(self, halted: Halted) -> None:
        """Once nothing is left of the tree that could begin. What an earlier life had at work and is not taken up yet
        keeps it in mind until the next start."""
        left = self._engine.accepting()
        while left:
            await asyncio.wait(left)
            left = self._engine.runs(partial(_belongs, halted))
        try:
            if not await self._unfinished(halted):
                await self._services.store.commit(DropHalted(halted.tenant, halted.root))
                self._halted.pop((halted.tenant, halted.root), None)
        except GatewayError as error:
            log.warning(
                "the halted tree of task %s is looked at again at the next start: %s", halted.root, error.message
            )

    async def _unfinished(self, halted: Halted) -> bool:
        store = self._services.store
        root = await store.task(halted.tenant, halted.root)
        if root is not None and not root.task.status.state.terminal:
            return True
        return bool(await store.in_tree(halted.tenant, halted.root, limit=1))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task


async def _nothing(tenant: str, task_id: str) -> None:
    pass


def _whose(cold: Frozen) -> dict[str, str]:
    """The filter of a store. An agent can be frozen as the principal that it asks others as, too."""
    who = None if cold.kind is Cold.AGENT else Principal.of(cold.name, "")
    if who is None or who.kind is Kind.AGENT:
        return {"agent": cold.name if who is None else who.name}
    return {"principal": cold.name}


def _belongs(halted: Halted, turn: Turn) -> bool:
    return turn.tree == (halted.tenant, halted.root)


def _of(cold: Frozen, flight: Flight) -> bool:
    if cold.kind is Cold.PRINCIPAL:
        return any(each.id == cold.name for each in chain(flight.who))
    return any(each.kind is Kind.AGENT and each.name == cold.name for each in chain(flight.who))


def _why(cold: Frozen) -> str:
    return f"Stopped: {sentence(cold)}"


def _stopped(halted: Halted) -> str:
    return f"Stopped by the rule {halted.rule}: {halted.reason}"
