"""A session server over HTTP as a backend: each caller gets its own session, each question the right one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.model.tool import Caller, Change, Face, Tree
from gateway.upstream.mcp.limits import NOBODY
from gateway.upstream.mcp.pool import OWN, Pool, key_of
from gateway.upstream.mcp.session import Lost, Session


class Sessions:
    """`face` is what the server said to the gateway's own session."""

    def __init__(self, face: Face, pool: Pool[Session]) -> None:
        self.face = face
        self._pool = pool

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        key = key_of(caller)
        session = await self._pool.get(caller, key)
        try:
            return await session.request(method, params, caller)
        except Lost:
            # It did nothing with it: once more, in a new session (2025-11-25, session management: MUST start one).
            session = await self._pool.get(caller, key)
        try:
            return await session.request(method, params, caller)
        except Lost as again:
            raise again.error from again

    async def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        session = await self._pool.get(NOBODY, OWN)
        async with aclosing(session.changes(uris)) as stream:
            async for change in stream:
                yield change

    async def aclose(self) -> None:
        await self._pool.aclose()
