"""What the operator's file says about the gateway as an OAuth client of one tool server."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Tree
from gateway.model.value import value
from gateway.upstream.secret import Secret, settle


class Grant(StrEnum):
    """How a token is come by (RFC 6749 §4.1, §4.4, RFC 8693, RFC 7523 §2.1, and MCP's enterprise-managed
    authorization)."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"
    TOKEN_EXCHANGE = "token_exchange"
    JWT_BEARER = "jwt_bearer"
    ID_JAG = "id_jag"

    @property
    def of_a_person(self) -> bool:
        """Whether somebody must say yes in a browser, at the authorization server itself."""
        return self is Grant.AUTHORIZATION_CODE

    @property
    def grant_type(self) -> str:
        """As the token endpoint calls it."""
        return _GRANT_TYPES.get(self, str(self))


JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"

_GRANT_TYPES = {Grant.TOKEN_EXCHANGE: TOKEN_EXCHANGE, Grant.JWT_BEARER: JWT_BEARER, Grant.ID_JAG: JWT_BEARER}


class Proofs(StrEnum):
    """When tokens are bound to a key of the gateway's (RFC 9449)."""

    OFFERED = "offered"  # where the server takes such tokens and the authorization server gives them
    REQUIRED = "required"
    OFF = "off"


@value
class IdentityProvider:
    """Whom the tool server's authorization server believes about people, and what the gateway is there. `subject` is an
    ID token of the one person in whose name all calls are made; None: people log in there."""

    issuer: str
    client_id: str
    client_secret: Secret | None = None
    client_key: Secret | None = None
    subject: Secret | None = None


@value
class ClientSettings:
    """`client_metadata` is the URL of our client ID metadata document; `issuer` None: whichever the server names;
    `scopes` empty: those that the server asks for. `client_key` is our private key there (RFC 7523 §2.2), `assertion`
    what a platform gives its workloads to show."""

    grant: Grant
    client_id: str | None = None
    client_secret: Secret | None = None
    client_metadata: str | None = None
    issuer: str | None = None
    scopes: tuple[str, ...] = ()
    client_key: Secret | None = None
    assertion: Secret | None = None
    identity_provider: IdentityProvider | None = None
    proofs: Proofs = Proofs.OFFERED

    def secret(self, ours: Mapping[str, str]) -> str | None:
        """Read anew each time. Raises GatewayError(UNAVAILABLE), which names the place."""
        return None if self.client_secret is None else settle(self.client_secret, ours)

    @property
    def needs_login(self) -> bool:
        """Whether somebody must log in before there can be a token."""
        provider = self.identity_provider
        return self.grant.of_a_person or (self.grant is Grant.ID_JAG and provider is not None and not provider.subject)


@value
class Client:
    """A client as one authorization server knows it. `method` is how it authenticates at the token endpoint."""

    id: str
    secret: str | None
    method: str
    redirect_uri: str | None = None

    def __repr__(self) -> str:
        return f"Client({self.id!r}, {self.method})"

    def tree(self) -> Tree:
        return {"id": self.id, "secret": self.secret, "method": self.method, "redirect_uri": self.redirect_uri}


PRIVATE_KEY_JWT = "private_key_jwt"

# What we can do without a key, the strongest first (RFC 7591 §2).
METHODS = ("client_secret_basic", "client_secret_post", "none")


def method_for(offered: tuple[str, ...], *, secret: bool, key: bool = False) -> str:
    """How to authenticate at the token endpoint, of what its metadata offers. Raises GatewayError(UNAVAILABLE)."""
    ours = (PRIVATE_KEY_JWT,) if key else METHODS[:-1] if secret else METHODS[-1:]
    found = next((each for each in ours if each in offered), None)
    if found is None:
        raise GatewayError(Reason.UNAVAILABLE, f"The authorization server does not take {' or '.join(ours)}")
    return found
