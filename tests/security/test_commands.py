"""Advisories about commands: a request, a name or an address that makes the gateway start something.

What is started is noticed where Python starts it, and by what it leaves behind.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.cli import main
from gateway.cli.redirect import Redirect
from gateway.config import ConfigError, parse
from gateway.model.errors import GatewayError, Reason
from gateway.server.front import Front
from gateway.upstream.process import Command, Process
from tests.access_matrix import BODIES
from tests.authority import authority, guarded
from tests.journeys.test_mcp_oauth import configuration
from tests.security.twins import broken_by
from tests.serving import ECHO, ROOT, Gateway, message, running
from tests.test_house import ROOMS, USES, accused

pytestmark = pytest.mark.security


@dataclass
class Started:
    """Every process that was started meanwhile, by its words, and a file that only a command of the attacker makes."""

    mark: Path
    words: list[str] = field(default_factory=list)

    def anything(self) -> bool:
        """Whether something was started or done since this was last asked."""
        found = bool(self.words) or self.mark.exists()
        self.words.clear()
        self.mark.unlink(missing_ok=True)
        return found


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    made = Started(tmp_path / "mark")
    popen, system = subprocess.Popen.__init__, os.system

    def init(self: Any, args: Any, *more: Any, **how: Any) -> None:
        made.words.append(str(args))
        popen(self, args, *more, **how)

    def shell(command: str) -> int:
        made.words.append(command)
        return system(command)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)  # asyncio starts its processes by it, too
    monkeypatch.setattr(os, "system", shell)
    yield made
    assert not made.mark.exists()


# A command in what is sent.


def _bodies(mark: Path) -> list[dict[str, Any]]:
    """As these products took it: `command`, `args` and `env`, flat, in a server of its own, or in a file of servers."""
    flat = {"command": "/usr/bin/touch", "args": [str(mark)], "env": {"X": "1"}, "transport": "stdio", "type": "stdio"}
    nested = {"mcpServers": {"x": flat}, "servers": {"x": flat}, "serverConfig": flat, "stdio_config": flat}
    listed = {"command": ["/usr/bin/touch", str(mark)], "server_name": "x", "name": "x", "transport": "stdio"}
    return [{**flat, **nested, "server_name": "x", "name": "x", "transportType": "stdio"}, listed]


# Where others had it: LiteLLM, MCPJam, the MCP Inspector, LibreChat, WeKnora, and what a gateway might call it.
ELSEWHERE = (
    *(
        "/mcp-rest/test/connection",
        "/mcp-rest/test/tools/list",
        "/v1/mcp/server",
        "/api/mcp/connect",
        "/api/mcp/servers",
    ),
    *("/api/v1/mcp-services", "/api/v1/mcp-services/x/test", "/stdio", "/sse", "/message", "/config", "/health"),
    *("/admin/tools", "/admin/tools/x", "/admin/tools:test", "/admin/tools:add", "/servers", "/gateways", "/mcp/x"),
)


async def _everywhere(gateway: Gateway, mark: Path, sent: dict[str, str]) -> None:
    """Every route that takes a body, every one of others, and the messages of the protocols."""
    found = [each for each in gateway.app.asgi._inside._rest.routes if isinstance(each, Route)]  # type: ignore[attr-defined]
    routes = {(verb, each.path) for each in found for verb in (each.methods or set()) - {"GET", "HEAD", "DELETE"}}
    for body in _bodies(mark):
        for verb, path in [*sorted(routes), *(("POST", path) for path in ELSEWHERE)]:
            await gateway.client.request(verb, path, json={**BODIES.get(path, {}), **body}, headers=sent)
        params = {"name": "x", "arguments": body, **body, "message": message("x", metadata=body), "metadata": body}
        for path, method in (("/agents/echo", "SendMessage"), ("/mcp", "initialize"), ("/mcp", "tools/call")):
            call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            await gateway.client.post(path, json=call, headers={"A2A-Version": "1.0", **sent})
    asked = f"transportType=stdio&command={quote('/usr/bin/touch')}&args={quote(str(mark))}"
    for path in ("/mcp", "/sse", "/stdio", "/"):
        await gateway.client.get(f"{path}?{asked}", headers={"Accept": "text/event-stream", **sent})


def tries_what_is_sent(patch: pytest.MonkeyPatch) -> None:
    """A route for trying a server before it is added, which nobody remembered to guard."""
    sound = Front.__call__

    async def call(self: Front, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/mcp-rest/test/connection":
            await sound(self, scope, receive, send)
            return
        tree = json.loads((await receive())["body"])
        if isinstance(tree.get("command"), str):
            process = await asyncio.create_subprocess_exec(tree["command"], *tree["args"])
            await process.wait()
        for part in ({"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body"}):
            await send(part)

    patch.setattr(Front, "__call__", call)


@broken_by(tries_what_is_sent)
async def test_nothing_that_is_sent_starts_a_command_but_in_the_broken_twin(
    tmp_path: Path, started: Started, broken: bool
) -> None:
    async with running(tmp_path / "data", ECHO, anonymous=True) as gateway:
        got = []
        for sent in (gateway.bearer(None), gateway.bearer(await gateway.key("ann")), {}):
            await _everywhere(gateway, started.mark, sent)
            got.append(started.anything())
    assert got == [broken] * 3


# A command in a name.

NAMES = ("test&{}", "x;{}", "$({})", "`{}`", "x\n{}")


def takes_any_name(patch: pytest.MonkeyPatch) -> None:
    async def start(name: str, command: Command, *about: Any) -> Process:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"true {name}", stderr=subprocess.DEVNULL)
        await process.wait()
        raise GatewayError(Reason.UNAVAILABLE, "It said nothing")

    patch.setattr("gateway.config.values._LABEL", re.compile(r"(?s).*"))
    patch.setattr("gateway.upstream.mcp.stdio.start", start)


@broken_by(takes_any_name)
async def test_no_name_of_a_server_is_a_command_but_in_the_broken_twin(
    tmp_path: Path, started: Started, broken: bool
) -> None:
    """Names are letters and digits, and no name is among the words of a command; the broken twin takes any, and shows
    it to a shell."""
    got = []
    for number, shape in enumerate(NAMES):
        name = json.dumps(shape.format(f"touch ${{IFS}}{started.mark}".replace(" ", "")))
        tools = f"tools: {{{name}: {{command: [{sys.executable}, -c, pass], folder: '{tmp_path}'}}}}\n"
        with nullcontext() if broken else pytest.raises(ConfigError, match="must be a name of a-z"):
            parse(ECHO + tools, base=ROOT)
        if broken:
            async with running(tmp_path / str(number), ECHO + tools) as gateway:
                await gateway.app.tools.servers.settled()
        got.append(started.anything())
    assert got == [broken] * len(NAMES)


# A command in an address: what a tool server says of where to log in.

PLACES = ("$({})", "`{}`", ";{}")


def opens_it(patch: pytest.MonkeyPatch) -> None:
    """By a shell, as some openers of addresses do."""
    patch.setattr("gateway.cli.toollogin.say", lambda url: os.system(f"true {url}"))


@broken_by(opens_it)
async def test_no_address_to_log_in_at_is_a_command_but_in_the_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Started, broken: bool
) -> None:
    """`gateway tools login` shows the address to a person and opens nothing."""
    monkeypatch.setattr("gateway.cli.toollogin.Redirect", partial(Redirect, 0.01))
    got = []
    async with authority() as by, guarded(by) as server, running(tmp_path / "data", configuration(server)) as gateway:
        monkeypatch.setenv("GATEWAY_URL", gateway.url)
        monkeypatch.setenv("GATEWAY_DATA", str(tmp_path / "data"))
        for shape in PLACES:
            there = shape.format(f"touch${{IFS}}{started.mark}")
            by.metadata = {"authorization_endpoint": f"{by.issuer}/authorize{there}"}
            await asyncio.to_thread(main, ["tools", "login", "docs"])
            got.append(started.anything())
    assert got == [broken] * len(PLACES)


SCHEMES = (
    "file:///c:/windows/system32/calc.exe",
    "javascript:alert(1)",
    "a:$(calc.exe)?",
    "http://evil.example/",
    "//x",
)


def takes_any_address(patch: pytest.MonkeyPatch) -> None:
    for module in ("metadata", "discovery"):
        patch.setattr(f"gateway.upstream.oauth.{module}.secure", lambda url: True)


@broken_by(takes_any_address)
async def test_an_address_to_log_in_at_is_a_web_address_but_in_the_broken_twin(tmp_path: Path, broken: bool) -> None:
    got = []
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        for url in SCHEMES:
            by.metadata = {"authorization_endpoint": url}
            body = {"server": "docs", "redirectUri": "http://127.0.0.1:7777/callback"}
            begun = await gateway.client.post("/admin/tools:login", json=body, headers=gateway.bearer(None))
            got.append(begun.status_code == 200 and begun.json()["authorizationUrl"].startswith(url))
    assert got == [broken] * len(SCHEMES)


# In the source: what starts a process has one room, and a change that starts one elsewhere does not pass.

FLAWS = {
    "a shell opens an address": "import os\nos.system(f'open {url}')",
    "a browser opens an address": "import webbrowser\nwebbrowser.open(url)",
    "a command of a body": "import subprocess\nsubprocess.run([body['command'], *body['args']])",
    "a shell": "import asyncio\nasyncio.create_subprocess_shell(body['command'])",
    "the loop's own shell": "loop.subprocess_shell(factory, command)",
    "another room for commands": "loop.subprocess_exec(factory, *command)",
    "a command made of a request": "from gateway.upstream.process import Command\nCommand(tuple(body['command']))",
    "the older way": "from os import popen\npopen(name)",
    "a terminal": "import pty\npty.spawn(name)",
    "code by name": "import importlib\nimportlib.import_module(body['plugin'])",
    "code as text": "eval(body['rule'])",
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_the_broken_twin_of_the_source_does_not_pass(flaw: str) -> None:
    assert accused("gateway.server.admin_tools", ast.parse(FLAWS[flaw]))


def test_and_the_source_itself_does() -> None:
    assert not accused("gateway.server.admin_tools")
    assert USES[".subprocess_exec"].keys() == {"gateway.upstream.process"}
    assert not ROOMS["subprocess"]
