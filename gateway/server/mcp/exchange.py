"""One request in flight: what its server says meanwhile, its answer, and its end when the client leaves.

The answer is one JSON document until something has to be said before it; then it becomes an event stream
(basic/transports/streamable-http). A client that goes away takes its request with it, all the way to the server behind
us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import Send

from gateway.dialects.mcp import message
from gateway.dialects.mcp.message import Id
from gateway.dialects.sse import COMMENT
from gateway.model.asking import ELICITED, visits_url
from gateway.model.tool import TASKS, CannotAsk, Tree
from gateway.server.mcp.track import Outbox, Queue, Track
from gateway.server.request import STREAM_HEADERS, Headers, Reply, Request

QUICK_SECONDS = 0.05  # most answers are there before; only then is it watched whether the client goes
KEEPALIVE_SECONDS = 15  # silence after which a stream says that it is alive; proxies cut after 30 to 60
RETURN_SECONDS = 30  # a client in a session that lost its stream has so long to come back for the rest of it
MAX_QUEUED = 256  # notifications that wait for a slow client; after them its server waits too

PROGRESS = "notifications/progress"
LOG = "notifications/message"


class Asker(Protocol):
    """How a client with a session is asked (sessions.py)."""

    def begin(self) -> tuple[Id, asyncio.Future[Tree]]: ...

    def end(self, id: Id) -> None: ...

    def new_id(self) -> str: ...

    def push(self, body: bytes) -> bool:
        """Say something on the session's own stream. False when it has none."""
        ...


class Exchange:
    """The caller of one request, as servers behind us see it (`model.tool.Caller`), and its answer to it.

    `streams` says that the client takes an event stream. `asker` and `track` are there for clients with a session.
    """

    def __init__(
        self,
        request: Request,
        principal: str,
        hops: int,
        params: Tree,
        *,
        capabilities: Tree,
        client: Tree | None,
        log_level: str | None,
        streams: bool,
        asker: Asker | None = None,
        track: Track | None = None,
    ) -> None:
        self.path = request.path
        self.principal = principal
        self.hops = hops
        self.capabilities = bridged(capabilities) if asker is None else _of_session(bridged(capabilities))
        self.client = client
        self.log_level = log_level
        meta = message.meta(params)
        self._token = message.progress_token(params)
        self.progress = self._token is not None
        self.meta = {
            name: each for name, each in meta.items() if name != "progressToken" and not name.startswith(message.META)
        }
        self._working: asyncio.Future[Reply] | None = None
        self._least = message.least(log_level)
        self._request = request
        self._streams = streams
        self._asker = asker
        self._track = track
        self._out: Outbox = Queue() if track is None else track
        self._reader: object = None
        self._patience: asyncio.TimerHandle | None = None
        self._bell: asyncio.Future[bool] | None = None  # of whoever waits for news
        self._room = asyncio.Event()
        self._room.set()

    # Caller.

    async def notify(self, method: str, params: Tree) -> None:
        if method == PROGRESS and self._token is not None:
            await self._say(message.notification(method, {**params, "progressToken": self._token}))
        elif method == LOG and self._least is not None:
            level = message.least(params.get("level"))
            if level is not None and level >= self._least:
                await self._say(message.notification(method, params))
        elif method == ELICITED and self._asker is not None:
            # Mostly the request that sent the person there is long over.
            body = message.notification(method, params)
            if not self._asker.push(body) and not self.over:
                await self._say(body)

    async def ask(self, method: str, params: Tree) -> Tree:
        asker = self._asker
        if asker is None:
            raise CannotAsk(method)
        if visits_url(method, params) and "elicitationId" not in params:
            params = {**params, "elicitationId": asker.new_id()}  # 2025-11-25, client/elicitation: required
        id, answer = asker.begin()
        try:
            body = message.request(id, method, params)
            if self._streams:
                await self._say(body)
            elif not asker.push(body):
                raise CannotAsk(method)
            return await answer
        finally:
            if not answer.done() and self._streams:
                # Without waiting for room: whoever leaves must not be held up by a client that does not read.
                self._put(message.notification("notifications/cancelled", {"requestId": id}))
            asker.end(id)

    async def _say(self, body: bytes) -> None:
        if not self._streams:
            return
        await self._room.wait()
        self._put(body)

    def _put(self, body: bytes) -> None:
        self._out.put(body)
        self._ring()
        if len(self._out) >= MAX_QUEUED:
            self._room.clear()

    # The answer.

    def cancel(self) -> None:
        """The client does not want it any more."""
        if self._working is not None:
            self._working.cancel()

    @property
    def resumable(self) -> bool:
        """Whether the client knows how to come back for the rest."""
        return self._track is not None and self._track.known

    @property
    def over(self) -> bool:
        return self._working is None or self._working.done()

    async def run(
        self,
        send: Send,
        work: Callable[[], Awaitable[Reply]],
        headers: Headers = (),
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Do the work and write its answer; cancel the one when nobody waits for the other any more. `ended` is called
        when the work is over, which may be later than this: a client that can come back is given RETURN_SECONDS."""
        self._working = asyncio.ensure_future(_await(work))
        self._working.add_done_callback(lambda working: self._over(working, ended))
        await self._attend(self._request, _Stream(send, headers))

    async def resume(self, request: Request, send: Send) -> None:
        """Write the rest of the stream, whose track stands where the client is, to a new request for it."""
        stream = _Stream(send, ())
        self._reader = None
        self._ring()  # whoever read before, on a connection that may be dead, looks up and goes
        await stream.write(self._taken() or COMMENT)
        if self._working is None:
            await stream.end(self._taken())
        else:
            await self._attend(request, stream)

    async def _attend(self, request: Request, stream: _Stream) -> None:
        working, me = self._working, object()
        assert working is not None
        self._reader = me
        self._wait(None)
        returns = False
        try:
            await self._meanwhile(working, request, stream, me)
            if self._reader is not me:
                returns = True
                await stream.end(b"")
            elif working.done():
                await self._finish(working, stream)
            elif self.resumable:
                returns = True
                self._wait(RETURN_SECONDS)
        finally:
            if self._reader is me:
                self._reader = None
            if not working.done() and not returns:
                working.cancel()
                await asyncio.wait((working,))

    async def _meanwhile(self, working: asyncio.Future[Reply], request: Request, stream: _Stream, me: object) -> None:
        """Write what comes, until the work is done, the client has gone, or somebody else reads."""
        leaving: asyncio.Future[None] | None = None
        try:
            while not working.done() and self._reader is me and not (leaving is not None and leaving.done()):
                if self._streams and len(self._out):
                    await stream.write(self._taken())
                elif leaving is None:
                    if not await self._rung(QUICK_SECONDS):
                        leaving = asyncio.ensure_future(request.left())
                        leaving.add_done_callback(self._ring)
                elif not await self._rung(KEEPALIVE_SECONDS) and self._streams:
                    await stream.write(COMMENT)
        finally:
            if leaving is not None:
                leaving.cancel()

    async def _rung(self, seconds: float) -> bool:
        """Whether there is something new, which may be the end, within that time."""
        loop = asyncio.get_running_loop()
        bell: asyncio.Future[bool] = loop.create_future()
        self._bell = bell
        alarm = loop.call_later(seconds, _silence, bell)
        try:
            return await bell
        finally:
            alarm.cancel()
            if self._bell is bell:
                self._bell = None

    def _ring(self, *_: object) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(True)

    async def _finish(self, working: asyncio.Future[Reply], stream: _Stream) -> None:
        if working.cancelled():
            # Canceled by the client: no answer is expected, and none is given (2025-11-25, basic/utilities).
            if self._streams:
                await stream.end(self._taken() if stream.begun else b"")
            else:
                await Reply(202, b"", ())(stream.send)
            return
        reply = working.result()
        if not stream.begun and not len(self._out):
            await Reply(reply.status, reply.body, (*reply.headers, *stream.headers))(stream.send)
            return
        self._say_last(reply)
        await stream.end(self._taken())

    def _say_last(self, reply: Reply) -> None:
        """Put the answer where the rest of the stream is, which is bounded, and keep it nowhere else."""
        if self._working is not None:
            self._working = None
            self._out.put(reply.body)

    def _wait(self, seconds: float | None) -> None:
        """For a client that left, before its request is canceled; None: it is back."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.cancel)

    def _over(self, working: asyncio.Future[Reply], ended: Callable[[], None]) -> None:
        self._ring()
        if self._patience is not None and not working.cancelled():
            self._say_last(working.result())  # nobody is there just now
        self._wait(None)
        ended()

    def _taken(self) -> bytes:
        frames = self._out.take()
        self._room.set()
        return frames


class _Stream:
    def __init__(self, send: Send, headers: Headers) -> None:
        self.send = send
        self.headers = headers
        self.begun = False

    async def write(self, body: bytes, *, more: bool = True) -> None:
        if not self.begun:
            self.begun = True
            headers = [*STREAM_HEADERS, *self.headers]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers, "answer": True})
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def end(self, body: bytes) -> None:
        await self.write(body, more=False)


def _silence(bell: asyncio.Future[bool]) -> None:
    if not bell.done():
        bell.set_result(False)


async def _await(work: Callable[[], Awaitable[Reply]]) -> Reply:
    return await work()


# What the gateway carries between a server and its caller. A capability that is not here would promise more.
_BRIDGED = ("elicitation", "sampling", "roots")
_EXTENSIONS = frozenset({"io.modelcontextprotocol/ui", TASKS})


def bridged(capabilities: Tree) -> Tree:
    """A client's capabilities without those that end at the gateway."""
    shown = {name: capabilities[name] for name in _BRIDGED if isinstance(capabilities.get(name), dict)}
    extensions = capabilities.get("extensions")
    if isinstance(extensions, dict) and (known := {k: each for k, each in extensions.items() if k in _EXTENSIONS}):
        shown["extensions"] = known
    return shown


def _of_session(shown: Tree) -> Tree:
    """Sessions have no requests about tasks, whatever their client says."""
    extensions = {name: each for name, each in shown.get("extensions", {}).items() if name != TASKS}
    rest = {name: each for name, each in shown.items() if name != "extensions"}
    return {**rest, "extensions": extensions} if extensions else rest
