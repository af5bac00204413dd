"""Which calls have begun and not ended.

A life of the process that was killed leaves intents without an outcome, and the next one has to say so: it would have
to read the whole log to find them, for a call may last for days. So the numbers of those that are open are kept with
each checkpoint. The next life begins with them and reads what was written behind that checkpoint, a few seconds of the
log, however long it is. Whoever appends does nothing for it: entries are looked at where they are hashed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import orjson

from gateway.model.audit import AuditEntry
from gateway.stores.auditlog import entry_of, lines
from gateway.stores.named_sql import SQL
from gateway.stores.subjects import names

# Entries behind the newest checkpoint that a start looks at, half a second: more are there only where nobody signed.
MAX_BEHIND = 200_000

_PHASE, _INTENT, _OUTCOME, _ID = b'"phase":"', b"i", b"o", b'"id":"'


class OpenCalls:
    """As of the entries that were taken. Begins with the numbers of those that were open before."""

    def __init__(self, before: Iterable[tuple[int, bytes]] = ()) -> None:
        self._open: dict[bytes, int] = {}
        for number, entry in before:
            self.take(number, (entry,))

    def take(self, first: int, entries: Iterable[bytes]) -> None:
        """Entries in a row, the first by its number."""
        for number, entry in enumerate(entries, first):
            # Behind the phase canonical JSON has strings only, and no string holds a bare quote. A search from the end
            # takes a fifth of what reading the JSON would.
            at = entry.rfind(_PHASE) + len(_PHASE)
            found = entry.find(_ID, at)
            if found < 0:  # of the first releases, which had other names: nothing is said of those
                continue
            start = found + len(_ID)
            id, phase = entry[start : entry.find(b'"', start)], entry[at : at + 1]
            if phase == _INTENT:
                self._open[id] = number
            elif phase == _OUTCOME:
                self._open.pop(id, None)

    @property
    def numbers(self) -> list[int]:
        return sorted(self._open.values())


def under(db: sqlite3.Connection, size: int) -> OpenCalls:
    """Those that were open under the checkpoint over so many entries. One of an older release kept none."""
    kept, numbers = db.execute(SQL["open_calls"]).fetchone()
    return OpenCalls() if kept != size else OpenCalls(_entries(db, orjson.loads(numbers)))


def left_open(db: sqlite3.Connection, end: int) -> list[AuditEntry]:
    """Of the first `end` entries those that have begun and not ended, the oldest first."""
    row = db.execute(SQL["last_checkpoint"]).fetchone()
    size = 0 if row is None else int(row[0])
    if end - size > MAX_BEHIND:  # nothing is said of an older one: its end may be in what is skipped
        size, open = end - MAX_BEHIND, OpenCalls()
    else:
        open = under(db, size)
    for number, body in lines(db, size, max(end - size, 0)):
        open.take(number, (body,))
    named = names(db)
    return [entry_of(body, named) for _, body in _entries(db, (each for each in open.numbers if each <= end))]


def _entries(db: sqlite3.Connection, numbers: Iterable[int]) -> Iterable[tuple[int, bytes]]:
    for number in numbers:
        yield from lines(db, number - 1, 1)
