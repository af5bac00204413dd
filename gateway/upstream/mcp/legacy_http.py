"""Streamable HTTP of 2025-03-26 to 2025-11-25: one session over many requests.

Source: 2025-11-25, basic/transports (streamable HTTP): session id, version header, GET stream, resumability, DELETE.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gateway.dialects.mcp import client as wire
from gateway.dialects.mcp.errors import Code
from gateway.dialects.mcp.headers import SESSION_HEADER, VERSION_HEADER
from gateway.dialects.mcp.message import Message, Notification, Request, notification, request
from gateway.dialects.mcp.message import Response as Answered
from gateway.model.asking import ASKED_WITH, ELICITED
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, Change, Era, Face, PeerError, Tree
from gateway.upstream.mcp.backend import Stale
from gateway.upstream.mcp.clock import Clock
from gateway.upstream.mcp.exchange import Exchange, put
from gateway.upstream.mcp.fanout import Fanout, Overheard
from gateway.upstream.mcp.http import Broken, Endpoint, Refused, Unexpected, tree_of
from gateway.upstream.mcp.limits import NOBODY
from gateway.upstream.mcp.session import FAREWELL_SECONDS, Chores, Levels, Lost, canceled, listen
from gateway.upstream.mcp.visits import Visits

# A stream that breaks off is gone on with so often in a row without having brought anything new.
RESUMES = 5
# The longest that a call waits for the stream of its session, which it may turn out not to need.
OPEN_SECONDS = 2.0
# The longest that a server may make us wait before that, in seconds.
RETRY_SECONDS = 30.0
# Statuses that say: not here, not so. What a changed server says to an old session.
_FOREIGN = frozenset({400, 405, 406, 415})
# Answers, and not failures to get one.
_ANSWERS = (PeerError, Unexpected)


class HttpSession:
    """Made by `open_session`."""

    def __init__(
        self, endpoint: Endpoint, face: Face, id: str | None, ids: itertools.count[int], overheard: Overheard
    ) -> None:
        self.face = face
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._id = id
        self._ids = ids
        self._headers: Tree = {SESSION_HEADER: id} if id else {}
        if face.version in wire.VERSION_HEADER_SINCE:
            self._headers[VERSION_HEADER] = face.version
        self._levels = Levels(face)
        self._fanout = Fanout(overheard)
        self._chores = Chores()
        self._visits = Visits()
        self._in_flight: dict[int, Exchange] = {}
        self._streaming: asyncio.Task[None] | None = None
        self._stream_open = asyncio.Event()
        self._deaf = False  # the server opens no GET stream, or not in time; only a listener asks again
        self._lost = False

    @property
    def alive(self) -> bool:
        return not self._lost

    @property
    def busy(self) -> bool:
        return bool(self._in_flight) or self._fanout.busy

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        if not self._deaf and (caller.capabilities or caller.log_level is not None or caller.progress):
            # Servers send what they do not tie to a request on this stream, and lose it if nobody reads there yet.
            self._deaf = not await self._listening(OPEN_SECONDS)
        if (level := self._levels.lower(caller)) is not None:
            with contextlib.suppress(PeerError):
                await self._sent("logging/setLevel", {"level": level}, NOBODY)
        return await self._sent(method, params, caller)

    async def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        if not await self._listening(self._limits.handshake_seconds):
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The server opens no stream for notifications")
        async with aclosing(listen(self, self._fanout, uris, self._chores)) as stream:
            async for change in stream:
                yield change

    async def aclose(self) -> None:
        known, self._lost = not self._lost, True
        self._fanout.end(wire.failed("was let go"))
        await self._chores.aclose()
        if known and self._id is not None:
            with contextlib.suppress(GatewayError):
                await self._endpoint.delete(self._headers, FAREWELL_SECONDS)

    async def started(self) -> None:
        """The last step of the handshake."""
        body = notification("notifications/initialized", {})
        await self._endpoint.tell(body, self._headers, self._limits.handshake_seconds)

    # One request.

    async def _sent(self, method: str, params: Tree, caller: Caller) -> Tree:
        id = next(self._ids)
        quiet = not (caller.progress or caller.log_level is not None or caller.capabilities)
        clock = None if quiet and not self._endpoint.streams else self._clock()
        exchange = Exchange(
            id,
            method,
            caller,
            Era.LEGACY,
            clock=clock,
            reply=self._reply,
            elsewhere=self._elsewhere,
            visits=self._visits,
        )
        body = request(id, method, wire.session_params(params, caller, id))
        self._in_flight[id] = exchange
        try:
            return await self._called(body, exchange, quiet=quiet)
        except (Refused, Unexpected) as error:
            raise self._judged(error) from error
        except asyncio.CancelledError:
            self._cancel(id, "the caller canceled the request")
            raise
        except GatewayError as error:
            if error.reason is Reason.UPSTREAM_TIMEOUT:
                self._cancel(id, "it took too long")
            raise
        finally:
            del self._in_flight[id]
            exchange.close()

    async def _called(self, body: bytes, exchange: Exchange, *, quiet: bool) -> Tree:
        try:
            return await self._endpoint.call(body, self._headers, exchange, quiet=quiet)
        except Broken as error:
            broken = error
        return await self._resumed(broken, exchange)

    async def _resumed(self, error: Broken, exchange: Exchange) -> Tree:
        """The server let go of the connection, or the network did, not of the request (2025-11-25, transports)."""
        tries = 0
        while error.last and tries < RESUMES:
            await asyncio.sleep(min(error.retry, RETRY_SECONDS))
            exchange.clock = self._clock()
            try:
                return await self._endpoint.resume(self._headers, exchange, error.last)
            except Broken as again:
                tries = 0 if again.last and again.last != error.last else tries + 1
                error = again if again.last else Broken(error.last, again.retry)
            except PeerError:
                raise
            except Unexpected as refused:
                raise error from refused
            except GatewayError as away:
                if away.reason is not Reason.UPSTREAM_FAILED:
                    raise
                tries += 1  # it could not be reached just now
        raise error

    def _judged(self, error: Refused | Unexpected) -> Exception:
        if isinstance(error, Refused) and error.code == Code.METHOD_NOT_FOUND:
            return error
        if error.status == 404 and self._id is not None:
            self._forget(error)
            return Lost(error)
        if error.status in _FOREIGN:
            self._forget(error)
            return Stale(error)
        return error

    def _forget(self, error: GatewayError) -> None:
        self._lost = True
        self._fanout.end(error)

    def _clock(self) -> Clock:
        return Clock(self._limits.call_seconds, self._limits.idle_seconds)

    def _cancel(self, id: int, reason: str) -> None:
        note = canceled(id, reason)
        body = notification(note.method, note.params)
        self._chores.add(self._endpoint.tell(body, self._headers, FAREWELL_SECONDS))

    async def _reply(self, body: bytes) -> None:
        await self._endpoint.tell(body, self._headers, self._limits.handshake_seconds)

    # The stream of the session.

    async def _listening(self, seconds: float) -> bool:
        """Whether the stream is open. If it is not, it is opened, and so much time is given to that."""
        if self._streaming is None or self._streaming.done():
            self._stream_open.clear()
            self._streaming = self._chores.add(self._stream())
        if not self._stream_open.is_set():
            opened = asyncio.ensure_future(self._stream_open.wait())
            both: tuple[asyncio.Future[Any], ...] = (opened, self._streaming)
            try:
                await asyncio.wait(both, timeout=seconds, return_when="FIRST_COMPLETED")
            finally:
                opened.cancel()
        return self._stream_open.is_set()

    async def _stream(self) -> None:
        """Read it to its end, and from where it broke off if it has ids: what the server says meanwhile is not lost."""
        last, tries = "", 0
        try:
            while True:
                before, pause = last, 1.0
                try:
                    opened = self._endpoint.listening(self._headers, self._limits.quiet_seconds, last=last)
                    async with opened as (reader, events):
                        self._stream_open.set()
                        self._deaf = False
                        async for event in events:
                            last = event.id or last
                            pause = pause if reader.retry is None else reader.retry / 1000
                            for message in wire.messages(tree_of(event.data)) if event.data else ():
                                await self._unbound(message)
                except GatewayError as error:
                    if not last or error.reason is not Reason.UPSTREAM_FAILED or isinstance(error, _ANSWERS):
                        raise
                tries = 0 if last != before else tries + 1
                if not last or tries > RESUMES:
                    return
                await asyncio.sleep(min(pause, RETRY_SECONDS))
        finally:
            if self._stream_open.is_set():
                self._stream_open.clear()
                self._fanout.end(wire.failed("closed its stream of notifications"))

    async def _unbound(self, message: Message) -> None:
        """What came without a request around it: it belongs to the request that is in flight, if it can."""
        if isinstance(message, Answered):
            return  # of a stream that was resumed, or of nobody
        if isinstance(message, Request):
            asked = ASKED_WITH.get(message.method)
            able = [each for each in self._in_flight.values() if asked in each.caller.capabilities]
            if able:
                await able[-1].asked(message)
            else:
                await self._reply(await put(message, NOBODY))
            return
        token = message.params.get("progressToken") if message.method == "notifications/progress" else None
        if isinstance(token, int) and token in self._in_flight:
            await self._in_flight[token].take(message)
        elif message.method == "notifications/message":
            for exchange in tuple(self._in_flight.values())[:1]:
                await exchange.take(message)
        elif message.method == ELICITED:
            await self._visits.over(message)
        else:
            self._fanout.publish(message)

    def _elsewhere(self, notification: Notification) -> None:
        if notification.method == ELICITED:
            self._chores.add(self._visits.over(notification))
        else:
            self._fanout.publish(notification)


async def open_session(
    endpoint: Endpoint, owner: Caller, info: Tree, ids: itertools.count[int], overheard: Overheard
) -> HttpSession:
    """`initialize`, and the server's word that it is so. Raises PeerError, Refused, Unexpected, GatewayError."""
    id = next(ids)
    clock = Clock(endpoint.limits.handshake_seconds, endpoint.limits.handshake_seconds)
    exchange = Exchange(id, "initialize", NOBODY, Era.LEGACY, clock=clock)
    body = request(id, "initialize", wire.initialize_params(owner.capabilities, owner.client or info))
    result, session_id = await endpoint.begin(body, exchange)
    face = wire.initialized(result)
    session = HttpSession(endpoint, face, session_id, ids, overheard)
    await session.started()
    return session
