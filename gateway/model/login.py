"""A person's authorization at somebody else's server, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Protocol

from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value


class LoginNeeded(GatewayError):
    """Nobody has authorized the gateway at `upstream`, or not for enough; what was asked for was not worked on. `why`
    is the first half of a sentence, `otherwise` says what to do where nobody can be sent to a link.

    `following` is whether that stopped the gateway from watching work, and not from handing it over."""

    def __init__(self, upstream: str, why: str, otherwise: str = "") -> None:
        super().__init__(Reason.UNAVAILABLE, f"{why}{otherwise}", metadata={"delivered": "no", "login": upstream})
        self.upstream = upstream
        self.why = why
        self.following = False


class Login(Protocol):
    """An authorization by a person (OAuth). Every method raises GatewayError and nothing else."""

    async def begin(self, redirect_uri: str) -> str:
        """The URL where a person says yes; the answer goes to `redirect_uri`."""
        ...

    async def finish(self, url: str) -> None:
        """Take the answer: the redirect URI as it was called. Each answer counts once."""
        ...

    async def end(self) -> Ending | None:
        """Forget the authorization, then give its tokens back; None where there was none. That they cannot be given
        back keeps nothing here, so nothing is raised for it."""
        ...


class Accounts(Protocol):
    """Somebody with whom each caller has an authorization of its own. `owner` is tenant and id of a caller."""

    def login(self, owner: str) -> Login: ...

    async def end(self, owner: str) -> Ending:
        """Forget the authorization of one caller, and what was opened with it, then give its tokens back. Raises
        GatewayError where nothing was forgotten."""
        ...


class Ending(StrEnum):
    """What the issuer of an authorization knows of its end here (RFC 7009)."""

    REVOKED = "revoked"  # it says that its tokens are worth nothing any more
    NO_ENDPOINT = "no-endpoint"  # it takes nothing back: tokens that somebody has seen are good as long as they were
    FAILED = "failed"  # it did not answer, or refused; the same
    UNASKED = "unasked"  # the gateway has forgotten how to reach it, or nothing was there to give back


@value
class LoggedOut:
    """What was forgotten at one server: the operator's authorization (None: there was none), and those of callers, how
    many with which end."""

    own: Ending | None
    callers: Mapping[Ending, int] = field(hash=False)


@value
class Connection:
    """A caller's authorization as it is kept, without its secrets. `place` is `tools/docs` or `agents/far`; times are
    epoch milliseconds. `owner` (tenant and id) and `issuer` are None for what cannot be read."""

    id: str
    place: str
    owner: str | None
    issuer: str | None
    scopes: tuple[str, ...]
    since: int | None
    expires: int | None
    refreshable: bool


class Kept(Protocol):
    """Every authorization of a caller's that is kept."""

    async def all(self) -> Sequence[Connection]: ...

    def forget(self, connection: Connection) -> None:
        """For one whose owner or place is not known any more."""
        ...

    async def rotate(self) -> int:
        """Seal everything with a new key; how many files that were. Raises GatewayError."""
        ...
