"""`/oauth/connect`: where a person lets the gateway use a tool server in their own name (core/tools/connections.py).

Two pages and a way back. The first asks for the caller's own credential of the gateway, in a form and never in a URL;
the second leads to the authorization server; the browser that comes back must be the one that left. Plain HTML: no
script, nothing from elsewhere, in no frame.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from html import escape
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.gateway import Gateway
from gateway.core.tools.connections import CONNECT, CONNECTED, VISIT_MS, Connections
from gateway.dialects.oauth2 import forms
from gateway.model.errors import GatewayError, Reason
from gateway.server.auth import Authenticator
from gateway.server.incident import known

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 10vh auto 2rem; max-width: 28rem; padding: 0 1.25rem; overflow-wrap: anywhere }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit; margin-top: 1rem }
input, button { padding: .6rem .75rem; border-radius: .4rem; border: 1px solid }
:focus-visible { outline: 3px solid #f9ab00; outline-offset: 2px }
"""
_HEADERS = {
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
    "x-content-type-options": "nosniff",
    # Not no-referrer: with that, browsers send `Origin: null` with the form of this very page.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_STATUS = {Reason.PERMISSION_DENIED: 403, Reason.UNAUTHENTICATED: 403, Reason.INVALID_PARAMS: 400}


class Connect:
    def __init__(self, gateway: Gateway, auth: Authenticator, public_url: str, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._gateway = gateway
        self._auth = auth
        self._url = public_url
        self._secure = public_url.startswith("https://")
        # The prefix makes browsers take the cookie from this very host only, over https (RFC 6265bis §4.1.3).
        self._cookie = "__Host-gateway-connect" if self._secure else "gateway-connect"

    @property
    def _connections(self) -> Connections:
        return self._gateway.tools.connections

    def routes(self) -> list[Route]:
        return [
            Route(CONNECT, self.ask, methods=["GET"]),
            Route(CONNECT, self.begin, methods=["POST"]),
            Route(CONNECTED, self.finish, methods=["GET"]),
        ]

    async def ask(self, request: Request) -> Response:
        ticket = request.query_params.get("ticket", "")
        try:
            return _asking(self._connections.server(ticket), ticket)
        except GatewayError as error:
            return _sentence(error)

    async def begin(self, request: Request) -> Response:
        try:
            form = forms.read_form(await request.body())
            ticket, credential = form.get("ticket", ""), form.get("credential", "").strip()
            server = self._connections.server(ticket)
        except forms.BadForm as refused:
            return _page("That did not work", f"<p>{escape(str(refused))}</p>", 400)
        except GatewayError as error:
            return _sentence(error)
        browser = self._new_id()
        try:
            who = await self._auth.principal({b"authorization": b"Bearer " + credential.encode()}, "/mcp")
            url = await self._connections.begin(ticket, who, browser)
        except GatewayError as error:
            if error.reason is Reason.UNAUTHENTICATED:
                return _asking(server, ticket, "This credential is not known here.")
            return _sentence(error)
        except Exception as error:
            return _sentence(known(error))
        answer = _leading(server, url)
        answer.set_cookie(
            self._cookie, browser, max_age=VISIT_MS // 1000, secure=self._secure, httponly=True, samesite="lax"
        )
        return answer

    async def finish(self, request: Request) -> Response:
        url = f"{self._url}{CONNECTED}?{request.scope['query_string'].decode('latin-1')}"
        try:
            server = await self._connections.finish(url, request.cookies.get(self._cookie, ""))
        except Exception as error:
            return _sentence(known(error))
        text = f"The gateway may use {escape(server)} in your name. You can close this page and go on where you were."
        answer = _page("Done", f"<p>{text}</p>")
        answer.delete_cookie(self._cookie, secure=self._secure, httponly=True, samesite="lax")
        return answer


def _asking(server: str, ticket: str, problem: str = "") -> Response:
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return _page(
        f"Connect {server}",
        f"<p>A call of yours needs <strong>{escape(server)}</strong>, which wants to know you. Show who you are here "
        f'first: with the key or token that your client uses.</p>{alert}<form method="post" action="{CONNECT}">'
        f'<input type="hidden" name="ticket" value="{escape(ticket)}"><label for="credential">Your credential of this '
        'gateway</label><input id="credential" name="credential" type="password" autocomplete="off" required autofocus>'
        "<button>Go on</button></form><p>If you have called nothing, close this page: somebody else made the link.</p>",
        403 if problem else 200,
    )


def _leading(server: str, url: str) -> Response:
    host = urlsplit(url).netloc.rpartition("@")[2]
    return _page(
        f"Connect {server}",
        f"<p>You decide at <strong>{escape(host)}</strong> what the gateway may do in your name.</p>"
        f'<p><a href="{escape(url)}" rel="noreferrer">Go to {escape(host)}</a></p>',
    )


def _sentence(error: GatewayError) -> Response:
    return _page("That did not work", f"<p>{escape(error.message)}</p>", _STATUS.get(error.reason, 502))


def _page(title: str, body: str, status: int = 200) -> Response:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return Response(html, status, dict(_HEADERS), "text/html")
