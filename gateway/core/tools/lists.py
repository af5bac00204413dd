"""What of one server is offered and what waits: to everybody, or to one caller with an authorization of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.model.tool import Definition, Kind
from gateway.model.toolcall import Waiting

LIST_CHANGED: dict[str, tuple[Kind, ...]] = {
    "notifications/tools/list_changed": (Kind.TOOL,),
    "notifications/prompts/list_changed": (Kind.PROMPT,),
    "notifications/resources/list_changed": (Kind.RESOURCE, Kind.TEMPLATE),
}
"""What a server says of its lists, and which of them it means."""


@dataclass(slots=True, kw_only=True)
class Lists:
    """`offered` passed hygiene and quarantine; `refused` has what is unfit, and why, by address."""

    offered: dict[Kind, tuple[Definition, ...]] = field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def find(self, kind: Kind, key: str) -> Definition | None:
        return next((each for each in self.offered.get(kind, ()) if each.key == key), None)

    @property
    def definitions(self) -> Iterable[Definition]:
        """Everything that is fit, whether it is offered or waits."""
        yield from (each for kind in Kind for each in self.offered.get(kind, ()))
        yield from (each.definition for each in self.waiting)


@dataclass(slots=True, kw_only=True)
class Own(Lists):
    """As one caller's account gets them. `until` is when they are read again (epoch milliseconds), `fetched` when they
    were read."""

    fetched: int
    until: int


def by_kind(definitions: Iterable[Definition]) -> dict[Kind, tuple[Definition, ...]]:
    found: dict[Kind, list[Definition]] = {kind: [] for kind in Kind}
    for each in definitions:
        found[each.kind].append(each)
    return {kind: tuple(each) for kind, each in found.items()}


def hashes(definitions: Iterable[Definition] | None) -> list[tuple[str, str]]:
    return [(each.key, each.hash) for each in definitions or ()]


def differing(before: Lists | None, after: Lists | None) -> list[Kind]:
    """The kinds of which something else is offered."""
    one, other = (({} if each is None else each.offered) for each in (before, after))
    return [kind for kind in Kind if hashes(one.get(kind)) != hashes(other.get(kind))]
