"""A request that waits for its caller, between two calls of it.

A session server asks in the middle of its work; a caller of 2026-07-28 is asked by an answer and comes back with a new
request (basic/patterns/mrtr). In between the work stays where it is, parked, with the upstream request open.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field

from gateway.model.asking import ASKED_WITH, lacking, visits_url
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.tool import Caller, CannotAsk, Tree

GATHER_SECONDS = 0.05  # a server that asks several things at once is given this long to say them all
PARK_SECONDS = 300  # a person has to read and decide; longer than that and they have gone
MAX_PARKED = 1_000  # in all: each holds a request open at some server
MAX_PARKED_EACH = 16  # of one caller: an agent asks one thing at a time

KEY = "gateway/inputKey"
"""The entry of a question's `_meta` with which a session server may name it, as servers of 2026-07-28 name theirs:
a client that knows the name can answer without a person. Without it they are `ask-1`, `ask-2` and so on."""

_OVER = "is over (it waited too long, or the gateway was restarted)"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(slots=True)
class _Ask:
    method: str
    params: Tree
    answer: asyncio.Future[Tree]


@dataclass(slots=True)
class Parked:
    """One piece of work. `caller` is whoever made the newest request for it: its stream takes the notifications."""

    id: str
    owner: str
    caller: Caller
    work: asyncio.Task[Tree] | None = None
    asks: dict[str, _Ask] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    busy: bool = True
    count: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def questions(self) -> Tree:
        return {key: {"method": each.method, "params": each.params} for key, each in self.asks.items()}


class _ParkedCaller:
    """The caller as the server sees it: the same one through every request that goes on with the work."""

    def __init__(self, parked: Parked) -> None:
        self._parked = parked
        first = parked.caller
        self.principal = first.principal
        self.hops = first.hops
        self.capabilities = first.capabilities
        self.client = first.client
        self.log_level = first.log_level
        self.progress = first.progress
        self.meta = first.meta

    async def notify(self, method: str, params: Tree) -> None:
        await self._parked.caller.notify(method, params)

    async def ask(self, method: str, params: Tree) -> Tree:
        if method not in ASKED_WITH or lacking(method, params, self.capabilities):
            raise CannotAsk(method)
        if visits_url(method, params):
            # Of a session: whoever comes back has nothing that it could belong to (changelog, elicitationId).
            params = {name: each for name, each in params.items() if name != "elicitationId"}
        parked = self._parked
        parked.count += 1
        key, params = _key(params, f"ask-{parked.count}", parked.asks)
        ask = parked.asks[key] = _Ask(method, params, asyncio.get_running_loop().create_future())
        parked.asked.set()
        try:
            return await ask.answer
        finally:
            parked.asks.pop(key, None)


class Parking:
    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._parked: dict[str, Parked] = {}
        self._each: Counter[str] = Counter()

    async def begin(self, caller: Caller, work: Callable[[Caller], Awaitable[Tree]]) -> Tree | Parked:
        """Do the work until it ends, or until it asks: then it is parked."""
        if len(self._parked) >= MAX_PARKED or self._each[caller.principal] >= MAX_PARKED_EACH:
            raise GatewayError(Reason.OVERLOADED, "Too many requests wait for their callers' answers", retry_after=5)
        parked = Parked(self._new_id(), caller.principal, caller)
        self._parked[parked.id] = parked
        self._each[parked.owner] += 1
        parked.work = asyncio.ensure_future(_run(work, _ParkedCaller(parked)))
        parked.work.add_done_callback(_seen)
        return await self._turn(parked)

    async def go_on(self, id: str, caller: Caller, answers: Tree) -> Tree | Parked:
        """The caller is back. What it did not answer is asked again; what was not asked is ignored."""
        parked = self._parked.get(id)
        if parked is None or parked.owner != caller.principal:
            raise invalid("requestState", f"the request it belongs to {_OVER}; make it anew, without requestState")
        if parked.busy:
            raise invalid("requestState", "the request it belongs to is being gone on with already")
        if parked.timer is not None:
            parked.timer.cancel()
        parked.busy, parked.caller = True, caller
        for key, ask in list(parked.asks.items()):
            if isinstance(answer := answers.get(key), dict) and not ask.answer.done():
                del parked.asks[key]
                ask.answer.set_result(answer)
        if not parked.asks:
            parked.asked.clear()
        return await self._turn(parked)

    async def aclose(self) -> None:
        works = [each.work for each in self._parked.values() if each.work is not None]
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    async def _turn(self, parked: Parked) -> Tree | Parked:
        work = parked.work
        assert work is not None
        asked = asyncio.ensure_future(parked.asked.wait())
        try:
            await asyncio.wait((work, asked), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait((work,), timeout=GATHER_SECONDS)
        except asyncio.CancelledError:
            # The caller left in the middle: nobody will come back for this.
            work.cancel()
            self._forget(parked)
            raise
        finally:
            asked.cancel()
        if work.done():
            self._forget(parked)
            return work.result()
        parked.busy = False
        parked.timer = asyncio.get_running_loop().call_later(PARK_SECONDS, self._expire, parked)
        return parked

    def _expire(self, parked: Parked) -> None:
        if parked.work is not None:
            parked.work.cancel()
        self._forget(parked)

    def _forget(self, parked: Parked) -> None:
        if self._parked.pop(parked.id, None) is not None:
            self._each[parked.owner] -= 1
            self._each += Counter()  # without the zeros
        if parked.timer is not None:
            parked.timer.cancel()


def _key(params: Tree, default: str, taken: Container[str]) -> tuple[str, Tree]:
    """What the question is called in `inputRequests`, and its parameters without the server's word for it."""
    meta = params.get("_meta")
    named = meta.get(KEY) if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(named, str) or not _NAME.fullmatch(named) or named in taken:
        return default, params
    rest = {name: each for name, each in meta.items() if name != KEY}
    bare = {name: each for name, each in params.items() if name != "_meta"}
    return named, {**bare, "_meta": rest} if rest else bare


async def _run(work: Callable[[Caller], Awaitable[Tree]], caller: Caller) -> Tree:
    return await work(caller)


def _seen(work: asyncio.Task[Tree]) -> None:
    """Its caller may have gone; an error that nobody is there for is no fault of the loop."""
    if not work.cancelled():
        work.exception()
