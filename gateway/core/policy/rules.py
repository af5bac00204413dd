"""Rules: whoever, doing whatever, to whatever, gets a verdict. The first rule that holds decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.policy.actions import SHARE, WORK
from gateway.core.policy.checks import Arguments, Check, Do, On, Scopes, Who
from gateway.core.policy.people import People
from gateway.core.policy.question import Question
from gateway.model.approval import Terms
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import Kind
from gateway.model.value import value
from gateway.model.whom import ANYBODY, EVERYBODY, WORKER

DENIED = Decision(Verdict.BLOCK, "default-deny", "no rule allows this")
DEFAULT = "default"
FROZEN = "frozen"
FILE_CHANGED = "file-changed"
FREEZE = "freeze"
"""The obligation of a HALT that also freezes whoever asked."""

# Verdicts with which the call can go on, now or once somebody has agreed.
HOPEFUL = frozenset({Verdict.PASS, Verdict.FLAG, Verdict.ESCALATE})


@value
class Weighed:
    """What one rule made of a question: nothing `missing` means that it holds. `mend` says for each missing thing what
    would have to change, and `where` what there is to change."""

    rule: str
    where: str
    verdict: Verdict
    missing: tuple[str, ...]
    mend: tuple[str, ...]


class Ruling(Protocol):
    """One rule of the table."""

    @property
    def name(self) -> str: ...

    @property
    def hopeful(self) -> bool:
        """Whether it can be the reason that a call goes on."""
        ...

    @property
    def skilled(self) -> bool:
        """Whether it tells one skill of an agent from another."""
        ...

    @property
    def verbs(self) -> frozenset[str] | None:
        """Those that it can decide about; None: all."""
        ...

    @property
    def people(self) -> frozenset[str] | None:
        """The ids and `role:NAME` of those whom it can decide about; None: anybody."""
        ...

    def applies(self, question: Question) -> bool:
        """Whether it could decide, for some arguments at some time, about a verb and a principal that it can decide
        about. Nothing else of the question is looked at."""
        ...

    def settled(self, question: Question) -> Decision | None:
        """Its decision where it applies, if nothing else matters."""
        ...

    def judge(self, question: Question) -> Decision | None:
        """Its decision where it applies; None when it does not hold."""
        ...

    def weigh(self, question: Question) -> Iterator[Weighed]:
        """What is missing for it to hold; of a rule that stands for several, each."""
        ...

    def shown(self) -> Iterator[Mapping[str, Any]]:
        """As the file has it."""
        ...


@dataclass(slots=True, eq=False)
class Rule:
    """`where` is file and line."""

    name: str
    says: str
    checks: tuple[Check, ...]
    verdict: Verdict = Verdict.PASS
    obligations: tuple[str, ...] = ()
    terms: Terms | None = None
    where: str = DEFAULT
    source: Mapping[str, Any] = field(default_factory=dict)

    decision: Decision = field(init=False)
    hopeful: bool = field(init=False)
    verbs: frozenset[str] | None = field(init=False)
    people: frozenset[str] | None = field(init=False)
    momentary: bool = field(init=False)  # looks at what changes by itself: the time, labels, what is used of a limit
    scopes: tuple[str, ...] = field(init=False)
    loose: bool = field(init=False)  # whether it depends on more than principal, verb and target
    _fixed: tuple[Check, ...] = field(init=False)
    _loose: tuple[Check, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.decision = Decision(self.verdict, self.name, self.says, self.obligations, terms=self.terms)
        self.hopeful = self.verdict in HOPEFUL
        self.verbs = next((check.may_be for check in self.checks if isinstance(check, Do)), None)
        self.people = next((check.people.named for check in self.checks if isinstance(check, Who)), None)
        self._fixed = tuple(check for check in self.checks if check.fixed and not self._implied(check))
        self._loose = tuple(check for check in self.checks if not check.fixed)
        self.momentary = any(not isinstance(check, Arguments) for check in self._loose)
        self.loose = bool(self._loose)
        self.scopes = next((check.scopes for check in self.checks if isinstance(check, Scopes)), ())

    def _implied(self, check: Check) -> bool:
        """Whether it holds for everybody of `people` and each of `verbs`, as who asks us knows."""
        if isinstance(check, Who):
            return self.people is not None or check.people.anybody
        return isinstance(check, Do) and check.by_verb

    @property
    def skilled(self) -> bool:
        return any(isinstance(check, On) and check.skilled for check in self.checks)

    def applies(self, question: Question) -> bool:
        return _hold(self._fixed, question)

    def lacks(self, question: Question) -> frozenset[str]:
        """The scopes whose want alone keeps it from applying: none where it applies, or something else is missing."""
        missing = [check for check in self._fixed if not check.holds(question)]
        wanted = missing[0] if len(missing) == 1 else None
        return wanted.lacks(question) if isinstance(wanted, Scopes) else frozenset()

    def settled(self, question: Question) -> Decision | None:
        return None if self._loose else self.decision

    def judge(self, question: Question) -> Decision | None:
        return self.decision if _hold(self._loose, question) else None

    def weigh(self, question: Question) -> Iterator[Weighed]:
        missing = [check for check in self.checks if not check.holds(question)]
        yield Weighed(
            self.name,
            self.where,
            self.verdict,
            tuple(check.wants() for check in missing),
            tuple(self._mend(check, question) for check in missing),
        )

    def _mend(self, check: Check, question: Question) -> str:
        """The default rules are nobody's to change, but what they look at is."""
        return "" if self.where == DEFAULT and check.field != "on" else check.mend(question)

    def shown(self) -> Iterator[Mapping[str, Any]]:
        yield self.source


def _hold(checks: tuple[Check, ...], question: Question) -> bool:
    for check in checks:  # noqa: SIM110 a generator costs as much as three checks
        if not check.holds(question):
            return False
    return True


def simple(name: str, says: str, who: str, do: tuple[str, ...] = (), on: str = "") -> Rule:
    """A rule that lets those of `who` do `do` on `on`; empty means whatever."""
    checks: list[Check] = [Who(People([who]))]
    source: dict[str, Any] = {"rule": name, "who": [who]}
    if do:
        checks.append(Do(do))
        source["do"] = list(do)
    if on:
        checks.append(On([on]))
        source["on"] = [on]
    return Rule(name, says, tuple(checks), source={**source, "verdict": Verdict.PASS.value, "because": says})


USE_BUT_EXTENDED = (
    "GetAgentCard", "SendMessage", "GetTask", "ListTasks", "CancelTask", "SubscribeToTask",
    "CreateTaskPushNotificationConfig", "GetTaskPushNotificationConfig", "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
)  # fmt: skip

# They hold while no policy file is configured, and behind the rules of one unless it says `defaults: false`.
RULES: tuple[Rule, ...] = (
    simple("local-operator", "the machine's own credential may do everything", Kind.LOCAL),
    simple(
        "worker", "the worker of an agent may take that agent's tasks and report on them", WORKER, tuple(sorted(WORK))
    ),
    simple(
        "extended-card-needs-identity",
        "any authenticated principal may read the extended card of a public agent",
        EVERYBODY,
        ("GetExtendedAgentCard",),
        "public",
    ),
    simple(
        "public-agents",
        "any principal may see and use the agents marked public",
        ANYBODY,
        USE_BUT_EXTENDED,
        "public",
    ),
    simple(
        "own-tasks-shared",
        "any authenticated principal may let another one read its task at a public agent",
        EVERYBODY,
        tuple(sorted(SHARE)),
        "public",
    ),
)
