"""May they? One table of rules for everything that can be done; the first rule that holds decides, none means BLOCK.

Which rules can decide about a principal, a verb and a target is worked out once and remembered; only those that could
concern this verb and this principal are asked at all. Where the first of them depends on nothing else, so is the
decision; what depends on arguments, time, labels and budgets is looked at each time. Lists ask the same table whether
any arguments would do.

Where no rule lets a call go on, but one would with an access token of more scopes, the decision says which: all that
this rule asks for. Nothing of this is looked for while no rule asks for scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from gateway.core.policy.explanation import Explanation, explained
from gateway.core.policy.index import Index
from gateway.core.policy.question import Question, Situation, Target
from gateway.core.policy.rules import DENIED, RULES, Rule, Ruling
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


class Near(NamedTuple):
    """A rule that would let a call go on if its token had so many scopes more, and how many of the rules that can
    decide stand before it."""

    rule: Rule
    missing: int
    behind: int


@value
class Plan:
    """The rules that can decide one question, in order; or, where it needs no more looking, the decision. Of those that
    only want scopes, the one that wants fewest is the first."""

    decision: Decision | None
    rulings: tuple[Ruling, ...]
    hopeful: bool  # some arguments, some day, would do
    near: tuple[Near, ...] = ()


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
        self._skilled = any(ruling.skilled for ruling in self.rules)
        self.scoped = tuple(rule for rule in self.rules if isinstance(rule, Rule) and rule.scopes)
        self.forget()
        for told in self.changed:
            told()

    def forget(self) -> None:
        """What the rules look at has changed."""
        self._memo.clear()
        self._stamped.clear()
        self._index = Index(self.rules)
        self._denied = replace(DENIED, policy=self.hash)

    @property
    def skilled(self) -> bool:
        """Whether a rule, or one that is tried out, tells one skill of an agent from another."""
        return self._skilled or (self.shadow is not None and self.shadow.skilled())

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
        if plan.near:
            return self._judge_near(plan, question)
        for ruling in plan.rulings:
            decision = ruling.judge(question)
            if decision is not None:
                return self._stamp(decision)
        return self._denied

    def _judge_near(self, plan: Plan, question: Question) -> Decision:
        for place, ruling in enumerate(plan.rulings):
            decision = ruling.judge(question)
            if decision is not None:
                return self._short(plan.near, self._stamp(decision), place, question)
        return self._short(plan.near, self._denied, len(plan.rulings), question)

    def _short(self, near: Iterable[Near], decision: Decision, place: int, question: Question | None) -> Decision:
        """The decision of the rule at this place; a BLOCK with the scopes that would have kept it from being one.
        Without a question, whatever was sent."""
        if decision.verdict is not Verdict.BLOCK:
            return decision
        for each in near:
            if each.behind <= place and (question is None or each.rule.judge(question) is not None):
                scopes = each.rule.scopes
                reason = f"{decision.reason}; the rule {each.rule.name} would with the scopes {' '.join(scopes)}"
                return replace(decision, reason=reason, scopes=scopes)
        return decision

    def visible(self, who: Principal, verb: str, target: Target) -> bool:
        """Whether some arguments, at some time, would do; lists show what is."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        return plan.hopeful

    def known(self, who: Principal, verb: str, target: Target) -> bool:
        """Whether the rules speak of it to this principal: some arguments would do, or would with more scopes. Such a
        target is no secret; whether what is in it may be had is what `visible` says."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        return plan.hopeful or bool(plan.near)

    def silent(self, who: Principal, verb: str, target: Target) -> bool:
        """Whether no rule says anything about it, for or against."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        return not plan.rulings and not plan.near

    def presumed(self, who: Principal, verb: str, target: Target) -> Decision:
        """The decision on what follows from a call that was let through: its arguments were right."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        if plan.decision is not None:
            return plan.decision
        good = next((ruling for ruling in plan.rulings if ruling.hopeful), None)
        if good is None:
            return self._short(plan.near, self._denied, len(plan.rulings), None)
        return self._stamp(Decision(Verdict.PASS, good.name, "it belongs to a call that was allowed"))

    def again(
        self,
        who: Principal,
        verb: str,
        target: Target,
        arguments: Mapping[str, Any] = NOTHING,
        situation: Situation | None = None,
    ) -> Decision:
        """The decision on a question that was asked before; the shadow is not asked, and counts it once."""
        plan = self._memo.get((who, verb, target)) or self._plan(who, verb, target)
        if plan.decision is not None:
            return plan.decision
        return self._judge(plan, Question(who, verb, target, arguments, situation or self.situation()))

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
        decision = self.again(who, verb, target, arguments, question.situation)
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
        near: tuple[Near, ...] = ()
        if self.scoped and (decision is None or not decision.allowed):
            near = self._near(question, rulings, settled)
        if near and decision is not None:
            looked_at = any(each.rule.loose for each in near)
            decision = None if looked_at else self._short(near, decision, len(rulings), None)
        plan = Plan(decision, tuple(rulings), hopeful, near)
        if len(self._memo) >= MAX_MEMO:
            self._memo.clear()
        self._memo[who, verb, target] = plan
        return plan

    def _near(self, question: Question, rulings: list[Ruling], settled: Decision | None) -> tuple[Near, ...]:
        """The rules that would decide for the call, before any that settles it, but for scopes."""
        found: list[Near] = []
        place = 0
        for ruling in self._index.about(question.verb, question.who):
            if place < len(rulings) and ruling is rulings[place]:
                place += 1
                if settled is not None and place == len(rulings):
                    break
            elif isinstance(ruling, Rule) and ruling.scopes and (missing := ruling.lacks(question)):
                found.append(Near(ruling, len(missing), place))
        return tuple(sorted(found, key=lambda each: each.missing))

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
