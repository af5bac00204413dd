"""Undoing one layer of compression, in pieces whose size does not depend on what was compressed. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

# What one step of decompression may produce: deflate makes a thousand bytes of one, so a single network read
# of 128 KiB could otherwise be 128 MiB at once.
PIECE = 64 * 1024

# Content coding -> zlib's window bits: 15 bits, with gzip's header and trailer (+16) or zlib's.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
CODINGS = frozenset(_WINDOWS)


class Inflate:
    """One layer of gzip or deflate, never more than PIECE bytes at a time. Raises zlib.error."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream = zlib.decompressobj(_WINDOWS[coding])
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not self._started and self._coding == "deflate" and data[0] & 15 != 8:
            # RFC 9110 §8.4.1.2: some implementations send deflate without the zlib wrapper.
            self._stream = zlib.decompressobj(-15)
        self._started = True
        more = True
        while more:
            piece = self._stream.decompress(data, PIECE)
            data = self._stream.unconsumed_tail
            more = bool(data) or len(piece) == PIECE  # a full piece may have left output inside zlib
            if piece:
                yield piece
        if self._stream.unused_data:
            raise zlib.error("data after the end")

    def finish(self) -> None:
        if self._started and not self._stream.eof:
            raise zlib.error("ended too early")
