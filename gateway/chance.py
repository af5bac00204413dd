"""Time, ids and chance, which are made here and given in everywhere else.

A part of app.py, in a room of its own.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator


def derived(token: str, use: bytes) -> bytes:
    """A key for one use, which tells nothing about the others."""
    return hashlib.sha256(use + b"\0" + token.encode()).digest()


def now() -> int:
    return time.time_ns() // 1_000_000


def _ids() -> Iterator[str]:
    """Ids for ever: 48 bits of milliseconds, then 80 random ones, as hex. Nobody can tell the next, and those of one
    time lie side by side in an index, where random ones would dirty a page each (a durable task: -12 % CPU). The
    kernel is asked for randomness in bulk: a system call for each id costs more than all else about it."""
    while True:
        pool = os.urandom(10 * 256).hex()
        for start in range(0, len(pool), 20):
            yield f"{time.time_ns() // 1_000_000:012x}{pool[start : start + 20]}"


new_id = _ids().__next__


def chance() -> float:
    """A number from 0 to 1, which nobody can tell."""
    return int.from_bytes(os.urandom(4)) / 2**32
