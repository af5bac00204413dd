"""Remote agents for tests: one whose every answer a test writes, one on a2a-sdk, and a gateway as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import httpx2
import uvicorn
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.conversions import to_compat_agent_card
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.helpers.proto_helpers import new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import (
    BasePushNotificationSender,
    InMemoryPushNotificationConfigStore,
    InMemoryTaskStore,
    TaskUpdater,
)
from a2a.types import a2a_pb2_grpc
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from gateway.listening import listen
from tests.serving import BOUND, ROOT, Gateway
from tests.stopwatch import Stopwatch
from tests.upstream import loopback

PROGRAM = ROOT / ".venv" / "bin" / "gateway"
DEMO = f"""
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
"""


def agents(**urls: str) -> str:
    """A configuration with remote agents, by the URL of their cards (or of the agents themselves)."""
    return "agents:\n" + "".join(f"  {name}: {{card_url: '{url}', public: true}}\n" for name, url in urls.items())


async def until(true: Callable[[], Awaitable[Any]], seconds: float = BOUND) -> Any:
    """What `true` gives as soon as it is something. Fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not (found := await true()):  # noqa: ASYNC110 (it happens behind HTTP, where no event can tell)
            await asyncio.sleep(0.02)
        return found


async def ready(gateway: Gateway, *ids: str) -> None:
    """The cards of these agents have been read."""
    for id in ids:

        async def healthy(id: str = id) -> bool:
            return (await admin_agent(gateway, id))["card"] is not None

        await until(healthy)


async def admin_agent(gateway: Gateway, id: str) -> Any:
    listed = (await gateway.client.get("/admin/agents", headers=gateway.bearer(None))).json()["agents"]
    return next(agent for agent in listed if agent["id"] == id)


async def ended(gateway: Gateway, task_id: str, *, agent: str, who: str | None = None, seconds: float = BOUND) -> Any:
    """The task once it has come to an end."""

    async def look() -> Any:
        task = await gateway.result("GetTask", {"id": task_id}, agent=agent, who=who)
        return task if task["status"]["state"][11:] in ("COMPLETED", "FAILED", "CANCELED", "REJECTED") else None

    return await until(look, seconds)


def reason(task: Any) -> str:
    """Why the gateway says that a task failed."""
    return str(task["status"]["message"]["metadata"]["reason"])


# An agent whose every answer a test writes.


def card(base: str, *, name: str = "Scripted", streaming: bool = True, **more: Any) -> dict[str, Any]:
    interfaces = [{"url": f"{base}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
    return {
        "name": name,
        "description": "Answers what a test says.",
        "version": "1.0.0",
        "supportedInterfaces": interfaces,
        "capabilities": {"streaming": streaming},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "S", "description": "Says it.", "tags": ["t"]}],
        **more,
    }


class Gone(Exception):
    """Raised by a script: the connection breaks here."""


@dataclass
class Asked:
    """One call that reached the agent. `answer`, `refuse` and `event` write to its caller."""

    method: str
    params: dict[str, Any]
    headers: dict[str, str]
    raw: bytes
    _writer: asyncio.StreamWriter
    _streams: bool = False

    def whole(self, body: bytes, status: str = "200 OK", **headers: str) -> None:
        headers.setdefault("content_type", "application/json")
        self._writer.write(loopback.answer(body, status, **headers))

    def answer(self, result: Any, id: Any = 1) -> None:
        self.whole(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).encode())

    def refuse(self, code: int, reason: str | None = None, message: str = "No.", **metadata: str) -> None:
        self.whole(json.dumps({"jsonrpc": "2.0", "id": 1, "error": _error(code, reason, message, metadata)}).encode())

    async def event(self, result: Any) -> None:
        await self.chunk(b"data: %s\n\n" % json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())

    async def chunk(self, data: bytes) -> None:
        if not self._streams:
            self._streams = True
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            self._writer.write(head)
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    def end(self) -> None:
        if self._streams:
            self._writer.write(b"0\r\n\r\n")


def _error(code: int, reason: str | None, message: str, metadata: dict[str, str]) -> dict[str, Any]:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "a2a-protocol.org"}
    return {"code": code, "message": message, "data": [{**info, "metadata": metadata}] if reason else []}


Play = Callable[[Asked], Awaitable[None]]


@dataclass
class Scripted:
    """`plays` by method; `card` is what is served as the card, `cards` the requests for it,
    `lines` the request lines of the calls."""

    url: str = ""
    plays: dict[str, Play] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)  # further ones, by path
    etag: str | None = None
    asked: list[Asked] = field(default_factory=list)
    cards: list[loopback.Request] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    up: bool = True
    close: Callable[[], Awaitable[None]] | None = None  # for good

    def on(self, method: str) -> Callable[[Play], Play]:
        def put(play: Play) -> Play:
            self.plays[method] = play
            return play

        return put

    def asked_for(self, method: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]

    async def play(self, request: loopback.Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        if request.line.startswith("GET "):
            self._card(request, writer)
            return
        self.lines.append(request.line)
        call = json.loads(request.body)
        asked = Asked(call["method"], call["params"], request.headers, request.body, writer)
        self.asked.append(asked)
        try:
            await self.plays[call["method"]](asked)
            asked.end()
        except Gone:
            writer.close()

    def _card(self, request: loopback.Request, writer: asyncio.StreamWriter) -> None:
        if (document := self.documents.get(request.line.split()[1])) is not None:
            writer.write(loopback.answer(document, content_type="application/json"))
            return
        if "/.well-known/oauth-" in request.line:  # it knows nothing of RFC 9728
            writer.write(loopback.answer(b"", "404 Not Found"))
            return
        self.cards.append(request)
        if self.etag is not None and request.headers.get("if-none-match") == self.etag:
            writer.write(loopback.answer(b"", "304 Not Modified", etag=self.etag))
            return
        tag = {} if self.etag is None else {"etag": self.etag}
        writer.write(loopback.answer(json.dumps(self.card).encode(), content_type="application/json", **tag))


@asynccontextmanager
async def scripted(*, tls: Any = None, **about: Any) -> AsyncIterator[Scripted]:
    agent = Scripted()
    async with loopback.serve(agent.play, tls=tls) as server:
        agent.url, agent.close = server.url if tls is None else server.url.replace("http:", "https:"), server.close
        agent.card = card(agent.url, **about)
        yield agent


def status(state: str, *, task: str = "theirs-1", context: str = "ctx-theirs", text: str = "") -> dict[str, Any]:
    update = {"taskId": task, "contextId": context, "status": {"state": f"TASK_STATE_{state}"}}
    if text:
        said = {"messageId": os.urandom(6).hex(), "role": "ROLE_AGENT", "parts": [{"text": text}]}
        update["status"] |= {"message": {**said, "taskId": task, "contextId": context}}  # type: ignore[operator]
    return {"statusUpdate": update}


def task(state: str, *, id: str = "theirs-1", context: str = "ctx-theirs", **more: Any) -> dict[str, Any]:
    return {"id": id, "contextId": context, "status": {"state": f"TASK_STATE_{state}"}, **more}


# An agent on a2a-sdk.


class Player(AgentExecutor):
    """`say …` says it; `slow` waits for `go` between two events; `ask` asks and then says the answer back."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.heard: list[Any] = []
        self.canceled: list[str] = []

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None
        assert context.task_id
        assert context.context_id
        self.heard.append(message)
        if context.current_task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            first = Task(id=context.task_id, context_id=context.context_id, status=status, history=[message])
            await event_queue.enqueue_event(first)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)

        async def state(state: TaskState, text: str) -> None:
            await updater.update_status(state, updater.new_agent_message([new_text_part(text)]))

        text = context.get_user_input()
        if context.current_task is not None:
            await state(TaskState.TASK_STATE_COMPLETED, f"You said {text}")
        elif text == "ask":
            await state(TaskState.TASK_STATE_INPUT_REQUIRED, "What?")
        elif text == "slow":
            await state(TaskState.TASK_STATE_WORKING, "Began")
            await self.go.wait()
            await updater.add_artifact([new_text_part("late")], artifact_id="out", last_chunk=True)
            await state(TaskState.TASK_STATE_COMPLETED, "Done")
        else:
            await updater.add_artifact([new_text_part(text)], artifact_id="out", last_chunk=True)
            await state(TaskState.TASK_STATE_COMPLETED, "Done")

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id
        assert context.context_id
        self.canceled.append(context.task_id)
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


@dataclass
class Sdk:
    url: str
    player: Player
    webhooks: InMemoryPushNotificationConfigStore
    rpc: grpc.aio.Server | None = None


@asynccontextmanager
async def sdk(
    binding: str = "JSONRPC", version: str = "1.0", *, streaming: bool = True, pushes: bool = False
) -> AsyncIterator[Sdk]:
    """a2a-sdk's own server with `binding` alone on its card; in 0.3, with a card of 0.3 and nothing else in it."""
    listener = listen("127.0.0.1", 0)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    described = AgentCard(
        name=f"SDK {binding}",
        description="An agent on a2a-sdk.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=f"{base}/", protocol_binding=binding, protocol_version=version)],
        capabilities=AgentCapabilities(streaming=streaming, push_notifications=pushes),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="play", name="Play", description="Plays.", tags=["test"])],
    )
    player = Player()
    configs, caller = InMemoryPushNotificationConfigStore(), httpx.AsyncClient(trust_env=False)
    sender = BasePushNotificationSender(caller, configs)
    handler = DefaultRequestHandler(
        agent_executor=player,
        task_store=InMemoryTaskStore(),
        agent_card=described,
        push_config_store=configs if pushes else None,
        push_sender=sender if pushes else None,
    )
    rpc = grpc.aio.server() if binding == "GRPC" else None
    if rpc is not None:
        port = rpc.add_insecure_port("127.0.0.1:0")
        described.supported_interfaces[0].url = f"127.0.0.1:{port}"
        if version == "0.3":
            a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler), rpc)  # type: ignore[no-untyped-call]
        else:
            a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), rpc)  # type: ignore[no-untyped-call]
        await rpc.start()
    older = version == "0.3"
    routes: list[BaseRoute] = [_older_card(described)] if older else [*create_agent_card_routes(described)]
    if binding == "JSONRPC":
        routes += create_jsonrpc_routes(handler, "/", enable_v0_3_compat=older)
    elif binding == "HTTP+JSON":
        routes += create_rest_routes(handler, enable_v0_3_compat=older)
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextmanager(lambda: iter([None]))  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve([listener]))
    try:

        async def started() -> bool:
            return server.started

        await until(started)
        yield Sdk(base, player, configs, rpc)
    finally:
        player.go.set()
        if rpc is not None:
            await rpc.stop(0.2)
        await handler.aclose()
        await caller.aclose()
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND)
        listener.close()


def _older_card(card: AgentCard) -> Route:
    """Where clients looked for it until 0.2, too: the gateway has to find it there."""
    body = to_compat_agent_card(card).model_dump(mode="json", by_alias=True, exclude_none=True)

    async def serve(request: Request) -> JSONResponse:
        return JSONResponse(body)

    return Route("/.well-known/agent.json", serve)


# A gateway as a process.


@dataclass
class Process:
    """`gateway serve`, started as a person would; every call speaks with the local credential."""

    popen: subprocess.Popen[str]
    url: str
    data: Path
    seconds: float  # until it was ready, without those in which others had the processor

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    def call(self, verb: str, path: str, *, who: str | None = None, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {who or self.token}", "A2A-Version": "1.0", **more.pop("headers", {})}
        return httpx2.request(verb, self.url + path, headers=headers, timeout=BOUND, trust_env=False, **more)

    def rpc(self, method: str, params: Any, *, agent: str = "echo", who: str | None = None) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self.call("POST", f"/agents/{agent}" if agent else "/", who=who, json=body).json()

    def task(self, id: str, *, agent: str = "echo") -> Any:
        return self.rpc("GetTask", {"id": id}, agent=agent)["result"]

    def until(self, true: Callable[[], Any], seconds: float = BOUND) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := true():
                return found
            time.sleep(0.03)
        raise AssertionError("waited in vain")

    def ended(self, id: str, *, agent: str = "echo", seconds: float = BOUND) -> Any:
        def look() -> Any:
            found = self.task(id, agent=agent)
            return found if found["status"]["state"][11:] in ("COMPLETED", "FAILED", "CANCELED", "REJECTED") else None

        return self.until(look, seconds)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(BOUND)

    def stop(self) -> tuple[int, str]:
        """SIGTERM and its end: the exit code and what was said on standard error."""
        self.popen.send_signal(signal.SIGTERM)
        _, said = self.popen.communicate(timeout=2 * BOUND)
        return self.popen.returncode, said


def environment(data: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(data), "GATEWAY_DATA": str(data), **more}


def command(
    data: Path, *words: str, url: str | None = None, cwd: Path | None = None, stdin: str | None = None, **more: str
) -> Any:
    """One command of the program to its end, as a completed process."""
    place = {"GATEWAY_URL": url} if url else {}
    return subprocess.run(
        [PROGRAM, *words],
        input=stdin,
        capture_output=True, text=True, timeout=2 * BOUND, cwd=cwd or data, env=environment(data, **place, **more),
    )  # fmt: skip


@contextmanager
def process(
    data: Path, config: str | None = None, *flags: str, port: int = 0, cwd: Path | None = None
) -> Iterator[Process]:
    """A gateway process with its data (and its configuration file) in `data`; killed at the end if it still runs."""
    data.mkdir(parents=True, exist_ok=True)
    words = [str(PROGRAM), "serve", "--port", str(port), *flags]
    if config is not None:
        (data / "gateway.yaml").write_text(config)
        words += ["--config", str(data / "gateway.yaml")]
    watch = Stopwatch()
    popen = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd or data, env=environment(data)
    )
    try:
        assert popen.stdout is not None
        line = popen.stdout.readline()  # ends with the process at the latest
        assert line.startswith("The gateway listens on "), line + (popen.communicate(timeout=BOUND)[1])
        yield Process(popen, line.split()[-1], data, watch.seconds(popen.pid))
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(BOUND)
        for pipe in (popen.stdout, popen.stderr):
            if pipe is not None:
                pipe.close()
