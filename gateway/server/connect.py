"""`/oauth/connect`: where a person lets the gateway use a tool server or an agent in their own name
(core/connections.py).

Two pages and a way back. The first asks for the caller's own credential of the gateway, in a form and never in a URL;
the second leads to the authorization server; the browser that comes back must be the one that left.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.connections import CONNECT, CONNECTED, VISIT_MS, Connections
from gateway.dialects.oauth2 import forms
from gateway.model.errors import GatewayError, Reason
from gateway.server.auth import Authenticator
from gateway.server.incident import known
from gateway.server.pages import page, sentence

_STATUS = {
    Reason.PERMISSION_DENIED: 403,
    Reason.UNAUTHENTICATED: 403,
    Reason.INVALID_PARAMS: 400,
    Reason.NOT_FOUND: 404,
}


class Connect:
    def __init__(
        self, connections: Connections, auth: Authenticator, public_url: str, new_id: Callable[[], str]
    ) -> None:
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
            return _asking(self._connections.name(ticket), ticket)
        except GatewayError as error:
            return failed(error)

    async def begin(self, request: Request) -> Response:
        try:
            form = forms.read_form(await request.body())
            ticket, credential = form.get("ticket", ""), form.get("credential", "").strip()
            name = self._connections.name(ticket)
        except forms.BadForm as refused:
            return sentence("That did not work", str(refused), 400)
        except GatewayError as error:
            return failed(error)
        browser = self._new_id()
        try:
            who = await self._auth.principal({b"authorization": b"Bearer " + credential.encode()}, "/mcp")
            url = await self._connections.begin(ticket, who, browser)
        except GatewayError as error:
            if error.reason is Reason.UNAUTHENTICATED:
                return _asking(name, ticket, "This credential is not known here.")
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
        answer = sentence("Done", text)
        answer.delete_cookie(self._cookie, secure=self._secure, httponly=True, samesite="lax")
        return answer


def _asking(name: str, ticket: str, problem: str = "") -> Response:
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return page(
        f"Connect {name}",
        f"<p>A call of yours needs <strong>{escape(name)}</strong>, which wants to know you. Show who you are here "
        f'first: with the key or token that your client uses.</p>{alert}<form method="post" action="connect">'
        f'<input type="hidden" name="ticket" value="{escape(ticket)}"><label for="credential">Your credential of this '
        'gateway</label><input id="credential" name="credential" type="password" autocomplete="off" required autofocus>'
        '<button class="first">Go on</button></form>'
        "<p>If you have called nothing, close this page: somebody else made the link.</p>",
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
