"""`gateway serve`: what is printed when it is ready and when it cannot start. The gateway itself is played here."""

from __future__ import annotations

import errno
import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gateway.config import Settings
from gateway.model.problems import Problem, StartError
from tests.cli.conftest import Run
from tests.cli.fake_gateway import FakeGateway, Reply, message

Serve = Callable[..., Awaitable[int]]


@dataclass(frozen=True)
class Running:
    url: str
    cards: list[tuple[str, str]]
    token_file: Path | None
    grpc: str | None = None
    admin: str | None = None


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Serve], None]]:
    """Puts a function in the place of `gateway.serving.serve`."""
    monkeypatch.chdir(tmp_path)
    for name in ("GATEWAY_CONFIG", "GATEWAY_DATA", "GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)

    def play(serve: Serve) -> None:
        module = ModuleType("gateway.serving")
        module.serve, module.Running = serve, Running  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gateway.serving", module)
        monkeypatch.delitem(sys.modules, "gateway.cli.serve", raising=False)

    yield play
    sys.modules.pop("gateway.cli.serve", None)


def test_it_says_where_it_listens_and_prints_commands_that_work_as_they_stand(
    gateway: Run, app: Callable[[Serve], None], fake: FakeGateway, data: Path
) -> None:
    (data / "curl-header").write_text("Authorization: Bearer local-credential\n")
    got: list[Settings] = []

    async def serve(settings: Settings, *, ready: Callable[[Running], None], again: object) -> int:
        got.append(settings)
        card = f"{fake.url}/agents/echo/.well-known/agent-card.json"
        ready(Running(fake.url, [("echo", card)], data / "token"))
        return 0

    app(serve)
    result = gateway("serve", "--port", "0", "--data", data, "--store", "memory:", "--anonymous")
    assert result.code == 0
    assert (got[0].port, got[0].data, got[0].store, got[0].anonymous) == (0, data, "memory:", True)
    lines = result.out.splitlines()
    assert lines[0] == f"The gateway listens on {fake.url}"
    assert f"  card of echo: {fake.url}/agents/echo/.well-known/agent-card.json" in lines
    assert f"  credential: {data}/token" in lines
    assert "local-credential" not in result.out

    curl, send = lines[-2:]
    fake.answers["SendMessage echo"] = Reply({"message": message("hi")})
    answer = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout)["result"]["message"]["parts"] == [{"text": "hi"}]
    assert fake.seen[-1].headers["A2A-Version"] == "1.0"
    assert shlex.split(send)[-3:] == ["send", "echo", "hi"]
    assert shlex.split(send)[:2] == [f"GATEWAY_URL={fake.url}", f"GATEWAY_DATA={data}"]


def test_where_everything_is_default_the_command_is_short(gateway: Run, app: Callable[[Serve], None]) -> None:
    async def serve(settings: Settings, *, ready: Callable[[Running], None], again: object) -> int:
        ready(Running(settings.public_url, [("echo", "http://card")], None))
        return 0

    app(serve)
    lines = gateway("serve").out.splitlines()
    assert lines[-1].strip().endswith('gateway send echo "hi"')
    assert "GATEWAY_" not in lines[-1]
    assert "@" not in lines[-2]


def test_every_problem_of_the_file_is_shown_with_its_line(gateway: Run, app: Callable[[Serve], None]) -> None:
    async def serve(settings: Settings, **_: Any) -> int:
        raise AssertionError("must not start")

    app(serve)
    Path("gateway.yaml").write_text("server: {public_ur: x}\nagents:\n  echo: {}\n")
    result = gateway("serve")
    assert result.code == 2
    assert result.out == ""
    shown = result.err.splitlines()
    assert shown[0].startswith("gateway.yaml:1: server.public_ur: unknown key")
    assert shown[1].startswith("gateway.yaml:3: agents.echo:")
    assert "Traceback" not in result.err


def test_every_problem_of_the_start_is_shown_on_its_line(gateway: Run, app: Callable[[Serve], None]) -> None:
    async def serve(settings: Settings, **_: Any) -> int:
        raise StartError(
            Problem("/data", "is locked by process 7", "stop it, or choose another folder with --data"),
            Problem("cards/echo.json", "no such file\x1b[2J"),
        )

    app(serve)
    result = gateway("serve")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        "/data: is locked by process 7 — stop it, or choose another folder with --data",
        "cards/echo.json: no such file\\u001b[2J",
    ]


def test_a_port_in_use_is_said_without_a_traceback(gateway: Run, app: Callable[[Serve], None]) -> None:
    async def serve(settings: Settings, **_: Any) -> int:
        with socket.socket() as other:
            other.bind((settings.host, settings.port))
        return 0

    app(serve)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = gateway("serve", "--port", str(port))
    assert result.code == 2
    assert result.err.startswith(f"127.0.0.1:{port}: cannot listen: Address already in use — choose another")


def test_a_fault_of_ours_is_not_dressed_up_as_the_operators(gateway: Run, app: Callable[[Serve], None]) -> None:
    async def serve(settings: Settings, *, ready: Callable[[Running], None], again: object) -> int:
        ready(Running(settings.public_url, [], None))
        raise OSError(errno.ECONNRESET, "reset")

    app(serve)
    with pytest.raises(OSError, match="reset"):
        gateway("serve")


def test_ctrl_c_is_how_it_is_stopped(gateway: Run, app: Callable[[Serve], None]) -> None:
    async def serve(settings: Settings, **_: Any) -> int:
        raise KeyboardInterrupt

    app(serve)
    assert gateway("serve").code == 0
