"""Which rules can decide about a verb and a principal: found by their names, not by asking every rule."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from gateway.core.policy.actions import VERBS
from gateway.core.policy.rules import Ruling
from gateway.model.principal import Principal
from gateway.model.whom import ROLE

MAX_KNOWN = 4_096  # principals, each with a verb


class Index:
    """Rules in their order. One that names principals or roles comes up for these only, any other for everybody."""

    def __init__(self, rulings: Iterable[Ruling]) -> None:
        self._rulings = tuple(rulings)
        self._columns: dict[str, _Column] = {}
        self._known: dict[tuple[str, Principal], tuple[Ruling, ...]] = {}

    def about(self, verb: str, who: Principal) -> tuple[Ruling, ...]:
        known = self._known.get((verb, who))
        return self._found(verb, who) if known is None else known

    def _found(self, verb: str, who: Principal) -> tuple[Ruling, ...]:
        column = self._columns.get(verb)
        if column is None:
            column = _Column(r for r in self._rulings if r.verbs is None or verb in r.verbs)
        found = column.about(who)
        if verb in VERBS:  # others are made up by whoever asks
            self._columns[verb] = column
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[verb, who] = found
        return found


class _Column:
    """The rules about one verb."""

    def __init__(self, rulings: Iterable[Ruling]) -> None:
        self._rulings = tuple(rulings)
        self._open = frozenset(place for place, ruling in enumerate(self._rulings) if ruling.people is None)
        self._anybody = self._those(frozenset())
        named: dict[str, set[int]] = {}
        for place, ruling in enumerate(self._rulings):
            for word in ruling.people or ():
                named.setdefault(word, set()).add(place)
        self._named = {word: _Row(frozenset(places), self._those(places)) for word, places in named.items()}
        self._roles = {word[len(ROLE) :]: row for word, row in self._named.items() if word.startswith(ROLE)}

    def about(self, who: Principal) -> tuple[Ruling, ...]:
        found = self._named.get(who.id)
        for role in who.roles:
            row = self._roles.get(role)
            if row is not None:
                found = row if found is None else _Row(found.places | row.places, None)
        if found is None:
            return self._anybody
        return found.rulings or self._those(found.places)

    def _those(self, places: AbstractSet[int]) -> tuple[Ruling, ...]:
        """The rules at these places and those for anybody."""
        return tuple([self._rulings[place] for place in sorted(self._open | places)])


class _Row(NamedTuple):
    """Where one principal or role is named; `rulings` with those for anybody, None where more rows come together."""

    places: frozenset[int]
    rulings: tuple[Ruling, ...] | None
