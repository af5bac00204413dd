"""Requests of 2026-07-28: each one for itself, with everything about its client in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.types import Send

from gateway.core.tools.listening import Listening
from gateway.core.tools.silent import Silent
from gateway.dialects.mcp import errors, headers, message
from gateway.dialects.mcp.message import CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, PROTOCOL_VERSION, SUBSCRIPTION_ID
from gateway.dialects.mcp.versions import MODERN
from gateway.dialects.sse import COMMENT, frame
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Principal
from gateway.model.tool import TASKS, Change, Era, Tree, takes_tasks
from gateway.server.incident import known
from gateway.server.mcp.calls import FILTERS, LISTS, TASK_USES, USES, Calls, subscription
from gateway.server.mcp.exchange import Exchange, bridged
from gateway.server.request import JSON_HEADERS, STREAM_HEADERS, Headers, Reply, Request, retry_after

LISTEN = "subscriptions/listen"
_VERSION, _SESSION = headers.VERSION_HEADER.encode(), headers.SESSION_HEADER.encode()
METHODS = frozenset({"server/discover", LISTEN, *LISTS, *USES, *TASK_USES})

Annotated = Callable[[str, Principal, str], dict[tuple[str, ...], tuple[str, str]]]
Challenge = Callable[[GatewayError, str], Headers]
"""What goes with a refusal, by the path that was asked."""


class Modern:
    """`annotated` gives the header annotations of a tool by mount, caller and name."""

    def __init__(self, calls: Calls, annotated: Annotated, challenge: Challenge) -> None:
        self._calls = calls
        self._annotated = annotated
        self._challenge = challenge

    async def answer(
        self,
        request: Request,
        raw: list[tuple[bytes, bytes]],
        asked: message.Request,
        mount: str,
        who: Principal,
        send: Send,
        *,
        streams: bool,
    ) -> None:
        try:
            meta = _checked(raw, asked)
            if asked.method == "tools/call":
                name, arguments = asked.params.get("name"), asked.params.get("arguments")
                annotated = self._annotated(mount, who, name) if isinstance(name, str) else {}
                headers.check_parameters(raw, arguments, annotated)
            if asked.method == LISTEN:
                await self._listen(request, asked, meta[CLIENT_CAPABILITIES], mount, who, send, streams=streams)
                return
        except GatewayError as error:
            await failure(asked.id, error, self._challenge(error, request.path))(send)
            return
        exchange = Exchange(
            request,
            owner(who),
            who.hops,
            asked.params,
            capabilities=meta[CLIENT_CAPABILITIES],
            client=meta.get(CLIENT_INFO),
            log_level=meta.get(LOG_LEVEL),
            streams=streams,
        )

        async def work() -> Reply:
            try:
                body = await self._result(asked, mount, who, exchange)
            except Exception as error:
                shown = known(error)
                return failure(asked.id, shown, self._challenge(shown, request.path))
            return Reply(200, message.result(asked.id, body), JSON_HEADERS)

        await exchange.run(send, work)

    async def _result(self, asked: message.Request, mount: str, who: Principal, exchange: Exchange) -> bytes:
        method, params = asked.method, asked.params
        if method in USES:
            return await self._calls.use(mount, who, method, params, exchange)
        if method in TASK_USES:
            return await self._calls.use_task(mount, who, method, params, exchange)
        if method in LISTS:
            return await self._calls.list(mount, who, method, params, Era.MODERN)
        return await self._calls.discover(mount, who)

    async def _listen(
        self,
        request: Request,
        asked: message.Request,
        capabilities: Tree,
        mount: str,
        who: Principal,
        send: Send,
        *,
        streams: bool,
    ) -> None:
        """A response that is the stream. Its first message says what of the filter is honoured."""
        if not streams:
            raise GatewayError(Reason.INVALID_REQUEST, "A subscription is a stream; accept text/event-stream")
        words, uris, tasks = subscription(asked.params)
        if tasks:
            _check_tasks(capabilities)
        kinds = frozenset(kind for word in words for kind in FILTERS[word])
        try:
            caller = Silent(owner(who), bridged(capabilities))
            listening = await self._calls.listen(mount, who, kinds, uris, tasks, caller)
        except Exception as error:
            raise known(error) from error
        honoured: Tree = dict(words)
        if taken := sorted(listening.uris):
            honoured["resourceSubscriptions"] = taken
        if followed := sorted(listening.tasks):
            honoured["taskIds"] = followed
        await _Subscription(asked.id, listening, request, send).run(honoured)


class _Subscription:
    def __init__(self, id: message.Id, listening: Listening, request: Request, send: Send) -> None:
        self._id = id
        self._listening = listening
        self._request = request
        self._send = send
        self._meta = {"_meta": {SUBSCRIPTION_ID: id}}

    async def run(self, honoured: Tree) -> None:
        leaving = asyncio.ensure_future(self._request.left())
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
            acknowledged = Change("notifications/subscriptions/acknowledged", {"notifications": honoured})
            await self._write(self._frame(acknowledged))
            while (changes := await self._next(leaving)) is not None:
                await self._write(b"".join(map(self._frame, changes)) or COMMENT)
            if not leaving.done():
                end = orjson.dumps({"resultType": "complete", **self._meta})
                await self._write(frame(message.result(self._id, end)), more=False)
        finally:
            leaving.cancel()
            await self._listening.aclose()

    async def _next(self, leaving: asyncio.Future[None]) -> list[Change] | None:
        hearing = asyncio.ensure_future(self._listening.next())
        try:
            await asyncio.wait((hearing, leaving), return_when=asyncio.FIRST_COMPLETED)
            return hearing.result() if hearing.done() else None
        finally:
            hearing.cancel()

    def _frame(self, change: Change) -> bytes:
        return frame(message.notification(change.method, {**change.params, **self._meta}))

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def is_modern(request: Request, tree: Any, known_sessions: tuple[str, ...]) -> bool:
    """Whether a body belongs to this era: by what it says of itself, else by a header that no session would send. One
    that names a session and a revision that nobody speaks is the session's to refuse."""
    params = tree.get("params") if type(tree) is dict else None
    if type(params) is dict and PROTOCOL_VERSION in message.meta(params):
        return True
    version = request.header(_VERSION)
    if version is None or version in known_sessions:
        return False
    return version.strip() in MODERN or request.header(_SESSION) is None


def owner(who: Principal) -> str:
    """Tells callers apart, over all tenants."""
    return f"{who.tenant}/{who.id}"


def failure(id: message.Id | None, error: GatewayError, challenge: Headers = ()) -> Reply:
    error = errors.for_request(error)
    return Reply(
        errors.status_of(error, Era.MODERN),
        message.error(id, errors.body(error)),
        (*JSON_HEADERS, *challenge, *retry_after(error)),
    )


def _checked(raw: list[tuple[bytes, bytes]], asked: message.Request) -> Tree:
    """The `_meta` of a request that may be answered. The order of the refusals is the specification's: what is
    missing, what contradicts itself, what is not spoken here, what does not exist."""
    meta = message.meta(asked.params)
    missing = [name for name in (PROTOCOL_VERSION, CLIENT_CAPABILITIES) if name not in meta]
    if missing:
        raise invalid("params._meta", f"needs {' and '.join(missing)}")
    if not isinstance(meta[CLIENT_CAPABILITIES], dict):
        raise invalid(f"params._meta.{CLIENT_CAPABILITIES}", "must be an object")
    if not isinstance(meta.get(CLIENT_INFO, {}), dict):
        raise invalid(f"params._meta.{CLIENT_INFO}", "must be an object")
    if LOG_LEVEL in meta and message.least(meta[LOG_LEVEL]) is None:
        raise invalid(f"params._meta.{LOG_LEVEL}", f"must be one of {', '.join(message.LEVELS)}")
    headers.check(raw, asked.method, asked.params)
    if meta[PROTOCOL_VERSION] not in MODERN:
        raise errors.unsupported_version(meta[PROTOCOL_VERSION])
    if asked.method not in METHODS:
        raise GatewayError(Reason.METHOD_NOT_FOUND, f"There is no method {asked.method[:100]!r} in {MODERN[0]}")
    if asked.method in TASK_USES:
        _check_tasks(meta[CLIENT_CAPABILITIES])
    return meta


def _check_tasks(capabilities: Tree) -> None:
    """Raises -32021 for a client that did not say in this request that it takes tasks."""
    if not takes_tasks(capabilities):
        raise errors.missing_capability({"extensions": {TASKS: {}}})
