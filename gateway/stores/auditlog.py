"""The audit record: one row per transaction, one entry per line.

The entries of a transaction are gathered in memory and become one row just before COMMIT: a statement and a cell
for each of them would cost 6 µs a call. A line is the entry's canonical form, byte for byte.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import orjson

from gateway.model.audit import AuditEntry, Verdict
from gateway.stores.named_sql import SQL


class AuditLog:
    """The end of the record that `connection` writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        # Not max(last_idx): an index is never used twice, even if the newest rows were deleted.
        found = connection.execute(SQL["audit_end"]).fetchone()
        self._last: int = 0 if found is None else found[0]
        self._lines: list[bytes] = []
        self._ahead = self._last  # with what is not durable yet

    def add(self, lines: Iterable[bytes]) -> None:
        """Entries (`line`) of a request that has succeeded."""
        self._lines += lines

    def finish(self, cursor: sqlite3.Cursor) -> None:
        if self._lines:
            first, self._ahead = self._last + 1, self._last + len(self._lines)
            cursor.execute(_APPEND, (self._ahead, first, b"\n".join(self._lines)))

    def durable(self) -> None:
        self._last = self._ahead
        self._lines.clear()

    def undone(self) -> None:
        self._ahead = self._last
        self._lines.clear()


_APPEND = SQL["append_audit"]


def line(entry: AuditEntry) -> bytes:
    """The canonical form: fields in alphabetical order, as the entry declares them; no line break, no layout."""
    return orjson.dumps(entry)


def read(db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, AuditEntry]]:
    return [(idx, _entry(body)) for idx, body in lines(db, after, limit)]


def lines(db: sqlite3.Connection, after: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """At most `limit` entries after index `after`, each with its index."""
    # A row has at least one entry, so `limit` rows are enough.
    for first, bodies in db.execute(SQL["audit"], (after, limit)):
        for idx, body in enumerate(bodies.split(b"\n"), first):
            if limit <= 0:
                return
            if idx > after:
                limit -= 1
                yield idx, body


def _entry(body: bytes) -> AuditEntry:
    tree = orjson.loads(body)
    return AuditEntry(**{**tree, "verdict": Verdict(tree["verdict"])})
