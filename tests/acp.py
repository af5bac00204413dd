"""A client of ACP over plain HTTP, as its OpenAPI document has it: not made from the gateway's own tables."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from gateway.dialects.sse import Event, Reader
from gateway.dialects.strict_json import read
from tests.remote import until
from tests.serving import BOUND, Gateway
from tests.upstream import loopback

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Acp:
    gateway: Gateway
    agent: str = "echo"
    who: str | None = None

    async def ask(self, verb: str, path: str, *, body: Any = None, **headers: str) -> httpx2.Response:
        """The raw answer. A body goes without a Content-Type, as ACP's own client sends it."""
        return await self.gateway.client.send(self._request(verb, path, body, headers))

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return read(answer.content)

    async def refused(self, status: int, code: str, verb: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = await self.ask(verb, path, body=body, **headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        tree: Any = read(answer.content)
        assert tree.keys() == {"code", "message", "data"}
        assert tree["code"] == code, tree
        return tree

    async def run(self, text: str, mode: str = "sync", **more: Any) -> Any:
        """A new run as it stands when it is answered."""
        answer = await self.ask("POST", "/runs", body=self.body(text, mode, **more))
        assert answer.status_code == (200 if mode == "sync" else 202), answer.text
        run: Any = read(answer.content)
        assert run.keys() >= {
            *("run_id", "agent_name", "session_id", "status", "await_request"),
            *("output", "error", "created_at", "finished_at"),
        }
        assert UUID.fullmatch(run["run_id"])
        assert answer.headers["run-id"] == run["run_id"]
        return run

    async def resume(self, run_id: str, text: str, mode: str = "sync") -> Any:
        answer = await self.ask("POST", f"/runs/{run_id}", body=self.answer(text, mode))
        assert answer.status_code == (200 if mode == "sync" else 202), answer.text
        return read(answer.content)

    @asynccontextmanager
    async def stream(self, verb: str, path: str, body: Any = None, **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
        """The server-sent events of an answer: (id, event) pairs."""
        answer = await self.gateway.client.send(self._request(verb, path, body, headers), stream=True)
        try:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"] == "text/event-stream"
            yield _events(answer)
        finally:
            await answer.aclose()

    async def events(self, text: str, **more: Any) -> list[Any]:
        """All events of a streamed run."""
        async with asyncio.timeout(BOUND), self.stream("POST", "/runs", self.body(text, "stream", **more)) as events:
            return [event async for _, event in events]

    async def after(self, run_id: str, last: int) -> list[tuple[int, Any]]:
        """The events of a run after one of them, to its rest."""
        headers = {"accept": "text/event-stream", "last-event-id": str(last)}
        async with asyncio.timeout(BOUND), self.stream("GET", f"/runs/{run_id}/events", **headers) as events:
            return [pair async for pair in events]

    async def until(self, run_id: str, *statuses: str) -> Any:
        async def look() -> Any:
            run = await self.get(f"/runs/{run_id}")
            return run if run["status"] in statuses else None

        return await until(look)

    def body(self, text: str, mode: str = "sync", **more: Any) -> dict[str, Any]:
        return {"agent_name": self.agent, "input": [said(text)], "mode": mode, **more}

    def answer(self, text: str, mode: str = "sync") -> dict[str, Any]:
        return {"await_resume": {"type": "message", "message": said(text)}, "mode": mode}

    def _request(self, verb: str, path: str, body: Any, headers: dict[str, str]) -> httpx2.Request:
        content = {} if body is None else {"json": body} if not isinstance(body, bytes) else {"content": body}
        sent = {**self.gateway.bearer(self.who), **headers}
        request = self.gateway.client.build_request(verb, f"/acp{path}", headers=sent, **content)
        if "content-type" not in headers:
            request.headers.pop("content-type", None)
        return request


async def _events(answer: httpx2.Response) -> AsyncIterator[tuple[int, Any]]:
    reader = Reader()
    async for chunk in answer.aiter_raw():
        for sent in reader.feed(chunk):
            assert isinstance(sent, Event)
            yield int(sent.id or 0), read(sent.data)


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"content_type": "text/plain", "content": text}], **more}


def words(messages: list[Any]) -> str:
    """All that a run's messages say."""
    return "".join(part.get("content") or "" for message in messages for part in message["parts"])


# An ACP server whose every answer a test writes.

RUN = "11111111-0000-4000-8000-000000000001"
SESSION = "22222222-0000-4000-8000-000000000002"


@dataclass
class Asked:
    """One request; the methods write to whoever asked."""

    path: str
    body: Any
    headers: dict[str, str]
    _writer: asyncio.StreamWriter
    _streams: bool = False

    def answer(self, tree: Any, status: str = "200 OK", **headers: str) -> None:
        body = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
        self._writer.write(loopback.answer(body, status, content_type="application/json", **headers))

    async def begin(self) -> None:
        """A run that has begun: its id in the head, and its first two events."""
        self._streams = True
        fields = ("content-type: text/event-stream", "transfer-encoding: chunked", f"run-id: {RUN}", "", "")
        self._writer.write("\r\n".join(("HTTP/1.1 200 OK", *fields)).encode())
        await self.event("run.created", run=run("created"))
        await self.event("run.in-progress", run=run("in-progress"))

    async def event(self, type: str, **members: Any) -> None:
        data = b"data: %s\n\n" % json.dumps({"type": type, **members}).encode()
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    def end(self) -> None:
        if self._streams:
            self._writer.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        self._writer.close()
        self._streams = False


@dataclass
class Server:
    """`plays` by what is asked: "create", "resume", "cancel", "look". `admits` says by the headers who is let in; those
    of the others are `refused`."""

    url: str = ""
    admits: Callable[[dict[str, str]], bool] = lambda headers: True
    refused: list[dict[str, str]] = field(default_factory=list)
    plays: dict[str, Callable[[Asked], Awaitable[None]]] = field(default_factory=dict)
    asked: list[tuple[str, Asked]] = field(default_factory=list)

    @property
    def manifest(self) -> str:
        return f"{self.url}/agents/far"

    def on(self, what: str) -> Callable[[Callable[[Asked], Awaitable[None]]], None]:
        def put(play: Callable[[Asked], Awaitable[None]]) -> None:
            self.plays[what] = play

        return put

    def asked_for(self, what: str) -> list[Asked]:
        return [asked for name, asked in self.asked if name == what]

    async def play(self, request: loopback.Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, path, _version = request.line.split(" ")
        asked = Asked(path, json.loads(request.body) if request.body else None, request.headers, writer)
        if not self.admits(request.headers):
            self.refused.append(request.headers)
            said = {"code": "server_error", "message": "Not without a credential.", "data": None}
            asked.answer(said, "401 X", www_authenticate="Bearer")
            return
        if path == "/agents/far":
            asked.answer({"name": "far", "description": "Far away.", "input_content_types": ["*/*"]})
            return
        what = {("POST", 1): "create", ("POST", 2): "resume", ("POST", 3): "cancel", ("GET", 2): "look"}
        name = what.get((verb, path.count("/")), "nothing")
        self.asked.append((name, asked))
        if name not in self.plays:
            asked.answer({"code": "not_found", "message": "Not here.", "data": None}, "404 X")
            return
        await self.plays[name](asked)
        asked.end()


@asynccontextmanager
async def scripted() -> AsyncIterator[Server]:
    server = Server()
    async with loopback.serve(server.play) as upstream:
        server.url = upstream.url
        yield server


def run(status: str, *output: Any, **more: Any) -> dict[str, Any]:
    ids = {"run_id": RUN, "agent_name": "far", "session_id": SESSION}
    return {**ids, "status": status, "await_request": None, "output": list(output), "error": None, **more}


def told(*texts: str) -> dict[str, Any]:
    """A message of the agent."""
    parts = [{"content_type": "text/plain", "content": text, "content_encoding": "plain"} for text in texts]
    return {"role": "agent/far", "parts": parts, "created_at": None, "completed_at": None}
