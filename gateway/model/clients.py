"""Clients of the built-in authorization server, and the port to where they are kept."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from gateway.model.value import value


class Origin(StrEnum):
    """Who says what a client is."""

    OPERATOR = "operator"  # `gateway clients add`
    REGISTERED = "registered"  # itself, by dynamic registration (RFC 7591)
    DOCUMENT = "document"  # itself, by the document at the URL that is its id; never kept


CLIENT_CREDENTIALS = "client_credentials"
AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@value
class ClientRecord:
    """A client, by its id. `hash` is the SHA-256 of its secret, empty for one that has none (a program on a person's
    machine); times are milliseconds since the epoch. A revoked one stays, so that nobody comes later under its name.
    `name` is what people are shown, `renewed` when it got its present secret, if that is not its first."""

    id: str
    hash: bytes
    scopes: tuple[str, ...]
    created: int
    revoked: int | None = None
    grants: tuple[str, ...] = (CLIENT_CREDENTIALS,)
    redirects: tuple[str, ...] = ()
    name: str = ""
    origin: Origin = Origin.OPERATOR
    renewed: int | None = None

    @property
    def public(self) -> bool:
        return not self.hash


@value
class RevokedToken:
    """An access token that was taken back, or all of one grant: its `jti` or `sid`, and when the last of them would
    have ended (milliseconds)."""

    jti: str
    until: int


class ClientStore(Protocol):
    """Read here, written with the store's `commit`. Raises GatewayError(UNAVAILABLE) when it cannot be read."""

    async def all(self) -> list[ClientRecord]:
        """Every client, the revoked ones too, by id."""
        ...

    async def revoked(self) -> list[RevokedToken]: ...
