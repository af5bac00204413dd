"""The servers as processes of their own, each on its core, each ended by its own id."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from benchmarks import generators, machine
from benchmarks.calls import Target

HERE = Path(__file__).parent
START_S = 30.0
STOP_S = 15.0
LOOK_AGAIN_S = 0.003  # the resolution of a cold start


class StartError(Exception):
    """A server did not come up; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server, and where it leaves its credential, if it wants one."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    token: Path | None = None
    issue: Callable[[], str] | None = None  # gets a credential once the server is up; raises OSError until then


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    target: Target
    cold_start_s: float


@asynccontextmanager
async def running(
    launch: Launch, aim: Callable[[str | None], Target], *, core: int | None, log: Path
) -> AsyncIterator[Running]:
    """The server, from its first right answer on. `aim` makes the target once the credential is known."""
    began = perf_counter()
    process = _start(launch, core, log)
    try:
        target = await _first_answer(process, launch, aim, log)
        yield Running(process.pid, target, perf_counter() - began)
    finally:
        _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def compile_stub(folder: Path) -> Path:
    """stub.c as a program in `folder`."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise StartError("The stub upstream is written in C, and there is no C compiler (cc) on PATH.")
    program = folder / "stub"
    built = subprocess.run(
        [compiler, "-O2", "-o", program, HERE / "stub.c"], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise StartError(f"stub.c does not compile:\n{built.stderr[-2000:]}")
    return program


def _environment() -> dict[str, str]:
    # A GATEWAY_… variable of the person's own shell would make it another server than the results say. Compiled
    # modules may be written: without them every start compiles the program again.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    return own


def _start(launch: Launch, core: int | None, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            launch.command,
            cwd=HERE.parent,
            env=_environment() | dict(launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: machine.pin(core),
        )


async def _first_answer(
    process: subprocess.Popen[bytes], launch: Launch, aim: Callable[[str | None], Target], log: Path
) -> Target:
    deadline = perf_counter() + START_S
    said, issued = "nothing listens", None
    while perf_counter() < deadline:
        if process.poll() is not None:
            raise StartError(f"ended at once with {process.returncode}:\n{_end_of(log)}")
        if launch.token is None or _credential(launch.token):
            try:
                if launch.issue is not None and issued is None:
                    issued = await asyncio.to_thread(launch.issue)
                target = aim(issued or (_credential(launch.token) if launch.token else None))
                wrong = await generators.one(target)
            except (OSError, TimeoutError) as error:
                wrong = type(error).__name__
            if wrong is None:
                return target
            said = wrong
        await asyncio.sleep(LOOK_AGAIN_S)
    raise StartError(f"no right answer within {START_S:.0f} s ({said}):\n{_end_of(log)}")


def _credential(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", errors="replace")[-2000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
