"""Which messages were accepted before: where the rows are, and how one is found.

Rows are written at the end of their table, in order. They are found by a 64-bit hash of tenant, principal and
message id; what it finds is compared word by word, so two messages of one hash are no trouble. An index over
hashes is random by nature: each entry would dirty a page of its own, 4 KiB in the log and again at a checkpoint
(10 to 15 µs a call). So the newest entries live in memory, and are merged into the index some 16 000 at a time, in
the order of their hashes, a few with each transaction. Neighbours then share their page.

A mark says up to which row all are in the index. What lies behind it is read again at the start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b

from gateway.model.rows import Key, Reservation
from gateway.stores.batch import Withdraw
from gateway.stores.named_sql import SQL
from gateway.stores.rows import blob, reservation

# Entries in memory before a merge begins (some 200 bytes each). A million rows have an index of 5 000 pages: merging
# 16 000 at a time dirties a third of a page for each, 4 000 at a time would dirty a whole one.
MERGE_SIZE = 16_384
# New entries for which a merge takes a step of twice as many: it ends before the next one is due.
MERGE_STEP = 64


def hashed(tenant: str, principal: str, message_id: str) -> int:
    """Not of the agent: a message id is also looked up for all of them. Raises UnicodeError for lone surrogates."""
    key = f"{tenant}\0{principal}\0{message_id}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big", signed=True)


class Reservations:
    """The table as its one writer sees it. `connection` is asked once, for what no merge has finished."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        (mark,) = connection.execute(SQL["merged"]).fetchone()
        (last,) = connection.execute(SQL["last_reservation"]).fetchone()
        # Numbers are never used twice, even if the newest row was released: the mark may have passed it.
        self._last: int = max(mark, last or 0)
        self._recent: dict[int, tuple[int, ...]] = {}  # hash -> rows, in no merge yet
        for hash, n in connection.execute(SQL["unmerged"], (mark,)):
            _add(self._recent, hash, n)
        self._merging: dict[int, tuple[int, ...]] = {}
        self._ahead: list[int] = []  # the hashes that are left of it, the greatest first
        self._mark = mark  # once it is over
        self._credit = 0  # new entries since its last step
        self._added: list[tuple[int, int]] = []  # in this transaction
        self._dropped: list[tuple[int, int]] = []
        self._merged = 0

    # Changes.

    def reserve(self, cursor: sqlite3.Cursor, held: Reservation) -> None:
        """Take a free key. Raises Withdraw with the holder, before any row is touched, if it is not."""
        key = held.key
        hash = hashed(key.tenant, key.principal, key.message_id)
        if taken := [*self._newest(hash), *(n for (n,) in cursor.execute(_FIND, (hash,)))]:
            for n in taken:
                row = cursor.execute(SQL["reservation"], (n,)).fetchone()
                if row is not None and row[:4] == _words(key):
                    raise Withdraw(reservation(row))
        n = self._last = self._last + 1
        reply = None if held.reply is None else blob(held.reply.wire())
        words = (n, hash, key.tenant, key.principal, key.message_id, key.agent)
        cursor.execute(_RESERVE, (*words, blob(held.digest), held.task_id, held.at, int(held.settled), reply))
        _add(self._recent, hash, n)
        self._added.append((hash, n))

    def update(self, cursor: sqlite3.Cursor, name: str, key: Key, *values: object) -> None:
        """Run the statement `name`, which ends in the number of a row and its key."""
        self._update(cursor, SQL[name], hashed(key.tenant, key.principal, key.message_id), key, values)

    def release(self, cursor: sqlite3.Cursor, key: Key) -> None:
        hash = hashed(key.tenant, key.principal, key.message_id)
        n = self._update(cursor, SQL["release"], hash, key, ())
        if n is not None:
            cursor.execute(SQL["unmerge"], (hash, n))
            self._dropped.append((hash, n))

    def _update(
        self, cursor: sqlite3.Cursor, statement: str, hash: int, key: Key, values: tuple[object, ...]
    ) -> int | None:
        for n in self._newest(hash):  # nearly always: it was taken a moment ago
            if cursor.execute(statement, (*values, n, *_words(key))).rowcount:
                return n
        merged: list[int] = [n for (n,) in cursor.execute(_FIND, (hash,))]
        for n in merged:
            if cursor.execute(statement, (*values, n, *_words(key))).rowcount:
                return n
        return None

    # Finding.

    def recent(self, tenant: str, principal: str, message_id: str) -> tuple[int, ...]:
        """Rows that the index may not know yet, for `find`. (Some may be of other words, or gone.)"""
        return self._newest(hashed(tenant, principal, message_id))

    def _newest(self, hash: int) -> tuple[int, ...]:
        return self._recent.get(hash, ()) + self._merging.get(hash, ())

    # The transaction.

    def mark(self) -> tuple[int, int]:
        """Where a request begins."""
        return len(self._added), len(self._dropped)

    def undo(self, mark: tuple[int, int]) -> None:
        """The request that began there was undone."""
        added, dropped = mark
        for hash, n in self._added[added:]:
            _drop(self._recent, hash, n)
            _drop(self._merging, hash, n)
        del self._added[added:]
        del self._dropped[dropped:]

    def finish(self, cursor: sqlite3.Cursor) -> None:
        """Merge on, if it is time."""
        if not self._ahead:
            if len(self._recent) < MERGE_SIZE:
                return
            self._merging, self._recent = self._recent, {}
            self._ahead = sorted(self._merging, reverse=True)
            self._mark, self._credit = self._last, 0
        self._credit += len(self._added)
        if self._credit >= MERGE_STEP:
            self._step(cursor, 2 * self._credit)

    def _step(self, cursor: sqlite3.Cursor, size: int) -> None:
        step = self._ahead[-size:]
        cursor.executemany(SQL["merge"], ((hash, n) for hash in reversed(step) for n in self._merging.get(hash, ())))
        if len(step) == len(self._ahead):
            cursor.execute(SQL["end_merge"], (self._mark,))
        self._merged = len(step)

    def durable(self) -> None:
        if self._merged:
            del self._ahead[-self._merged :]
            self._credit = 0
            if not self._ahead:
                self._merging = {}
        for hash, n in self._dropped:
            _drop(self._recent, hash, n)
            _drop(self._merging, hash, n)
        self._over()

    def undone(self) -> None:
        self.undo((0, 0))
        self._over()

    def _over(self) -> None:
        self._added.clear()
        self._dropped.clear()
        self._merged = 0


_RESERVE = SQL["reserve"]
_FIND = SQL["reservations_by_hash"]


def _words(key: Key) -> tuple[str, str, str, str]:
    return key.tenant, key.principal, key.message_id, key.agent


def _add(entries: dict[int, tuple[int, ...]], hash: int, n: int) -> None:
    entries[hash] = (*entries.get(hash, ()), n)


def _drop(entries: dict[int, tuple[int, ...]], hash: int, n: int) -> None:
    left = tuple(other for other in entries.get(hash, ()) if other != n)
    if left:
        entries[hash] = left
    else:
        entries.pop(hash, None)


def find(
    db: sqlite3.Connection, recent: Iterable[int], tenant: str, principal: str, message_id: str, agent: str | None
) -> list[Reservation]:
    """A caller's keys with one message id, by agent. `recent` is what the writer knew when it was asked."""
    hash = hashed(tenant, principal, message_id)
    numbers = {*recent, *(n for (n,) in db.execute(_FIND, (hash,)))}
    found = (db.execute(SQL["reservation"], (n,)).fetchone() for n in numbers)
    mine = [row for row in found if row is not None and row[:3] == (tenant, principal, message_id)]
    return [reservation(row) for row in sorted(mine, key=lambda row: row[3]) if agent in (None, row[3])]
