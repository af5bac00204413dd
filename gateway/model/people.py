"""People who log in to the built-in authorization server, what they have allowed, and the ports for both."""

from __future__ import annotations

from typing import Protocol

from gateway.model.value import value

USER = "user:"
"""In front of a local user's name, where it stands beside names of clients (`sub` of a token)."""


@value
class UserRecord:
    """A person with a password here. `hash` is a PHC string; a removed user stays, so that nobody inherits tasks."""

    name: str
    hash: str
    roles: tuple[str, ...]
    created: int
    removed: int | None = None

    @property
    def subject(self) -> str:
        return USER + self.name


@value
class Person:
    """Somebody who has logged in: the subject of tokens, the roles that go into them, and a name to show. `stamp` is
    of the password that they came with; no grant keeps it. Only who logs in at a provider may have a tenant."""

    subject: str
    roles: tuple[str, ...]
    name: str
    stamp: str = ""
    tenant: str = ""


@value
class GrantRecord:
    """What a person has allowed a client, and the one refresh token that is good for it now: `mark` is its SHA-256
    (empty when the client got none), `key` the thumbprint of the key that must come with it. Every token that came of
    it has `id` in common, and falls with it."""

    id: str
    mark: bytes
    client: str
    person: Person
    scopes: tuple[str, ...]
    audience: str
    began: int
    until: int
    key: str | None = None


class PeopleStore(Protocol):
    """What is written here is durable when awaited; users and the ends of grants are written with the store's `commit`.
    Raises GatewayError(UNAVAILABLE) when the store cannot be written or read."""

    async def users(self) -> list[UserRecord]:
        """Every user, the removed ones too, by name."""
        ...

    async def put_grant(self, grant: GrantRecord) -> None:
        """A new grant. Those that have ended by `grant.began` are forgotten."""
        ...

    async def grant(self, id: str) -> GrantRecord | None: ...

    async def rotate(self, id: str, old: bytes, new: bytes) -> bool:
        """Put the mark of the next refresh token in the place of `old`. False when `old` is not there any more."""
        ...

    async def grants_of(self, *, subject: str | None = None, client: str | None = None) -> list[GrantRecord]:
        """All that a person has allowed, or all that a client was allowed, by id; with neither, all of everybody."""
        ...


class Passwords(Protocol):
    """Slow on purpose, and away from the event loop. Raises GatewayError(OVERLOADED) when too many wait."""

    async def make(self, password: str) -> str:
        """What is kept of a password."""
        ...

    async def holds(self, password: str, kept: str | None) -> bool:
        """Whether it is the password. With None it takes as long and says no."""
        ...
