"""JWT access tokens (RFC 9068, with RFC 8725's advice): bytes in, claims out, or one sentence about what is wrong.

Nothing in the header selects anything but a key that we already have: `jku`, `x5u`, `jwk`, `x5c` and `crit` are
refused, whatever they say. The issuer's name is read before the signature is checked, to know whose keys to check it
with; everything else is read after.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError
from gateway.model.principal import Kind, Principal
from gateway.model.value import value

MAX_TOKEN = 8192
"""Bytes. Half of what the edge takes as headers; tokens with a hundred roles have 4 KiB."""

MAX_HEADER = 512
"""Bytes of the decoded JOSE header: alg, typ, and a kid of at most 256."""

MAX_SUBJECT = 255
"""Characters of `sub` (OpenID Connect Core §2 says so; RFC 9068 does not)."""

MAX_CLIENT = 2048
"""Characters of `client_id` and `azp`: those that are the URL of a document (CIMD) are the longest."""

MAX_AUDIENCES = 32
"""Values of `aud`. A token for so many places is a token for everybody."""

MAX_ROLES = 256
"""Roles, or scopes in a list. All that fit into the bytes above and are told apart by somebody."""

MAX_ACTORS = 8
"""Actors one inside the other (`act`). A caller of ours has no more hops either."""

LEEWAY = 30
"""Seconds that clocks may differ (RFC 7519 §4.1.4: "usually no more than a few minutes")."""

LATEST = 2**53
"""Seconds since the epoch that a time may name; beyond it numbers are no longer exact everywhere."""

# Header parameters that would let the token choose its own key or its own rules (RFC 8725 §3.9, §3.10).
REFUSED_PARAMETERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty"})

# Claims of other kinds of JWT, which an issuer that writes `typ: JWT` on everything may also sign: ID tokens
# (OpenID Connect Core §2), logout tokens and security events (RFC 8417). RFC 8725 §2.8: cross-JWT confusion.
OTHER_KINDS = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})

ACCESS_TOKEN = "at+jwt"
PLAIN = "JWT"

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_SUBJECT = re.compile(r"[^#\x00-\x1f\x7f-\x9f\ud800-\udfff][^\x00-\x1f\x7f-\x9f\ud800-\udfff]*")
_CLIENT = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


class BadToken(Exception):
    """The token is refused. The sentence is for its holder, and quotes nothing of it."""


MALFORMED = "The token is malformed"
TOO_LARGE = f"The token has more than {MAX_TOKEN} bytes"
BAD_HEADER = "The token's header has a parameter that is not accepted"
BAD_ISSUER = "The token is from an issuer that is not trusted here"
BAD_TYPE = "The token is not an access token"
BAD_ALGORITHM = "The token's algorithm is not accepted"
UNKNOWN_KEY = "The token's key is not known"
BAD_SIGNATURE = "The token's signature is wrong"
EXPIRED = "The token has expired"
TOO_EARLY = "The token is not valid yet"
BAD_AUDIENCE = "The token is for another audience"
BAD_CLAIMS = "The token lacks a claim that it needs, or one has the wrong form"
BOUND = "The token is bound to a key in a way that cannot be checked here"
NEEDS_PROOF = "The token is bound to a key: send it as DPoP, with a proof of that key"
UNBOUND = "The token is not bound to a key: send it as Bearer"
NEEDS_KEY = "The token must be bound to a key (DPoP)"
WRONG_KEY = "The token is bound to another key"
NOT_ACTIVE = "The token is not active"


@value
class Rules:
    """What the operator says about the tokens of one issuer.

    `audiences` are values of `aud` that mean the whole gateway; `types` of `typ`, where `JWT` also lets a token
    without `typ`, `client_id` and `jti` pass; the claims are paths into the token.
    """

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    types: frozenset[str] = frozenset({ACCESS_TOKEN})
    roles_claim: tuple[str, ...] = ("roles",)
    tenant_claim: tuple[str, ...] = ()
    tenant_needed: bool = True  # where there is such a claim
    scopes: frozenset[str] = frozenset()  # every token must hold them
    label: str = ""  # what its principals are called by; the issuer's own name if not set
    bound: bool = False  # every token must be bound to a key (RFC 9449)

    @property
    def known_as(self) -> str:
        return self.label or self.issuer


@value
class Unverified:
    """A token in its parts. Nothing in it is true yet."""

    header: dict[str, JSON]
    claims: dict[str, JSON]
    signed: bytes
    signature: bytes

    @property
    def issuer(self) -> str | None:
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else None

    @property
    def kid(self) -> str | None:
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else None

    @property
    def alg(self) -> str:
        return str(self.header.get("alg"))


@value
class Verified:
    """What a token says, once it is known to be true: by which `rules`, and until when, in seconds since the epoch.
    `audiences` is all of its `aud`; whether it is for us depends on what is asked for. `key` is the thumbprint of the
    key that it is bound to, `may_act` the one who may act for the subject, where it names one (RFC 8693 §4.4)."""

    principal: Principal
    audiences: frozenset[str]
    until: float
    rules: Rules
    key: str | None = None
    may_act: str | None = None

    @property
    def meant_for_all(self) -> bool:
        """Whether the token is for the whole gateway, not only for a part of it (RFC 8707 §2)."""
        return not self.audiences.isdisjoint(self.rules.audiences)

    @property
    def lacks_scope(self) -> bool:
        return not self.rules.scopes <= self.principal.scopes


def needs_scopes(rules: Rules) -> str:
    """What the holder of a good token is told that lacks scopes which every token must hold."""
    return f"The token needs the scopes: {' '.join(sorted(rules.scopes))}"


def looks_like_jwt(token: bytes) -> bool:
    return token.count(b".") == 2


def parse(token: bytes) -> Unverified:
    """Raises BadToken: MALFORMED, TOO_LARGE or BAD_HEADER."""
    if len(token) > MAX_TOKEN:
        raise BadToken(TOO_LARGE)
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise BadToken(MALFORMED)
    header, claims, signature = parts.groups()
    decoded = _decoded(header)
    if len(decoded) > MAX_HEADER:
        raise BadToken(MALFORMED)
    found = Unverified(_object(decoded), _object(_decoded(claims)), header + b"." + claims, _decoded(signature))
    if not REFUSED_PARAMETERS.isdisjoint(found.header):
        raise BadToken(BAD_HEADER)
    if not isinstance(found.header.get("kid", ""), str):
        raise BadToken(MALFORMED)
    return found


def check_header(token: Unverified, rules: Rules) -> None:
    """Type and algorithm, before a key is looked for. Raises BadToken: BAD_TYPE, BAD_ALGORITHM."""
    typ = token.header.get("typ", PLAIN)
    if not isinstance(typ, str) or _plain(typ) not in {_plain(accepted) for accepted in rules.types}:
        raise BadToken(BAD_TYPE)
    if token.alg not in rules.algorithms:
        raise BadToken(BAD_ALGORITHM)


def _plain(typ: str) -> str:
    """Media types are compared without case, and without the `application/` that may be left out (RFC 7515 §4.1.9)."""
    return typ.lower().removeprefix("application/")


def check_claims(claims: Mapping[str, JSON], rules: Rules, now: float) -> Verified:
    """The claims of a token whose signature is right. Raises BadToken. `now` is seconds since the epoch."""
    plain = PLAIN in rules.types
    if plain and not OTHER_KINDS.isdisjoint(claims):
        raise BadToken(BAD_TYPE)
    until = _time(claims, "exp", required=True)
    issued = _time(claims, "iat", required=not plain)
    begins = _time(claims, "nbf", required=False)
    if until + LEEWAY <= now:
        raise BadToken(EXPIRED)
    if max(issued, begins) - LEEWAY > now:
        raise BadToken(TOO_EARLY)
    for claim in ("client_id", "jti"):
        if not isinstance(claims.get(claim, "" if plain else None), str):
            raise BadToken(BAD_CLAIMS)
    if "sub" not in claims:
        raise BadToken(BAD_CLAIMS)
    return verified(claims, rules, until)


def verified(claims: Mapping[str, JSON], rules: Rules, until: float) -> Verified:
    """Who it is, from claims that are known to be the issuer's. Raises BadToken: BAD_CLAIMS, BOUND, NEEDS_KEY."""
    key = _bound_to(claims)
    if key is None and rules.bound:
        raise BadToken(NEEDS_KEY)
    subject = Principal(
        Kind.OAUTH,
        name(rules.known_as, claims),
        tenant_of(claims, rules.tenant_claim, needed=rules.tenant_needed),
        roles=frozenset(_texts(_at(claims, rules.roles_claim))),
        scopes=_scopes(claims),
        client=_client(claims),
    )
    return Verified(_acting(claims, rules, subject), audiences(claims), until, rules, key, _may_act(claims))


def _bound_to(claims: Mapping[str, JSON]) -> str | None:
    """The thumbprint of the key that the token is bound to (RFC 9449 §6.1). A token that only the holder of a key may
    use must not pass for one that anybody may, so what binds it in another way is refused (RFC 7800)."""
    if "cnf" not in claims:
        return None
    bound = claims["cnf"]
    if not isinstance(bound, dict) or set(bound) != {"jkt"} or not isinstance(bound["jkt"], str):
        raise BadToken(BOUND)
    return bound["jkt"]


def _may_act(claims: Mapping[str, JSON]) -> str | None:
    """`sub`, or `iss#sub` where both say who it is, which no name of ours is; "" for what names nobody."""
    if "may_act" not in claims:
        return None
    named: Any = claims["may_act"]
    subject = named.get("sub") if isinstance(named, dict) else None
    if not isinstance(subject, str):
        return ""
    return f"{named['iss']}#{subject}" if "iss" in named else subject


def _acting(claims: Mapping[str, JSON], rules: Rules, subject: Principal) -> Principal:
    """Who asks: the subject, or an actor on its behalf (RFC 8693 §4.1), who may itself have been asked by another.
    Roles are the subject's own and stay with it. Raises BadToken: BAD_CLAIMS."""
    actors: list[str] = []
    found = claims.get("act")
    while found is not None:
        if not isinstance(found, dict) or len(actors) == MAX_ACTORS:
            raise BadToken(BAD_CLAIMS)
        actors.append(name(rules.known_as, found))
        found = found.get("act")
    for actor in reversed(actors):
        subject = Principal(
            Kind.OAUTH,
            actor,
            subject.tenant,
            on_behalf_of=subject,
            hops=subject.hops + 1,
            scopes=subject.scopes,
            client=subject.client,
        )
    return subject


def name(issuer: str, claims: Mapping[str, JSON]) -> str:
    """`issuer#subject`. An issuer has no fragment (RFC 8414 §2), and no subject begins with `#`, so that no two
    identities share a name. A token without `sub` (introspection allows it) is its client's: `issuer##client`."""
    claim, mark = ("sub", "#") if "sub" in claims else ("client_id", "##")
    subject = claims.get(claim)
    if not isinstance(subject, str) or len(subject) > MAX_SUBJECT or not _SUBJECT.fullmatch(subject):
        raise BadToken(BAD_CLAIMS)
    return f"{issuer}{mark}{subject}"


def _client(claims: Mapping[str, JSON]) -> str | None:
    """The client that the token was given to: `client_id` (RFC 9068 §2.2, RFC 7662 §2.2) or, from issuers that write
    their access tokens like ID tokens, `azp` (OpenID Connect Core §2). None where the issuer does not say. Raises
    BadToken: BAD_CLAIMS."""
    client = claims.get("client_id") or claims.get("azp")
    if client is None or client == "":
        return None
    if not isinstance(client, str) or len(client) > MAX_CLIENT or not _CLIENT.fullmatch(client):
        raise BadToken(BAD_CLAIMS)
    return client


def audiences(claims: Mapping[str, JSON]) -> frozenset[str]:
    """`aud`: one text or a list of them (RFC 7519 §4.1.3). Raises BadToken when there is none."""
    found = claims.get("aud")
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_AUDIENCES:
        raise BadToken(BAD_AUDIENCE)
    if not all(isinstance(each, str) for each in listed):
        raise BadToken(BAD_AUDIENCE)
    return frozenset(map(str, listed))


def _scopes(claims: Mapping[str, JSON]) -> frozenset[str]:
    """`scope` (RFC 8693 §4.2): words with single spaces between. Some issuers write a list, as `scp` or `scope`."""
    found: Any = claims.get("scope", claims.get("scp", ""))
    if isinstance(found, list):
        return frozenset(_texts(found))
    if not isinstance(found, str) or (found and not _SCOPE.fullmatch(found)):
        raise BadToken(BAD_CLAIMS)
    return frozenset(found.split())


def tenant_of(claims: Mapping[str, JSON], path: tuple[str, ...], *, needed: bool = True) -> str:
    """Where the operator says that tokens name a tenant, every token has to; of ours those of a tenant's people do.
    Raises BadToken: BAD_CLAIMS."""
    tenant = _at(claims, path) if path else None
    if tenant is None and not (path and needed):
        return ""
    if not isinstance(tenant, str) or not 0 < len(tenant) <= MAX_SUBJECT or not tenant.isprintable():
        raise BadToken(BAD_CLAIMS)
    return tenant


def _texts(found: JSON) -> list[str]:
    listed = found if isinstance(found, list) else [] if found is None else [found]
    if len(listed) > MAX_ROLES or not all(isinstance(each, str) for each in listed):
        raise BadToken(BAD_CLAIMS)
    return [str(each) for each in listed]


def _at(claims: Mapping[str, JSON], path: tuple[str, ...]) -> JSON:
    found: Any = claims
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found  # type: ignore[no-any-return]


def _time(claims: Mapping[str, JSON], claim: str, *, required: bool) -> float:
    """A NumericDate (RFC 7519 §2); 0 where there is none and none is needed."""
    found = claims.get(claim)
    if claim not in claims and not required:
        return 0
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= LATEST:
        raise BadToken(BAD_CLAIMS)
    return found


def _decoded(segment: bytes) -> bytes:
    """Base64url without padding (RFC 7515 §2), in the one form that its bytes have."""
    if len(segment) % 4 == 1:
        raise BadToken(MALFORMED)
    found = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(found).rstrip(b"=") != segment:
        raise BadToken(MALFORMED)
    return found


def _object(document: bytes) -> dict[str, JSON]:
    try:
        tree = read(document)
    except GatewayError:
        raise BadToken(MALFORMED) from None
    if not isinstance(tree, dict):
        raise BadToken(MALFORMED)
    return tree
