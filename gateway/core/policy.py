"""May they? One pure function over a table of rules, deny by default.

These are the rules that hold while no policy file is configured (`gateway policy show` will print this table):
the machine's own credential may do everything; every other identity, and an agent that asks on a caller's
behalf, may see and use the agents marked `public`; a worker may report on the tasks of the agent it works for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.model.audit import Decision, Verdict
from gateway.model.call import PullTasks, SubmitResult
from gateway.model.principal import Kind, Principal
from gateway.model.value import value


class Target(NamedTuple):
    """What a call is about, as far as rules look at it."""

    id: str
    public: bool = False
    worker: str | None = None  # the id of the principal that may report for this agent
    permissions: frozenset[str] = frozenset()  # what a caller must hold besides a grant (tools)


# The verbs that only ever touch one agent and the caller's own tasks there.
USE = frozenset(
    {
        "GetAgentCard",
        "SendMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
    }
)
WORK = frozenset({SubmitResult.verb, PullTasks.verb})


@value
class Rule:
    name: str
    says: str
    holds: Callable[[Principal, str, Target], bool]


RULES: tuple[Rule, ...] = (
    Rule(
        "local-operator",
        "the machine's own credential may do everything",
        lambda who, verb, target: who.kind is Kind.LOCAL,
    ),
    Rule(
        "worker",
        "the worker of an agent may take that agent's tasks and report on them",
        lambda who, verb, target: verb in WORK and target.worker == who.id,
    ),
    Rule(
        "extended-card-needs-identity",
        "any authenticated principal may read the extended card of a public agent",
        lambda who, verb, target: verb == "GetExtendedAgentCard" and target.public and who.kind is not Kind.ANONYMOUS,
    ),
    Rule(
        "public-agents",
        "any principal may see and use the agents marked public",
        lambda who, verb, target: verb in USE and verb != "GetExtendedAgentCard" and target.public,
    ),
)
DENIED = Decision(Verdict.BLOCK, "default-deny", "no rule allows this")

# Decisions depend on nothing but these arguments, so they are remembered. The bound keeps a stranger who makes up
# agent names from filling memory.
MAX_MEMO = 4096


# Looks at what is sent, for calls that one rule let pass: None, or the refusal.
Judge = Callable[[Principal, str, Target, Mapping[str, Any]], Decision | None]


class Policy:
    """`judges` are the second look of some rules, by their names; arguments are too many for the memo."""

    def __init__(self, rules: tuple[Rule, ...] = RULES, judges: Mapping[str, Judge] | None = None) -> None:
        self.rules = rules
        self._judges = judges or {}
        self._memo: dict[tuple[Principal, str, Target], Decision] = {}

    def decide(self, who: Principal, verb: str, target: Target, arguments: Mapping[str, Any] | None = None) -> Decision:
        """The first rule that holds decides; none holds: BLOCK. Without `arguments`: whether any would do."""
        decision = self._decide(who, verb, target)
        if arguments is None or (judge := self._judges.get(decision.rule)) is None:
            return decision
        return judge(who, verb, target, arguments) or decision

    def forget(self) -> None:
        """What the rules look at has changed."""
        self._memo.clear()

    def _decide(self, who: Principal, verb: str, target: Target) -> Decision:
        key = (who, verb, target)
        known = self._memo.get(key)
        if known is not None:
            return known
        rule = next((rule for rule in self.rules if rule.holds(who, verb, target)), None)
        decision = DENIED if rule is None else Decision(Verdict.PASS, rule.name, rule.says)
        if len(self._memo) >= MAX_MEMO:
            self._memo.clear()
        self._memo[key] = decision
        return decision
