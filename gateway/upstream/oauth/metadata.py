"""Two documents and what must be true of them: of the protected resource (RFC 9728) and of the authorization server
(RFC 8414, OpenID Connect Discovery 1.0). Pure: a tree goes in, a value or a refusal comes out."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.dialects.strict_json import JSON
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Tree
from gateway.model.value import value
from gateway.upstream.address import BadUrl, locate, origin_of
from gateway.upstream.oauth.challenge import scopes_of

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
RESOURCE = "oauth-protected-resource"
SERVER = "oauth-authorization-server"
OPENID = "openid-configuration"


@value
class Resource:
    """`id` is what tokens are for: the `resource` of RFC 8707. `scopes` None: the document names none."""

    id: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] | None
    proofs: bool = False  # it takes tokens that are bound to a key (RFC 9728 §2)


@value
class Server:
    """An authorization server that has said that it is `issuer`, and that can do what we ask of one."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None
    registration_endpoint: str | None
    scopes: tuple[str, ...]
    methods: tuple[str, ...]
    says_iss: bool  # RFC 9207 §3
    takes_documents: bool  # client ID metadata documents
    pkce: bool  # S256, without which no person is sent there
    assertions: tuple[str, ...] = ()  # algorithms of private_key_jwt; empty: it does not say
    proofs: tuple[str, ...] = ()  # algorithms of DPoP; empty: it has none (RFC 9449 §5.1)
    revocation_endpoint: str | None = None  # RFC 7009


def resource_places(url: str) -> Iterator[str]:
    """Where the document of a resource is, when no challenge says so (RFC 9728 §3.1): for its path, then the root."""
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}/.well-known/{RESOURCE}"
    if parts.path.strip("/"):
        yield root + parts.path.rstrip("/")
    yield root


def server_places(issuer: str) -> Iterator[str]:
    """In the order that MCP asks for: RFC 8414 §3.1, OpenID Connect beside the path, OpenID Connect below it."""
    parts = urlsplit(issuer)
    root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{root}/.well-known/{SERVER}{path}"
    yield f"{root}/.well-known/{OPENID}{path}"
    if path:
        yield f"{root}{path}/.well-known/{OPENID}"


def resource(tree: JSON, url: str) -> Resource:
    """What the document says about the server at `url`. Raises GatewayError(UPSTREAM_FAILED)."""
    if not isinstance(tree, dict) or not isinstance(id := tree.get("resource"), str) or not covers(id, url):
        # A document about another resource would have us fetch tokens for that one (RFC 9728 §3.3).
        raise refused("The server's resource metadata is about another resource")
    issuers = _texts(tree.get("authorization_servers"))
    if not issuers:
        raise refused("The server's resource metadata names no authorization server")
    bound = tree.get("dpop_bound_access_tokens_required") is True or tree.get("dpop_signing_alg_values_supported")
    return Resource(id, issuers, _scopes(tree.get("scopes_supported")), bool(bound))


def covers(id: str, url: str) -> bool:
    """Whether the resource `id` is the server at `url`, or a path above it at the same origin."""
    try:
        same = origin_of(id) == origin_of(url)
        above, below = locate(id).target.rstrip("/"), locate(url).target
    except BadUrl:
        return False
    return same and (below.rstrip("/") == above or below.startswith(above + "/"))


def server(tree: JSON, issuer: str) -> Server:
    """Raises GatewayError(UPSTREAM_FAILED) for a document of somebody else."""
    if not isinstance(tree, dict) or tree.get("issuer") != issuer:
        # RFC 8414 §3.3: identical, code point by code point; everything else is a mix-up.
        raise refused("The authorization server's metadata has another issuer than the one it was asked for")
    token_endpoint = _endpoint(tree, "token_endpoint")
    if token_endpoint is None:
        raise refused("The authorization server's metadata has no token endpoint")
    return Server(
        issuer,
        token_endpoint,
        _endpoint(tree, "authorization_endpoint"),
        _endpoint(tree, "registration_endpoint"),
        _scopes(tree.get("scopes_supported")) or (),
        # RFC 8414 §2: the default is client_secret_basic.
        _texts(tree.get("token_endpoint_auth_methods_supported")) or ("client_secret_basic",),
        tree.get("authorization_response_iss_parameter_supported") is True,
        tree.get("client_id_metadata_document_supported") is True,
        "S256" in _texts(tree.get("code_challenge_methods_supported")),
        _texts(tree.get("token_endpoint_auth_signing_alg_values_supported")),
        _texts(tree.get("dpop_signing_alg_values_supported")),
        # Nobody needs it to get in: one that no token may go to is none.
        found if isinstance(found := tree.get("revocation_endpoint"), str) and secure(found) else None,
    )


def bare(token_endpoint: str, authorization_endpoint: str | None = None, *, pkce: bool = False) -> Server:
    """A server of which only a card says where its endpoints are. The token endpoint's URL stands for the issuer: what
    is got there belongs to it and to nobody else. Raises GatewayError(UPSTREAM_FAILED)."""
    if not secure(token_endpoint) or not secure(authorization_endpoint or token_endpoint):
        raise refused("The card's endpoints for tokens are no https URLs")
    methods = ("private_key_jwt", "client_secret_basic", "client_secret_post", *(("none",) if pkce else ()))
    return Server(token_endpoint, token_endpoint, authorization_endpoint, None, (), methods, False, False, pkce)


def secure(url: str) -> bool:
    """https, or http on this very machine: credentials and codes go there."""
    try:
        origin = origin_of(url)
    except BadUrl:
        return False
    return origin.scheme == "https" or origin.host in _LOOPBACK


def refused(sentence: str) -> GatewayError:
    return GatewayError(Reason.UPSTREAM_FAILED, sentence, metadata={"delivered": "no"})


def _endpoint(tree: Tree, name: str) -> str | None:
    found = tree.get(name)
    if found is None:
        return None
    if not isinstance(found, str) or not secure(found):
        raise refused(f"The authorization server's {name} is no https URL")
    return found


def _texts(found: object) -> tuple[str, ...]:
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def _scopes(found: object) -> tuple[str, ...] | None:
    return scopes_of(" ".join(_texts(found)))
