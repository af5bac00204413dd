"""Clients of the built-in authorization server, and the port to where they are kept."""

from __future__ import annotations

from typing import Protocol

from gateway.model.value import value


@value
class ClientRecord:
    """A client, by its id. `hash` is the SHA-256 of its secret; times are milliseconds since the epoch. A revoked one
    stays, so that nobody comes later under its name."""

    id: str
    hash: bytes
    scopes: tuple[str, ...]
    created: int
    revoked: int | None = None


@value
class RevokedToken:
    """An access token that was taken back: its `jti`, and when it would have ended (milliseconds)."""

    jti: str
    until: int


class ClientStore(Protocol):
    """Durable when awaited. Raises GatewayError(UNAVAILABLE) when the store cannot be written or read."""

    async def put(self, client: ClientRecord) -> None:
        """A new client, or its new state."""
        ...

    async def all(self) -> list[ClientRecord]:
        """Every client, the revoked ones too, by id."""
        ...

    async def revoke(self, token: RevokedToken, now: int) -> None:
        """Remember a revoked token; forget those that have ended by `now`."""
        ...

    async def revoked(self) -> list[RevokedToken]: ...
