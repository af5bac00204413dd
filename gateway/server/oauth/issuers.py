"""Issuers that are trusted here, each with its way to tell a good token from a bad one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.dialects.oauth2 import forms, introspection
from gateway.dialects.oauth2.access_token import (
    MALFORMED,
    BadToken,
    Rules,
    Unverified,
    Verified,
    check_claims,
    check_header,
)
from gateway.dialects.oauth2.metadata import BadMetadata, same_origin
from gateway.model.errors import GatewayError, Reason
from gateway.model.identity import Documents
from gateway.server.oauth.keys import IssuerKeys, IssuerMetadata

log = logging.getLogger(__name__)

KEEP = 30.0
"""Seconds that an issuer's yes to a token is believed (security.md: RFC 7662)."""

QUESTIONS = 64
"""Introspections at one time. Strangers' tokens must not become a flood that the issuer gets from us."""

BUSY = GatewayError(Reason.UNAVAILABLE, "Too many tokens are being asked about; try again", retry_after=1.0)


class Issuer(Protocol):
    rules: Rules
    opaque: bool  # whether it also takes tokens that are not JWTs

    async def verify(self, token: bytes, parsed: Unverified | None) -> Verified:
        """Raises BadToken when the token is bad, GatewayError(UNAVAILABLE) when that cannot be found out."""
        ...

    async def aclose(self) -> None: ...


class KeyedIssuer:
    """Tokens are JWTs, checked here with the issuer's public keys (RFC 9068 §4)."""

    opaque = False

    def __init__(self, rules: Rules, keys: IssuerKeys, now: Callable[[], int]) -> None:
        self.rules = rules
        self._keys = keys
        self._now = now

    async def verify(self, token: bytes, parsed: Unverified | None) -> Verified:
        if parsed is None:
            raise BadToken(MALFORMED)
        check_header(parsed, self.rules)
        await self._keys.check(parsed)
        return check_claims(parsed.claims, self.rules, self._now() / 1000)

    async def aclose(self) -> None:
        await self._keys.aclose()


class IntrospectedIssuer:
    """The issuer is asked about each token (RFC 7662). No answer is no admission."""

    opaque = True

    def __init__(
        self,
        rules: Rules,
        documents: Documents,
        now: Callable[[], int],
        *,
        client_id: str,
        secret: str,
        endpoint: str | None = None,
    ) -> None:
        self.rules = rules
        self._documents = documents
        self._now = now
        self._client = client_id, secret
        self._endpoint = endpoint
        self._metadata = IssuerMetadata(rules.issuer, documents)
        self._places = asyncio.Semaphore(QUESTIONS)

    async def verify(self, token: bytes, parsed: Unverified | None) -> Verified:
        if self._places.locked():
            raise BUSY
        async with self._places:
            body = await self._ask(token)
        try:
            return introspection.answer(body, self.rules, self._now() / 1000, KEEP)
        except ValueError as error:
            log.warning("the introspection answer of %s cannot be read: %s", self.rules.issuer, error)
            raise _unavailable() from None

    async def _ask(self, token: bytes) -> bytes:
        issuer = self.rules.issuer
        try:
            url, offered = self._endpoint, None
            if url is None:
                url = await self._metadata.endpoint("introspection_endpoint")
                offered = (await self._metadata.document()).get("introspection_endpoint_auth_methods_supported")
            trusted = self._endpoint is not None or same_origin(url, issuer)
            body, credentials = forms.authenticated(introspection.question(token), *self._client, offered)
            return await self._documents.post(url, body, credentials, trusted=trusted)
        except (GatewayError, BadMetadata) as error:
            self._metadata.forget()
            log.warning("%s could not be asked about a token: %s", issuer, error)
            raise _unavailable() from None

    async def aclose(self) -> None:
        """Nothing is held between two questions."""


def _unavailable() -> GatewayError:
    return GatewayError(Reason.UNAVAILABLE, "The issuer cannot be asked about the token now; try again", retry_after=5)
