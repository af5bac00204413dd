"""Clients that register themselves (RFC 7591), with the invitation that the operator gave them (its §3 calls it an
initial access token), or without one where the operator lets anybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.core.clients import Clients
from gateway.core.keys import random_word
from gateway.dialects.oauth2.access_token import BadToken, parse
from gateway.dialects.oauth2.client_metadata import NONE, BadClient, registration
from gateway.model.clients import ClientRecord, Origin
from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value
from gateway.server.oauth.authorization_server import OwnIssuer
from gateway.server.oauth.signing import SigningKeys

INVITATION = "registration+jwt"
"""The `typ` of an invitation; nothing else of ours has it, and nobody takes it for an access token."""

LONGEST_INVITATION = 30 * 86_400
"""Seconds."""


class RegistrationRefused(Exception):
    """`status` and `error` as RFC 7591 §3.2.2 and RFC 6750 §3.1 say; the sentence says why."""

    def __init__(self, status: int, error: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.error = error


@value
class Registered:
    client: ClientRecord
    answer: dict[str, Any]


class Invitations:
    """Signed, so that nothing is kept of them: who holds one may register until it ends. `now` gives milliseconds."""

    def __init__(self, issuer: OwnIssuer, keys: SigningKeys, url: str, now: Callable[[], int]) -> None:
        self._issuer = issuer
        self._keys = keys
        self._url = url
        self._now = now

    def make(self, seconds: int) -> str:
        now = self._now() // 1000
        life = min(max(seconds, 1), LONGEST_INVITATION)
        return self._keys.sign(INVITATION, {"iss": self._url, "iat": now, "exp": now + life, "jti": random_word(8)})

    def is_good(self, word: str) -> bool:
        try:
            parsed = parse(word.encode("ascii", "replace"))
            self._issuer.check_signature(parsed)
        except BadToken:
            return False
        until = parsed.claims.get("exp")
        ours = parsed.header.get("typ") == INVITATION and parsed.issuer == self._url
        return ours and isinstance(until, int) and until > self._now() / 1000


class Registration:
    """`invitations` is None where anybody may register."""

    def __init__(self, clients: Clients, invitations: Invitations | None, now: Callable[[], int]) -> None:
        self._clients = clients
        self._invitations = invitations
        self._now = now

    async def register(self, authorization: str | None, body: bytes) -> Registered:
        """Raises RegistrationRefused."""
        self._check(authorization)
        try:
            about = registration(body)
        except BadClient as error:
            raise RegistrationRefused(400, error.error, str(error)) from None
        id = f"registered-{random_word(12)}"
        record = ClientRecord(
            id,
            b"",
            (),
            self._now(),
            grants=about.grants,
            redirects=about.redirects,
            name=about.name,
            origin=Origin.REGISTERED,
        )
        try:
            made = await self._clients.make(record, secret=about.method != NONE)
        except GatewayError as error:
            if error.reason is not Reason.OVERLOADED:
                raise
            raise RegistrationRefused(503, "temporarily_unavailable", error.message) from None
        answer: dict[str, Any] = {
            "client_id": id,
            "client_id_issued_at": record.created // 1000,
            "client_name": about.name,
            "redirect_uris": list(about.redirects),
            "grant_types": list(about.grants),
            "response_types": ["code"] if about.redirects else [],
            "token_endpoint_auth_method": about.method,
        }
        if made.secret:
            answer |= {"client_secret": made.secret, "client_secret_expires_at": 0}
        return Registered(made.record, answer)

    def _check(self, authorization: str | None) -> None:
        if self._invitations is None:
            return
        scheme, _, word = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not self._invitations.is_good(word):
            sentence = "Send the invitation that `gateway clients invite` printed: Authorization: Bearer …"
            raise RegistrationRefused(401, "invalid_token", sentence)
