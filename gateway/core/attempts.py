"""How often somebody may guess: passwords, and the short codes that people type."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

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
        self._until.pop((name, _place(peer)), None)


def _keys(name: str, peer: str) -> tuple[tuple[tuple[str, str], Allowance], ...]:
    peer = _place(peer)
    return (((name, peer), BY_BOTH), ((name, ""), BY_NAME), (("", peer), BY_PEER))


def _place(peer: str) -> str:
    """An address as it counts. Whoever has one of IPv6 has its whole /64 (RFC 6177 §1), and could guess from another
    one each time."""
    try:
        found = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if not isinstance(found, IPv6Address) or found.ipv4_mapped is not None:
        return peer
    return str(IPv6Network((found, 64), strict=False))
