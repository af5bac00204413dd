"""An MCP server on loopback whose answers a test writes down message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from gateway.model.tool import Tree
from tests.upstream.loopback import Request, Upstream, answer, serve

MODERN = "2026-07-28"
FACE: Tree = {
    "resultType": "complete",
    "supportedVersions": [MODERN],
    "capabilities": {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True},
        "extensions": {},
    },
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "raw", "version": "1"}},
    "ttlMs": 0,
    "cacheScope": "private",
}
INITIALIZED: Tree = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}},
    "serverInfo": {"name": "raw", "version": "1"},
}
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ACCEPTED = answer(b"", "202 Accepted")

# What to do with one message: bytes are written as they are; None means that the handler wrote what it wanted.
Handler: TypeAlias = Callable[["Call"], bytes | Awaitable[bytes | None] | None]


class Call:
    """One message that came in, and the ways to answer it."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http = request
        self.headers = request.headers
        self.verb = request.line.split()[0]
        self.tree: Tree = json.loads(request.body) if request.body else {}
        self.method: str = self.tree.get("method", self.verb)
        self.params: Tree = self.tree.get("params", {})
        self.id = self.tree.get("id")
        self.reader = reader
        self.writer = writer

    def result(self, result: Any, **headers: str) -> bytes:
        return self.say({"jsonrpc": "2.0", "id": self.id, "result": result}, **headers)

    def error(self, code: int, message: str = "no", data: Any = None, status: str = "200 OK") -> bytes:
        error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        return self.say({"jsonrpc": "2.0", "id": self.id, "error": error}, status)

    def say(self, tree: Any, status: str = "200 OK", **headers: str) -> bytes:
        return answer(json.dumps(tree).encode(), status, content_type="application/json", **headers)

    def open(self) -> None:
        self.writer.write(SSE_HEAD)

    def event(self, tree: Any, id: str = "") -> None:
        self.raw((f"id: {id}\n" if id else "") + f"data: {json.dumps(tree)}\n\n")

    def raw(self, text: str) -> None:
        data = text.encode()
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def done(self, result: Any = None) -> None:
        """The answer, and the end of the stream."""
        if result is not None:
            self.event({"jsonrpc": "2.0", "id": self.id, "result": result})
        self.writer.write(b"0\r\n\r\n")

    def notice(self, method: str, **params: Any) -> None:
        self.event({"jsonrpc": "2.0", "method": method, "params": params})


class Raw:
    """What the server has seen."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.calls: list[Call] = []

    @property
    def url(self) -> str:
        return f"{self.upstream.url}/mcp"

    def seen(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    @property
    def methods(self) -> list[str]:
        return [call.method for call in self.calls]


@asynccontextmanager
async def raw(**handlers: Handler) -> AsyncIterator[Raw]:
    """`handlers` by method, with `_` for `/`: `tools_call=lambda call: call.result({…})`. `any` takes all others.
    Without one of its own, `server/discover` says that the server is modern and has tools."""
    seen: Raw | None = None
    known: dict[str, Handler] = {"server_discover": lambda call: call.result(FACE), **handlers}

    async def script(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert seen is not None
        call = Call(request, reader, writer)
        seen.calls.append(call)
        handler = known.get(call.method.replace("/", "_")) or known.get("any")
        done = handler(call) if handler else call.error(-32601, "Method not found", status="404 Not Found")
        if isinstance(done, Awaitable):
            done = await done
        if done is not None:
            writer.write(done)

    async with serve(script) as upstream:
        seen = Raw(upstream)
        yield seen


def legacy(**handlers: Handler) -> dict[str, Handler]:
    """Handlers of a server that has sessions only."""
    return {
        "server_discover": lambda call: call.error(-32600, "Missing session ID", status="400 Bad Request"),
        "initialize": lambda call: call.result(INITIALIZED, mcp_session_id="s-1"),
        "notifications_initialized": lambda call: ACCEPTED,
        "notifications_cancelled": lambda call: ACCEPTED,
        "GET": lambda call: answer(b"", "405 Method Not Allowed"),
        "DELETE": lambda call: answer(b"", "200 OK"),
        **handlers,
    }


OK: Tree = {"resultType": "complete", "content": [{"type": "text", "text": "ok"}]}
CALL: Tree = {"name": "t", "arguments": {}}
