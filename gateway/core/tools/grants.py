"""Who may use which tool: grants from the configuration, checked for lists and calls alike.

A grant names one principal by its whole id (`key:alice`, `agent:librarian`, `oauth:gateway#robot`,
`anonymous:anonymous`), all whose verified access token has a role (`role:NAME`) or every authenticated one (`*`).
Nothing follows from how anybody is called. It covers addresses (`server/name`) by pattern, may hold arguments to a few
values, and carries the permissions that some tools require on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from gateway.core.policy import Question, Target, Weighed, matches
from gateway.core.policy.checks import same
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import Kind, Principal
from gateway.model.value import value
from gateway.model.whom import short

RULE = "grant"
EVERYBODY = "*"
ROLE = "role:"

# Verb -> which list of a grant must cover the address. Completion belongs to what it completes, and is decided as that.
COVERED_BY: dict[str, str] = {
    "tools/call": "tools",
    "prompts/get": "prompts",
    "resources/read": "resources",
}


@value
class Grant:
    """`arguments` holds, for some names, the only values that may be sent; a name in it must be sent."""

    to: str
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    permissions: frozenset[str] = frozenset()
    arguments: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, hash=False)

    def names(self, who: Principal) -> bool:
        if self.to == EVERYBODY:
            return who.kind is not Kind.ANONYMOUS
        role = self.to.removeprefix(ROLE)
        return role in who.roles if role != self.to else self.to == who.id

    def covers(self, verb: str, address: str) -> bool:
        patterns: tuple[str, ...] = getattr(self, COVERED_BY[verb])
        return any(matches(pattern, address) for pattern in patterns)

    def admits(self, arguments: Mapping[str, Any]) -> bool:
        """JSON's values, compared as JSON does: true is not 1."""
        return all(
            any(same(sent, allowed) for allowed in values)
            for name, values in self.arguments.items()
            for sent in (arguments.get(name),)
        )


class Grants:
    """All grants, as one rule of the policy's table."""

    name = RULE
    hopeful = True
    skilled = False
    verbs = frozenset(COVERED_BY)
    says = "a grant in the configuration gives this principal this tool, prompt or resource"

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    def replace(self, grants: Iterable[Grant]) -> None:
        """Other grants from now on. Whoever remembers decisions has to be told."""
        self._grants = tuple(grants)

    @property
    def people(self) -> frozenset[str] | None:
        named = frozenset(grant.to for grant in self._grants)
        return None if EVERYBODY in named else named

    def applies(self, question: Question) -> bool:
        return bool(self._covering(question.who, question.verb, question.target))

    def settled(self, question: Question) -> Decision | None:
        free = any(not grant.arguments for grant in self._covering(question.who, question.verb, question.target))
        return Decision(Verdict.PASS, RULE, self.says) if free else None

    def judge(self, question: Question) -> Decision | None:
        """Whoever has a grant, and none for these arguments, is refused by it."""
        covering = self._covering(question.who, question.verb, question.target)
        if any(grant.admits(question.arguments) for grant in covering):
            return Decision(Verdict.PASS, RULE, self.says)
        limits = "; ".join(sorted({_limits(grant) for grant in covering}))
        return Decision(Verdict.BLOCK, f"{RULE}-arguments", f"granted only with {limits}")

    def weigh(self, question: Question) -> Iterator[Weighed]:
        if question.verb in COVERED_BY:
            for index, grant in enumerate(self._grants):
                yield _weighed(index, grant, question, self._lacking(question.who, question.target))
            if not self._grants:
                yield _none_yet(question)

    def shown(self) -> Iterator[Mapping[str, Any]]:
        for grant in self._grants:
            words = {name: list(getattr(grant, name)) for name in COVERED_BY.values() if getattr(grant, name)}
            more: dict[str, Any] = {}
            if grant.permissions:
                more["permissions"] = sorted(grant.permissions)
            if grant.arguments:
                more["arguments"] = {name: list(values) for name, values in grant.arguments.items()}
            yield {"grant": grant.to, **words, **more}

    def standing(self) -> Mapping[str, dict[str, Any]]:
        """All of them, as the audit log tells them apart and shows them."""
        return {f"grant {each}": {**each} for each in self.shown()}

    def _covering(self, who: Principal, verb: str, target: Target) -> list[Grant]:
        """The grants that let `who` use `target`: by pattern, and only if what the target requires is held too."""
        if verb not in COVERED_BY or self._lacking(who, target):
            return []
        return [grant for grant in self._grants if grant.names(who) and grant.covers(verb, target.id)]

    def _lacking(self, who: Principal, target: Target) -> frozenset[str]:
        """The permissions that the target requires and no grant of `who` gives."""
        if not target.permissions:
            return target.permissions
        return target.permissions.difference(*(grant.permissions for grant in self._grants if grant.names(who)))


def _weighed(index: int, grant: Grant, question: Question, lacking: frozenset[str]) -> Weighed:
    kind, address = COVERED_BY[question.verb], question.target.id
    missing: list[tuple[str, str]] = []
    if not grant.names(question.who):
        missing.append((f"to: {grant.to}", f"add {{to: {short(question.who)}, {kind}: [{address}]}} to grants"))
    if not grant.covers(question.verb, address):
        covered = ", ".join(getattr(grant, kind)) or "none"
        missing.append((f"{kind}: {covered}", f"add {address} to its {kind}"))
    if lacking:
        names = ", ".join(sorted(lacking))
        missing.append((f"permissions: {names}", f"give {short(question.who)} a grant with the permissions {names}"))
    if not grant.admits(question.arguments):
        missing.append((f"arguments: {_limits(grant)}", f"send {_limits(grant)}"))
    return Weighed(
        RULE, f"grants[{index}]", Verdict.PASS, tuple(each for each, _ in missing), tuple(each for _, each in missing)
    )


def _none_yet(question: Question) -> Weighed:
    kind = COVERED_BY[question.verb]
    mend = f"add {{to: {short(question.who)}, {kind}: [{question.target.id}]}} to grants in the configuration"
    return Weighed(RULE, "grants", Verdict.PASS, (f"to: {short(question.who)}",), (mend,))


def _limits(grant: Grant) -> str:
    return ", ".join(f"{name} one of {list(values)}" for name, values in sorted(grant.arguments.items()))
