"""When a task's document is written: rarely, because its log says the same.

Readers fold what the log holds since the last document. A new one is written when there is more than a little to fold,
and either the turn is at its end, because then the task is read most, or the events since weigh as much as the last
one: so all documents of a stream together weigh no more than twice its log.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.rows import Record, TaskRow
from gateway.model.task import Task

# A reader folds so few without noticing (two: 18 µs, a document: 10), and most tasks never have more: a document would
# cost each of them 10 µs and 1 to 2 KiB.
FEW_EVENTS = 4
# Active tasks whose sizes we remember. One that was forgotten gets a snapshot it could have done without.
SIZES_LIMIT = 20_000


@dataclass(slots=True)
class Size:
    """What a task's document weighs (or what stands for it: the first group), and the events since."""

    doc: int
    events: int = 0
    tail: int = 0

    def due(self, records: tuple[Record, ...], *, at_rest: bool) -> bool:
        """Counts them too."""
        self.events += len(records)
        self.tail += _weight(records)
        return self.events > FEW_EVENTS and (at_rest or self.tail >= self.doc)


class Sizes(dict[tuple[str, str], Size]):
    """Sizes of active tasks. Memory only: the store is right without it, and writes more."""

    def first(self, row: TaskRow, records: tuple[Record, ...]) -> bytes | None:
        """A new task's document, unless a short log that begins with the whole task does without."""
        doc = None
        if not (0 < len(records) <= FEW_EVENTS and isinstance(records[0].event, Task)):
            doc = row.task.wire()
        if not row.task.status.state.terminal:
            self._remember(row, Size(_weight(records), len(records)) if doc is None else Size(len(doc)))
        return doc

    def next(self, row: TaskRow, records: tuple[Record, ...]) -> bytes | None:
        """The task's document if it is time to write it again."""
        key, state = (row.tenant, row.id), row.task.status.state
        size = self.get(key)
        if size is not None and not size.due(records, at_rest=state.terminal or state.interrupted):
            if state.terminal:
                del self[key]
            return None
        doc = row.task.wire()
        if state.terminal:
            self.pop(key, None)
        else:
            self._remember(row, Size(len(doc)))
        return doc

    def _remember(self, row: TaskRow, size: Size) -> None:
        if len(self) >= SIZES_LIMIT:
            del self[next(iter(self))]
        self[row.tenant, row.id] = size


def _weight(records: tuple[Record, ...]) -> int:
    return sum(len(record.body) for record in records)
