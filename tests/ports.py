"""Ports that are known before anybody listens there, or while nobody does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved() -> Iterator[int]:
    """A port of 127.0.0.1 that the system gives to nobody else before the block ends; who names it may listen there,
    again and again. A port that was merely found free belongs to whoever asks next, and other tests ask all the time.

    Bound, but never listening: on Linux such a socket does not stand in the way of another one with SO_REUSEADDR, which
    servers set (socket(7))."""
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()[1]
