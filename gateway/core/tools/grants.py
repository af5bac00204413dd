"""Who may use which tool: grants from the configuration, checked for lists and calls alike.

A grant names one principal by its whole id (`key:alice`, `agent:librarian`, `oauth:gateway#robot`,
`anonymous:anonymous`), all whose verified access token has a role (`role:NAME`) or every authenticated one (`*`).
Nothing follows from how anybody is called. It covers addresses (`server/name`) by pattern, may hold arguments to a few
values, and carries the permissions that some tools require on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any

from gateway.core.policy import Rule, Target
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import Kind, Principal
from gateway.model.value import value

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
            any(type(sent) is type(allowed) and sent == allowed for allowed in values)
            for name, values in self.arguments.items()
            for sent in (arguments.get(name),)
        )


def matches(pattern: str, address: str) -> bool:
    """`docs` and `docs/*` mean all of a server, `docs/read_*` some of it. A pattern never reaches into another
    server's name: the part before the slash is compared by itself."""
    server, _, name = pattern.partition("/")
    their_server, _, their_name = address.partition("/")
    return fnmatchcase(their_server, server) and fnmatchcase(their_name, name or "*")


class Grants:
    """All grants. `rule` is how they stand in the policy's table; `judge` looks at arguments, which the memo of
    decisions cannot hold."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    def replace(self, grants: Iterable[Grant]) -> None:
        """Other grants from now on. Whoever remembers decisions has to be told."""
        self._grants = tuple(grants)

    @property
    def rule(self) -> Rule:
        return Rule(
            RULE,
            "a grant in the configuration gives this principal this tool, prompt or resource",
            lambda who, verb, target: bool(self._covering(who, verb, target)),
        )

    def judge(self, who: Principal, verb: str, target: Target, arguments: Mapping[str, Any]) -> Decision | None:
        """None when some grant admits these arguments, else the refusal."""
        covering = self._covering(who, verb, target)
        if any(grant.admits(arguments) for grant in covering):
            return None
        limits = "; ".join(sorted({_limits(grant) for grant in covering}))
        return Decision(Verdict.BLOCK, f"{RULE}-arguments", f"granted only with {limits}")

    def _covering(self, who: Principal, verb: str, target: Target) -> list[Grant]:
        """The grants that let `who` use `target`: by pattern, and only if what the target requires is held too."""
        if verb not in COVERED_BY:
            return []
        mine = [grant for grant in self._grants if grant.names(who)]
        held = frozenset[str]().union(*(grant.permissions for grant in mine)) if mine else frozenset()
        if not target.permissions <= held:
            return []
        return [grant for grant in mine if grant.covers(verb, target.id)]


def _limits(grant: Grant) -> str:
    return ", ".join(f"{name} one of {list(values)}" for name, values in sorted(grant.arguments.items()))
