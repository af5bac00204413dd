"""`ToolServer` for MCP servers: finds out what there is, and talks to it in its own way.

Era probing (basic/versioning, basic/transports): `server/discover` first; whatever is no answer of a modern server
means `initialize`; 400, 404 and 405 to that mean HTTP+SSE. What was found is believed until the server refuses a
request in a way that says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from gateway.dialects.mcp import client as wire
from gateway.dialects.mcp import headers
from gateway.dialects.mcp.errors import Code
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, Change, Era, Face, Kind, Listing, PeerError, Tree
from gateway.upstream.egress import Outbound
from gateway.upstream.mcp.backend import Backend, Stale
from gateway.upstream.mcp.fanout import Overheard
from gateway.upstream.mcp.http import Endpoint, Refused, Unexpected
from gateway.upstream.mcp.http_sse import open_channel
from gateway.upstream.mcp.legacy_http import open_session
from gateway.upstream.mcp.limits import NOBODY, Limits
from gateway.upstream.mcp.modern import Annotated, discover
from gateway.upstream.mcp.pool import OWN, Pool
from gateway.upstream.mcp.session import Session
from gateway.upstream.mcp.sessions import Sessions
from gateway.upstream.mcp.stdio import StdioBackend
from gateway.upstream.process import Command
from gateway.upstream.secret import Secret

log = logging.getLogger(__name__)

# A refusal that looks foreign may be the caller's own fault: at most so often is the server asked anew what it is.
LOOK_SECONDS = 5.0
# Answers to `initialize` that say: no such endpoint, or no such method here.
_OLDER = frozenset({400, 404, 405})


class McpServer:
    """What both transports have in common. `id` is what the configuration calls the server."""

    def __init__(self, id: str, limits: Limits) -> None:
        self.id = id
        self.limits = limits
        self._backend: Backend | None = None
        self._finding = asyncio.Lock()
        self._running = 0
        self._retired: list[Backend] = []
        self._looked = -LOOK_SECONDS  # when last it had not changed
        self._closed = False
        self._told: Overheard | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._running > 0

    def overhear(self, told: Callable[[Change], None]) -> None:
        self._told = told

    def overheard(self, change: Change) -> None:
        if self._told is not None:
            self._told(change)

    async def face(self) -> Face:
        return (await self._found()).face

    async def list(self, kind: Kind) -> Listing:
        if not (await self.face()).offers(kind):
            return Listing(())
        trees: list[Tree] = []
        ttls: list[int] = []
        private = False
        cursors: set[str] = set()
        params: Tree = {}
        for _ in range(self.limits.pages):
            try:
                page = await self.request(kind.method, params, NOBODY)
            except PeerError as error:
                if error.code == Code.METHOD_NOT_FOUND and not trees:
                    return Listing(())  # declared and left out; templates, mostly
                raise
            trees += items(page, kind)
            if len(trees) > self.limits.items:
                raise self._too_long(f"lists more than {self.limits.items} {kind}")
            if type(ttl := page.get("ttlMs")) is int and ttl >= 0:
                ttls.append(ttl)
            private = private or page.get("cacheScope") == "private"
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return Listing(self.kept(kind, trees), min(ttls, default=None), private)
            if cursor in cursors:
                raise wire.failed(f"gives the same page of its {kind} again and again")
            cursors.add(cursor)
            params = {"cursor": cursor}
        raise self._too_long(f"lists its {kind} on more than {self.limits.pages} pages")

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        if self._running >= self.limits.concurrency:
            raise GatewayError(
                Reason.OVERLOADED,
                f"{self.id} has {self._running} requests at the same time, as many as it may have",
                metadata={"delivered": "no"},
            )
        self._running += 1
        try:
            backend = self._backend or await self._found()
            try:
                return await backend.request(method, params, caller)
            except Stale as stale:
                return await self._otherwise(stale, backend, method, params, caller)
        finally:
            self._running -= 1

    async def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        backend = await self._found()
        try:
            async with aclosing(backend.changes(uris)) as stream:
                async for change in stream:
                    yield change
        except (Refused, Unexpected) as error:
            if isinstance(error, Refused) and error.code == Code.METHOD_NOT_FOUND:
                what = "The server sends no notifications about changes"
                raise GatewayError(Reason.UNSUPPORTED_OPERATION, what) from error
            with contextlib.suppress(GatewayError):
                await self._looked_at_again(backend)  # it may have become another one, for whoever listens next
            raise

    async def aclose(self) -> None:
        self._closed = True
        backends = [*self._retired, *([self._backend] if self._backend else [])]
        self._backend, self._retired = None, []
        for backend in backends:
            await backend.aclose()

    def kept(self, kind: Kind, trees: Sequence[Tree]) -> tuple[Tree, ...]:
        """What of a whole list can be used over this transport."""
        return tuple(trees)

    async def connect(self) -> Backend:
        raise NotImplementedError

    async def _found(self) -> Backend:
        async with self._finding:
            if self._closed:
                raise GatewayError(Reason.UNAVAILABLE, "The gateway is stopping", metadata={"delivered": "no"})
            if self._backend is None:
                self._backend = await self.connect()
                face = self._backend.face
                log.info("%s speaks %s (%s)", self.id, face.version, face.era)
            return self._backend

    async def _otherwise(self, stale: Stale, old: Backend, method: str, params: Tree, caller: Caller) -> Tree:
        """The server did nothing and may be another one by now: find out, and try once more if it is. A session of it
        may also merely have been forgotten; then the backend opens a new one."""
        backend = await self._looked_at_again(old)
        if backend is old and old.face.era is Era.MODERN:
            raise stale.error
        try:
            return await backend.request(method, params, caller)
        except Stale as again:
            raise again.error from None

    async def _looked_at_again(self, old: Backend) -> Backend:
        """`old` if the server is what it was, and then with nothing of it changed: other calls are in flight there.
        What is no longer right stays until they must have ended."""
        async with self._finding:
            now = asyncio.get_running_loop().time()
            if self._closed or self._backend is not old or now < self._looked + LOOK_SECONDS:
                return self._backend or old
            new = await self.connect()
            if new is old or (new.face.era, new.face.version) == (old.face.era, old.face.version):
                self._looked = now
                if new is not old:
                    await new.aclose()
                return old
            log.warning("%s now speaks %s (%s)", self.id, new.face.version, new.face.era)
            self._backend = new
            self._retired = [*self._retired[-1:], old]
            return new

    def _too_long(self, what: str) -> GatewayError:
        return GatewayError(Reason.UPSTREAM_TOO_LARGE, f"The server {what}")


class HttpServer(McpServer):
    """A server at a URL. `headers` are the operator's, values by reference; `ours` is the gateway's own environment,
    which they may name; `trusted` that the URL is the operator's; `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        id: str,
        url: str,
        egress: Outbound,
        *,
        info: Tree,
        limits: Limits | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        ours: Mapping[str, str] | None = None,
        trusted: bool,
        chance: Callable[[], float],
    ) -> None:
        super().__init__(id, limits or Limits())
        self._endpoint = Endpoint(url, egress, self.limits, headers=headers or {}, ours=ours or {}, trusted=trusted)
        self._info = info
        self._chance = chance
        self._ids = itertools.count(1)
        self._annotated: dict[str, Annotated] = {}
        self._listed = False

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        if method != "tools/call":
            return await super().request(method, params, caller)
        if not self._listed:
            await self._learn()
        try:
            return await super().request(method, params, caller)
        except PeerError as error:
            if error.code != Code.HEADER_MISMATCH:
                raise
        # Its schema has changed since it was read (custom headers, client behavior).
        await self.list(Kind.TOOL)
        return await super().request(method, params, caller)

    async def connect(self) -> Backend:
        modern = await discover(self._endpoint, self._info, self._ids, self._annotated)
        if modern is not None:
            return modern
        try:
            return await self._sessions(await self._session(NOBODY), self._session)
        except (Refused, Unexpected) as error:
            if error.status not in _OLDER or (isinstance(error, Refused) and error.code in wire.MODERN_CODES):
                raise
            try:
                return await self._sessions(await self._channel(NOBODY), self._channel)
            except (Refused, Unexpected):
                raise error from None  # what the newer transport said is what to look into

    def kept(self, kind: Kind, trees: Sequence[Tree]) -> tuple[Tree, ...]:
        if kind is not Kind.TOOL:
            return tuple(trees)
        good, annotated = [], {}
        for tree in trees:
            try:
                found = headers.parameters(tree.get("inputSchema"))
            except ValueError as error:
                # Must be left out of the list; one bad tool does not spoil the others (custom headers).
                log.warning("%s: the tool %r is left out: %s", self.id, tree.get("name"), error)
                continue
            good.append(tree)
            if found and isinstance(name := tree.get("name"), str):
                annotated[name] = found
        self._annotated.clear()
        self._annotated.update(annotated)
        self._listed = True
        return tuple(good)

    async def _learn(self) -> None:
        """The annotations of all tools, before the first call. Only a modern server looks at them."""
        if (await self.face()).era is Era.MODERN:
            try:
                await self.list(Kind.TOOL)
            except GatewayError as error:
                log.info("%s: no list of tools before the first call: %s", self.id, error.message)
        self._listed = True

    async def _session(self, owner: Caller) -> Session:
        return await open_session(self._endpoint, owner, self._info, self._ids, self.overheard)

    async def _channel(self, owner: Caller) -> Session:
        return await open_channel(self._endpoint, owner, self._info, self.overheard)

    async def _sessions(self, own: Session, open: Callable[[Caller], Awaitable[Session]]) -> Sessions:
        pool: Pool[Session] = Pool(
            open,
            most=self.limits.sessions,
            idle=self.limits.idle_session_seconds,
            lifetime=None,
            steady=0.0,  # a session is nothing: a server that was restarted has merely forgotten it
            chance=self._chance,
        )
        pool.put(OWN, own)
        return Sessions(own.face, pool)


class StdioServer(McpServer):
    """A server that runs as a command of the operator's."""

    def __init__(
        self,
        id: str,
        command: Command,
        *,
        info: Tree,
        ours: Mapping[str, str],
        limits: Limits | None = None,
        shared: bool = False,
        chance: Callable[[], float],
    ) -> None:
        super().__init__(id, limits or Limits())
        self._command = command
        self._info = info
        self._ours = ours
        self._shared = shared
        self._chance = chance
        self._stdio: StdioBackend | None = None

    def said(self) -> tuple[str, ...]:
        """The last lines on stderr of the gateway's own process here, be it that it has ended."""
        return () if self._stdio is None else self._stdio.said

    async def connect(self) -> Backend:
        if self._stdio is None:
            self._stdio = StdioBackend(
                self.id,
                self._command,
                self.limits,
                self._info,
                ours=self._ours,
                shared=self._shared,
                chance=self._chance,
                overheard=self.overheard,
            )
        await self._stdio.connect()
        return self._stdio

    async def aclose(self) -> None:
        await super().aclose()
        if self._stdio is not None:
            await self._stdio.aclose()


def items(page: Tree, kind: Kind) -> list[Tree]:
    found = page.get(kind.value)
    if not isinstance(found, list) or not all(type(each) is dict for each in found):
        raise wire.failed(f"lists its {kind} in a form that is none")
    return found
