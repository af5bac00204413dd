"""What is measured: a server and a call, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TypeAlias

from benchmarks import credentials
from benchmarks.agents import CHUNKS
from benchmarks.calls import Call, echo, grpc_send, send, stream, tool
from benchmarks.processes import HERE, Launch, free_port

EVENTS = CHUNKS + 2  # the task, the chunks, completed
COMPLETED = "TASK_STATE_COMPLETED"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to run: its port, a folder of its own, the stub's program and the stub upstream's port."""

    port: int
    folder: Path
    stub: Path
    upstream: int


Server: TypeAlias = Callable[[Place], Launch]


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    about: str
    server: Server
    call: Callable[[], Call]
    path: str = "/"
    needs: tuple[str, ...] = ()  # modules that the environment may not have

    @property
    def skipped(self) -> str | None:
        """Why this cannot run here; None if it can."""
        missing = [module for module in self.needs if find_spec(module) is None]
        return f"not installed: {', '.join(missing)}" if missing else None


# Servers.


def limit(app: str) -> Server:
    def launch(place: Place) -> Launch:
        command = (
            sys.executable, "-m", "uvicorn", f"benchmarks.limits.{app}", "--host", "127.0.0.1",
            "--port", str(place.port), "--http", "httptools", "--loop", "uvloop",
            "--log-level", "warning", "--no-access-log",
        )  # fmt: skip
        return Launch(command, {"UPSTREAM": f"http://127.0.0.1:{place.upstream}/"})

    return launch


def gateway(*flags: str, more: str = "", issue: Callable[[int, Path], str] | None = None, grpc: bool = False) -> Server:
    """`more` goes into its configuration. It is called with its own credential, with the one that `issue` gets, or
    with none where it is `--anonymous`."""

    def launch(place: Place) -> Launch:
        ports = ("--port", str(free_port()), "--grpc-port", str(place.port)) if grpc else ("--port", str(place.port))
        data = place.folder / "data"
        config = place.folder / "gateway.yaml"
        text = Template((HERE / "gateway.yaml").read_text("utf-8"))
        config.write_text(text.substitute(ROOT=HERE.parent, UPSTREAM=place.upstream) + more, "utf-8")
        program = Path(sys.executable).with_name("gateway")
        command = (
            str(program), "serve", "--config", str(config), "--data", str(data), *ports, *flags,
        )  # fmt: skip
        if "--anonymous" in flags:
            return Launch(command)
        return Launch(command, token=data / "token", issue=issue and partial(issue, place.port, data))

    return launch


def stub(place: Place) -> Launch:
    return Launch((str(place.stub), str(place.port)))


def a2a_sdk(answer: str, *, database: bool = False, grpc: bool = False) -> Server:
    def launch(place: Place) -> Launch:
        more = (("--grpc",) if grpc else ()) + (("--database", str(place.folder / "tasks.db")) if database else ())
        server = (sys.executable, "-m", "benchmarks.sdk_server", "--port", str(place.port), "--answer", answer)
        return Launch((*server, *more))

    return launch


# Calls.


def hello() -> Call:
    return send("Hello World")


def echo_message() -> Call:
    return send("Direct message response", prefix="tck-message-response-")


def grpc_message() -> Call:
    return grpc_send("Direct message response", "echo", prefix="tck-message-response-")


def grpc_hello() -> Call:
    return grpc_send("Hello World")


def task() -> Call:
    return send(COMPLETED)


def ten_events() -> Call:
    return stream(COMPLETED, EVENTS)


def relayed_events() -> Call:
    # The task is the gateway's own and comes first. What the remote agent says of its own task, that it is submitted,
    # is nothing new then; a gateway may pass it on as a status.
    return stream(COMPLETED, EVENTS, EVENTS + 1)


def one_tool() -> Call:
    return tool("echo", "Hello World")


def mounted_tool() -> Call:
    return tool("stub__echo", "Hello World")


DURABLE = gateway()
ANONYMOUS = gateway("--anonymous")
KEYED = gateway(issue=credentials.key)
TOKENED = gateway(more="auth: {authorization_server: {}}\n", issue=credentials.token)
FORGETFUL = gateway("--store", "memory:")
GRPC = ("grpc",)
DATABASE = ("sqlalchemy", "aiosqlite")

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("echo", "uvicorn alone: the body comes back", limit("echo:app"), echo),
        Scenario("limit-serve", "a Message, without governance", limit("serve:app"), hello),
        Scenario("limit-proxy", "a Message from the stub, without governance", limit("relay:proxy_app"), hello),
        Scenario("limit-relay", "10 events from the stub, unseen", limit("relay:relay_app"), ten_events),
        Scenario("ours-message", "local agent, answers a Message", DURABLE, echo_message, "/agents/echo"),
        Scenario("ours-message-memory", "the same, store in memory", FORGETFUL, echo_message, "/agents/echo"),
        Scenario("ours-message-anonymous", "the same, nobody asks", ANONYMOUS, echo_message, "/agents/echo"),
        Scenario("ours-message-key", "the same with an API key", KEYED, echo_message, "/agents/echo"),
        Scenario("ours-message-token", "the same with an access token", TOKENED, echo_message, "/agents/echo"),
        Scenario("ours-message-grpc", "local agent, a Message over gRPC", gateway(grpc=True), grpc_message, needs=GRPC),
        Scenario("ours-task", "local agent, durable task", DURABLE, task, "/agents/echo"),
        Scenario("ours-stream", "local agent, 10 events", DURABLE, ten_events, "/agents/chunks"),
        Scenario("ours-proxied", "remote agent, answers a Message", DURABLE, hello, "/agents/remote"),
        Scenario("ours-proxied-memory", "the same, store in memory", FORGETFUL, hello, "/agents/remote"),
        Scenario("ours-relayed", "remote agent, 10 events", DURABLE, relayed_events, "/agents/remote"),
        Scenario("limit-tool", "a tool of the stub, without governance", limit("relay:proxy_app"), one_tool),
        Scenario("ours-tool", "a tool of an MCP server", DURABLE, mounted_tool, "/mcp"),
        Scenario("ours-tool-memory", "the same, store in memory", FORGETFUL, mounted_tool, "/mcp"),
        Scenario("direct-tool", "the stub itself, a tool", stub, one_tool),
        Scenario("direct", "the stub itself, a Message", stub, hello),
        Scenario("direct-stream", "the stub itself, 10 events", stub, ten_events),
        Scenario("sdk-message", "a2a-sdk, a Message", a2a_sdk("message"), hello),
        Scenario(
            "sdk-message-grpc", "a2a-sdk, a Message over gRPC", a2a_sdk("message", grpc=True), grpc_hello, needs=GRPC
        ),
        Scenario("sdk-task", "a2a-sdk, task in memory", a2a_sdk("task"), task),
        Scenario("sdk-task-sqlite", "a2a-sdk, task in SQLite", a2a_sdk("task", database=True), task, needs=DATABASE),
        Scenario("sdk-stream", "a2a-sdk, 10 events", a2a_sdk("stream"), ten_events),
    )
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two scenarios side by side on one core, in turn: the machine's speed cancels out of their ratio."""

    name: str
    a: str
    b: str
    connections: int = 32


PAIRS = {
    pair.name: pair
    for pair in (
        Pair("message", "ours-message", "limit-serve"),
        Pair("proxied", "ours-proxied", "limit-proxy"),
        Pair("relayed", "ours-relayed", "limit-relay"),
        Pair("message-sdk", "ours-message", "sdk-message"),
        Pair("message-grpc-sdk", "ours-message-grpc", "sdk-message-grpc"),
        Pair("task-sdk", "ours-task", "sdk-task"),
        Pair("task-sdk-sqlite", "ours-task", "sdk-task-sqlite"),
        Pair("stream-sdk", "ours-stream", "sdk-stream"),
        Pair("message-audit", "ours-message", "ours-message-memory"),
        Pair("proxied-audit", "ours-proxied", "ours-proxied-memory"),
        Pair("message-key", "ours-message-key", "ours-message-anonymous"),
        Pair("message-token", "ours-message-token", "ours-message-anonymous"),
        Pair("added", "ours-proxied", "direct", connections=1),
        Pair("tool", "ours-tool", "limit-tool"),
        Pair("tool-audit", "ours-tool", "ours-tool-memory"),
        Pair("tool-added", "ours-tool", "direct-tool", connections=1),
    )
}
