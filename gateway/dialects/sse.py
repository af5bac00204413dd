"""Server-sent events, both ways: `frame` writes one, `Reader` takes a stream apart.

Source: WHATWG HTML §9.2 (event stream format and its interpretation). Pure: bytes in, bytes or values out.

Writing is narrower than the standard on purpose. The data is always JSON on one line, and `event` and `id`
come from a fixed alphabet, so nothing that a peer wrote can end a line and begin a field of its own (SSE
injection). Reading is as wide as the standard: three line ends, a byte order mark, comments, many data lines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.model.errors import GatewayError, Reason

COMMENT: Final = b": keep-alive\n\n"
"""Sent when a stream has nothing to say: proxies cut silent connections (nginx after 60 s), clients ignore
comments."""

MAX_EVENT_BYTES: Final = 1024 * 1024
"""The default bound for one event from an upstream: what the gateway also accepts as one request body."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_.:/=+-]{1,256}")
_BOM: Final = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"  # looking for a number takes a third of the time that looking for bytes does


class Event(NamedTuple):  # a tuple, not a frozen dataclass: 0.2 against 0.6 us, and streams make many
    """One dispatched event. `data` is raw (its lines joined with LF), `id` the last one seen on the
    stream."""

    data: bytes
    event: str = "message"
    id: str = ""


def frame(data: bytes, event: str | None = None, id: str | None = None) -> bytes:
    """One event as it goes over the wire; `data` is one line (our JSON writers never emit a raw line end).

    Raises ValueError for a line end in `data`, and for an `event` or `id` outside `[A-Za-z0-9_.:/=+-]`: both
    are mistakes of ours, and letting them pass would let a peer forge events."""
    if _LF in data or _CR in data:
        raise ValueError("the data of an event must be one line")
    if event is None and id is None:
        return b"data: " + data + b"\n\n"
    head = _field("event", event) if event is not None else b""
    if id is not None:
        head += _field("id", id)
    return head + b"data: " + data + b"\n\n"


def primer(id: str, retry_ms: int) -> bytes:
    """An event with nothing but an id to come back with, and how long to wait before (2025-11-25, basic/transports)."""
    return _field("id", id) + b"retry: %d\ndata: \n\n" % retry_ms


@lru_cache(maxsize=256)  # event names are a handful; ids pass through and are short
def _field(name: str, value: str) -> bytes:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"the {name} of an event must match {_TOKEN.pattern}")
    return f"{name}: {value}\n".encode()


class Reader:
    """Takes an event stream apart, however it was cut into chunks.

    `feed` returns the events that the chunk completed. An event still open when the stream ends is dropped,
    as the standard says. `retry` is the reconnection time in milliseconds that the peer last asked for, if
    any."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.retry: int | None = None
        self._max = max_event_bytes
        self._last_id = ""
        self._buffer = bytearray()  # no CR in here: line ends are made LF on the way in
        self._searched = 0  # no blank line begins before this offset
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in `chunk`, in order.

        Raises GatewayError(UPSTREAM_TOO_LARGE) when one event, comments included, exceeds the bound; the
        stream cannot be read on after that, and events before it in the same chunk are lost with it."""
        buffer = self._buffer
        buffer += self._with_lf(chunk)
        if self._at_start and not self._skip_bom():
            return []
        end = buffer.rfind(b"\n\n", self._searched)
        if end < 0:
            self._searched = max(0, len(buffer) - 1)
            if len(buffer) > self._max:
                raise self._too_large()
            return []
        blocks = bytes(memoryview(buffer)[:end]).split(b"\n\n")
        del buffer[: end + 2]
        self._searched = max(0, len(buffer) - 1)
        if len(buffer) > self._max:
            raise self._too_large()
        return [event for block in blocks if (event := self._event(block)) is not None]

    def _with_lf(self, chunk: bytes) -> bytes:
        """CRLF and CR become LF. A CR that ends a chunk counts at once; an LF that then follows is
        swallowed."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk[-1] == 0x0D
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _skip_bom(self) -> bool:
        """False while the first bytes may still become a byte order mark."""
        buffer = self._buffer
        if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
            return False
        self._at_start = False
        if buffer.startswith(_BOM):
            del buffer[: len(_BOM)]
        return True

    def _event(self, block: bytes) -> Event | None:
        """What the lines up to a blank line dispatch; None when there was no data among them."""
        if len(block) > self._max:
            raise self._too_large()
        if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of nearly every peer
            return Event(block[6:], "message", self._last_id)
        data: list[bytes] = []
        name = ""
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode(errors="replace")
            elif field == b"id" and b"\0" not in value:
                self._last_id = value.decode(errors="replace")
            elif field == b"retry" and value.isdigit() and len(value) < 10:
                self.retry = int(value)
        return Event(b"\n".join(data), name or "message", self._last_id) if data else None

    def _too_large(self) -> GatewayError:
        return GatewayError(Reason.UPSTREAM_TOO_LARGE, f"The upstream sent an event of more than {self._max} bytes.")


__all__ = ["COMMENT", "MAX_EVENT_BYTES", "Event", "Reader", "frame", "primer"]
