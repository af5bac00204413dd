"""What stands in front of every route: who we are called (Host), who calls from a browser (Origin), and the dict
that sends the hot paths to their doors before Starlette's router sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.dialects import a2a
from gateway.server.a2a_http import HttpJsonDoor
from gateway.server.a2a_jsonrpc import JsonRpcDoor
from gateway.server.cycle import fields
from gateway.server.proxies import Proxies, is_here
from gateway.server.request import JSON_HEADERS, Answer, Reply, Request

# Paths that belong to Starlette whatever an agent is called; the doors never look at them.
_FIXED = ("/.well-known/", "/admin", "/oauth/", "/livez", "/readyz")


class Front:
    """The outermost application: nothing answers a stranger. `hosts` and `origins` are exact, ports included.
    With `proxies` (networks) only they and this machine may connect; others would send credentials in the clear."""

    def __init__(
        self, inside: ASGIApp, *, hosts: Iterable[str], origins: Iterable[str], proxies: Iterable[str] = ()
    ) -> None:
        self._inside = inside
        self._peers = peers(proxies)
        self._hosts = frozenset(host.lower().encode() for host in hosts)
        self._origins = frozenset(origin.lower().encode() for origin in origins)

    # No coroutine of its own: each layer of them costs a call twice, going in and when it goes on after a wait.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        refused = self._refused(scope) if scope["type"] == "http" else None
        return self._inside(scope, receive, send) if refused is None else refused(send)

    def _refused(self, scope: Scope) -> Reply | None:
        if self._peers is not None and not self._peers((scope.get("client") or ("",))[0]):
            return _refusal(403, "PERMISSION_DENIED", "This address may not connect; see server.trusted_proxies")
        return self._stranger(fields(scope))

    def _stranger(self, headers: dict[bytes, bytes]) -> Reply | None:
        """Against DNS rebinding and browser pages: only our own names, only origins that the operator named."""
        if headers.get(b"host", b"").lower() not in self._hosts:
            return _refusal(421, "INVALID_ARGUMENT", "This gateway is not known by that Host; see server.allowed_hosts")
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in self._origins:
            return _refusal(403, "PERMISSION_DENIED", "This Origin may not call the gateway; see server.cors_origins")
        return None


def origin_of(url: str) -> str:
    """As browsers say it (RFC 6454 §6.2): without a path, and without the port that the scheme has anyway."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.removesuffix(_PORTS.get(parts.scheme, ' '))}"


_PORTS = {"http": ":80", "https": ":443"}


def peers(proxies: Iterable[str]) -> Callable[[str], bool] | None:
    """Whether an address may connect; None where all may."""
    trusted = Proxies(proxies)

    def may_connect(address: str) -> bool:
        return trusted.trusts(address) or is_here(address)

    return may_connect if trusted else None


class Doors:
    """The doors, and behind them `rest` for every path that is not theirs."""

    def __init__(
        self,
        jsonrpc: JsonRpcDoor,
        http_json: HttpJsonDoor,
        mcp: ASGIApp,
        acp: ASGIApp,
        rest: ASGIApp,
        *,
        default_agent: str | None,
    ) -> None:
        self._own = {"mcp": mcp, "acp": acp}
        self._jsonrpc = jsonrpc
        self._http_json = http_json
        self._rest = rest
        self._default = default_agent

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._rest(scope, receive, send)
        door = self._own.get(scope["path"][1:].partition("/")[0])
        if door is not None:
            return door(scope, receive, send)
        answer = self._answer(Request.of(scope, receive))
        return self._rest(scope, receive, send) if answer is None else _say(answer, send)

    def _answer(self, request: Request) -> Awaitable[Answer] | None:
        """The answer of a door, or None when the path is not theirs."""
        path = request.path
        if path == "/":
            return self._endpoint(request, None)
        if path.startswith("/agents/"):
            agent, slash, rest = path[8:].partition("/")
            if not agent:
                return None
            return self._operation(request, agent, slash + rest) if rest else self._endpoint(request, agent)
        if path.startswith(_FIXED) or self._default is None:
            return None
        return self._operation(request, self._default, path)

    def _endpoint(self, request: Request, agent: str | None) -> Awaitable[Answer]:
        return self._jsonrpc.answer(request, agent) if request.method == "POST" else _known(_wrong_verb("POST"))

    def _operation(self, request: Request, agent: str, path: str) -> Awaitable[Answer] | None:
        """HTTP+JSON: fixed paths win; after them `/{tenant}/…`, of which the door knows whether there is such a one."""
        face = a2a.http_json(path)
        tenant, found = None, face.match(request.method, path)
        if found is None:
            tenant, _, rest = path[1:].partition("/")
            found = face.match(request.method, "/" + rest)
        if isinstance(found, frozenset):
            return _known(_wrong_verb(*found))
        return None if found is None else self._http_json.answer(request, agent, tenant, face, found)


async def _say(answer: Awaitable[Answer], send: Send) -> None:
    await (await answer)(send)


async def _known(answer: Answer) -> Answer:
    return answer


def _wrong_verb(*allowed: str) -> Reply:
    allow = ", ".join(sorted(allowed))
    return _refusal(405, "UNIMPLEMENTED", f"This path takes {allow}", (b"allow", allow.encode()))


def _refusal(status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> Reply:
    body = orjson.dumps({"error": {"code": status, "status": code, "message": message, "details": []}})
    return Reply(status, body, (*JSON_HEADERS, *headers))
