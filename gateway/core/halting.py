"""Work that is stopped from outside: by the operator who freezes somebody, or by a rule that says HALT."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

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
from gateway.core.standing import frozen, standing
from gateway.core.turn import Services, Turn
from gateway.model.audit import Decision, Verdict
from gateway.model.call import SendMessage
from gateway.model.errors import GatewayError, Reason
from gateway.model.governance import Cold, Freeze, Frozen
from gateway.model.ports import TaskRow
from gateway.model.principal import Kind, Principal
from gateway.model.trail import Trail
from gateway.model.value import value

PAGE = 200  # tasks that are ended at once
MAX_RESTING = 10_000  # tasks that agents asked for and that wait for somebody; of more, those that came last are known
MAX_HALTED = 1_000  # trees of tasks that are remembered: what was being accepted then must not begin after all


@value
class _Resting:
    """Whose run would go on, for whom, and where the request for it came from."""

    agent: str
    who: Principal
    trail: Trail


class Halting:
    def __init__(
        self, services: Services, registry: Registry, engine: Engine, flights: Flights, freezer: Freezer
    ) -> None:
        self._services = services
        self._registry = registry
        self._engine = engine
        self._flights = flights
        self._freezer = freezer
        self._halted: OrderedDict[str, str] = OrderedDict()  # outermost tasks, and why; what was on its way to them
        self._resting: OrderedDict[Topic, _Resting] = OrderedDict()  # what agents were asked, and waits for somebody
        self._working: set[asyncio.Task[None]] = set()  # the loop alone would not keep them
        self.laid_down = _nothing  # hears of each waiting task that was ended
        freezer.stopping.append(self._stop)
        freezer.ending.append(self._end)
        engine.bar(self._barred)
        engine.when_over(self._rested)

    async def heed(self, refusal: Refused, who: Principal, trail: Trail | None) -> None:
        """After a HALT: stop the whole tree of tasks that the call belongs to, and freeze who made it, if it says so.
        Once: the same refusal may come by again, as what an agent answers."""
        decision = refusal.decision
        if decision.verdict is not Verdict.HALT or refusal.heeded:
            return
        refusal.heeded = True
        # The run that is refused is one of those that are stopped: what follows from the rule is not part of it.
        work = asyncio.get_running_loop().create_task(self._heeded(decision, who, trail))
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        await asyncio.shield(work)

    async def _heeded(self, decision: Decision, who: Principal, trail: Trail | None) -> None:
        why = f"Stopped by the rule {decision.rule}: {decision.reason}"
        if trail is not None:
            self._put_out(trail.root, why)
        if FREEZE in decision.obligations:
            agent = who.kind is Kind.AGENT
            kind, name = (Cold.AGENT, who.name) if agent else (Cold.PRINCIPAL, who.id)
            services = self._services
            ticket = Ticket(who, Freeze.verb, name, decision, services.new_id())
            act = Act(ticket, services.store, services.now, standing(map(frozen, self._freezer.about(kind, name))))
            await self._freezer.freeze(kind, name, who, f"by the rule {decision.rule}", act.commit)
        if trail is not None:
            below = [topic for topic, resting in self._resting.items() if resting.trail.root == trail.root]
            for topic in ((who.tenant, trail.root), *below):
                await self._end_one(topic, why, decision)

    def _put_out(self, root: str, why: str) -> None:
        self._halted[root] = why
        if len(self._halted) > MAX_HALTED:
            self._halted.popitem(last=False)
        self._engine.put_out(lambda turn: turn.root == root, why)

    def _barred(self, turn: Turn) -> str | None:
        if (halted := self._halted.get(turn.root)) is not None and turn.came is not None:
            return halted
        who = _caller(turn)
        cold = self._freezer.bars(turn.entry.id, who, turn.came)
        return None if cold is None else _why(cold)

    def _stop(self, cold: Frozen) -> None:
        """What the frozen one has in hand: runs of the agent and all that it asked for, or of the principal."""
        self._engine.put_out(lambda turn: self._barred(turn) is not None, _why(cold))
        self._flights.call_back(
            lambda flight: _of(cold, flight), lambda: GatewayError(Reason.PERMISSION_DENIED, _why(cold))
        )

    def _rested(self, turn: Turn) -> None:
        """Of a task that somebody's own call made, the store knows whose it is; of one that an agent asked for, only
        this does."""
        if self._resting:
            self._resting.pop(turn.topic, None)
        if turn.came is None or turn.task is None or not turn.task.status.state.interrupted:
            return
        self._resting[turn.topic] = _Resting(turn.entry.id, _caller(turn), turn.came)
        if len(self._resting) > MAX_RESTING:
            self._resting.popitem(last=False)

    async def _end(self, cold: Frozen) -> None:
        """What waits for somebody's input or authorization and would go on for the frozen one."""
        decision = Decision(Verdict.BLOCK, FROZEN, sentence(cold))
        below = [
            topic
            for topic, each in self._resting.items()
            if self._freezer.bars(each.agent, each.who, each.trail) is not None
        ]
        for topic in below:
            await self._end_one(topic, _why(cold), decision)
        whose = {"agent": cold.name} if cold.kind is Cold.AGENT else {"owner": cold.name}
        while rows := await self._services.store.waiting(PAGE, **whose):
            ended = await asyncio.gather(*(self._lay_down(row, _why(cold), decision) for row in rows))
            if not any(ended):
                return  # what is left has just been taken up by somebody, and is stopped as a run is

    async def _end_one(self, topic: Topic, why: str, decision: Decision) -> None:
        row = await self._services.store.task(*topic)
        if row is not None and row.task.status.state.interrupted:
            await self._lay_down(row, why, decision)

    async def _lay_down(self, row: TaskRow, why: str, decision: Decision) -> bool:
        services = self._services
        entry = self._registry.get(row.agent) or self._registry.unknown(row.agent)
        ticket = Ticket(Principal.of(row.owner, row.tenant), SendMessage.verb, row.agent, decision, services.new_id())
        self._resting.pop((row.tenant, row.id), None)
        ended = await self._engine.lay_down(row, entry, ticket, why)
        if ended:
            await self.laid_down(row.tenant, row.id)
        return ended


async def _nothing(tenant: str, task_id: str) -> None:
    pass


def _caller(turn: Turn) -> Principal:
    return turn.ticket.principal if turn.ticket is not None else Principal.of(turn.owner, turn.tenant)


def _of(cold: Frozen, flight: Flight) -> bool:
    if cold.kind is Cold.PRINCIPAL:
        return any(each.id == cold.name for each in chain(flight.who))
    return any(each.kind is Kind.AGENT and each.name == cold.name for each in chain(flight.who))


def _why(cold: Frozen) -> str:
    return f"Stopped: {sentence(cold)}"
