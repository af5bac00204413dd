"""Tokens that are bound to a key (DPoP, RFC 9449): whoever reads one on its way, or in a log, cannot use it."""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.upstream.address import BadUrl, Origin, origin_of

if TYPE_CHECKING:
    from gateway.dialects.oauth2.signature import SignKey

ALGORITHMS = ("ES256", "EdDSA")
"""The first that an authorization server lists is taken; ES256 is what nearly all have."""

# A tool server and its authorization server; an issuer that has moved leaves one behind.
_MOST_NONCES = 8
# Servers write timestamps and digests; what is longer would make headers too large.
_LONGEST_NONCE = 512


class ProofKey:
    """One key, made for one authorization. `kept` is what it is read from again."""

    def __init__(self, key: SignKey) -> None:
        self.key = key
        self.kept = key.kept().decode()

    @classmethod
    def make(cls, alg: str) -> ProofKey:
        # joserfc, where a server wants proofs and nowhere else.
        from gateway.dialects.oauth2.signature import SignKey

        return cls(SignKey.make(alg))

    @classmethod
    def read(cls, kept: str) -> ProofKey:
        from gateway.dialects.oauth2.signature import SignKey

        return cls(SignKey.read(kept.encode()))

    @property
    def thumbprint(self) -> str:
        """RFC 7638: what a token is bound to."""
        return self.key.kid


class Prover:
    """Makes proofs, each for one request, and remembers what each server wants to see in them. `now` gives epoch
    milliseconds, `random` so many random bytes."""

    def __init__(self, now: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._now = now
        self._random = random
        self._nonces: OrderedDict[Origin, str] = OrderedDict()

    def proof(self, key: ProofKey, method: str, url: str, token: str | None = None) -> str:
        from gateway.dialects.oauth2.dpop import prove

        return prove(
            key.key,
            jti=base64.urlsafe_b64encode(self._random(18)).decode(),
            method=method,
            url=url,
            now=self._now() / 1000,
            token=token,
            nonce=self._nonces.get(origin_of(url)),
        )

    def heard(self, url: str, headers: Mapping[str, str]) -> bool:
        """Take the nonce of an answer, for the next request there (§8.2); whether there is one."""
        nonce = headers.get("dpop-nonce", "")
        if not nonce or len(nonce) > _LONGEST_NONCE or not nonce.isascii() or not nonce.isprintable():
            return False
        try:
            there = origin_of(url)
        except BadUrl:
            return False
        self._nonces[there] = nonce
        if len(self._nonces) > _MOST_NONCES:
            self._nonces.popitem(last=False)
        return True
