"""Calls that are stopped for a person whatever the rules let through: by their target, and by what a tool says of
itself.

The person at the machine is asked nothing twice: calls with the machine's own credential pass, those that agents make
on its behalf do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from gateway.core.policy.actions import CALLS
from gateway.core.policy.checks import On
from gateway.core.policy.question import Question, Situation, Target
from gateway.model.approval import Terms
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import Kind, Principal
from gateway.model.value import value

PAUSED = "approvals"
_NOWHERE = Situation()


@value
class Pauses:
    """`on` is what waits whoever calls it, `delegated` what waits when an agent calls it; `destructive` that tools with
    MCP's `destructiveHint` do."""

    on: On | None = None
    delegated: On | None = None
    destructive: bool = True
    terms: Terms = Terms()
    source: Mapping[str, Any] = field(default_factory=dict, hash=False)  # as the file has it

    @property
    def skilled(self) -> bool:
        """Whether one of them tells one skill of an agent from another."""
        return any(on is not None and on.skilled for on in (self.on, self.delegated))

    def why(self, who: Principal, verb: str, target: Target) -> str | None:
        if verb not in CALLS or (who.kind is Kind.LOCAL and not who.hops):
            return None
        question = Question(who, verb, target, {}, _NOWHERE)
        if self.on is not None and self.on.holds(question):
            return "a person is asked before it is called"
        if self.delegated is not None and who.hops and self.delegated.holds(question):
            return "a person is asked before an agent calls it"
        if self.destructive and target.destructive:
            return "the tool says that it may destroy something, and a person is asked first"
        return None


class Interceptors:
    def __init__(self) -> None:
        self.pauses: Pauses | None = None

    def judge(self, decision: Decision, who: Principal, verb: str, target: Target) -> Decision:
        """The decision, unless it would let through what a person is to see first."""
        if self.pauses is None or not decision.allowed:
            return decision
        why = self.pauses.why(who, verb, target)
        if why is None:
            return decision
        return Decision(Verdict.ESCALATE, PAUSED, why, policy=decision.policy, terms=self.pauses.terms)
