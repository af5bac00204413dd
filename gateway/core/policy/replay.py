"""Another policy over what was recorded: which calls it would have decided otherwise.

A record says who, what, on what and when, and of arguments only a digest. What a rule asks beyond that cannot be told,
and it is said how often that was so. Labels, limits and what `approvals` pauses are not replayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from gateway.core.policy.actions import CALLS, VERBS
from gateway.core.policy.checks import Arguments, Budget, Check, Labelled, On, Scopes, Who, granted
from gateway.core.policy.interceptors import PAUSED
from gateway.core.policy.question import Question, Situation, Target, address
from gateway.core.policy.rules import DENIED, FILE_CHANGED, FROZEN, Rule, Ruling
from gateway.core.policy.shadow import MAX_FLIPS, Flip
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.principal import Kind, Principal
from gateway.model.value import value

# Decisions that no rule of the table made: about lists, by the owner of a task, by the switch, by labels, by what
# pauses calls, by whose call it is, and what the gateway does by itself when a file has changed.
NOT_BY_RULES = frozenset(
    {
        "filtered", "by-task", "by-call", "resumed", "rule-of-two", FROZEN, FILE_CHANGED, PAUSED, "approver-caller",
        "own-call",
    }
)  # fmt: skip

RELEASED = "approval "
"""How the reason begins of what people let through."""

Targets = Callable[[str, str], Target]
"""Verb and id -> the target as it is now."""


@value
class Replayed:
    """`same` calls would be decided alike, `unsure` ones cannot be told; `flips` are the others, most often first."""

    calls: int
    same: int
    unsure: int
    flips: Mapping[Flip, int]


async def replay(rules: tuple[Ruling, ...], entries: AsyncIterator[AuditEntry], targets: Targets) -> Replayed:
    """Each call once, by its first entry. Reading gives others their turn; deciding is quick."""
    seen: set[str] = set()
    held: set[str] = set()
    flips: Counter[Flip] = Counter()
    same = unsure = 0
    async for entry in entries:
        if entry.request_id in seen or _verb(entry) not in VERBS or not _by_rules(entry, held):
            continue
        seen.add(entry.request_id)
        if entry.verdict is Verdict.ESCALATE:
            held.add(entry.request_id)
        question = _question(entry, targets)
        possible = list(decisions(rules, question))
        if all(decision.verdict is entry.verdict for decision in possible):
            same += 1
        elif any(decision.verdict is entry.verdict for decision in possible):
            unsure += 1
        else:
            new = possible[0]
            there = address(question.verb, question.target)
            flips[Flip(entry.principal, question.verb, there, entry.verdict, entry.rule, new.verdict, new.rule)] += 1
    return Replayed(same + unsure + flips.total(), same, unsure, dict(flips.most_common(MAX_FLIPS)))


def decisions(rules: tuple[Ruling, ...], question: Question) -> Iterator[Decision]:
    """What the rules can decide, for all that is not known of the call."""
    for ruling in rules:
        if ruling.name == FROZEN:
            continue
        if isinstance(ruling, Rule):
            unknown = [check for check in ruling.checks if not _known(check, question)]
            if any(not check.holds(question) for check in ruling.checks if check not in unknown):
                continue
            yield ruling.decision
            if not unknown:
                return
        elif ruling.applies(question):
            settled = ruling.settled(question)
            if settled is not None:
                yield settled
            else:  # a grant for some arguments: which were sent is not known
                yield Decision(Verdict.PASS, ruling.name, "")
                yield Decision(Verdict.BLOCK, f"{ruling.name}-arguments", "")
            return
    yield DENIED


def _by_rules(entry: AuditEntry, held: set[str]) -> bool:
    """Whether this is what the policy decided, and not what came of it. `held` are the requests that waited: what goes
    on from one of them is as people said. Nor does a policy decide what compliance finds, how halted tasks end, and
    that whoever made a rule halt them is frozen."""
    released = entry.verdict is Verdict.PASS and (entry.reason or "").startswith(RELEASED)
    froze = entry.verb == "Freeze" and entry.verdict is Verdict.HALT
    beside = entry.policy is None or entry.rule in NOT_BY_RULES
    return not (released or froze or beside or entry.cause in held)


def _known(check: Check, question: Question) -> bool:
    who = question.who
    if isinstance(check, Who):
        # Which roles a token held is not recorded.
        return check.holds(question) or who.kind is not Kind.OAUTH or not check.people.roles
    if isinstance(check, Scopes):
        return granted(who) is None  # nor which scopes
    if isinstance(check, On):
        return check.holds(question) or not check.skilled  # nor is the skill that a message named
    if isinstance(check, Arguments):
        return question.verb not in CALLS and question.verb != "prompts/get"
    return not isinstance(check, Labelled | Budget)


def chained(ids: list[str], tenant: str) -> Principal:
    """The principal that asks for those behind it, the nearest first."""
    who = Principal.of(ids[-1], tenant)
    for id in reversed(ids[:-1]):
        who = who.delegate(Principal.of(id, tenant).name)
    return who


def _verb(entry: AuditEntry) -> str:
    """An agent that was called as a tool is recorded as one, by its own name."""
    return "SendMessage" if entry.verb == "tools/call" and "/" not in entry.target else entry.verb


def _question(entry: AuditEntry, targets: Targets) -> Question:
    who = Principal.of(entry.principal, entry.tenant)
    if entry.chain:
        who = chained([entry.principal, *entry.chain], entry.tenant)
    verb = _verb(entry)
    return Question(who, verb, targets(verb, entry.target), {}, Situation(entry.at))
