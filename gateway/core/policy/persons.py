"""Which principals are one and the same person: somebody may have a key, a login and a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.model.whom import whole


class Persons:
    """`named` has the words for all the principals that somebody is. Of everybody else each principal is a person."""

    def __init__(self, named: Mapping[str, Iterable[str]] | None = None) -> None:
        self._names = {whole(word): name for name, words in (named or {}).items() for word in words}

    def of(self, id: str) -> str:
        """A name for the person who is this principal; the id itself where nobody says whose it is. (An id has a colon,
        a name has none.)"""
        return self._names.get(id, id)

    def alike(self, one: str, other: str) -> bool:
        return self.of(one) == self.of(other)
