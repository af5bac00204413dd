"""ID tokens (OpenID Connect Core §3.1.3.7): who has logged in at an identity provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.oauth2.access_token import LEEWAY, MAX_SUBJECT, BadToken, tenant_of
from gateway.dialects.strict_json import JSON
from gateway.model.people import Person

MAX_AGE = 600.0
"""Seconds since `iat`: a token for the login that is going on now, not for one of last week."""

MAX_ROLES = 64
"""Roles of one person. They go into each of their tokens."""

MALFORMED = "The identity provider answered with no ID token that can be used"


def person(
    claims: Mapping[str, JSON],
    issuer: str,
    client_id: str,
    nonce: str,
    now: float,
    *,
    roles_claim: tuple[str, ...] = (),
    tenant_claim: tuple[str, ...] = (),
) -> Person:
    """The person of an ID token whose signature is right. The subject is `issuer#sub`, so that no two providers share
    anybody. Raises BadToken. `now` is seconds since the epoch."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != issuer or client_id not in audiences:
        raise BadToken(MALFORMED)
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != client_id:
        raise BadToken(MALFORMED)
    if claims.get("nonce") != nonce:
        raise BadToken(MALFORMED)
    until, issued = (claims.get(name) for name in ("exp", "iat"))
    if not _is_time(until) or not _is_time(issued):
        raise BadToken(MALFORMED)
    if until + LEEWAY <= now or not now - MAX_AGE <= issued <= now + LEEWAY:  # type: ignore[operator]
        raise BadToken(MALFORMED)
    sub = claims.get("sub")
    subject = f"{issuer}#{sub}"
    if not isinstance(sub, str) or not sub or not sub.isprintable() or len(subject) > MAX_SUBJECT:
        raise BadToken(MALFORMED)
    return Person(subject, _roles(claims, roles_claim), _name(claims, sub), tenant=tenant_of(claims, tenant_claim))


def _is_time(found: JSON) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _roles(claims: Mapping[str, JSON], path: tuple[str, ...]) -> tuple[str, ...]:
    found: Any = claims if path else None
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    listed = found if isinstance(found, list) else [] if found is None else [found]
    if len(listed) > MAX_ROLES or not all(isinstance(each, str) for each in listed):
        raise BadToken(MALFORMED)
    return tuple(listed)


def _name(claims: Mapping[str, JSON], sub: str) -> str:
    """What the person is shown as their own name; nothing is decided by it."""
    for claim in ("email", "preferred_username", "name"):
        found = claims.get(claim)
        if isinstance(found, str) and found.strip() and found.isprintable():
            return found[:80]
    return sub[:80]
