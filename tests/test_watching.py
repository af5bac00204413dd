"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway import watching
from gateway.watching import Watch
from tests.serving import BOUND


@pytest.mark.security
async def test_a_file_that_is_still_being_written_is_not_read_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor empties a policy before it writes it, and an empty policy is a valid one."""
    stamps = iter(["old", "old", "empty", "half", "half and more", "new", "new", "new"])
    looked: list[str] = []
    read: list[str] = []
    over = asyncio.Event()

    def look(files: Iterable[Path]) -> tuple[str, ...]:
        found = next(stamps, None)
        if found is None:
            over.set()
            return (looked[-1],)
        looked.append(found)
        return (found,)

    async def changed() -> None:
        read.append(looked[-1])

    monkeypatch.setattr(watching, "_stamps", look)
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0)
    watch = Watch("file", changed)
    watch.read([Path("policy.yaml")])
    watch.start()
    try:
        await asyncio.wait_for(over.wait(), BOUND)
    finally:
        await watch.aclose()
    assert read == ["new"]
