"""`requestState`: what a caller carries between two requests for the same thing (basic/patterns/mrtr).

The gateway's own claims go around the server's opaque word, sealed: nobody can read or change them, and nobody else,
for nothing else, and not for ever, can use them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.model.errors import invalid
from gateway.model.tool import Tree, digest

LIFE_MS = 900_000  # three times the longest that a parked request waits; a server's own state may live longer
MAX_STATE = 64 * 1024  # characters that come back: servers put whole forms into theirs

# Not part of what is asked: these change from one request to the next one for the same thing.
_BETWEEN = frozenset({"requestState", "inputResponses", "_meta"})


class Sealer(Protocol):
    """Authenticated encryption of small trees."""

    def seal(self, tree: Tree) -> str: ...

    def open(self, text: str) -> Tree | None:
        """None for whatever this gateway did not seal."""
        ...


class States:
    def __init__(self, sealer: Sealer, now: Callable[[], int]) -> None:
        self._sealer = sealer
        self._now = now

    def give(self, claims: Tree, owner: str, asked: str, until: int = 0) -> str:
        """`until` (milliseconds since the epoch) is of what the caller waits for; the state outlives it."""
        return self._sealer.seal({**claims, "o": owner, "q": asked, "e": max(self._now(), until) + LIFE_MS})

    def read(self, text: object, owner: str) -> Tree:
        """The claims, whatever request they are for. Raises INVALID_PARAMS for a state that is not this caller's, and
        of late."""
        claims = self._sealer.open(text) if isinstance(text, str) and len(text) <= MAX_STATE else None
        if claims is None or claims["o"] != owner:
            raise invalid("requestState", "is not one that this gateway gave to you; send it exactly as it came")
        if claims["e"] < self._now():
            raise invalid("requestState", "has expired; make the request anew, without it")
        return claims

    def take(self, text: object, owner: str, asked: str) -> Tree:
        """The claims, of a state for this request."""
        claims = self.read(text, owner)
        if claims["q"] != asked:
            raise invalid("requestState", "belongs to another request; send the same method and parameters as before")
        return claims


def asked(mount: str | None, method: str, params: Tree) -> str:
    """A digest of what is asked for, the same for each request of one exchange."""
    return digest([mount, method, {name: each for name, each in params.items() if name not in _BETWEEN}])
