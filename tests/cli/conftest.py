from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.cli import main
from tests.cli.fake_gateway import TOKEN, FakeGateway

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "token").write_text(TOKEN + "\n")
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, data: Path) -> Iterator[FakeGateway]:
    with FakeGateway().running() as fake:
        monkeypatch.setenv("GATEWAY_URL", fake.url)
        monkeypatch.setenv("GATEWAY_DATA", str(data))
        monkeypatch.delenv("GATEWAY_TOKEN", raising=False)
        # Retries follow each other at once; how long they wait is tested where it is decided.
        monkeypatch.setattr("gateway.cli.follow.PAUSES", (0.0, 0.0, 0.0))
        yield fake


@pytest.fixture
def gateway(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program in this process: `gateway("send", "echo", "hi")`."""

    def run(*words: str | Path) -> Result:
        code = main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the program as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **settings: object) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, "-m", "gateway", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            **{**pipes, **settings},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
