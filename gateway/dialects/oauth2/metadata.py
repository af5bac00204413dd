"""Metadata documents: where an issuer says its things are (RFC 8414, OpenID Connect Discovery), and where this
gateway says who its issuers are (RFC 9728)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError
from gateway.model.value import value

PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"
AUTHORIZATION_SERVER = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


class BadMetadata(Exception):
    """A metadata document that cannot be used; the sentence says why."""


def locations(issuer: str) -> tuple[str, ...]:
    """Where the metadata of an issuer may be, in this order: RFC 8414 §3.1, then OpenID's name in both forms (§5)."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    inserted = (origin + AUTHORIZATION_SERVER + path, origin + OPENID + path)
    return inserted if not path else (*inserted, origin + path + OPENID)


def read_metadata(document: bytes, issuer: str) -> dict[str, JSON]:
    """The metadata of `issuer`. Raises BadMetadata, also when it speaks for somebody else (RFC 8414 §3.3)."""
    try:
        tree = read(document)
    except GatewayError as error:
        raise BadMetadata(f"is not strict JSON: {error.message}") from None
    if not isinstance(tree, dict) or tree.get("issuer") != issuer:
        raise BadMetadata("names another issuer")
    return tree


def endpoint(metadata: dict[str, JSON], name: str, issuer: str) -> str:
    """An endpoint's URL: https, or of the issuer's own origin, which the operator named. Raises BadMetadata."""
    url = metadata.get(name)
    if not isinstance(url, str) or not (url.startswith("https://") or same_origin(url, issuer)):
        raise BadMetadata(f"has no usable {name}")
    return url


def same_origin(one: str, other: str) -> bool:
    try:
        first, second = urlsplit(one), urlsplit(other)
        return (first.scheme, first.hostname, first.port) == (second.scheme, second.hostname, second.port)
    except ValueError:
        return False


def protected_resource(
    resource: str, issuers: Sequence[str], scopes: Sequence[str], proofs: Sequence[str] = (), *, bound: bool = False
) -> bytes:
    """RFC 9728 §2. The same for every resource of its kind, whether it is there or not: it tells a stranger nothing."""
    document: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": list(issuers),
        "bearer_methods_supported": ["header"],
    }
    if scopes:
        document["scopes_supported"] = list(scopes)
    if proofs:
        document["dpop_signing_alg_values_supported"] = list(proofs)
    if bound:
        document["dpop_bound_access_tokens_required"] = True
    return orjson.dumps(document)


@value
class Abilities:
    """What the gateway's own server can do, as it is configured."""

    grants: tuple[str, ...]
    methods: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    people: bool = False  # somebody can log in
    registration: bool = False  # RFC 7591
    documents: bool = False  # client ID metadata documents
    proofs: tuple[str, ...] = ()  # algorithms of DPoP proofs (RFC 9449 §5.1)


def authorization_server(url: str, can: Abilities) -> bytes:
    """RFC 8414 §2: exactly what this gateway's server can do, and nothing it cannot."""
    secret = [method for method in can.methods if method != "none"]
    document: dict[str, Any] = {
        "issuer": url,
        "token_endpoint": f"{url}/oauth/token",
        "jwks_uri": f"{url}/.well-known/jwks.json",
        "revocation_endpoint": f"{url}/oauth/revoke",
        "introspection_endpoint": f"{url}/oauth/introspect",
        "response_types_supported": ["code"] if can.people else [],
        "grant_types_supported": list(can.grants),
        "token_endpoint_auth_methods_supported": list(can.methods),
        "revocation_endpoint_auth_methods_supported": list(can.methods),
        "introspection_endpoint_auth_methods_supported": secret,
    }
    if can.people:
        document |= {
            "authorization_endpoint": f"{url}/oauth/authorize",
            "device_authorization_endpoint": f"{url}/oauth/device_authorization",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": can.documents,
        }
    if can.registration:
        document["registration_endpoint"] = f"{url}/oauth/register"
    if can.scopes:
        document["scopes_supported"] = list(can.scopes)
    if can.proofs:
        document["dpop_signing_alg_values_supported"] = list(can.proofs)
    return orjson.dumps(document)
