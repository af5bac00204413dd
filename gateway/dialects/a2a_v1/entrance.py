"""How callers are let in, as cards say it: the schemes, and which of them will do (A2A 1.0 §4.5, §7.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.dialects.oauth2.metadata import OPENID, BadMetadata, endpoint, locations
from gateway.model.value import value

Tree = dict[str, Any]

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
# What a document that names no grants means (RFC 8414 §2).
_IMPLIED = ("authorization_code", "implicit")
_BEARER: Tree = {
    "httpAuthSecurityScheme": {"scheme": "Bearer", "description": "An API key or another credential of this gateway"}
}


@value
class Entrance:
    """`requirements` are alternatives: one of them will do."""

    schemes: Mapping[str, Any]
    requirements: tuple[Tree, ...]


@value
class Offer:
    """What one authorization server gives tokens for here: its metadata, and the scopes that every token must hold.
    `bound` is whether tokens must be bound to a key of the client (RFC 9449)."""

    name: str
    issuer: str
    metadata: Mapping[str, Any]
    needed: tuple[str, ...] = ()
    bound: bool = False


def entrance(offers: Sequence[Offer] = (), domains: Sequence[str] = ()) -> Entrance:
    """`domains` are the SPIFFE trust domains whose client certificates are taken. Credentials of the gateway itself are
    always taken, as Bearer."""
    schemes: dict[str, Any] = {}
    requirements: list[Tree] = []
    for offer in offers:
        for name, scheme in _schemes(offer):
            schemes[name] = scheme
            requirements.append({"schemes": {name: {"list": list(offer.needed)}}})
    if domains:
        described = f"A client certificate with a SPIFFE ID of {', '.join(domains)}"
        schemes["certificate"] = {"mtlsSecurityScheme": {"description": described}}
        requirements.append({"schemes": {"certificate": {"list": []}}})
    schemes["gateway"] = _BEARER
    requirements.append({"schemes": {"gateway": {"list": []}}})
    return Entrance(schemes, tuple(requirements))


def _schemes(offer: Offer) -> Iterator[tuple[str, Tree]]:
    """One for each flow, since 1.0 has one flow in a scheme; then OpenID Connect, where the issuer speaks it."""
    about: Tree = {"oauth2MetadataUrl": locations(offer.issuer)[0]}
    if offer.bound:
        about["description"] = "Tokens must be bound to a key of the client (DPoP, RFC 9449)"
    for name, flow in _flows(offer):
        yield f"{offer.name}-{name}", {"oauth2SecurityScheme": {"flows": {_FLOWS[name]: flow}, **about}}
    if _texts(offer.metadata.get("id_token_signing_alg_values_supported")):
        url = offer.issuer.rstrip("/") + OPENID
        yield f"{offer.name}-openid", {"openIdConnectSecurityScheme": {"openIdConnectUrl": url}}


_FLOWS = {"client": "clientCredentials", "person": "authorizationCode", "device": "deviceCode"}


def _flows(offer: Offer) -> Iterator[tuple[str, Tree]]:
    grants = _texts(offer.metadata.get("grant_types_supported")) or _IMPLIED
    token = _endpoint(offer, "token_endpoint")
    if token is None:
        return
    scopes = {scope: scope for scope in (*_texts(offer.metadata.get("scopes_supported")), *offer.needed)}
    every: Tree = {"tokenUrl": token, "scopes": scopes}
    if "refresh_token" in grants:
        every["refreshUrl"] = token
    if "client_credentials" in grants:
        yield "client", {"tokenUrl": token, "scopes": scopes}
    authorize, device = _endpoint(offer, "authorization_endpoint"), _endpoint(offer, "device_authorization_endpoint")
    if "authorization_code" in grants and authorize is not None:
        pkce = "S256" in _texts(offer.metadata.get("code_challenge_methods_supported"))
        yield "person", {"authorizationUrl": authorize, **every, **({"pkceRequired": True} if pkce else {})}
    if DEVICE in grants and device is not None:
        yield "device", {"deviceAuthorizationUrl": device, **every}


def _endpoint(offer: Offer, name: str) -> str | None:
    try:
        return endpoint(dict(offer.metadata), name, offer.issuer)
    except BadMetadata:
        return None


def _texts(found: object) -> tuple[str, ...]:
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


PLAIN = entrance()
