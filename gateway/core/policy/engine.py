"""May they? One table of rules for everything that can be done; the first rule that holds decides, none means BLOCK.

Which rules can decide about a principal, a verb and a target is worked out once and remembered; only those that could
concern this verb and this principal are asked at all. Where the first of them depends on nothing else, so is the
decision; what depends on arguments, time, labels and budgets is looked at each time. Lists ask the same table whether
any arguments would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from gateway.core.policy.explanation import Explanation, explained
from gateway.core.policy.index import Index
from gateway.core.policy.question import Question, Situation, Target
from gateway.core.policy.rules import DENIED, RULES, Ruling
from gateway.core.policy.shadow import Shadow
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import Principal
from gateway.model.value import value

# Decisions depend on nothing but these arguments, so they are remembered. The bound keeps a stranger who makes up
# agent names from filling memory.
MAX_MEMO = 4096

Arguments = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What is sent, or how to get it: of most calls nobody looks at it."""

NOTHING: Mapping[str, Any] = {}
_ANYTIME = Situation()


@value
class Plan:
    """The rules that can decide one question, in order; or, where it needs no more looking, the decision."""

    decision: Decision | None
    rulings: tuple[Ruling, ...]
    hopeful: bool  # some arguments, some day, would do


class Policy:
    """`hash` names the rules that hold; every decision carries it."""

    def __init__(
        self,
        rules: Iterable[Ruling] = RULES,
        hash: str = "",
        situation: Callable[[], Situation] = Situation,
    ) -> None:
        self.situation = situation  # where things stand, unless the question says
        self.shadow: Shadow | None = None  # what is asked beside this one
        self.changed: list[Callable[[], None]] = []  # who wants to know of other rules
        self._memo: dict[tuple[Principal, str, Target], Plan] = {}
        self._stamped: dict[int, tuple[Decision, Decision]] = {}  # by identity: a rule's decision is one object
        self.use(rules, hash)

    def use(self, rules: Iterable[Ruling], hash: str) -> None:
        """Other rules from now on."""
        self.rules = tuple(rules)
        self.hash = hash
        self.skilled = any(ruling.skilled for ruling in self.rules)  # whether skills of agents matter at all
        self.forget()
        for told in self.changed:
            told()

    def forget(self) -> None:
        """What the rules look at has changed."""
        self._memo.clear()
        self._stamped.clear()
        self._index = Index(self.rules)
        self._denied = replace(DENIED, policy=self.hash)

    def decide(
        self,
        who: Principal,
        verb: str,
        target: Target,
        arguments: Arguments = NOTHING,
        situation: Situation | None = None,
    ) -> Decision:
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        decision = plan.decision
        if decision is None:
            sent = arguments() if callable(arguments) else arguments
            decision = self._judge(plan, Question(who, verb, target, sent, situation or self.situation()))
        if self.shadow is not None:
            self.shadow.compare(decision, who, verb, target, arguments, situation)
        return decision

    def _judge(self, plan: Plan, question: Question) -> Decision:
        for ruling in plan.rulings:
            decision = ruling.judge(question)
            if decision is not None:
                return self._stamp(decision)
        return self._denied

    def visible(self, who: Principal, verb: str, target: Target) -> bool:
        """Whether some arguments, at some time, would do; lists show what is."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        return plan.hopeful

    def silent(self, who: Principal, verb: str, target: Target) -> bool:
        """Whether no rule says anything about it, for or against."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        return not plan.rulings

    def presumed(self, who: Principal, verb: str, target: Target) -> Decision:
        """The decision on what follows from a call that was let through: its arguments were right."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        if plan.decision is not None:
            return plan.decision
        good = next((ruling for ruling in plan.rulings if ruling.hopeful), None)
        if good is None:
            return self._denied
        return self._stamp(Decision(Verdict.PASS, good.name, "it belongs to a call that was allowed"))

    def explain(
        self,
        who: Principal,
        verb: str,
        target: Target,
        arguments: Mapping[str, Any] = NOTHING,
        situation: Situation | None = None,
    ) -> Explanation:
        """The same decision, with what each rule on the way to it made of the question."""
        question = Question(who, verb, target, arguments, situation or self.situation())
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        decision = plan.decision or self._judge(plan, question)
        return explained(question, decision, self.rules, self._index.about(verb, who))

    def _plan(self, who: Principal, verb: str, target: Target) -> Plan:
        rulings: list[Ruling] = []
        settled: Decision | None = None
        hopeful = False
        question = Question(who, verb, target, NOTHING, _ANYTIME)
        for ruling in self._index.about(verb, who):
            if ruling.applies(question):
                rulings.append(ruling)
                hopeful = hopeful or ruling.hopeful
                settled = ruling.settled(question)
                if settled is not None:
                    break
        if not rulings:
            decision: Decision | None = self._denied
        else:
            decision = None if settled is None or len(rulings) > 1 else self._stamp(settled)
        plan = Plan(decision, tuple(rulings), hopeful)
        if len(self._memo) >= MAX_MEMO:
            self._memo.clear()
        self._memo[who, verb, target] = plan
        return plan

    def _stamp(self, decision: Decision) -> Decision:
        """The decision with the hash of the rules that it follows from."""
        if not self.hash:
            return decision
        known = self._stamped.get(id(decision))
        if known is not None and known[0] is decision:
            return known[1]
        if len(self._stamped) >= MAX_MEMO:
            self._stamped.clear()
        stamped = replace(decision, policy=self.hash)
        self._stamped[id(decision)] = (decision, stamped)
        return stamped
