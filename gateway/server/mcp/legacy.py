"""Sessions: requests of the revisions 2025-11-25, 2025-06-18 and 2025-03-26.

Source: 2025-11-25, basic/transports (streamable HTTP) and basic/lifecycle. Streams have event ids (track.py): a client
that lost one gets the rest of it with GET and `Last-Event-ID`, whether it began with a GET or with a request.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Send

from gateway.dialects.mcp import errors, message
from gateway.dialects.mcp.headers import SESSION_HEADER
from gateway.dialects.mcp.versions import BATCHES, negotiate
from gateway.dialects.sse import COMMENT
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Principal
from gateway.model.tool import Change, Era, Kind, Tree
from gateway.server.incident import known
from gateway.server.mcp.calls import LISTS, USES, Calls
from gateway.server.mcp.exchange import KEEPALIVE_SECONDS, Exchange
from gateway.server.mcp.modern import Challenge, owner
from gateway.server.mcp.sessions import MAX_IN_FLIGHT, Session, Sessions
from gateway.server.mcp.track import Track
from gateway.server.request import JSON_HEADERS, STREAM_HEADERS, Headers, Reply, Request, retry_after

ACCEPTED = Reply(202, b"", ())


class Legacy:
    def __init__(self, calls: Calls, sessions: Sessions, challenge: Challenge) -> None:
        self._calls = calls
        self._challenge = challenge
        self._sessions = sessions

    async def initialize(self, asked: message.Request, mount: str, who: Principal) -> Reply:
        """Opens a session; its id travels in a header from here on."""
        try:
            version = negotiate(asked.params.get("protocolVersion"))
            capabilities = asked.params.get("capabilities")
            if not isinstance(capabilities, dict):
                raise invalid("capabilities", "must be an object")
            client = asked.params.get("clientInfo")
            body = await self._calls.initialize(mount, who, version)
            session = await self._sessions.open(
                who, mount, version, capabilities, client if isinstance(client, dict) else None
            )
        except Exception as error:
            return failure(asked.id, "initialize", known(error))
        return Reply(
            200, message.result(asked.id, body), (*JSON_HEADERS, (SESSION_HEADER.encode(), session.id.encode()))
        )

    async def answer(
        self, request: Request, tree: Any, session: Session, who: Principal, send: Send, *, streams: bool
    ) -> None:
        """One POST in a session: a message, or several where the revision has batches. `who` is whoever opened it, with
        the token of this request."""
        if type(tree) is list:
            await (await self._batch(request, tree, session, who))(send)
            return
        try:
            asked = message.message(tree)
            if isinstance(asked, message.Request):
                self._check(asked, session)
        except GatewayError as error:
            await failure(message.request_id(tree), "", error)(send)
            return
        if not isinstance(asked, message.Request):
            self._take(asked, session)
            await ACCEPTED(send)
            return
        await self._run(request, asked, session, who, send, streams=streams)

    async def listen(self, request: Request, session: Session, who: Principal, send: Send) -> None:
        """GET: the session's own stream, with changes and what belongs to no request; or the rest of a stream that the
        client lost. A new reader takes the place of one whose connection may be dead without anybody knowing."""
        last = request.header(b"last-event-id")
        found = session.track() if last is None else session.rewound(last)
        if isinstance(found, Exchange):
            await found.resume(request, send)
        elif found is None:
            await _forgotten()(send)
        else:
            await self._own(request, session, who, found, send)

    async def _own(self, request: Request, session: Session, who: Principal, track: Track, send: Send) -> None:
        if session.stream is not None:
            session.stream.set()
            session.news.set()
        over = session.stream = asyncio.Event()
        session.listened(track)
        leaving = asyncio.ensure_future(request.left())
        hearing: asyncio.Future[list[Change] | None] | None = None
        try:
            await self._listening(session, who)
            await send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
            if first := track.take():
                await send({"type": "http.response.body", "body": first, "more_body": True})
            while not leaving.done() and not over.is_set():
                if hearing is None and session.listening is not None:
                    hearing = asyncio.ensure_future(session.listening.next())
                telling = asyncio.ensure_future(session.news.wait())
                waiting = {leaving, telling, *({hearing} if hearing is not None else ())}
                await asyncio.wait(waiting, timeout=KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                telling.cancel()
                session.news.clear()
                if hearing is not None and hearing.done():
                    if (changes := hearing.result()) is None:
                        break
                    hearing = None
                    for each in changes:
                        track.put(message.notification(each.method, each.params))
                if not leaving.done() and not over.is_set():
                    await send({"type": "http.response.body", "body": track.take() or COMMENT, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            if hearing is not None:
                hearing.cancel()
            if session.stream is over:
                session.stream = None

    async def _run(
        self, request: Request, asked: message.Request, session: Session, who: Principal, send: Send, *, streams: bool
    ) -> None:
        track = session.track() if streams else None
        exchange = self._exchange(request, asked, session, who, track)
        session.in_flight[asked.id] = exchange
        if track is not None:
            session.remember(track, exchange)

        async def work() -> Reply:
            return await self._reply(asked, session, who, exchange)

        def ended() -> None:
            del session.in_flight[asked.id]

        try:
            await exchange.run(send, work, ended=ended)
        finally:
            if track is not None:
                session.settle(track, exchange)

    def _exchange(
        self,
        request: Request,
        asked: message.Request,
        session: Session,
        who: Principal,
        track: Track | None = None,
    ) -> Exchange:
        return Exchange(
            request,
            owner(who),
            who.hops,
            asked.params,
            capabilities=session.capabilities,
            client=session.client,
            log_level=session.level,
            streams=track is not None,
            asker=session,
            track=track,
        )

    async def _reply(self, asked: message.Request, session: Session, who: Principal, exchange: Exchange) -> Reply:
        try:
            body = await self._result(asked, session, who, exchange)
        except Exception as error:
            shown = known(error)
            return failure(asked.id, asked.method, shown, self._challenge(shown, exchange.path))
        return Reply(200, message.result(asked.id, body), JSON_HEADERS)

    async def _result(self, asked: message.Request, session: Session, who: Principal, exchange: Exchange) -> bytes:
        method, params = asked.method, asked.params
        if method in USES:
            return await self._calls.use(session.mount, who, method, params, exchange, version=session.version)
        if method in LISTS:
            return await self._calls.list(session.mount, who, method, params, Era.LEGACY)
        if method == "logging/setLevel":
            return _set_level(session, params)
        if method in ("resources/subscribe", "resources/unsubscribe"):
            return await self._subscribe(session, who, method, params)
        if method == "ping":
            return b"{}"
        raise GatewayError(Reason.METHOD_NOT_FOUND, f"There is no method {method[:100]!r} in {session.version}")

    async def _subscribe(self, session: Session, who: Principal, method: str, params: Tree) -> bytes:
        uri = params.get("uri")
        if not isinstance(uri, str):
            raise invalid("uri", "must be a text")
        listening = await self._listening(session, who)
        if method == "resources/unsubscribe":
            listening.remove(uri)
        elif not await listening.add(uri):
            raise errors.Refusal(errors.Code.LEGACY_NOT_FOUND, "Resource not found", {"uri": uri})
        return b"{}"

    async def _listening(self, session: Session, who: Principal) -> Any:
        if session.listening is None:
            session.listening = await self._calls.listen(session.mount, who, frozenset(Kind), frozenset())
        session.listening.renew(who)
        return session.listening

    def _check(self, asked: message.Request, session: Session) -> None:
        if asked.id in session.in_flight:
            raise GatewayError(Reason.INVALID_REQUEST, "This request id is in use")
        if len(session.in_flight) >= MAX_IN_FLIGHT:
            raise GatewayError(Reason.OVERLOADED, "Too many requests of this session are open", retry_after=1)

    def _take(self, told: message.Notification | message.Response, session: Session) -> None:
        if isinstance(told, message.Response):
            session.answered(told)
        elif told.method == "notifications/cancelled":
            exchange = session.in_flight.get(told.params.get("requestId", ""))
            if exchange is not None:
                exchange.cancel()

    async def _batch(self, request: Request, trees: list[Any], session: Session, who: Principal) -> Reply:
        """Answers in one array, in the order of the requests (2025-03-26 only). Nothing is said before them."""
        if session.version not in BATCHES or not 0 < len(trees) <= message.MAX_MESSAGES:
            error = GatewayError(
                Reason.INVALID_REQUEST, f"A body is one message here, or 1 to {message.MAX_MESSAGES} in 2025-03-26"
            )
            return failure(None, "", error)
        replies = [await self._one(request, tree, session, who) for tree in trees]
        bodies = [reply.body for reply in replies if reply is not None]
        return Reply(200, b"[" + b",".join(bodies) + b"]", JSON_HEADERS) if bodies else ACCEPTED

    async def _one(self, request: Request, tree: Any, session: Session, who: Principal) -> Reply | None:
        try:
            asked = message.message(tree)
        except GatewayError as error:
            return failure(message.request_id(tree), "", error)
        if not isinstance(asked, message.Request):
            self._take(asked, session)
            return None
        return await self._reply(asked, session, who, self._exchange(request, asked, session, who))


def _set_level(session: Session, params: Tree) -> bytes:
    level = params.get("level")
    if not isinstance(level, str) or message.least(level) is None:
        raise invalid("level", f"must be one of {', '.join(message.LEVELS)}")
    session.level = level
    return b"{}"


def _forgotten() -> Reply:
    error = GatewayError(Reason.INVALID_REQUEST, "What came after this event is not kept; make the request anew")
    return Reply(400, message.error(None, errors.body(error)))


def failure(id: message.Id | None, method: str, error: GatewayError, challenge: Headers = ()) -> Reply:
    """A challenge is read only where its status is (2025-11-25, basic/authorization: error handling)."""
    error = errors.for_session(error, method)
    scopes = challenge and error.reason is Reason.PERMISSION_DENIED
    return Reply(
        403 if scopes else errors.status_of(error, Era.LEGACY),
        message.error(id, errors.body(error)),
        (*JSON_HEADERS, *challenge, *retry_after(error)),
    )
