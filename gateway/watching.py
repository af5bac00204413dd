"""Files of the operator's that are read again when they change. A part of app.py, in a room of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

LOOK_SECONDS = 0.4  # between looks whether a file has changed, each one system call; two that agree take a second

_Stamp = tuple[int, int, int] | None


class Watch:
    """Calls `changed` when one of the files is another than when they were last `read`, and stays so for two looks: an
    editor empties a file before it writes it, a copy arrives in pieces, and half a policy can be a valid one."""

    def __init__(self, name: str, changed: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._changed = changed
        self._files: tuple[Path, ...] = ()
        self._seen: tuple[_Stamp, ...] = ()
        self._watching: asyncio.Task[None] | None = None

    def read(self, files: Iterable[Path]) -> None:
        """These are read next: what they are now is what is known."""
        self._files = tuple(files)
        self._seen = _stamps(self._files)

    def start(self) -> None:
        if self._files:
            self._watching = asyncio.create_task(self._watch(), name=self._name)

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _watch(self) -> None:
        looked: tuple[_Stamp, ...] = ()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before = self._seen
            stamps = await asyncio.to_thread(_stamps, self._files)
            if before is not self._seen:
                continue  # somebody has read them meanwhile
            if stamps not in (before, looked):
                looked = stamps
            elif stamps != before:
                self._seen = stamps
                await self._changed()


def _stamps(files: Iterable[Path]) -> tuple[_Stamp, ...]:
    """They change with the files; None while there is none."""
    return tuple(map(_stamp, files))


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
