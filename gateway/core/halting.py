"""Work that is stopped from outside: by the operator who freezes somebody, or by a rule that says HALT."""

from __future__ import annotations

from collections import OrderedDict

from gateway.core.engine import Engine
from gateway.core.flights import Flight, Flights
from gateway.core.freezer import Freezer, sentence
from gateway.core.policy.checks import chain
from gateway.core.policy.refusals import Refused
from gateway.core.policy.rules import FREEZE
from gateway.core.turn import Turn
from gateway.model.audit import Verdict
from gateway.model.errors import GatewayError, Reason
from gateway.model.governance import Cold, Frozen
from gateway.model.principal import Kind, Principal
from gateway.model.trail import Trail

MAX_HALTED = 1_000  # trees of tasks that are remembered: what was being accepted then must not begin after all


class Halting:
    def __init__(self, engine: Engine, flights: Flights, freezer: Freezer) -> None:
        self._engine = engine
        self._flights = flights
        self._freezer = freezer
        self._halted: OrderedDict[str, str] = OrderedDict()  # outermost tasks, and why; what was on its way to them
        freezer.stopping.append(self._stop)
        engine.bar(self._barred)

    async def heed(self, refusal: Refused, who: Principal, trail: Trail | None) -> None:
        """After a HALT: stop the whole tree of tasks that the call belongs to, and freeze who made it, if it says so.
        Once: the same refusal may come by again, as what an agent answers."""
        decision = refusal.decision
        if decision.verdict is not Verdict.HALT or refusal.heeded:
            return
        refusal.heeded = True
        if trail is not None:
            why = f"Stopped by the rule {decision.rule}: {decision.reason}"
            self._halted[trail.root] = why
            if len(self._halted) > MAX_HALTED:
                self._halted.popitem(last=False)
            self._engine.put_out(lambda turn: turn.root == trail.root, why)
        if FREEZE in decision.obligations:
            agent = who.kind is Kind.AGENT
            kind, name = (Cold.AGENT, who.name) if agent else (Cold.PRINCIPAL, who.id)
            await self._freezer.freeze(kind, name, who, f"by the rule {decision.rule}")

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


def _caller(turn: Turn) -> Principal:
    return turn.ticket.principal if turn.ticket is not None else Principal.of(turn.owner, turn.tenant)


def _of(cold: Frozen, flight: Flight) -> bool:
    if cold.kind is Cold.PRINCIPAL:
        return any(each.id == cold.name for each in chain(flight.who))
    return any(each.kind is Kind.AGENT and each.name == cold.name for each in chain(flight.who))


def _why(cold: Frozen) -> str:
    return f"Stopped: {sentence(cold)}"
