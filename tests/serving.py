"""A real gateway on a loopback port, for tests that go through the front door."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2

from gateway.app import App, assemble
from gateway.config import Flags, parse, settle
from gateway.dialects.sse import Reader
from gateway.dialects.strict_json import read
from gateway.listening import listen
from gateway.model.audit import AuditEntry
from gateway.model.ports import Store
from gateway.serving import Server
from tests import openapi

ROOT = Path(__file__).parent.parent
BOUND = 30.0  # seconds that any wait in a test may take; a busy machine takes ten to start a gateway

ECHO = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
"""
A2A = {"A2A-Version": "1.0"}


@dataclass
class Gateway:
    """One running gateway as a client sees it. `rpc` and `http` speak as the local credential unless told who."""

    app: App
    url: str
    token: str
    client: httpx2.AsyncClient
    channel: grpc.aio.Channel = field(repr=False)  # to its gRPC port, where it has one
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    async def key(self, name: str) -> str:
        """A further principal's credential."""
        answer = await self.client.post("/admin/keys", json={"name": name}, headers=self.bearer(None))
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["key"]
        return key

    def bearer(self, who: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {who or self.token}"}

    async def record(self) -> list[AuditEntry]:
        """The audit log, entries included that wait for the next commit to ride with."""
        await self.app.store.commit()
        return [entry for _, entry in await self.app.store.audit(0, 100_000)]

    async def post(self, body: Any, *, agent: str = "echo", who: str | None = None, **headers: str) -> httpx2.Response:
        """A POST to the agent's JSON-RPC endpoint; `body` is bytes as they are, or JSON."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        sent = {"Content-Type": "application/json", **A2A, **self.bearer(who), **_dashed(headers)}
        return await self.client.post(f"/agents/{agent}" if agent else "/", headers=sent, **content)

    async def rpc(self, method: str, params: Any = None, *, agent: str = "echo", who: str | None = None) -> Any:
        """The JSON-RPC answer as a tree: it has `result` or `error`."""
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params or {}}
        answer = await self.post(body, agent=agent, who=who)
        return answer.json()

    async def result(self, method: str, params: Any = None, *, agent: str = "echo", who: str | None = None) -> Any:
        answer = await self.rpc(method, params, agent=agent, who=who)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, params: Any = None, *, agent: str = "echo", who: str | None = None) -> Any:
        answer = await self.rpc(method, params, agent=agent, who=who)
        assert "error" in answer, answer
        return answer["error"]

    async def send(self, text: str, *, agent: str = "echo", who: str | None = None, **more: Any) -> Any:
        """SendMessage with a text; `more` goes into the message, `configuration` beside it."""
        configuration = more.pop("configuration", {})
        params = {"message": message(text, **more), "configuration": configuration}
        return await self.result("SendMessage", params, agent=agent, who=who)

    async def task(self, text: str, **more: Any) -> Any:
        return (await self.send(text, **more))["task"]

    async def http(self, verb: str, path: str, *, who: str | None = None, agent: str = "echo", **more: Any) -> Any:
        """A request of the HTTP+JSON binding."""
        headers = {**A2A, **self.bearer(who), **more.pop("headers", {})}
        return await self.client.request(verb, f"/agents/{agent}{path}", headers=headers, **more)

    @asynccontextmanager
    async def stream(
        self, method: str, params: Any, *, agent: str = "echo", who: str | None = None
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """The events (StreamResponse trees) of a streaming method."""
        body = {"jsonrpc": "2.0", "id": "s", "method": method, "params": params}
        headers = {**A2A, **self.bearer(who), "Accept": "text/event-stream"}
        async with self.client.stream("POST", f"/agents/{agent}", json=body, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream"), await answer.aread()
            yield _events(answer)

    async def events(self, method: str, params: Any, *, agent: str = "echo", who: str | None = None) -> list[Any]:
        """All events of a stream that ends by itself."""
        async with asyncio.timeout(BOUND), self.stream(method, params, agent=agent, who=who) as events:
            return [event async for event in events]


async def _events(answer: httpx2.Response) -> AsyncIterator[Any]:
    reader = Reader()
    async for chunk in answer.aiter_raw():
        for event in reader.feed(chunk):
            tree: Any = read(event.data)
            yield tree.get("result", tree)


def message(text: str, **more: Any) -> dict[str, Any]:
    """A user's message with a fresh id."""
    return {"messageId": os.urandom(8).hex(), "role": "ROLE_USER", "parts": [{"text": text}], **more}


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@asynccontextmanager
async def running(
    data: Path,
    config: str = ECHO,
    *,
    base: Path = ROOT,
    port: int = 0,
    store: Store | None = None,
    now: Callable[[], int] | None = None,
    **flags: Any,
) -> AsyncIterator[Gateway]:
    """A gateway with its data in `data` (its tasks in `store`, by the clock `now`, if they are given); it listens when
    the block begins and has closed when it ends."""
    listener = listen("127.0.0.1", port)
    flags.setdefault("data", data)
    settings = settle(parse(config, base=base), Flags(port=listener.getsockname()[1], **flags), {}, cwd=base)
    try:
        app = await assemble(settings, store=store, **({} if now is None else {"now": now}))
    except BaseException:
        listener.close()
        raise
    started = asyncio.get_running_loop().create_future()
    server = Server(app, started.set_result)
    try:
        await app.start()
    except BaseException:
        await app.aclose()
        listener.close()
        raise
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await asyncio.wait_for(started, BOUND)
        token = (data / "token").read_text().strip()
        local = f"http://127.0.0.1:{settings.port}"  # whatever the gateway is called outside
        hooks = {"response": [openapi.conforms]}
        async with httpx2.AsyncClient(base_url=local, timeout=BOUND, trust_env=False, event_hooks=hooks) as client:
            port = app.grpc.port if app.grpc else settings.port
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield Gateway(app, settings.public_url, token, client, channel)
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND)
        await app.aclose()
        listener.close()
