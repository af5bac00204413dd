"""A person's authorization at somebody else's server, and whose it is."""

from __future__ import annotations

from typing import Protocol

from gateway.model.errors import GatewayError, Reason


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

    async def forget(self) -> bool:
        """Forget the authorization; whether there was one."""
        ...


class Accounts(Protocol):
    """Somebody with whom each caller has an authorization of its own. `owner` is tenant and id of a caller."""

    def login(self, owner: str) -> Login: ...
