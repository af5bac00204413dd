"""A server at the other end of one channel over which everything goes, in either era: stdio, and HTTP+SSE.

Source: basic/transports/stdio, basic/patterns/cancellation; 2024-11-05, basic/transports.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TypeAlias

from gateway.dialects.mcp import client as wire
from gateway.dialects.mcp.errors import Code
from gateway.dialects.mcp.message import Message, Notification, Request, Response, notification, request
from gateway.dialects.mcp.versions import NEWEST
from gateway.dialects.strict_json import read
from gateway.model.asking import ASKED_WITH, ELICITED
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, Change, Era, Face, PeerError, Tree
from gateway.upstream.mcp.backend import Stale
from gateway.upstream.mcp.clock import Clock
from gateway.upstream.mcp.exchange import Exchange, put
from gateway.upstream.mcp.fanout import Fanout, Overheard
from gateway.upstream.mcp.http import in_time
from gateway.upstream.mcp.limits import NOBODY, Limits
from gateway.upstream.mcp.modern import change, listened, ordered, subscription
from gateway.upstream.mcp.session import FAREWELL_SECONDS, Chores, Levels, canceled, listen
from gateway.upstream.mcp.visits import Visits

Send: TypeAlias = Callable[[bytes], Awaitable[None]]
Inbox: TypeAlias = "asyncio.Queue[Message | Tree | GatewayError]"

# Notifications of one request that may wait for its caller. Progress that comes so much faster than it can be told is
# worth nothing; the answer is never dropped.
WAITING = 1000
# Lines in a row that are no message, or answers to nothing. Programs print a banner; this is a flood.
GARBAGE = 1000
# What a request may ask for at the same time outside of any call: pings, mostly.
ANSWERING = 16

_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\b')


class Duplex:
    """A session (`Session`), or a modern server, over a channel. `send` sends one message; the transport calls
    `receive` for each that comes, and `lost` when no more will come. `close` ends the channel and waits for that,
    `give_up` ends one that is of no use."""

    def __init__(
        self,
        send: Send,
        close: Callable[[], Awaitable[None]],
        give_up: Callable[[], None],
        limits: Limits,
        info: Tree,
        overheard: Overheard,
    ) -> None:
        self.face: Face = Face(Era.LEGACY, wire.OLDEST, {}, {})
        self._send = send
        self._close = close
        self._give_up = give_up
        self._limits = limits
        self._info = info
        self._ids = itertools.count(1)
        self._calls: dict[int, tuple[Exchange, Inbox]] = {}
        self._listeners: dict[int, Inbox] = {}
        self._levels: Levels | None = None
        self._fanout = Fanout(overheard)
        self._chores = Chores()
        self._visits = Visits()
        self._answering = 0
        self._garbage = 0
        self._error: GatewayError | None = None

    @property
    def alive(self) -> bool:
        return self._error is None

    @property
    def busy(self) -> bool:
        return bool(self._calls or self._listeners) or self._fanout.busy

    # Finding out what is there.

    async def discover(self) -> bool:
        """Whether there is a modern server. Raises GatewayError when it has only revisions we do not speak, and when
        the channel is lost."""
        version = NEWEST
        for _ in range(2):
            self.face = Face(Era.MODERN, version, {}, {})
            try:
                result = await self._sent("server/discover", {}, NOBODY, self._limits.probe_seconds)
            except PeerError as error:
                named = wire.supported(error)
                if named is None and error.code not in wire.MODERN_CODES:
                    return False
                mutual = wire.mutual(named)
                if mutual is None:
                    if any(each in wire.SESSIONS for each in named or ()):
                        return False
                    raise wire.failed("speaks only revisions that the gateway does not") from error
                version = mutual
                continue
            except GatewayError:
                if not self.alive:
                    raise
                return False
            face = wire.discovered(result)
            if face is not None:
                self.face = face
            return face is not None
        return False

    async def initialize(self, owner: Caller) -> None:
        """Begin a session for `owner`. Raises GatewayError."""
        self.face = Face(Era.LEGACY, wire.OLDEST, {}, {})
        params = wire.initialize_params(owner.capabilities, owner.client or self._info)
        seconds = self._limits.handshake_seconds
        self.face = wire.initialized(await self._sent("initialize", params, NOBODY, seconds))
        self._levels = Levels(self.face)
        await self._send(notification("notifications/initialized", {}))

    # What a session and a backend offer.

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        if self._levels is not None and (level := self._levels.lower(caller)) is not None:
            with suppress(PeerError):  # it has logging and no levels; then it sends what it sends
                await self._sent("logging/setLevel", {"level": level}, NOBODY)
        try:
            return await self._sent(method, params, caller)
        except PeerError as error:
            if self.face.era is Era.MODERN and error.code == Code.UNSUPPORTED_VERSION:
                raise Stale(error) from error
            raise

    async def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        async with aclosing(self._subscribed(uris) if self.face.era is Era.MODERN else self._heard(uris)) as stream:
            async for each in stream:
                yield each

    async def aclose(self) -> None:
        self.lost(GatewayError(Reason.UNAVAILABLE, "The server is being let go"))
        await self._chores.aclose()
        await self._close()

    def _heard(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        return listen(self, self._fanout, uris, self._chores)

    async def _subscribed(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        wanted, seconds = listened(self.face, uris), self._limits.handshake_seconds
        id = next(self._ids)
        inbox: Inbox = asyncio.Queue()
        self._listeners[id] = inbox
        ended = False
        try:
            params = {"notifications": wanted}
            await self._send(
                request(
                    id, "subscriptions/listen", wire.modern_params(params, NOBODY, self.face.version, id, self._info)
                )
            )
            acknowledged = False
            while True:
                if acknowledged:
                    news = await inbox.get()
                else:
                    async with in_time(Clock(seconds, seconds)):
                        news = await inbox.get()
                if isinstance(news, GatewayError):
                    ended = True
                    raise news
                if isinstance(news, Response):
                    ended = True
                    wire.answer(news, id)
                    return  # graceful closure
                if isinstance(news, Notification):
                    acknowledged = ordered(news, acknowledged)
                    yield change(news)
        finally:
            del self._listeners[id]
            if not ended:
                self._cancel(id, "nobody listens any more")

    # One request.

    async def _sent(self, method: str, params: Tree, caller: Caller, seconds: float | None = None) -> Tree:
        if self._error is not None:
            raise self._again(self._error, "no")
        id = next(self._ids)
        modern = self.face.era is Era.MODERN
        clock = Clock(seconds or self._limits.call_seconds, seconds or self._limits.call_seconds)
        exchange = Exchange(
            id,
            method,
            caller,
            self.face.era,
            clock=clock,
            reply=None if modern else self._send,
            elsewhere=self._elsewhere,
            visits=self._visits,
        )
        made = (
            wire.modern_params(params, caller, self.face.version, id, self._info)
            if modern
            else wire.session_params(params, caller, id)
        )
        inbox: Inbox = asyncio.Queue()
        self._calls[id] = exchange, inbox
        try:
            async with in_time(clock):
                await self._send(request(id, method, made))
                return await self._answered(exchange, inbox)
        except asyncio.CancelledError:
            self._cancel(id, "the caller canceled the request")
            raise
        except GatewayError as error:
            # `initialize` must not be canceled (2025-11-25, basic/utilities/cancellation).
            if error.reason is Reason.UPSTREAM_TIMEOUT and method != "initialize":
                self._cancel(id, "it took too long")
            raise
        finally:
            del self._calls[id]
            exchange.close()

    async def _answered(self, exchange: Exchange, inbox: Inbox) -> Tree:
        while True:
            news = await inbox.get()
            if isinstance(news, GatewayError):
                raise news
            if isinstance(news, dict):
                return exchange.judged(news)
            if (result := await exchange.take(news)) is not None:
                return result

    def _cancel(self, id: int, reason: str) -> None:
        if self.alive:
            note = canceled(id, reason)
            self._chores.add(self._tell(notification(note.method, note.params)))

    async def _tell(self, body: bytes) -> None:
        async with in_time(Clock(FAREWELL_SECONDS, FAREWELL_SECONDS)):
            await self._send(body)

    # What comes in. Called by the transport; never waits, never raises.

    def receive(self, data: bytes) -> None:
        try:
            tree = read(data)
        except GatewayError as error:
            if not self._blamed(data, error):
                self._wasted()
            return
        if type(tree) is dict and type(id := tree.get("id")) is int and id in self._calls:
            result = wire.result(tree, id)
            if result is not None:  # nearly always
                self._garbage = 0
                self._calls[id][1].put_nowait(result)
                return
        try:
            found = wire.messages(tree)
        except PeerError:
            self._wasted()  # an error that names no request: nobody's
        except GatewayError as error:
            if not self._blamed(data, error):
                self._wasted()
        else:
            for message in found:
                self._dispatch(message)

    def too_long(self, ends: bytes) -> None:
        """A message that was too long was thrown away; these are its beginning and its end."""
        error = GatewayError(
            Reason.UPSTREAM_TOO_LARGE,
            f"The server answered with more than {self._limits.answer_bytes} bytes",
            metadata={"delivered": "unknown"},
        )
        if not self._blamed(ends, error):
            self._wasted()

    def lost(self, error: GatewayError) -> None:
        """No more will come: everything in flight fails with `error`."""
        if self._error is not None:
            return
        self._error = error
        for _, inbox in self._calls.values():
            inbox.put_nowait(self._again(error, "unknown"))
        for inbox in self._listeners.values():
            inbox.put_nowait(self._again(error, "unknown"))
        self._fanout.end(error)

    def _again(self, error: GatewayError, delivered: str) -> GatewayError:
        return GatewayError(
            error.reason, error.message, retry_after=error.retry_after, metadata={"delivered": delivered}
        )

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Response):
            self._answer(message)
        elif isinstance(message, Request):
            self._question(message)
        else:
            self._notice(message)

    def _answer(self, message: Response) -> None:
        call = self._calls.get(message.id) if type(message.id) is int else None
        inbox = call[1] if call else self._listeners.get(message.id) if type(message.id) is int else None
        if inbox is None:
            self._wasted()  # late, twice, or made up
        else:
            self._garbage = 0
            inbox.put_nowait(message)

    def _question(self, message: Request) -> None:
        """A server's own request names no call. It goes to the newest one whose caller can be asked."""
        if self.face.era is Era.MODERN:
            self._wasted()
            return
        asked = ASKED_WITH.get(message.method)
        able = [inbox for exchange, inbox in self._calls.values() if asked in exchange.caller.capabilities]
        if able:
            able[-1].put_nowait(message)
        elif self._answering < ANSWERING:
            self._answering += 1
            self._chores.add(self._refuse(message)).add_done_callback(lambda _: self._answered_one())

    async def _refuse(self, message: Request) -> None:
        await self._send(await put(message, NOBODY))

    def _answered_one(self) -> None:
        self._answering -= 1

    def _notice(self, message: Notification) -> None:
        inbox = self._addressee(message)
        if inbox is None:
            self._elsewhere(message)
        elif inbox.qsize() < WAITING:
            inbox.put_nowait(message)
        elif inbox in self._listeners.values():
            inbox.put_nowait(wire.failed("sends changes faster than they can be told"))

    def _elsewhere(self, message: Notification) -> None:
        if message.method == ELICITED:
            self._chores.add(self._visits.over(message))
        else:
            self._fanout.publish(message)

    def _addressee(self, message: Notification) -> Inbox | None:
        token: object
        match message.method:
            case "notifications/progress":
                token = message.params.get("progressToken")
                return self._calls[token][1] if type(token) is int and token in self._calls else None
            case "notifications/message":
                # Nothing says whose it is. With several callers on one channel it may be anybody's, so it is nobody's.
                if len(self._calls) == 1 or self.face.era is Era.LEGACY:
                    return next((inbox for _, inbox in self._calls.values()), None)
                return None
            case "notifications/cancelled":
                for exchange, inbox in self._calls.values():
                    if exchange.asks(message.params.get("requestId")):
                        return inbox
                return None
        if self.face.era is Era.MODERN:
            token = subscription(message)
            return self._listeners.get(token) if type(token) is int else None
        return None

    def _blamed(self, data: bytes, error: GatewayError) -> bool:
        """Whether one request could be told from what was left: it fails now, instead of at its deadline."""
        found = False
        for text in _ID.findall(data[:4096] + data[-4096:]):
            if int(text) in self._calls:
                self._calls[int(text)][1].put_nowait(error)
                found = True
        return found

    def _wasted(self) -> None:
        self._garbage += 1
        if self._garbage > GARBAGE and self.alive:
            self.lost(wire.failed("sends what is no answer to anything"))
            self._give_up()
