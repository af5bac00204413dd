"""Ports that are known before anybody listens there, or while nobody does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


def reservation() -> socket.socket:
    """Holds a port of 127.0.0.1, which the system gives to nobody else until it is closed; who names it may listen
    there, again and again. A port that was merely found free belongs to whoever asks next, and other tests ask all the
    time; a client that calls where nobody listens may even be given it itself, and then it talks to itself.

    Bound, but never listening: on Linux such a socket does not stand in the way of another one with SO_REUSEADDR, which
    servers set (socket(7))."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    return place


@contextmanager
def reserved() -> Iterator[int]:
    """The port of a reservation."""
    with reservation() as place:
        yield place.getsockname()[1]
