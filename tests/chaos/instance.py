"""One real gateway: `gateway serve` as a child process that can be killed and started again in its folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.ports import reservation

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("gateway")
START_S = 30.0  # a loaded machine needs a few seconds; what takes longer than this will not come


class DidNotStart(Exception):
    """The gateway ended or kept silent instead of listening."""


class Instance:
    """`config` is written into `folder`; `folder/data` outlives every kill."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], *arguments: str) -> None:
        self.name = name
        self.data = folder / "data"
        self.log = folder / "log"
        self._place = reservation()
        self.port: int = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts: list[float] = []  # seconds from each start to the first 200
        self.early_end: str | None = None  # it ended without having been killed or stopped by us
        self._arguments: Sequence[str] = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._born = 0.0
        self._config = folder / "gateway.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(yaml.safe_dump(config), "utf-8")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        return (self.data / "token").read_text("utf-8").strip()

    async def spawn(self) -> None:
        with self.log.open("ab") as log:
            self._born = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                str(PROGRAM),
                "serve",
                *("--config", str(self._config), "--data", str(self.data), "--port", str(self.port)),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,  # a person's Ctrl-C is for us; we stop our children ourselves
            )

    async def ready(self, timeout: float = START_S) -> None:
        """Returns at the first 200 from /readyz. Raises DidNotStart."""
        assert self._process is not None
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while time.monotonic() - self._born < timeout:
                if self._process.returncode is not None:
                    raise DidNotStart(f"{self.name} exited with {self._process.returncode}: {self.last_words()}")
                try:
                    async with session.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            self.starts.append(time.monotonic() - self._born)
                            return
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                await asyncio.sleep(0.01)
        raise DidNotStart(f"{self.name} was not ready after {timeout} s: {self.last_words()}")

    async def start(self) -> None:
        await self.spawn()
        await self.ready()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """SIGKILL, this very moment."""
        if not self.alive:
            self.early_end = self.early_end or self.last_words()
            return
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self, timeout: float) -> int | None:
        """The exit status; None if it is still there after `timeout`."""
        assert self._process is not None
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            return None

    async def aclose(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.kill()
            await self._process.wait()
        self._place.close()

    def last_words(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def local_agent(**settings: Any) -> dict[str, Any]:
    card = str(ROOT / "agent_cards" / "echo.json")
    return {"run": "agents.echo:Echo", "card": card, "public": True, **settings}
