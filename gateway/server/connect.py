"""`/oauth/connect`: where a person lets the gateway use a tool server or an agent in their own name
(core/connections.py).

Two pages and a way back. The first asks who the caller is: by a login, where people can log in here, or by their own
credential of the gateway, in a form and never in a URL. The second leads to the authorization server; the browser that
comes back must be the one that left.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Protocol
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.connections import CONNECT, CONNECTED, VISIT_MS, Connections
from gateway.dialects.oauth2 import forms
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.server.auth import Authenticator
from gateway.server.incident import known
from gateway.server.pages import page, sentence

_STATUS = {
    Reason.PERMISSION_DENIED: 403,
    Reason.UNAUTHENTICATED: 403,
    Reason.INVALID_PARAMS: 400,
    Reason.NOT_FOUND: 404,
}


class Logins(Protocol):
    """Where people log in to this gateway itself."""

    def who(self, request: Request) -> tuple[Principal, str] | None:
        """Who sits at this browser, and the name to show; None for nobody."""
        ...


class Connect:
    """`logins` is None where nobody can log in."""

    def __init__(
        self,
        connections: Connections,
        auth: Authenticator,
        public_url: str,
        new_id: Callable[[], str],
        logins: Logins | None = None,
    ) -> None:
        self._logins = logins
        self._new_id = new_id
        self._connections = connections
        self._auth = auth
        self._url = public_url
        self._secure = public_url.startswith("https://")
        # The prefix makes browsers take the cookie from this very host only, over https (RFC 6265bis §4.1.3).
        self._cookie = "__Host-gateway-connect" if self._secure else "gateway-connect"

    def routes(self) -> list[Route]:
        return [
            Route(CONNECT, self.ask, methods=["GET"]),
            Route(CONNECT, self.begin, methods=["POST"]),
            Route(CONNECTED, self.finish, methods=["GET"]),
        ]

    async def ask(self, request: Request) -> Response:
        ticket = request.query_params.get("ticket", "")
        try:
            return self._asking(request, self._connections.name(ticket), ticket)
        except GatewayError as error:
            return failed(error)

    def _asking(self, request: Request, name: str, ticket: str, problem: str = "") -> Response:
        if self._logins is None:
            return _asking(name, ticket, problem)
        found = self._logins.who(request)
        login = f"visit?to=connect&ticket={quote(ticket)}"
        return _asking(name, ticket, problem, login) if found is None else _greeting(name, ticket, found[1], login)

    async def _who(self, request: Request, credential: str) -> Principal:
        """Raises UNAUTHENTICATED, and what the credential is refused with."""
        found = None if credential or self._logins is None else self._logins.who(request)
        if found is not None:
            return found[0]
        return await self._auth.principal({b"authorization": b"Bearer " + credential.encode()}, "/mcp")

    async def begin(self, request: Request) -> Response:
        try:
            form = forms.read_form(await request.body())
            ticket, credential = form.get("ticket", ""), form.get("credential", "").strip()
            name = self._connections.name(ticket)
        except forms.BadForm as refused:
            return sentence("That did not work", str(refused), 400)
        except GatewayError as error:
            return failed(error)
        # One word for all that a person has open side by side; of another length than ours it is none of ours.
        fresh, shown = self._new_id(), request.cookies.get(self._cookie, "")
        browser = shown if len(shown) == len(fresh) else fresh
        try:
            who = await self._who(request, credential)
            url = await self._connections.begin(ticket, who, browser)
        except GatewayError as error:
            if error.reason is Reason.UNAUTHENTICATED:
                return self._asking(request, name, ticket, "This credential is not known here.")
            return failed(error)
        except Exception as error:
            return failed(known(error))
        answer = _leading(name, url)
        answer.set_cookie(
            self._cookie, browser, max_age=VISIT_MS // 1000, secure=self._secure, httponly=True, samesite="lax"
        )
        return answer

    async def finish(self, request: Request) -> Response:
        url = f"{self._url}{CONNECTED}?{request.scope['query_string'].decode('latin-1')}"
        try:
            name = await self._connections.finish(url, request.cookies.get(self._cookie, ""))
        except Exception as error:
            return failed(known(error))
        text = f"The gateway may use {name} in your name. You can close this page and go on where you were."
        return sentence("Done", text)


def _greeting(name: str, ticket: str, person: str, login: str) -> Response:
    """For somebody who has logged in."""
    return page(
        f"Connect {name}",
        f"<p>A call of yours needs <strong>{escape(name)}</strong>, which wants to know you. You are logged in here as "
        f'<strong>{escape(person)}</strong>.</p><form method="post" action="connect">'
        f'<input type="hidden" name="ticket" value="{escape(ticket)}"><button class="first">Go on</button></form>'
        f'<p><a href="{escape(login)}&amp;other=yes">Log in as somebody else</a></p>{_WARNING}',
    )


_WARNING = "<p>If you have called nothing, close this page: somebody else made the link.</p>"


def _asking(name: str, ticket: str, problem: str = "", login: str = "") -> Response:
    """`login` is where people log in instead, if they can."""
    instead = f'<p><a class="button" href="{escape(login)}">Log in</a></p>' if login else ""
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return page(
        f"Connect {name}",
        f"<p>A call of yours needs <strong>{escape(name)}</strong>, which wants to know you. Show who you are here "
        f'first: with the key or token that your client uses.</p>{alert}<form method="post" action="connect">'
        f'<input type="hidden" name="ticket" value="{escape(ticket)}"><label for="credential">Your credential of this '
        'gateway</label><input id="credential" name="credential" type="password" autocomplete="off" required autofocus>'
        f'<button class="first">Go on</button></form>{instead}{_WARNING}',
        403 if problem else 200,
    )


def _leading(name: str, url: str) -> Response:
    host = urlsplit(url).netloc.rpartition("@")[2]
    return page(
        f"Connect {name}",
        f"<p>You decide at <strong>{escape(host)}</strong> what the gateway may do in your name.</p>"
        f'<p><a href="{escape(url)}" rel="noreferrer">Go to {escape(host)}</a></p>',
    )


def failed(error: GatewayError) -> Response:
    return sentence("That did not work", error.message, _STATUS.get(error.reason, 502))
