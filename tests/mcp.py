"""MCP for tests of the door: raw requests of both eras, the SDK's client, and a server whose answers a test writes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.dialects.mcp import headers
from gateway.dialects.mcp.message import CLIENT_CAPABILITIES, CLIENT_INFO, META, PROTOCOL_VERSION
from gateway.dialects.sse import Event, Reader
from gateway.dialects.strict_json import read
from gateway.listening import listen
from tests.serving import BOUND, Gateway

MODERN = "2026-07-28"
Tree = dict[str, Any]
_ids = itertools.count(1)


# --- The door, as a client sees it. ------------------------------------------------------------------------


def modern(params: Tree | None = None, capabilities: Tree | None = None, **meta: Any) -> Tree:
    """Parameters with the `_meta` that each request of 2026-07-28 has; `logLevel=…` gets its prefix."""
    own = {
        PROTOCOL_VERSION: MODERN,
        CLIENT_CAPABILITIES: capabilities or {},
        CLIENT_INFO: {"name": "test", "version": "1"},
    }
    said = {name if name == "progressToken" else META + name: each for name, each in meta.items()}
    return {**(params or {}), "_meta": {**own, **said}}


@dataclass
class Door:
    """One mount, as one caller. `raw` sends any message; the other methods are one era each."""

    gateway: Gateway
    mount: str = ""
    who: str | None = None

    @property
    def path(self) -> str:
        return f"/mcp/{self.mount}" if self.mount else "/mcp"

    async def raw(self, body: Any, sent: dict[str, str] | None = None, *, method: str = "POST") -> httpx2.Response:
        every = {"Accept": "application/json, text/event-stream", **self.gateway.bearer(self.who), **(sent or {})}
        content = {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
        if isinstance(body, bytes):
            every.setdefault("Content-Type", "application/json")
        return await self.gateway.client.request(method, self.path, headers=every, **content)

    async def ask(self, method: str, params: Tree | None = None, **more: Any) -> Tree:
        """The answer to one request of 2026-07-28, with its result or error."""
        return message_of(await self.post(method, modern(params, **more)))

    async def post(self, method: str, params: Tree, **changed: str) -> httpx2.Response:
        made = headers.make(method, params, MODERN)
        sent = {**made, **{name.replace("_", "-"): each for name, each in changed.items()}}
        return await self.raw(request(method, params), sent)

    async def result(self, method: str, params: Tree | None = None, **more: Any) -> Tree:
        answer = await self.ask(method, params, **more)
        assert "result" in answer, answer
        result: Tree = answer["result"]
        return result

    async def error(self, method: str, params: Tree | None = None, **more: Any) -> Tree:
        answer = await self.ask(method, params, **more)
        assert "error" in answer, answer
        error: Tree = answer["error"]
        return error

    async def call(self, name: str, capabilities: Tree | None = None, /, **arguments: Any) -> Tree:
        return await self.result("tools/call", {"name": name, "arguments": arguments}, capabilities=capabilities)

    async def names(self) -> list[str]:
        return [tool["name"] for tool in (await self.result("tools/list"))["tools"]]

    @asynccontextmanager
    async def stream(
        self, method: str, params: Tree | None = None, sent: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[AsyncIterator[Tree]]:
        """The messages on the answer's stream, as they come."""
        asked = modern(params, **more)
        every = {
            "Accept": "application/json, text/event-stream",
            **self.gateway.bearer(self.who),
            **headers.make(method, asked, MODERN),
        }
        async with self.gateway.client.stream(
            "POST", self.path, json=request(method, asked), headers={**every, **(sent or {})}
        ) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream"), await answer.aread()
            yield messages(answer)

    async def session(self, capabilities: Tree | None = None, version: str = "2025-11-25") -> Session:
        params = {
            "protocolVersion": version,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        answer = await self.raw(request("initialize", params))
        assert answer.status_code == 200, answer.text
        return Session(self, answer.headers["mcp-session-id"], answer.json()["result"])

    @asynccontextmanager
    async def sdk(self, mode: str = "auto", **callbacks: Any) -> AsyncIterator[Client]:
        """The official SDK's client, in one era or choosing for itself."""
        async with httpx2.AsyncClient(headers=self.gateway.bearer(self.who), timeout=BOUND, trust_env=False) as http:
            url = str(self.gateway.client.base_url).rstrip("/") + self.path
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode=mode, read_timeout_seconds=BOUND, **callbacks) as client:
                yield client


@dataclass
class Session:
    """A session of an older revision."""

    door: Door
    id: str
    offer: Tree

    @property
    def headers(self) -> dict[str, str]:
        return {"Mcp-Session-Id": self.id, "MCP-Protocol-Version": self.offer["protocolVersion"]}

    async def raw(self, body: Any, *, method: str = "POST") -> httpx2.Response:
        return await self.door.raw(body, self.headers, method=method)

    async def ask(self, method: str, params: Tree | None = None) -> Tree:
        return message_of(await self.raw(request(method, params or {})))

    async def result(self, method: str, params: Tree | None = None) -> Tree:
        answer = await self.ask(method, params)
        assert "result" in answer, answer
        result: Tree = answer["result"]
        return result

    async def tell(self, method: str, params: Tree) -> None:
        answer = await self.raw({"jsonrpc": "2.0", "method": method, "params": params})
        assert answer.status_code == 202, answer.text

    @asynccontextmanager
    async def stream(self, body: Tree | None) -> AsyncIterator[AsyncIterator[Tree]]:
        """The answer to a request as a stream; of the session's own (GET) without one."""
        async with self.events(body) as events:
            yield (read(each.data) async for each in events if each.data)  # type: ignore[misc]

    @asynccontextmanager
    async def events(self, body: Tree | None, after: str | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """The same with ids, and from an event on."""
        sent = {"Accept": "application/json, text/event-stream", **self.door.gateway.bearer(self.door.who)}
        last = {} if after is None else {"Last-Event-ID": after}
        async with self.door.gateway.client.stream(
            "GET" if body is None else "POST", self.door.path, headers={**sent, **self.headers, **last}, json=body
        ) as answer:
            assert answer.headers.get("content-type", "").startswith("text/event-stream"), await answer.aread()
            yield events_of(answer)


def request(method: str, params: Tree, id: Any = None) -> Tree:
    return {"jsonrpc": "2.0", "id": next(_ids) if id is None else id, "method": method, "params": params}


def message_of(answer: httpx2.Response) -> Tree:
    """The answer in a body: the document, or the last message of a stream."""
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        trees = [read(event.data) for event in Reader().feed(answer.content) if event.data]
        tree: Any = trees[-1]
    else:
        tree = read(answer.content)
    assert isinstance(tree, dict)
    return tree


async def events_of(answer: httpx2.Response) -> AsyncIterator[Event]:
    reader = Reader()
    async for chunk in answer.aiter_raw():
        for event in reader.feed(chunk):
            yield event


async def messages(answer: httpx2.Response) -> AsyncIterator[Tree]:
    async for event in events_of(answer):
        tree: Any = read(event.data)
        yield tree


async def soon(what: Callable[[], Awaitable[Any]]) -> Any:
    """What `what` gives as soon as it is something; for what happens behind HTTP, where no event can tell."""
    async with asyncio.timeout(BOUND):
        while not (found := await what()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return found


# --- A server whose every answer a test writes. ------------------------------------------------------------

Answer = Callable[[Tree], Awaitable[Tree]]


def tool(name: str, **more: Any) -> Tree:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def says(*words: str) -> Tree:
    return {"resultType": "complete", "content": [{"type": "text", "text": each} for each in words]}


@dataclass
class Scripted:
    """An MCP server of 2026-07-28. `tools` is its list, `answers` what its tools do with the parameters, and what is
    answered to `tasks/*`; a tool without an answer says its own name. `resources` and `prompts` are its other
    lists, if it has them; `answers["resources/read"]` and `answers["prompts/get"]` read from them. `alive` off: every
    request is answered 503."""

    tools: list[Tree] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    resources: list[Tree] = field(default_factory=list)
    prompts: list[Tree] = field(default_factory=list)
    alive: bool = True
    garbage: bytes | None = None
    hang: asyncio.Event | None = None
    port: int = 0
    requests: list[Tree] = field(default_factory=list)
    raw: list[dict[str, str]] = field(default_factory=list)
    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: list[asyncio.Queue[Tree]] = field(default_factory=list)
    ttl_ms: int = 60_000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def asked(self, method: str) -> list[Tree]:
        return [each["params"] for each in self.requests if each["method"] == method]

    def announce(self, method: str = "notifications/tools/list_changed", **params: Any) -> None:
        for listener in self.listeners:
            listener.put_nowait({"method": method, "params": params})

    async def change(self, *tools: Tree) -> None:
        self.tools = list(tools)
        self.announce()

    async def _serve(self, request: Request) -> Response:
        if self.hang is not None:
            await self.hang.wait()
        if not self.alive:
            return Response("busy", 503)
        if self.garbage is not None:
            return Response(self.garbage, media_type="application/json")
        body: Any = read(await request.body())
        self.requests.append(body)
        self.raw.append(dict(request.headers))
        method, params = body["method"], body["params"]
        if method == "subscriptions/listen":
            return self._listen(body["id"])
        if method == "tools/call":
            return await self._call(request, body["id"], params)
        if method.startswith("tasks/") or method in ("resources/read", "prompts/get", "completion/complete"):
            answered = await self.answers[method](params)
            shown = answered if "error" in answered else {"result": answered}
            return JSONResponse({"jsonrpc": "2.0", "id": body["id"], **shown})
        if method == "server/discover":
            capabilities: Tree = {"tools": {"listChanged": True}}
            capabilities |= {name: {} for name in ("resources", "prompts") if getattr(self, name)}
            result: Tree = {"supportedVersions": [MODERN], "capabilities": capabilities}
        else:
            lists: Tree = {"tools": self.tools, "resources": self.resources, "prompts": self.prompts}
            result = {**lists, "resourceTemplates": []}
        caching = {"resultType": "complete", "ttlMs": self.ttl_ms, "cacheScope": "public"}
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "result": {**result, **caching}})

    async def _call(self, request: Request, id: Any, params: Tree) -> Response:
        answer = self.answers.get(params["name"])
        if answer is None:
            return JSONResponse({"jsonrpc": "2.0", "id": id, "result": says(params["name"])})
        working = asyncio.ensure_future(answer(params))
        leaving = asyncio.ensure_future(_left(request))
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not working.done():
            working.cancel()
            self.canceled.set()
            return Response(status_code=499)
        body = working.result()
        shown = body if "error" in body else {"result": body}
        return JSONResponse({"jsonrpc": "2.0", "id": id, **shown})

    def _listen(self, id: Any) -> Response:
        queue: asyncio.Queue[Tree] = asyncio.Queue()
        self.listeners.append(queue)
        meta = {"_meta": {META + "subscriptionId": id}}
        honoured = {"notifications": {"toolsListChanged": True}}
        queue.put_nowait({"method": "notifications/subscriptions/acknowledged", "params": honoured})

        async def events() -> AsyncIterator[bytes]:
            try:
                while True:
                    told = await queue.get()
                    told = {"jsonrpc": "2.0", **told, "params": {**told["params"], **meta}}
                    yield b"data: " + JSONResponse(told).body + b"\n\n"
            finally:
                self.listeners.remove(queue)

        return StreamingResponse(events(), media_type="text/event-stream")


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def scripted(*tools: Tree, **settings: Any) -> AsyncIterator[Scripted]:
    """Runs it on a port of loopback."""
    script = Scripted(list(tools), **settings)
    listener = listen("127.0.0.1", 0)
    script.port = listener.getsockname()[1]
    app = Starlette(routes=[Route("/mcp", script._serve, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", timeout_graceful_shutdown=1))
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        yield script
    finally:
        if script.hang is not None:
            script.hang.set()
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND)
        listener.close()


def configured(*lines: str, **servers: Scripted | str) -> str:
    """A configuration with these MCP servers and further lines."""
    urls = {name: each if isinstance(each, str) else each.url for name, each in servers.items()}
    return "tools:\n" + "".join(f"  {name}: {{url: '{url}'}}\n" for name, url in urls.items()) + "\n".join(lines) + "\n"
