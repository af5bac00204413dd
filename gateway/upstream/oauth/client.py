"""What the operator's file says about the gateway as an OAuth client of one tool server."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Tree
from gateway.model.value import value
from gateway.upstream.secret import Secret, settle


class Grant(StrEnum):
    """How a token is come by (RFC 6749 §4.1, §4.4, RFC 8693)."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"
    TOKEN_EXCHANGE = "token_exchange"

    @property
    def of_a_person(self) -> bool:
        """Whether somebody must say yes in a browser."""
        return self is Grant.AUTHORIZATION_CODE


@value
class ClientSettings:
    """`client_metadata` is the URL of our client ID metadata document; `issuer` None: whichever the server names;
    `scopes` empty: those that the server asks for."""

    grant: Grant
    client_id: str | None = None
    client_secret: Secret | None = None
    client_metadata: str | None = None
    issuer: str | None = None
    scopes: tuple[str, ...] = ()

    def secret(self, ours: Mapping[str, str]) -> str | None:
        """Read anew each time. Raises GatewayError(UNAVAILABLE), which names the place."""
        return None if self.client_secret is None else settle(self.client_secret, ours)


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


# What we can do, the strongest first (RFC 7591 §2).
METHODS = ("client_secret_basic", "client_secret_post", "none")


def method_for(offered: tuple[str, ...], *, secret: bool) -> str:
    """How to authenticate at the token endpoint, of what its metadata offers. Raises GatewayError(UNAVAILABLE)."""
    ours = METHODS[:-1] if secret else METHODS[-1:]
    found = next((each for each in ours if each in offered), None)
    if found is None:
        raise GatewayError(Reason.UNAVAILABLE, f"The authorization server does not take {' or '.join(ours)}")
    return found
