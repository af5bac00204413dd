"""Words for principals, as rules and grants write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.core.policy.patterns import starred
from gateway.model.principal import Kind, Principal
from gateway.model.whom import ANYBODY, EVERYBODY, ROLE, WORKER, whole

Roles = Mapping[str, tuple[str, ...]]
"""Role -> the words for those who have it, beside those whose access tokens say so."""


class People:
    """Those whom any of `words` means."""

    def __init__(self, words: Iterable[str], roles: Roles | None = None) -> None:
        self.words = tuple(words)
        meant = [whole(word) for word in self.words]
        self.roles = frozenset(word.removeprefix(ROLE) for word in meant if word.startswith(ROLE))
        meant += [whole(word) for role in sorted(self.roles) for word in (roles or {}).get(role, ())]
        self.anybody = ANYBODY in meant
        self._everybody = EVERYBODY in meant
        self._ids = frozenset(meant)
        self._patterns = tuple(starred(word) for word in meant if "*" in word and word != EVERYBODY)
        self.worker = WORKER in meant

    @property
    def named(self) -> frozenset[str] | None:
        """Their ids and `role:NAME`, where these words name each of them; None: others may be meant as well."""
        return None if self.anybody or self._everybody or self._patterns or self.worker else self._ids

    def include(self, who: Principal) -> bool:
        return (
            self.anybody
            or who.id in self._ids
            or (self._everybody and who.kind is not Kind.ANONYMOUS)
            or not self.roles.isdisjoint(who.roles)
            or any(is_like(who.id) for is_like in self._patterns)
        )

    def __str__(self) -> str:
        return ", ".join(self.words)
