"""A person's authorization at a server, as the operator's calls want it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from gateway.core.tools.servers import Servers
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import LoggedOut, Login
from gateway.model.toolcall import BeginLogin, FinishLogin, LoginCall


class Logins:
    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def handle(self, call: LoginCall) -> str | bool | LoggedOut:
        """The URL to go to; whether the server is up now; what was forgotten, and what its issuer knows of that."""
        login = self._login(call.server)
        if isinstance(call, BeginLogin):
            return await login.begin(_checked(call.redirect_uri))
        if isinstance(call, FinishLogin):
            await login.finish(call.response)
            served = self._servers.get(call.server)
            return served is not None and await self._servers.refresh(served)
        served = self._servers.get(call.server)
        if served is None or served.accounts is None:
            return LoggedOut(await login.end(), {})
        return LoggedOut(*await asyncio.gather(login.end(), served.accounts.end_all()))

    def _login(self, id: str) -> Login:
        served = self._servers.get(id)
        if served is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no MCP server {id!r}")
        if served.login is None:
            what = f"{id} has no oauth in the configuration, so nobody logs in there"
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, what)
        return served.login


def _checked(redirect_uri: str) -> str:
    """A redirect to this machine's loopback and nowhere else: with any other, an admin credential that leaked could
    send codes away (RFC 8252 §7.3)."""
    try:
        parts = urlsplit(redirect_uri)
        port = parts.port
    except ValueError:
        raise invalid("redirectUri", "is no URL") from None
    plain = redirect_uri == f"http://127.0.0.1:{port}{parts.path}"
    if not plain or not port or not parts.path.startswith("/"):
        raise invalid("redirectUri", "must be http://127.0.0.1:PORT/PATH")
    return redirect_uri
