"""Proofs of possession, each of them once (RFC 9449 §11.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from gateway.dialects.oauth2.dpop import WINDOW, check
from gateway.model.errors import GatewayError, Reason

MAX_PROOFS = 100_000
"""Proofs remembered: 800 a second for two minutes, some 12 MB. Who would fill it holds a token that is good."""


class Proofs:
    """`now` gives milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._seen: dict[bytes, float] = {}

    def key(self, proof: bytes, *, method: str, url: str, token: bytes | None) -> str | None:
        """The thumbprint of the key that made the proof; None for one that was seen before. Raises BadProof;
        GatewayError(OVERLOADED) when no more can be told apart."""
        now = self._now() / 1000
        found = check(proof, method=method, url=url, token=token, now=now)
        mark = hashlib.sha256(f"{found.key}\0{found.jti}".encode()).digest()[:16]
        self._sweep(now)
        if mark in self._seen:
            return None
        if len(self._seen) >= MAX_PROOFS:
            raise GatewayError(Reason.OVERLOADED, "Too many proofs come at this moment; try again", retry_after=5)
        self._seen[mark] = now + 2 * WINDOW  # a proof from ahead of our clock stays good so long
        return found.key

    def _sweep(self, now: float) -> None:
        for mark, until in list(self._seen.items())[:16]:
            if until > now:
                break
            del self._seen[mark]
