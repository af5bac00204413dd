"""Proofs of possession, each of them once (RFC 9449 §11.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from gateway.dialects.oauth2.dpop import WINDOW, BadProof, Proof, check
from gateway.model.errors import GatewayError, Reason

MAX_PROOFS = 100_000
"""Proofs remembered: 800 a second for two minutes, some 12 MB. Who would fill it holds a token that is good."""


class Proofs:
    """`now` gives milliseconds. What was used before the start nobody remembers, so what was made before it is not
    taken."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._since = now() // 1000  # clients write whole seconds
        self._seen: dict[bytes, float] = {}

    def found(self, proof: bytes, *, method: str, url: str, token: bytes | None) -> Proof:
        """What the proof says, if it is a good one that was not used before. Raises BadProof."""
        now = self._now() / 1000
        found = check(proof, method=method, url=url, token=token, now=now)
        self._since = min(self._since, int(now))  # a clock that was set back keeps nobody out until it has caught up
        if found.made < self._since:
            raise BadProof("The proof was made before the gateway was started")
        self._unused(found, now)
        return found

    def use(self, found: Proof) -> None:
        """From now on it was used before, also for another request that has found it good. Proofs cost nothing to make:
        only those are used that came with something else that is good. Raises BadProof; GatewayError(OVERLOADED) when
        no more can be told apart."""
        now = self._now() / 1000
        mark = self._unused(found, now)
        if len(self._seen) >= MAX_PROOFS:
            raise GatewayError(Reason.OVERLOADED, "Too many proofs come at this moment; try again", retry_after=5)
        self._seen[mark] = now + 2 * WINDOW  # a proof from ahead of our clock stays good so long

    def _unused(self, found: Proof, now: float) -> bytes:
        """What it is remembered by."""
        mark = hashlib.sha256(f"{found.key}\0{found.jti}".encode()).digest()[:16]
        self._sweep(now)
        if mark in self._seen:
            raise BadProof("The proof was used before")
        return mark

    def _sweep(self, now: float) -> None:
        for mark, until in list(self._seen.items())[:16]:
            if until > now:
                break
            del self._seen[mark]
