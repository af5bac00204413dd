"""How often somebody may guess: passwords, and the short codes that people type."""

from __future__ import annotations

from collections.abc import Callable

from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value

MAX_TRACKED = 10_000
"""Names and addresses with wrong guesses that are remembered. The oldest goes first."""


@value
class Allowance:
    """So many wrong guesses at once, and one more every so many seconds."""

    burst: int
    seconds: float


BY_BOTH = Allowance(5, 30.0)
"""One address at one name."""

BY_NAME = Allowance(50, 30.0)
"""All addresses at one name: more than one person types wrong, so that nobody locks out another from outside."""

BY_PEER = Allowance(50, 5.0)
"""One address at all names: an office behind one address has many people."""


class Attempts:
    """Wrong guesses, counted as the time at which they will be forgiven (GCRA). `now` gives milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._until: dict[tuple[str, str], float] = {}

    def check(self, name: str, peer: str) -> None:
        """Raises OVERLOADED with the seconds to wait."""
        now = self._now() / 1000
        wait = max(
            self._until.get(key, 0.0) - now - allowance.seconds * (allowance.burst - 1)
            for key, allowance in _keys(name, peer)
        )
        if wait > 0:
            raise GatewayError(Reason.OVERLOADED, "Too many wrong attempts; wait a little", retry_after=wait)

    def failed(self, name: str, peer: str) -> None:
        now = self._now() / 1000
        for key, allowance in _keys(name, peer):
            until = max(self._until.pop(key, 0.0), now) + allowance.seconds
            if len(self._until) >= MAX_TRACKED:
                del self._until[next(iter(self._until))]
            self._until[key] = until

    def succeeded(self, name: str, peer: str) -> None:
        """Who knows it is forgiven; others' guesses at the same name are not."""
        self._until.pop((name, peer), None)


def _keys(name: str, peer: str) -> tuple[tuple[tuple[str, str], Allowance], ...]:
    return (((name, peer), BY_BOTH), ((name, ""), BY_NAME), (("", peer), BY_PEER))
