"""The tree over the audit log, and the signatures under its heads. Brings `cryptography`, at the first checkpoint.

Runs in a thread, one call at a time. The tree is made of the entries as the writer had them in memory; after a restart
(or a long pause) they are read from the file, from the last checkpoint on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from gateway.stores import opencalls
from gateway.stores.auditlog import Rows
from gateway.stores.datafolder import problems
from gateway.stores.named_sql import SQL
from gateway.stores.signingkeys import KeyFiles, Signer, write
from gateway.verifier import BadNote, Checkpoint, NodeAt, Tree, hashes_in, leaf_hashes, nodes_of, succession

HEAD = "head"
"""The newest checkpoint, outside the database: who rolls that back does not roll this back with it."""

SEGMENT = 1 << 16
"""Entries of a segment. Each ends with a checkpoint, so that it can be kept and verified without what follows."""

Tiles = dict[tuple[int, int], bytes]


class Inconsistent(Exception):
    """What is in the database is not what was signed. Nothing more is signed."""


@dataclass(frozen=True)
class Sealed:
    """A head that is signed and not written yet, and what to write with it: tiles, and which entries are open."""

    checkpoint: Checkpoint
    tiles: Tiles
    open: bytes | None = None


class Sealer:
    """`name` is what the log is called. Raises StoreProblem, Inconsistent."""

    def __init__(self, folder: Path, name: str, now: Callable[[], int]) -> None:
        self.keys = KeyFiles(folder)
        self._folder = folder
        self._name = name
        self._now = now
        self._tree = Tree()
        self._open = opencalls.OpenCalls()
        self._dirty: Tiles = {}
        self._signers: list[Signer] = []
        self._second: list[Signer] = []  # those that follow, while they sign too
        self.last: Checkpoint | None = None

    @property
    def size(self) -> int:
        return self._tree.size

    @property
    def origin(self) -> str:
        return self._signers[0].key.name

    def load(self, db: sqlite3.Connection) -> None:
        """The tree as it was under the last checkpoint, once it is certain that it is still the same."""
        stored = db.execute(SQL["last_checkpoint"]).fetchone()
        last = None if stored is None else _parsed(stored[1])
        self._signers = self.keys.load(self._name)
        self.last = last
        for name in (self.origin, self.origin if last is None else last.origin):
            if name != self._name:
                raise Inconsistent(f"the log is called {self._name}, and what signs it is of {name}")
        if last is not None:
            self._tree = _tree(db, last.size)
            if self._tree.root() != last.root:
                raise Inconsistent(f"the hashes that are kept are not those of the checkpoint over {last.size} entries")
            self._open = opencalls.under(db, last.size)
        head = self._head()
        if head is not None and head.size >= self._tree.size and (last is None or head.text != last.text):
            raise Inconsistent(
                f"a checkpoint over {head.size} entries was signed before; the database knows of {self._tree.size}"
            )

    def _head(self) -> Checkpoint | None:
        path = self._folder / HEAD
        with problems(path):
            return _parsed(path.read_bytes()) if path.exists() else None

    def grow(self, rows: Rows) -> Rows:
        """Stops where a segment is full, for that gets a checkpoint of its own; gives the rows that are left."""
        for at, (first, body) in enumerate(rows):
            lines = body.split(b"\n")
            if first != self._tree.size + 1:
                skip = self._tree.size + 1 - first
                if not 0 < skip < len(lines):
                    raise Inconsistent(f"entry {self._tree.size} is not there")
                lines = lines[skip:]
            room = SEGMENT - self._tree.size % SEGMENT
            self._open.take(self._tree.size + 1, lines[:room])
            self._keep(self._tree.extend(leaf_hashes(lines[:room])))
            if len(lines) > room:
                return [(self._tree.size + 1, b"\n".join(lines[room:])), *rows[at + 1 :]]
            if len(lines) == room and at + 1 < len(rows):
                return rows[at + 1 :]
        return []

    def _keep(self, tiles: Iterable[tuple[int, int, list[bytes]]]) -> None:
        for level, number, hashes in tiles:
            self._dirty[level, number] = b"".join(hashes)

    def seal(self) -> Sealed:
        """Signs the tree as it stands."""
        self._keep(self._tree.partial())
        bare = Checkpoint(self.origin, self._tree.size, self._tree.root())
        open = orjson.dumps(self._open.numbers)
        return Sealed(self._signed(bare, [*self._signers, *self._second]), dict(self._dirty), open)

    def _signed(self, bare: Checkpoint, signers: Iterable[Signer]) -> Checkpoint:
        seconds = self._now() // 1000
        return replace(bare, signatures=tuple(signer.sign(bare, seconds) for signer in signers))

    def written(self, sealed: Sealed) -> None:
        """Both are in the database; now the head may go outside."""
        for place, hashes in sealed.tiles.items():
            if self._dirty.get(place) == hashes:
                del self._dirty[place]
        self.last = sealed.checkpoint
        self.publish(sealed.checkpoint)

    def cosigned(self, head: Checkpoint) -> Sealed:
        """The last head once more, with signatures of witnesses."""
        return Sealed(head, {})

    def publish(self, checkpoint: Checkpoint) -> None:
        with problems(self._folder):
            write(self._folder / HEAD, checkpoint.note.encode(), mode=0o644)

    # Rotation.

    def follow(self) -> tuple[list[str], str]:
        """The verifier keys that will follow, which sign too from now on; and the word of those in force for them:
        an entry alone anybody could put into the database before it is signed."""
        self._second = self.keys.following(self.origin)
        keys = [str(signer.key) for signer in self._second]
        return keys, self._signed(succession(self.origin, keys), self._signers).note

    def advance(self) -> None:
        """A checkpoint with both keys names them: they are the ones in force."""
        self.keys.advance()
        self._signers, self._second = self._second, []

    @property
    def public(self) -> list[str]:
        return [str(signer.key) for signer in self._signers]


def put(sealed: Sealed, now: int, cursor: sqlite3.Cursor) -> None:
    rows = [(level, number, hashes) for (level, number), hashes in sealed.tiles.items()]
    cursor.executemany(SQL["put_tile"], rows)
    cursor.execute(SQL["put_checkpoint"], (sealed.checkpoint.size, now, sealed.checkpoint.note.encode()))
    if sealed.open is not None:
        cursor.execute(SQL["put_open_calls"], (sealed.checkpoint.size, sealed.open.decode()))


def node_at(db: sqlite3.Connection) -> NodeAt:
    """Nodes of the tree from the database."""

    def tile(level: int, number: int) -> bytes | None:
        row = db.execute(SQL["tile"], (level, number)).fetchone()
        return None if row is None else row[0]

    return nodes_of(tile)


def _tree(db: sqlite3.Connection, size: int) -> Tree:
    """As tiles have it: of each level, the hashes that are beyond its full tiles."""
    tiles: list[list[bytes]] = []
    span = 1
    while span <= size:
        number, count = divmod(size // span, 256)
        row = db.execute(SQL["tile"], (len(tiles), number)).fetchone() if count else None
        tiles.append([] if row is None else hashes_in(row[0], end=count))
        span *= 256
    return Tree(size, tiles)


def _parsed(note: bytes) -> Checkpoint:
    try:
        return Checkpoint.parse(note.decode())
    except (BadNote, UnicodeDecodeError, AttributeError) as error:
        raise Inconsistent(f"a checkpoint was changed: {error}") from error
