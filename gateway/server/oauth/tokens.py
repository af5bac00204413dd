"""Tokens that were found good a moment ago, and the issuers that say so about the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.dialects.oauth2.access_token import (
    BAD_ISSUER,
    MAX_TOKEN,
    TOO_LARGE,
    BadToken,
    Verified,
    looks_like_jwt,
    parse,
)
from gateway.dialects.oauth2.dpop import BadProof
from gateway.model.principal import Principal
from gateway.model.value import value
from gateway.server.oauth.issuers import Issuer
from gateway.server.oauth.proofs import Proofs

REMEMBER = 60.0
"""Seconds that a token found good is not looked at again; never past its own end."""

FORGET = 5.0
"""Seconds that a token the issuer called inactive is refused without asking again."""

MAX_TOKENS = 10_000
"""Tokens remembered, good or bad: some 10 MB. The oldest goes first; it is only looked at again."""


@value
class _Kept:
    outcome: Verified | BadToken
    until: int


class Tokens:
    """Remembered by the token's SHA-256 alone. `now` gives milliseconds."""

    def __init__(self, issuers: Sequence[Issuer], now: Callable[[], int], proofs: Proofs) -> None:
        self._issuers = {issuer.rules.issuer: issuer for issuer in issuers}
        self._needed = {issuer.rules.known_as: issuer.rules.scopes for issuer in issuers}
        self._opaque = next((issuer for issuer in issuers if issuer.opaque), None)
        self._now = now
        self._proofs = proofs
        self._kept: dict[bytes, _Kept] = {}
        self._flights: dict[bytes, asyncio.Task[Verified]] = {}
        self._forgotten = 0
        self.on_forgotten: Callable[[], None] = lambda: None

    def known(self, mark: bytes) -> Verified | None:
        """What was found out about the token with this fingerprint, while it holds. Raises BadToken."""
        kept = self._kept.get(mark)
        if kept is None:
            return None
        if kept.until <= self._now():
            del self._kept[mark]
            return None
        if isinstance(kept.outcome, BadToken):
            raise BadToken(*kept.outcome.args)
        return kept.outcome

    async def verify(self, mark: bytes, token: bytes) -> Verified:
        """Raises BadToken, or GatewayError when nobody can say now. One token is looked at once, however many
        requests bring it."""
        flight = self._flights.get(mark)
        if flight is None:
            flight = self._flights[mark] = asyncio.create_task(self._verify(mark, token))
            flight.add_done_callback(lambda flight: self._landed(mark, flight))
        return await asyncio.shield(flight)

    def prove(self, proof: bytes, method: str, url: str, token: bytes) -> str:
        """The thumbprint of the key that made this proof for this request, once. Raises BadToken."""
        try:
            found = self._proofs.found(proof, method=method, url=url, token=token)
            self._proofs.use(found)
        except BadProof as refused:
            raise BadToken(str(refused)) from None
        return found.key

    def needed(self, who: Principal) -> frozenset[str]:
        """What the issuer of its token asks of every token; a principal is called `issuer#subject`."""
        return self._needed.get(who.root.name.partition("#")[0], frozenset())

    def forget(self) -> None:
        """Look at every token again: something was revoked."""
        self._forgotten += 1
        self._kept.clear()
        self.on_forgotten()

    async def aclose(self) -> None:
        for issuer in self._issuers.values():
            await issuer.aclose()

    async def _verify(self, mark: bytes, token: bytes) -> Verified:
        if len(token) > MAX_TOKEN:
            raise BadToken(TOO_LARGE)
        parsed = parse(token) if looks_like_jwt(token) or self._opaque is None else None
        issuer = self._issuers.get(parsed.issuer or "") if parsed is not None else self._opaque
        if issuer is None:
            raise BadToken(BAD_ISSUER)
        forgotten = self._forgotten
        try:
            found = await issuer.verify(token, parsed)
        except BadToken as refused:
            if issuer.opaque:
                self._keep(mark, refused, FORGET)
            raise
        if forgotten == self._forgotten:  # else something was revoked meanwhile, perhaps this
            self._keep(mark, found, min(REMEMBER, found.until - self._now() / 1000))
        return found

    def _landed(self, mark: bytes, flight: asyncio.Task[Verified]) -> None:
        self._flights.pop(mark, None)
        if not flight.cancelled():
            flight.exception()  # whoever asked may be gone; nobody needs to hear of it then

    def _keep(self, mark: bytes, outcome: Verified | BadToken, seconds: float) -> None:
        if len(self._kept) >= MAX_TOKENS:
            del self._kept[next(iter(self._kept))]
        self._kept[mark] = _Kept(outcome, self._now() + int(seconds * 1000))
