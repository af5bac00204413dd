"""Signing keys as files that only their owner can read."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.stores.datafolder import problems

SUFFIX = ".jwk"


class KeyFolder:
    """One file per key; its name begins with when it was made. Raises StoreProblem."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, bytes]:
        with problems(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return {path.stem: path.read_bytes() for path in sorted(self._folder.glob("*" + SUFFIX))}

    def write(self, name: str, content: bytes) -> None:
        """Whole or not at all, and never readable by others, not even for a moment."""
        fresh = self._folder / f".{name}.{os.getpid()}"
        with problems(self._folder):
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._folder / (name + SUFFIX))

    def drop(self, name: str) -> None:
        with problems(self._folder):
            (self._folder / (name + SUFFIX)).unlink(missing_ok=True)
