"""What a remote agent asks for on its card, and what the operator has given for it (A2A §4.5, §7).

The card says where a credential goes, never which one: that is the operator's. And none goes anywhere but to the origin
that the operator named, whatever URLs the card has.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import quote, urlencode

from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value
from gateway.upstream.address import BadUrl, Origin, origin_of
from gateway.upstream.oauth.client import ClientSettings
from gateway.upstream.oauth.metadata import Server, bare
from gateway.upstream.secret import Secret, settle

# The wrapper of a scheme on a 1.0 card, and how it is called here.
_KINDS = {
    "apiKeySecurityScheme": "an API key",
    "httpAuthSecurityScheme": "HTTP authentication",
    "oauth2SecurityScheme": "OAuth 2",
    "openIdConnectSecurityScheme": "OpenID Connect",
    "mtlsSecurityScheme": "a client certificate",
}


@value
class Given:
    """What the operator's file has for one agent. `certificate` is whether connections show one."""

    key: Secret | None = None
    user: str | None = None
    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    oauth: ClientSettings | None = None
    certificate: bool = False


@value
class Placed:
    """Where it goes: values by name. `authorization` is the scheme in front of the key in that header."""

    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    query: Mapping[str, Secret] = field(default_factory=dict)
    cookies: Mapping[str, Secret] = field(default_factory=dict)
    basic: tuple[str, Secret] | None = None
    token: bool = False  # an OAuth token in Authorization


def place(card: AgentCard, given: Given) -> Placed:
    """By the first of the card's requirements that can be met; where it has schemes and no requirements, by the first
    of those. Raises GatewayError when none can."""
    schemes = card.security_schemes or {}
    required = [_names(each) for each in card.security_requirements or ()]
    for names in required or [(name,) for name in schemes] or [()]:
        placed = _placed([schemes.get(name) for name in names], given)
        if placed is not None:
            return placed
    asked = sorted({kind for scheme in schemes.values() for kind in _kinds(scheme)})
    raise GatewayError(
        Reason.UNAVAILABLE,
        f"The agent's card asks for {' or '.join(asked)}, and its `credentials` have none that fits",
        metadata={"delivered": "no"},
    )


def _names(requirement: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_object(requirement.get("schemes")))


def _kinds(scheme: object) -> Iterator[str]:
    yield from (kind for wrapper, kind in _KINDS.items() if isinstance(scheme, dict) and wrapper in scheme)


def _placed(schemes: list[Any], given: Given) -> Placed | None:
    """All of one requirement together; None when something is missing for one of them."""
    placed = Placed(dict(given.headers))
    if not schemes and given.oauth is not None:
        return Placed(placed.headers, token=True)
    if not schemes and given.key is not None:
        return _with_http(placed, {} if given.user is None else {"scheme": "basic"}, given)
    for scheme in schemes:
        found = _with(placed, scheme if isinstance(scheme, dict) else {}, given)
        if found is None:
            return None
        placed = found
    return placed


def _with(placed: Placed, scheme: Mapping[str, Any], given: Given) -> Placed | None:
    for wrapper, use in _USES.items():
        if isinstance(said := scheme.get(wrapper), dict):
            return use(placed, said, given)
    return None


def _with_api_key(placed: Placed, said: Mapping[str, Any], given: Given) -> Placed | None:
    name, where = said.get("name"), said.get("location", "header")
    if not isinstance(name, str) or not name or name.lower() in {each.lower() for each in placed.headers}:
        return placed if isinstance(name, str) and name else None  # the operator's own header stands for it
    if given.key is None:
        return None
    part = {"header": "headers", "query": "query", "cookie": "cookies"}.get(str(where))
    if part is None:
        return None
    return _replaced(placed, part, {**getattr(placed, part), name: given.key})


def _with_http(placed: Placed, said: Mapping[str, Any], given: Given) -> Placed | None:
    if "authorization" in {name.lower() for name in placed.headers}:
        return placed
    scheme = str(said.get("scheme", "bearer")).lower()
    if scheme == "bearer" and given.oauth is not None:
        return _replaced(placed, "token", True)  # RFC 6750: a bearer token, wherever it comes from
    if given.key is None:
        return None
    if scheme == "basic":
        return None if given.user is None else _replaced(placed, "basic", (given.user, given.key))
    bearer = Secret(given.key.file, given.key.variable, f"{scheme.capitalize()} ")
    return _replaced(placed, "headers", {**placed.headers, "authorization": bearer})


def _with_token(placed: Placed, said: Mapping[str, Any], given: Given) -> Placed | None:
    if given.oauth is not None:
        return _replaced(placed, "token", True)
    # A token that somebody else got, and that the operator has put into a file.
    return _with_http(placed, {}, given)


def _with_certificate(placed: Placed, said: Mapping[str, Any], given: Given) -> Placed | None:
    return placed if given.certificate else None


_USES = {
    "apiKeySecurityScheme": _with_api_key,
    "httpAuthSecurityScheme": _with_http,
    "oauth2SecurityScheme": _with_token,
    "openIdConnectSecurityScheme": _with_token,
    "mtlsSecurityScheme": _with_certificate,
}


def _replaced(placed: Placed, part: str, found: Any) -> Placed:
    parts = {name: getattr(placed, name) for name in ("headers", "query", "cookies", "basic", "token")}
    return Placed(**{**parts, part: found})


@value
class Wanted:
    """What a token for an agent is to be. `resource` is what it is for (RFC 8707), `otherwise` and `metadata` what the
    card says of who gives it, for an agent that says it nowhere else: an issuer or the bare endpoints, and the URL of a
    document about them; `scopes` are those of the card's requirement."""

    resource: str
    otherwise: Server | str | None = None
    metadata: str | None = None
    scopes: tuple[str, ...] = ()


def wanted(card: AgentCard, resource: str) -> Wanted:
    """Raises GatewayError for a card whose endpoints are no secure URLs."""
    schemes = card.security_schemes or {}
    oauth = {name: each for name, each in schemes.items() if isinstance(each, dict) and _TOKENS & each.keys()}
    flows = [_object(_object(each.get("oauth2SecurityScheme")).get("flows")) for each in oauth.values()]
    places = [_object(each.get("oauth2SecurityScheme")).get("oauth2MetadataUrl") for each in oauth.values()]
    otherwise = openid_issuer(card) or next((found for each in flows if (found := _endpoints(each)) is not None), None)
    scopes = {
        scope: None
        for requirement in card.security_requirements or ()
        for name, each in _object(requirement.get("schemes")).items()
        if name in oauth
        for scope in _texts(_object(each).get("list"))
    }
    return Wanted(resource, otherwise, next(iter(_texts(places)), None), tuple(scopes))


def _endpoints(flows: Mapping[str, Any]) -> Server | None:
    """A person's flow first: its token endpoint is where their refresh tokens go, too."""
    person = _object(flows.get("authorizationCode"))
    if isinstance(where := person.get("authorizationUrl"), str) and isinstance(url := person.get("tokenUrl"), str):
        # Whether it checks PKCE only the card can say here; without that no person is sent there (RFC 9700 §2.1.1).
        return bare(url, where, pkce=person.get("pkceRequired") is True)
    url = _object(flows.get("clientCredentials")).get("tokenUrl")
    return bare(url) if isinstance(url, str) else None


def openid_issuer(card: AgentCard) -> str | None:
    """The issuer of the card's OpenID Connect scheme (OpenID Connect Discovery §4.1)."""
    end = "/.well-known/openid-configuration"
    for scheme in (card.security_schemes or {}).values():
        url = _object(_object(scheme).get("openIdConnectSecurityScheme")).get("openIdConnectUrl")
        if isinstance(url, str) and url.endswith(end):
            return url.removesuffix(end)
    return None


def _object(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _texts(found: object) -> tuple[str, ...]:
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


_TOKENS = {"oauth2SecurityScheme", "openIdConnectSecurityScheme"}


class Dressing:
    """What was placed, added to requests to `origin`; there are none to anywhere else. Secrets are read anew each time,
    so that a rotated one is found."""

    def __init__(self, origin: Origin, placed: Placed, ours: Mapping[str, str]) -> None:
        self._origin = origin
        self._placed = placed
        self._ours = ours

    def __call__(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        try:
            there = origin_of(url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, f"The agent has no usable URL: {error}") from None
        if there != self._origin:
            what = f"The agent's credentials go to {self._origin} only, and not to {there}; see credentials.origin"
            raise GatewayError(Reason.EGRESS_REFUSED, what, metadata={"delivered": "no"})
        placed = self._placed
        sent = {**headers, **{name.lower(): settle(each, self._ours) for name, each in placed.headers.items()}}
        if placed.basic is not None:
            user, password = placed.basic
            pair = f"{user}:{settle(password, self._ours)}".encode()
            sent["authorization"] = "Basic " + base64.b64encode(pair).decode()
        if placed.cookies:
            pairs = ((name, quote(settle(each, self._ours), safe="")) for name, each in placed.cookies.items())
            sent["cookie"] = "; ".join(f"{name}={word}" for name, word in pairs)
        if placed.query:
            more = urlencode({name: settle(each, self._ours) for name, each in placed.query.items()})
            url = f"{url}{'&' if '?' in url else '?'}{more}"
        return url, sent
