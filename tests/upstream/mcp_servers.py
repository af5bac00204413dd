"""MCP servers for tests of the client face, real ones as child processes, and somebody who calls them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.model.tool import CannotAsk, Tree
from gateway.upstream.address import EgressRules
from gateway.upstream.egress import Egress
from gateway.upstream.mcp.limits import Limits
from gateway.upstream.mcp.server import HttpServer, StdioServer
from gateway.upstream.process import Command
from gateway.upstream.secret import Secret
from tests.ports import reserved

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds; nothing waits so long when it works
START = 90.0  # seconds; a machine with forty other programs took more than 20 for the imports of a server
INFO: Tree = {"name": "gateway", "version": "test"}
FULL: Tree = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}


@dataclass
class Recorder:
    """A caller that writes down what it hears, and answers what `answers` has an answer for."""

    principal: str = "alice"
    capabilities: Tree = field(default_factory=dict)
    client: Tree | None = None
    log_level: str | None = None
    progress: bool = False
    meta: Tree = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    heard: asyncio.Queue[tuple[str, Tree]] = field(default_factory=asyncio.Queue)
    asked: list[tuple[str, Tree]] = field(default_factory=list)
    hops: int = 0

    async def notify(self, method: str, params: Tree) -> None:
        self.heard.put_nowait((method, params))

    async def ask(self, method: str, params: Tree) -> Tree:
        self.asked.append((method, params))
        if method not in self.answers:
            raise CannotAsk(method)
        answer = self.answers[method]
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = await answer()
        result: Tree = answer
        return result

    async def next(self) -> tuple[str, Tree]:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    @property
    def all(self) -> list[tuple[str, Tree]]:
        return [self.heard.get_nowait() for _ in range(self.heard.qsize())]


def chance() -> float:
    return 0.5


@asynccontextmanager
async def at(
    url: str, *, limits: Limits | None = None, headers: dict[str, str | Secret] | None = None
) -> AsyncIterator[HttpServer]:
    """The client face of the server at `url`."""
    async with Egress(EgressRules()) as egress:
        server = HttpServer(
            "it",
            url,
            egress,
            info=INFO,
            limits=limits,
            headers=headers,
            ours={"KEY": "k3y"},
            trusted=True,
            chance=chance,
        )
        try:
            yield server
        finally:
            await asyncio.wait_for(server.aclose(), PATIENCE)


@asynccontextmanager
async def run(*words: str, limits: Limits | None = None, shared: bool = False) -> AsyncIterator[StdioServer]:
    """The client face of the server that `python words…` is."""
    command = Command((sys.executable, *words), folder=str(ROOT))
    server = StdioServer("it", command, info=INFO, ours=dict(os.environ), limits=limits, shared=shared, chance=chance)
    try:
        yield server
    finally:
        await asyncio.wait_for(server.aclose(), PATIENCE)


@contextmanager
def child(words: Callable[[int], list[str]]) -> Iterator[int]:
    """A server in a process of its own, listening on the port that is given."""
    with reserved() as port:
        yield from _child(words, port)


def _child(words: Callable[[int], list[str]], port: int) -> Iterator[int]:
    process = subprocess.Popen(words(port), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, f"{words(port)} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{words(port)} does not listen"
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def fixture(*options: str) -> list[str]:
    return [sys.executable, "-m", "conformance.fixtures.tool_server", *options]


def texts(result: Tree) -> list[str]:
    return [block["text"] for block in result["content"]]
