"""PostgreSQL for tests: sessions of `psql`, which comes with the server, so that tests need no driver.

On a desk without it they are skipped; where GATEWAY_REQUIRE names postgresql they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType
from typing import NoReturn

import pytest

URL = os.environ.get("TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1/test?connect_timeout=5")
_END = "-- end of the answer --"


class Refused(Exception):
    """What the server says to a statement."""


class Session:
    """One connection. Statements are sent one by one; `ask` gives the rows of one, as text."""

    def __init__(self) -> None:
        command = [shutil.which("psql") or _missing("psql is not on PATH"), "-XqAt", "-F", "\t", URL]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            self.ask("SELECT 1")
        except Refused as error:
            self.kill()
            _missing(str(error))

    def ask(self, statement: str) -> list[list[str]]:
        """Raises Refused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{statement};\n\\echo {_END}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Refused(self._process.stdout.read().strip()) from None
        lines = []
        for line in self._process.stdout:
            if line.strip() == _END:
                break
            lines.append(line.rstrip("\n"))
        else:
            raise Refused(" ".join(lines))
        if any(line.startswith("ERROR:") for line in lines):
            raise Refused(" ".join(lines))
        return [line.split("\t") for line in lines if line]

    def kill(self) -> None:
        """As a machine that goes off: the server hears of it when the connection breaks."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _missing(why: str) -> NoReturn:
    if "postgresql" in os.environ.get("GATEWAY_REQUIRE", "").split(","):
        pytest.fail(f"PostgreSQL is required here: {why}")
    pytest.skip(f"it needs PostgreSQL at {URL}: {why}")
