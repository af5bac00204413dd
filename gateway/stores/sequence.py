"""Whose turn it is to append to the audit log.

Two that number entries in one log fork it: both would write an entry 1 000, and a checkpoint over each would be signed.
A lock keeps a second one away as long as everybody sees it, and says nothing to one that was asleep when it was lost.
So the log has a head row with an epoch. Whoever begins raises it; whoever appends shows theirs in the very transaction
that writes the entries, and is refused when a later one is there (docs/adr/0058-a-fence-for-the-log.md).
"""

from __future__ import annotations

import sqlite3
from typing import Protocol

from gateway.model.value import value
from gateway.stores.named_sql import SQL


class Deposed(Exception):
    """Somebody else has taken the log over; nothing of this transaction may be kept, and no other will succeed."""


@value
class Turn:
    """The right to append: `epoch` is the fencing token, `end` the number of the newest entry, which count from one."""

    epoch: int
    end: int


class Sequence(Protocol):
    """The end of one log, for those that could all append to it."""

    def take_over(self) -> Turn:
        """From here on it is our turn, and nobody else's: durable when this returns. The end is what is durable, too;
        an append that was under way either is before it or fails."""
        ...

    def append(self, turn: Turn, entries: bytes) -> Turn:
        """Entries, one a line and at least one, behind the end, in the transaction that is open. Gives the turn as it
        is once that is durable. Raises Deposed."""
        ...


class SqliteSequence:
    """`Sequence` on the connection that writes. `BEGIN IMMEDIATE` holds the head row: nobody raises the epoch between
    the look at it and COMMIT."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def take_over(self) -> Turn:
        with self._connection as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(SQL["raise_epoch"])
            (epoch,) = db.execute(SQL["epoch"]).fetchone()
            # Not max(last_idx): an index is never used twice, even if the newest rows were deleted.
            end = db.execute(SQL["audit_end"]).fetchone()
        return Turn(epoch, 0 if end is None else end[0])

    def hold(self, turn: Turn) -> None:
        """For a transaction that appends nothing. Raises Deposed."""
        if self._connection.execute(SQL["epoch"]).fetchone() != (turn.epoch,):
            raise Deposed("another gateway has taken this database over")

    def append(self, turn: Turn, entries: bytes) -> Turn:
        self.hold(turn)
        first, end = turn.end + 1, turn.end + entries.count(b"\n") + 1
        self._connection.execute(SQL["append_audit"], (end, first, entries))
        return Turn(turn.epoch, end)
