"""Servers that run as our child processes and speak in lines, both eras.

A modern one is a single process for everybody: each request says all about its caller. With an older one the process
is the session, so every caller gets its own, unless the operator says that it may be shared (then nobody can be asked
anything, for nobody could tell whom).

Source: basic/transports/stdio (backward compatibility, shutdown, unexpected termination).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from gateway.dialects.mcp import client as wire
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, Change, Era, Face, PeerError, Tree
from gateway.upstream.mcp.backend import Stale
from gateway.upstream.mcp.duplex import Duplex
from gateway.upstream.mcp.fanout import Overheard
from gateway.upstream.mcp.limits import NOBODY, Limits
from gateway.upstream.mcp.pool import OWN, Pool, key_of
from gateway.upstream.process import Command, Process, start

# A process that lives so long did not fail when it began.
STEADY_SECONDS = 60.0


class Pipe:
    """A process and what is said over its pipes (`process.Listener`)."""

    def __init__(self, name: str, limits: Limits, info: Tree, overheard: Overheard) -> None:
        self.duplex = Duplex(self._send, self._close, self._give_up, limits, info, overheard)
        self._name = name
        self._process: Process | None = None

    @property
    def said(self) -> tuple[str, ...]:
        """The last lines of its stderr."""
        return () if self._process is None else self._process.stderr.lines

    async def start(self, command: Command, ours: Mapping[str, str]) -> None:
        self._process = await start(self._name, command, self, ours)

    def line(self, line: bytes) -> None:
        self.duplex.receive(line)

    def too_long(self, ends: bytes) -> None:
        self.duplex.too_long(ends)

    def ended(self, why: str) -> None:
        self.duplex.lost(GatewayError(Reason.UPSTREAM_FAILED, f"The process of {self._name} {why}"))

    async def _send(self, body: bytes) -> None:
        assert self._process is not None
        self._process.write(body)

    async def _close(self) -> None:
        if self._process is not None:
            await self._process.stop()

    def _give_up(self) -> None:
        if self._process is not None:
            self._process.kill()


class StdioBackend:
    """`shared` says that one process may serve all callers whatever its era."""

    def __init__(
        self,
        name: str,
        command: Command,
        limits: Limits,
        info: Tree,
        *,
        ours: Mapping[str, str],
        shared: bool,
        chance: Callable[[], float],
        overheard: Overheard,
    ) -> None:
        self._name = name
        self._command = command
        self._limits = limits
        self._info = info
        self._ours = ours
        self._shared = shared
        self._overheard = overheard
        self._era: Era | None = None
        self._own: tuple[Pipe, ...] = ()  # of the gateway's own processes the last one, and the last that said anything
        self.face = Face(Era.LEGACY, wire.OLDEST, {}, {})
        self._pool: Pool[Duplex] = Pool(
            self._opened,
            most=limits.processes,
            idle=limits.idle_session_seconds,
            lifetime=limits.lifetime_seconds,
            steady=STEADY_SECONDS,
            chance=chance,
        )

    async def connect(self) -> None:
        await self._session(NOBODY)

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        session = await self._session(caller)
        try:
            return await session.request(method, params, caller)
        except Stale as stale:
            # It no longer speaks the revision that it named: ask again, once, and without harm to other calls.
            if not await session.discover():
                raise stale.error from None
            self.face = session.face
        try:
            return await session.request(method, params, caller)
        except Stale as again:
            raise again.error from None

    async def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        session = await self._session(NOBODY)
        async with aclosing(session.changes(uris)) as stream:
            async for change in stream:
                yield change

    @property
    def said(self) -> tuple[str, ...]:
        """The last lines on stderr of the gateway's own process: of no caller's, who may have put anything there."""
        return next((pipe.said for pipe in reversed(self._own) if pipe.said), ())

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def _session(self, caller: Caller) -> Duplex:
        key = key_of(caller)
        if key == OWN or self._shared or self._era is not Era.LEGACY:
            session = await self._pool.get(NOBODY, OWN)
            self._era, self.face = session.face.era, session.face
            if key == OWN or self._shared or self._era is Era.MODERN:
                return session
        return await self._pool.get(caller, key)

    async def _opened(self, caller: Caller) -> Duplex:
        """A process whose era is known. A server that does not survive the question is asked in its own way next."""
        if self._era is not Era.LEGACY:
            pipe = await self._started(caller)
            try:
                if await pipe.duplex.discover():
                    return pipe.duplex
                return await self._begun(pipe, caller)
            except GatewayError as error:
                alive = pipe.duplex.alive
                await pipe.duplex.aclose()
                if alive or error.reason is not Reason.UPSTREAM_FAILED:
                    raise
            except BaseException:
                await pipe.duplex.aclose()
                raise
        pipe = await self._started(caller)
        try:
            return await self._begun(pipe, caller)
        except BaseException:
            self._era = None
            await pipe.duplex.aclose()
            raise

    async def _started(self, caller: Caller) -> Pipe:
        pipe = Pipe(self._name, self._limits, self._info, self._overheard)
        if caller is NOBODY:
            self._own = (*[each for each in self._own if each.said][-1:], pipe)
        await pipe.start(self._command, self._ours)
        return pipe

    async def _begun(self, pipe: Pipe, caller: Caller) -> Duplex:
        try:
            await pipe.duplex.initialize(caller)
        except PeerError as error:
            # Its answer to the first question may only have come too late (or it is another program now).
            if wire.supported(error) is None or not await pipe.duplex.discover():
                raise
        return pipe.duplex
