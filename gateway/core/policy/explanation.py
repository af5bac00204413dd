"""Why a decision fell as it did: the rules that were looked at, what each missed, the least that would change it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gateway.core.policy.checks import Scopes, chain, granted
from gateway.core.policy.question import Question
from gateway.core.policy.rules import Rule, Ruling, Weighed
from gateway.model.audit import Decision, Verdict
from gateway.model.value import value
from gateway.model.whom import short

_ALLOWING = frozenset({Verdict.PASS, Verdict.FLAG})
_BY_THE_CALLER = ("send ", "ask ")  # how a change begins that needs no other rules


@value
class Explanation:
    """`looked_at` ends with the rule that decided, if one did. `inputs` are what the rules saw. `change` is one
    sentence, None where nothing needs to change; `new_rule` is a rule that would do it, to stand before all others.
    `approval` says of a call that waits who may approve it, how many have to, and for how long it waits; `limit`
    of one that the rules let through which limit refuses it just now, in what words, and after how many seconds not."""

    decision: Decision
    inputs: Mapping[str, Any]
    looked_at: tuple[Weighed, ...]
    change: str | None
    new_rule: Mapping[str, Any] | None
    approval: Mapping[str, Any] | None = None
    limit: Mapping[str, Any] | None = None


def explained(
    question: Question, decision: Decision, rules: Iterable[Ruling], concerned: Collection[Ruling]
) -> Explanation:
    """`concerned` are the rules that can decide about this verb and this principal."""
    looked_at: list[Weighed] = []
    for ruling in rules:
        found = tuple(ruling.weigh(question))
        looked_at += found
        if any(not each.missing for each in found):
            break
        if ruling in concerned and ruling.applies(question) and ruling.judge(question) is not None:
            break  # it decided by what is missing: a grant for other arguments
    if decision.verdict is Verdict.PASS:
        return Explanation(decision, _inputs(question), tuple(looked_at), None, None)
    change = _more_scopes(question, decision, concerned) or _smallest(looked_at)
    return Explanation(decision, _inputs(question), tuple(looked_at), change, _rule(question))


def _more_scopes(question: Question, decision: Decision, concerned: Iterable[Ruling]) -> str | None:
    """What the refusal itself tells the caller."""
    if not decision.scopes:
        return None
    rules = (each for each in concerned if isinstance(each, Rule) and each.scopes == decision.scopes)
    rule = next(each for each in rules if each.lacks(question))
    (mend,) = (check.mend(question) for check in rule.checks if isinstance(check, Scopes))
    return f"{mend} (rule {rule.name}, {rule.where})"


def _smallest(looked_at: Iterable[Weighed]) -> str:
    """One thing that is missing of one rule, if there is such a rule before the one that decided; else a new rule."""
    looked_at = tuple(looked_at)
    decided = looked_at[-1] if looked_at else None
    if decided is not None and not decided.missing and decided.mend:
        return decided.mend[0]
    near = [each for each in looked_at if each.verdict in _ALLOWING and len(each.missing) == 1 and each.mend[0]]
    near.sort(key=lambda each: not each.mend[0].startswith(_BY_THE_CALLER))
    if near:
        return f"{near[0].mend[0]} (rule {near[0].rule}, {near[0].where})"
    return "put the new rule before all others"


def _rule(question: Question) -> Mapping[str, Any]:
    who, address = short(question.who), question.address
    named = f"{who}-{question.verb}-{address}".lower()
    name = "".join(letter if letter.isalnum() else "-" for letter in named)[:60].strip("-")
    return {"rule": name, "who": [who], "do": [question.verb], "on": [address], "verdict": Verdict.PASS.value}


def _inputs(question: Question) -> Mapping[str, Any]:
    who, target, situation = question.who, question.target, question.situation
    return {
        "principal": who.id,
        "tenant": who.tenant,
        "roles": sorted(who.roles),
        "scopes": sorted(granted(who) or ()),
        "chain": [each.id for each in chain(who)],
        "hops": who.hops,
        "action": question.verb,
        "target": question.address,
        "public": target.public,
        "permissions": sorted(target.permissions),
        "arguments": dict(question.arguments),
        "labels": sorted(situation.labels),
        "at": situation.at,
    }
