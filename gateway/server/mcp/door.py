"""`/mcp` and `/mcp/{mount}`: who asks, in which era, and on to the one that answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.core.cursor import Cursors
from gateway.core.gateway import Gateway
from gateway.dialects.mcp import errors, headers, message
from gateway.dialects.mcp.headers import SESSION_HEADER, VERSION_HEADER
from gateway.dialects.mcp.versions import LEGACY
from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import Era, Kind, Tree
from gateway.server.auth import Authenticator
from gateway.server.incident import known
from gateway.server.mcp import modern
from gateway.server.mcp.calls import Calls
from gateway.server.mcp.legacy import Legacy
from gateway.server.mcp.lists import Lists
from gateway.server.mcp.modern import Modern, is_modern
from gateway.server.mcp.sessions import Session, Sessions
from gateway.server.request import JSON_HEADERS, Reply, Request

MAX_ANNOTATED = 4_096  # tools whose header annotations are remembered, by the hash of their definition

Annotated = dict[tuple[str, ...], tuple[str, str]]


class McpDoor:
    """An ASGI application. `info` is what the gateway says it is (`serverInfo`)."""

    def __init__(
        self,
        gateway: Gateway,
        auth: Authenticator,
        cursors: Cursors,
        info: Tree,
        *,
        now: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._sessions = Sessions(now, new_id)
        calls = Calls(gateway, Lists(cursors, info), info)
        self._modern = Modern(calls, self._annotated, auth.challenge)
        self._legacy = Legacy(calls, self._sessions, auth.challenge)
        self._annotations: dict[str, Annotated] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        try:
            who = await self._auth.principal(request.headers, request.path, request.method, request.peer)
            mount = request.path.removeprefix("/mcp").removeprefix("/")
            self._gateway.tools.views.mount(mount)
        except GatewayError as error:
            # Before anything of the message is read, so without its id.
            status = 404 if error.reason is Reason.NOT_FOUND else errors.status_of(error, Era.MODERN)
            told = self._auth.challenge(error, request.path)
            await Reply(status, message.error(None, errors.body(error)), (*JSON_HEADERS, *told))(send)
            return
        if request.method == "POST":
            await self._post(request, scope["headers"], mount, who, send)
        elif request.method in ("GET", "DELETE"):
            await self._of_session(request, mount, who, send)
        else:
            await _wrong_verb("This path takes POST, and GET and DELETE in a session")(send)

    async def _post(
        self, request: Request, raw: list[tuple[bytes, bytes]], mount: str, who: Principal, send: Send
    ) -> None:
        tree: Any = None
        try:
            if request.media_type != "application/json":
                raise GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, "Send Content-Type: application/json")
            tree = read(await request.body())
            streams = _takes_streams(request)
            if is_modern(request, tree, LEGACY):
                await self._stateless(request, raw, tree, mount, who, send, streams=streams)
                return
            if type(tree) is dict and tree.get("method") == "initialize":
                asked = message.message(tree)
                if isinstance(asked, message.Request):
                    await (await self._legacy.initialize(asked, mount, who))(send)
                    return
            session = self._session(request, mount, who)
        except Exception as error:
            await modern.failure(message.request_id(tree), known(error))(send)
            return
        if session is None:
            await _no_session(message.request_id(tree))(send)
            return
        await self._legacy.answer(request, tree, session, who, send, streams=streams)

    async def _stateless(
        self,
        request: Request,
        raw: list[tuple[bytes, bytes]],
        tree: Any,
        mount: str,
        who: Principal,
        send: Send,
        *,
        streams: bool,
    ) -> None:
        asked = message.message(tree)
        if isinstance(asked, message.Notification):
            # Nothing to do for any: a client cancels by closing its stream (basic/patterns/cancellation).
            await Reply(202, b"", ())(send)
        elif isinstance(asked, message.Response):
            raise GatewayError(Reason.INVALID_REQUEST, "A client sends requests; questions are answered by a new one")
        else:
            await self._modern.answer(request, raw, asked, mount, who, send, streams=streams)

    async def _of_session(self, request: Request, mount: str, who: Principal, send: Send) -> None:
        """GET and DELETE exist only in sessions."""
        try:
            session = self._session(request, mount, who)
        except GatewayError:
            await _wrong_verb("This path takes POST; GET and DELETE need the Mcp-Session-Id of a session")(send)
            return
        if session is None:
            await _no_session(None)(send)
        elif request.method == "DELETE":
            await self._sessions.close(session)
            await Reply(204, b"", ())(send)
        elif not _takes_streams(request):
            error = GatewayError(Reason.INVALID_REQUEST, "The answer is a stream; accept text/event-stream")
            await Reply(406, message.error(None, errors.body(error)))(send)
        else:
            await self._legacy.listen(request, session, who, send)

    def _session(self, request: Request, mount: str, who: Principal) -> Session | None:
        """The session that the request names. Raises INVALID_REQUEST when it names none, or another revision."""
        id = request.header(SESSION_HEADER.encode())
        if id is None:
            raise GatewayError(
                Reason.INVALID_REQUEST,
                "Begin with initialize and send its Mcp-Session-Id, or send the _meta and headers of 2026-07-28",
            )
        session = self._sessions.get(id, who, mount)
        said = request.header(VERSION_HEADER.encode())
        if session is not None and said is not None and said.strip() not in LEGACY:
            raise GatewayError(Reason.INVALID_REQUEST, f"This session speaks {session.version}")
        return session

    def _annotated(self, mount: str, who: Principal, name: str) -> Annotated:
        """The header annotations of a tool that this caller may see; none for any other one."""
        views = self._gateway.tools.views
        definition = views.view(who, views.mount(mount), Kind.TOOL).named.get(name)
        if definition is None:
            return {}
        known_one = self._annotations.get(definition.hash)
        if known_one is None:
            if len(self._annotations) >= MAX_ANNOTATED:
                self._annotations.clear()
            # Checked when it was taken in (core/tools/hygiene.py), so this cannot fail.
            known_one = self._annotations[definition.hash] = headers.parameters(definition.tree.get("inputSchema"))
        return known_one


def _takes_streams(request: Request) -> bool:
    accept = request.header(b"accept")
    return accept is not None and _names_streams(accept)


@lru_cache(maxsize=64)  # a client writes it the same each time
def _names_streams(accept: str) -> bool:
    kinds = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
    return bool(kinds & {"text/event-stream", "text/*"})


def _no_session(id: message.Id | None) -> Reply:
    """404 tells a client to initialize again (2025-11-25, basic/transports, session management)."""
    error = GatewayError(Reason.INVALID_REQUEST, "There is no such session; begin a new one with initialize")
    return Reply(404, message.error(id, errors.body(error)))


def _wrong_verb(sentence: str) -> Reply:
    error = GatewayError(Reason.METHOD_NOT_FOUND, sentence)
    return Reply(405, message.error(None, errors.body(error)), (*JSON_HEADERS, (b"allow", b"POST, GET, DELETE")))
