"""One request in flight at one server: what comes back for it is judged here, whatever transport brought it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import orjson

from gateway.dialects.mcp.client import answer, checked, completed, failed
from gateway.dialects.mcp.errors import Code
from gateway.dialects.mcp.message import Message, Notification, Request, Response, is_id, least
from gateway.model.asking import ASKED_WITH, lacking
from gateway.model.errors import GatewayError
from gateway.model.tool import Caller, CannotAsk, Era, PeerError, Tree
from gateway.upstream.mcp.clock import Clock
from gateway.upstream.mcp.visits import Visits

log = logging.getLogger(__name__)

# Questions of one request at the same time. An honest tool asks one; each may be a window before a person.
MAX_ASKS = 8

Reply = Callable[[bytes], Awaitable[None]]
Elsewhere = Callable[[Notification], None]


class Exchange:
    """`id` is the request's id at this server and its progress token there. `reply` sends a message of ours (sessions
    only); `elsewhere` takes what belongs to no request, such as changed lists; `visits` remembers whom the server sends
    to a URL."""

    def __init__(
        self,
        id: int,
        method: str,
        caller: Caller,
        era: Era,
        *,
        clock: Clock | None = None,
        reply: Reply | None = None,
        elsewhere: Elsewhere | None = None,
        visits: Visits | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.caller = caller
        self.clock = clock
        self._era = era
        self._reply = reply
        self._elsewhere = elsewhere
        self._visits = visits
        self._asks: dict[object, asyncio.Task[None]] = {}

    async def take(self, message: Message) -> Tree | None:
        """The result if that was it, None if there is more to come. Raises PeerError for an error, GatewayError for
        what may not come here."""
        if isinstance(message, Notification):
            await self._notice(message)
            return None
        if isinstance(message, Request):
            await self.asked(message)
            return None
        return self.answered(message)

    def answered(self, message: Response) -> Tree:
        try:
            return self.judged(answer(message, self.id))
        except PeerError as error:
            if self._visits is not None:
                self._visits.refused(error, self.caller)
            raise

    def judged(self, result: Tree) -> Tree:
        return checked(result, self.method, self.caller) if self._era is Era.MODERN else completed(result)

    async def _notice(self, notification: Notification) -> None:
        method, params = notification.method, notification.params
        if method == "notifications/progress":
            if self.caller.progress and params.get("progressToken") == self.id:
                await self.caller.notify(method, params)
        elif method == "notifications/message":
            if self.hears(params.get("level")):
                await self.caller.notify(method, params)
        elif method == "notifications/cancelled":
            if self.asks(id := params.get("requestId")):
                self._asks[id].cancel()
        elif self._elsewhere is not None:
            self._elsewhere(notification)

    def hears(self, level: object) -> bool:
        """Whether the caller wants log messages of this level. One without a level we know is shown to those who want
        any."""
        wanted = least(self.caller.log_level)
        rank = least(level)
        return wanted is not None and (rank is None or rank >= wanted)

    def asks(self, id: object) -> bool:
        """Whether the server's request `id` is being put to this caller."""
        return is_id(id) and id in self._asks

    async def asked(self, request: Request) -> None:
        """Put a session server's own request to the caller. The answer is sent when there is one."""
        if self._reply is None:
            raise failed("sent a request of its own, which its revision does not know")
        if request.id in self._asks or len(self._asks) >= MAX_ASKS:
            await self._reply(refusal(request, Code.INVALID_REQUEST, "Too many requests at the same time"))
            return
        if self._visits is not None:
            self._visits.asked(request.params, self.caller)
        task = asyncio.get_running_loop().create_task(self._ask(request, self._reply))
        self._asks[request.id] = task
        task.add_done_callback(lambda _: self._asks.pop(request.id, None))

    async def _ask(self, request: Request, reply: Reply) -> None:
        with self.clock.stopped() if self.clock else contextlib.nullcontext():
            said = await put(request, self.caller)
        with contextlib.suppress(GatewayError):  # then the server is gone, and whoever reads from it will know
            await reply(said)

    def close(self) -> None:
        """Whatever is still being asked is of no use any more."""
        for task in tuple(self._asks.values()):
            task.cancel()


async def put(request: Request, caller: Caller) -> bytes:
    """What to answer to a server's own request. Whatever goes wrong, the server is told, and not why inside us."""
    if request.method == "ping":
        return success(request, {})
    if request.method not in ASKED_WITH or lacking(request.method, request.params, caller.capabilities):
        return refusal(request, Code.METHOD_NOT_FOUND, f"This client takes no {request.method}")
    try:
        return success(request, await caller.ask(request.method, request.params))
    except CannotAsk as error:
        return refusal(request, Code.METHOD_NOT_FOUND, error.message)
    except PeerError as error:
        return refusal(request, error.code, error.message, error.data)
    except GatewayError as error:
        return refusal(request, Code.INTERNAL_ERROR, error.message)
    except Exception:
        log.exception("a caller could not be asked")
        return refusal(request, Code.INTERNAL_ERROR, "The client could not be asked")


def success(request: Request, result: Tree) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": request.id, "result": result})


def refusal(request: Request, code: int, text: str, data: object = None) -> bytes:
    error: Tree = {"code": code, "message": text}
    if data is not None:
        error["data"] = data
    return orjson.dumps({"jsonrpc": "2.0", "id": request.id, "error": error})
