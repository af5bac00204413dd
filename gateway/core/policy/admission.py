"""Letting a call in: the decision of the rules, then the labels of its conversation, then the limits.

Nothing of this costs a call anything while the policy has neither labels nor limits nor rules that look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.core.policy.engine import NOTHING, Arguments, Policy
from gateway.core.policy.interceptors import Interceptors
from gateway.core.policy.labels import MCP, Labels, conversation
from gateway.core.policy.limits import Charge, Limits
from gateway.core.policy.persons import Persons
from gateway.core.policy.question import Situation, Target
from gateway.core.policy.spoken import skill
from gateway.model.audit import Decision
from gateway.model.call import SendMessage
from gateway.model.governance import GovernanceStore
from gateway.model.principal import Principal
from gateway.model.trail import Trail


class Admission:
    def __init__(self, policy: Policy, store: GovernanceStore, now: Callable[[], int]) -> None:
        self.policy = policy
        self.limits = Limits(store, now)
        self.labels = Labels(store, now)
        self.interceptors = Interceptors()
        self.persons = Persons()
        self._now = now

    async def start(self) -> None:
        await self.limits.start()
        await self.labels.start()

    async def aclose(self) -> None:
        await self.limits.aclose()

    @property
    def needs_conversation(self) -> bool:
        """Whether it matters to which conversation a call belongs."""
        return self.labels.any or self.limits.any

    def aimed(self, target: Target, call: SendMessage) -> Target:
        """What a message is for: the agent, with the skill that it names, where anything tells skills apart."""
        pauses = self.interceptors.pauses
        skilled = self.policy.skilled or self.limits.skilled or self.labels.skilled
        return target._replace(skill=skill(call)) if skilled or (pauses is not None and pauses.skilled) else target

    def situation(self, who: Principal, context: str, trail: Trail | None) -> Situation:
        """Where things stand in the conversation `context`; a call that an agent makes belongs to the outermost one."""
        named = conversation(who, context if trail is None else trail.conversation)
        return Situation(self._now(), self.labels.of(named), named, self.limits.used)

    def decide(
        self,
        who: Principal,
        verb: str,
        target: Target,
        arguments: Arguments = NOTHING,
        situation: Situation | None = None,
    ) -> Decision:
        decision = self.policy.decide(who, verb, target, arguments, situation)
        if self.interceptors.pauses is None and situation is None:
            return decision
        return self.held_back(decision, who, verb, target, situation)

    def again(
        self, who: Principal, verb: str, target: Target, arguments: Mapping[str, Any], situation: Situation | None
    ) -> Decision:
        """The decision on a call that was asked for before, as it would fall now."""
        decision = self.policy.again(who, verb, target, arguments, situation)
        return self.held_back(decision, who, verb, target, situation)

    def held_back(
        self, decision: Decision, who: Principal, verb: str, target: Target, situation: Situation | None
    ) -> Decision:
        """The decision, unless the interceptors or the labels of its conversation want a person asked first."""
        if self.interceptors.pauses is not None:
            decision = self.interceptors.judge(decision, who, verb, target)
        if situation is None or not self.labels.any:
            return decision
        return self.labels.judge(decision, verb, target, situation.labels)

    def take(
        self, who: Principal, verb: str, target: Target, situation: Situation | None, trail: Trail | None
    ) -> Charge | None:
        """What an allowed call needs of the limits. Raises GatewayError when there is not enough; otherwise its
        conversation has met what the target brings."""
        charge = None
        if self.limits.any:
            named = "" if situation is None else situation.conversation
            charge = self.limits.admit(who, verb, target, named, trail)
        if situation is not None and self.labels.any:
            self.labels.gather(situation.conversation, verb, target)
        return charge


__all__ = ["MCP", "Admission"]
