"""Who may answer a call that waits for an approval: whoever the rules let do `approve` on its target."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.policy.checks import On, Who
from gateway.core.policy.question import Question, Situation, Target
from gateway.core.policy.rules import Rule, Ruling
from gateway.model.approval import ApproveCall
from gateway.model.principal import LOCAL, Principal

_VERB = ApproveCall.verb
_NOWHERE = Situation()


def approvers(rules: Iterable[Ruling], address: str) -> tuple[str, ...]:
    """In the words of the rules, the machine's own credential last: people are to ask each other first."""
    question = Question(LOCAL, _VERB, Target(address), {}, _NOWHERE)
    words = dict.fromkeys(
        word
        for rule in _about(rules)
        if all(check.holds(question) for check in rule.checks if isinstance(check, On))
        for who in rule.checks
        if isinstance(who, Who)
        for word in who.people.words
    )
    return tuple(sorted(words, key=lambda word: word == LOCAL.kind))


def approves(rules: Iterable[Ruling], who: Principal) -> bool:
    """Whether somebody may answer anything at all."""
    question = Question(who, _VERB, Target(""), {}, _NOWHERE)
    return any(all(check.holds(question) for check in rule.checks if isinstance(check, Who)) for rule in _about(rules))


def _about(rules: Iterable[Ruling]) -> Iterable[Rule]:
    return (
        rule
        for rule in rules
        if isinstance(rule, Rule) and rule.decision.allowed and (rule.verbs is None or _VERB in rule.verbs)
    )
