"""What is said on one event stream, so that a client that lost it can go on where it was.

Source: 2025-11-25, basic/transports (resumability and redelivery). An event's id names its stream and its place on it:
what was said on one stream is never said again on another. Streams of 2026-07-28 have no ids; theirs is a `Queue`.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from typing import Protocol

from gateway.dialects.sse import frame, primer

MAX_EVENTS = 256  # of one stream that were sent and may be asked for again; a client that is further behind has left
MAX_KEPT_BYTES = 64 * 1024 * 1024  # bytes of all streams together; the stream that was begun first forgets first
RETRY_MS = 1_000  # what a client is told to wait before it comes back: a network that changes takes that long

_ID = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


class Outbox(Protocol):
    """Messages on their way to a client."""

    def put(self, body: bytes) -> None: ...

    def take(self) -> bytes:
        """What has not been written yet, as events."""
        ...

    def __len__(self) -> int:
        """How many wait."""
        ...


class Queue:
    """What was taken is gone."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()

    def put(self, body: bytes) -> None:
        self._waiting.append(frame(body))

    def take(self) -> bytes:
        frames = b"".join(self._waiting)
        self._waiting.clear()
        return frames

    def __len__(self) -> int:
        return len(self._waiting)


class Track:
    """What was taken is kept for a while. `primes` says that the stream begins with an id and nothing else, which
    clients before 2025-11-25 would take for a message."""

    def __init__(self, number: int, memory: Memory, *, primes: bool) -> None:
        self.number = number
        self._memory = memory
        self._primes = primes
        self._kept: deque[tuple[int, bytes]] = deque()
        self._last = 0
        self._sent = 0
        self._begun = False

    @property
    def known(self) -> bool:
        """Whether the client has an id to come back with."""
        return self._begun and (self._primes or self._sent > 0)

    def put(self, body: bytes) -> None:
        self._last += 1
        event = frame(body, id=f"{self.number}-{self._last}")
        self._kept.append((self._last, event))
        self._memory.grown(self, len(event))

    def take(self) -> bytes:
        first = primer(f"{self.number}-0", RETRY_MS) if self._primes and not self._begun else b""
        self._begun = True
        frames = first + b"".join(event for number, event in self._kept if number > self._sent)
        self._sent = self._last
        while len(self._kept) > MAX_EVENTS:
            self._drop()
        return frames

    def __len__(self) -> int:
        return self._last - self._sent

    def rewind(self, number: int) -> bool:
        """Go on after event `number`. False when what came after it is no longer there, or never was."""
        oldest = self._kept[0][0] if self._kept else self._last + 1
        if not oldest - 1 <= number <= self._sent:
            return False
        self._begun = True
        self._sent = number
        return True

    def forget(self) -> None:
        """What was sent, all of it."""
        while self._kept and self._kept[0][0] <= self._sent:
            self._drop()

    def close(self) -> None:
        self._memory.shrunk(sum(len(event) for _, event in self._kept))
        self._kept.clear()
        self._memory.without(self)

    def _drop(self) -> None:
        self._memory.shrunk(len(self._kept.popleft()[1]))


class Memory:
    """How much all tracks together may keep."""

    def __init__(self, most: int = MAX_KEPT_BYTES) -> None:
        self._most = most
        self._size = 0
        self._tracks: OrderedDict[Track, None] = OrderedDict()

    def grown(self, track: Track, size: int) -> None:
        self._size += size
        self._tracks[track] = None
        while self._size > self._most and self._tracks:
            oldest, _ = self._tracks.popitem(last=False)
            oldest.forget()

    def shrunk(self, size: int) -> None:
        self._size -= size

    def without(self, track: Track) -> None:
        self._tracks.pop(track, None)


def place(event: str) -> tuple[int, int] | None:
    """The stream and the number of an event; None for what is no id of ours."""
    found = _ID.fullmatch(event)
    return (int(found[1]), int(found[2])) if found else None
