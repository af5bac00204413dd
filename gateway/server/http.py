"""The map of every URL: the doors in front, everything else in Starlette's router behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.core.cursor import Cursors
from gateway.core.gateway import Gateway
from gateway.dialects.a2a_v1.entrance import Offer
from gateway.dialects.a2a_v1.errors import http_error, http_error_body
from gateway.model.errors import GatewayError
from gateway.model.value import value
from gateway.server import ops
from gateway.server.a2a_http import HttpJsonDoor
from gateway.server.a2a_jsonrpc import JsonRpcDoor
from gateway.server.acp import AcpDoor
from gateway.server.admin import Admin
from gateway.server.auth import Authenticator, TokenVerifier
from gateway.server.cards import Cards
from gateway.server.catalogs import Catalogs
from gateway.server.connect import Connect, Logins
from gateway.server.entrances import Advertised
from gateway.server.front import Doors, Front, origin_of
from gateway.server.incident import known
from gateway.server.mcp.door import McpDoor
from gateway.server.openapi import About
from gateway.server.own_connections import OwnConnections
from gateway.server.protected_resources import ProtectedResources
from gateway.server.request import retry_after

_STATUS = {404: "NOT_FOUND", 405: "UNIMPLEMENTED"}


@value
class Identity:
    """Whose access tokens are taken: the `tokens` that know them, and what clients are told about it."""

    tokens: TokenVerifier
    issuers: tuple[str, ...]
    scopes: tuple[str, ...]
    routes: Sequence[Route] = ()
    proofs: tuple[str, ...] = ()  # algorithms of DPoP proofs
    bound: bool = False  # whether every token must be bound to a key
    own: Offer | None = None  # of the gateway's own authorization server
    advertised: Sequence[Advertised] = ()
    logins: Logins | None = None  # where people can log in


def application(
    gateway: Gateway,
    auth: Authenticator,
    cards: Cards,
    *,
    public_url: str,
    hosts: Iterable[str],
    cors_origins: Iterable[str],
    default_agent: str | None,
    not_ready: Callable[[], str | None],
    new_id: Callable[[], str],
    now: Callable[[], int],
    cursors: Cursors,
    version: str,
    webhooks: Sequence[Route] = (),
    identity: Identity | None = None,
    proxies: Iterable[str] = (),
    admin: About | None = None,
) -> ASGIApp:
    """Everything under one roof; without `admin`, all but the admin API."""
    logins = None if identity is None else identity.logins
    connect = Connect(gateway.connections, auth, public_url.rstrip("/"), new_id, logins)
    own = OwnConnections(gateway.kept, auth, logins)
    catalogs = Catalogs(gateway, cards, public_url)
    rest = _router(
        auth,
        *cards.routes(),
        *catalogs.routes(),
        *(() if admin is None else Admin(gateway, auth, cards, admin).routes()),
        *ops.routes(not_ready),
        *connect.routes(),
        *own.routes(),
        *webhooks,
        *_identity(identity, gateway, public_url),
    )
    inside: ASGIApp = Doors(
        JsonRpcDoor(gateway, auth, cards, default_agent, new_id),
        HttpJsonDoor(gateway, auth, cards),
        McpDoor(gateway, auth, cursors, {"name": "gateway", "version": version}, now=now, new_id=new_id),
        AcpDoor(gateway, auth, public_url=public_url.rstrip("/"), new_id=new_id),
        rest,
        default_agent=default_agent,
    )
    origins = tuple(cors_origins)
    if origins:
        # Credentials travel in Authorization, never in cookies, so no allow_credentials.
        inside = CORSMiddleware(
            inside,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            # Mcp-Param-* has no fixed names, and a browser asks for each one: those calls it cannot make.
            allow_headers=[
                *("Authorization", "DPoP", "Content-Type", "A2A-Version", "A2A-Extensions", "X-A2A-Extensions"),
                *("Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "Last-Event-ID"),
            ],
            expose_headers=[
                *("A2A-Extensions", "X-A2A-Extensions", "Mcp-Session-Id", "Run-ID"),
                *("Retry-After", "WWW-Authenticate"),
            ],
        )
    return Front(inside, hosts=hosts, origins=(*origins, origin_of(public_url)), proxies=proxies)


def admin_application(
    gateway: Gateway,
    auth: Authenticator,
    cards: Cards,
    *,
    hosts: Iterable[str],
    proxies: Iterable[str],
    not_ready: Callable[[], str | None],
    about: About,
) -> ASGIApp:
    """The admin API for a listener of its own, and whether the gateway is up. No web page may call it."""
    inside = _router(auth, *Admin(gateway, auth, cards, about).routes(), *ops.routes(not_ready))
    return Front(inside, hosts=hosts, origins=(), proxies=proxies)


def _router(auth: Authenticator, *routes: Route) -> Starlette:
    async def failure(request: Request, error: Exception) -> Response:
        shown = known(error)
        status, body = http_error(shown)
        extra = (*auth.challenge(shown, request.scope["path"]), *retry_after(shown))
        headers = {name.decode(): value.decode() for name, value in extra}
        return Response(body, status, headers, "application/json")

    rest = Starlette(
        routes=list(routes),
        exception_handlers={HTTPException: _no_such_route, GatewayError: failure, Exception: failure},
    )
    # A path is what it is: no redirect from one spelling to another, least of all to what the Host header says.
    rest.router.redirect_slashes = False
    return rest


def _identity(identity: Identity | None, gateway: Gateway, public_url: str) -> list[Route]:
    if identity is None:
        return []
    resources = ProtectedResources(
        public_url.rstrip("/"),
        identity.issuers,
        identity.scopes,
        gateway.scopes,
        identity.proofs,
        bound=identity.bound,
    )
    return [*resources.routes(), *identity.routes]


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    message = "There is nothing at this path" if status == 404 else f"This path does not take {request.method}"
    body = http_error_body(status, _STATUS.get(status, "INVALID_ARGUMENT"), message, [])
    return Response(body, status, dict(error.headers or {}), "application/json")
