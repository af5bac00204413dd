"""Verifies an audit log, without the gateway: this one file, Python's standard library and `cryptography`.

    python verifier.py verify FILE --keys KEYS     FILE is a database, an export or a folder of segments
    python verifier.py proof FILE --keys KEYS      one entry's proof file

Exits with 0 ok, 1 tampered, 2 incomplete, 3 key or policy.

The log is the Merkle tree of RFC 6962 §2.1 over its entries, entry 0 first; a leaf is the SHA-256 of a zero byte and
the entry's bytes. Its heads are C2SP checkpoints (c2sp.org/tlog-checkpoint), signed with Ed25519 as a note and with
ML-DSA-44 as a cosignature (c2sp.org/tlog-cosignature). Whoever holds one head can tell whether anything before it was
changed, removed, inserted or reordered; whoever holds two, whether the log was rolled back or forked in between.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import re
import sqlite3
import struct
import sys
import time
from binascii import hexlify
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from itertools import islice, pairwise
from operator import add
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

# --- The tree (RFC 6962 §2.1). ------------------------------------------------------------------------------------

EMPTY = hashlib.sha256(b"").digest()
WIDTH = 256
"""Hashes in a tile: a tile of level L holds the roots of subtrees of 256^L leaves (c2sp.org/tlog-tiles)."""

NodeAt = Callable[[int, int], bytes]
"""The root of the perfect subtree of that height and that number, counted from the left."""


# A copy of a hash that has begun is made in two thirds of the time of a new one.
_LEAF, _NODE = hashlib.sha256(b"\0"), hashlib.sha256(b"\1")


def _hashed(begun: hashlib._Hash, texts: Iterable[bytes]) -> list[bytes]:
    done, fresh = [], begun.copy
    for text in texts:
        hash = fresh()
        hash.update(text)
        done.append(hash.digest())
    return done


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    return _hashed(_LEAF, entries)


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """Of these leaves; or of perfect subtrees of one size, where the last may be smaller and imperfect."""
    row = list(hashes)
    while len(row) > 1:
        odd = row[-1:] if len(row) % 2 else []
        row = _hashed(_NODE, map(add, row[::2], row[1::2])) + odd
    return row[0] if row else EMPTY


class Tree:
    """Grows at its end and remembers only the newest tile of each level: O(log n), however long the log is."""

    def __init__(self, size: int = 0, tiles: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self.tiles = [list(tile) for tile in tiles] or [[]]

    def extend(self, leaves: Sequence[bytes]) -> Iterator[tuple[int, int, list[bytes]]]:
        """Yields each tile (level, number, hashes) that has become full. To be read to its end."""
        start = 0
        while start < len(leaves):
            room = WIDTH - len(self.tiles[0])
            some = leaves[start : start + room]
            self.tiles[0] += some
            self.size += len(some)
            start += len(some)
            yield from self._full(0)

    def _full(self, level: int) -> Iterator[tuple[int, int, list[bytes]]]:
        tile = self.tiles[level]
        if len(tile) < WIDTH:
            return
        yield level, self.size // WIDTH ** (level + 1) - 1, tile
        self.tiles[level] = []
        if level + 1 == len(self.tiles):
            self.tiles.append([])
        self.tiles[level + 1].append(tree_root(tile))
        yield from self._full(level + 1)

    def partial(self) -> Iterator[tuple[int, int, list[bytes]]]:
        """The tiles that are not full yet."""
        for level, tile in enumerate(self.tiles):
            if tile:
                yield level, self.size // WIDTH ** (level + 1), tile

    def root(self) -> bytes:
        rest: list[bytes] = []
        for tile in self.tiles:
            if tile or rest:
                rest = [tree_root([*tile, *rest])]
        return rest[0] if rest else EMPTY


def nodes_of(tile: Callable[[int, int], bytes | None]) -> NodeAt:
    """Nodes of a tree that is kept as tiles, each the hashes of it in a row."""

    def node(height: int, number: int) -> bytes:
        level, rest = divmod(height, 8)
        first = (number << rest) % WIDTH
        hashes = hashes_in(tile(level, (number << rest) // WIDTH) or b"", first, first + (1 << rest))
        if len(hashes) < 1 << rest:
            raise LookupError(f"the node {number} of height {height} is not there")
        return tree_root(hashes)

    return node


def hashes_in(tile: bytes, first: int = 0, end: int = WIDTH) -> list[bytes]:
    return [tile[at : at + 32] for at in range(32 * first, min(32 * end, len(tile) // 32 * 32), 32)]


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1  # the largest power of two below size


def range_root(node: NodeAt, first: int, end: int) -> bytes:
    size = end - first
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return node(height, first >> height)
    middle = first + _split(size)
    return node_hash(range_root(node, first, middle), range_root(node, middle, end))


def inclusion(node: NodeAt, index: int, size: int) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves, from its sibling up (RFC 6962 §2.1.1)."""
    first, end, path = 0, size, []
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            path.append(range_root(node, middle, end))
            end = middle
        else:
            path.append(range_root(node, first, middle))
            first = middle
    return path[::-1]


def consistency(node: NodeAt, old: int, new: int) -> list[bytes]:
    """The proof that the tree of `old` leaves is the beginning of the one of `new` (RFC 6962 §2.1.2)."""
    first, end, whole, path = 0, new, True, []
    if old in (0, new):
        return []
    while old != end - first:
        middle = first + _split(end - first)
        if old <= middle - first:
            path.append(range_root(node, middle, end))
            end = middle
        else:
            path.append(range_root(node, first, middle))
            old, first, whole = old - (middle - first), middle, False
    if not whole:
        path.append(range_root(node, first, end))
    return path[::-1]


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a proof leads to; None if it is none for that index and size (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return None
    at, last, root = index, size - 1, leaf
    for hash in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            root = node_hash(hash, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, hash)
        at, last = at >> 1, last >> 1
    return root if last == 0 else None


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the proof shows that the old tree is the beginning of the new one (RFC 9162 §2.1.4.2)."""
    if old == new:
        return old_root == new_root and not path
    if not 0 <= old < new:
        return False
    if old == 0:
        return not path and old_root == EMPTY
    hashes = list(path) if old & (old - 1) else [old_root, *path]
    if not hashes:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = hashes[0]
    for hash in hashes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            older, newer = node_hash(hash, older), node_hash(hash, newer)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, hash)
        at, last = at >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root


# --- Keys and notes (c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature). --------------------------------------

ED25519, COSIGNED_ED25519, COSIGNED_MLDSA44 = 1, 4, 6  # the types of signature that we know
MAX_NOTE = 256 * 1024  # bytes of a checkpoint: some seventy signatures of 3 KB each
_LENGTHS = {ED25519: 32, COSIGNED_ED25519: 32, COSIGNED_MLDSA44: 1312}


class BadNote(ValueError):
    """A key, a checkpoint or a proof that is not well-formed, or whose signature does not hold."""


@dataclass(frozen=True)
class Key:
    """A verifier key: `name+id+base64(type || key)`."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> Key:
        name, _, rest = text.strip().partition("+")
        mark, _, material = rest.partition("+")
        raw = _base64(material)
        if not name or any(each.isspace() for each in name) or not raw or _LENGTHS.get(raw[0]) != len(raw) - 1:
            raise BadNote(f"{text.strip()[:60]!r} is no verifier key that is known here")
        key = cls(name, raw[0], raw[1:])
        if key.id.hex() != mark:
            raise BadNote(f"the key of {name} does not have the id {mark[:8]}")
        return key

    def holds(self, checkpoint: Checkpoint, signature: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            if self.kind == ED25519:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, checkpoint.text)
                return True
            (when,), signature = struct.unpack(">Q", signature[:8]), signature[8:]
            if self.kind == COSIGNED_ED25519:
                text = b"cosignature/v1\ntime %d\n" % when + checkpoint.text
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
            else:
                message = cosigned(self.name, when, checkpoint)
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError, struct.error):
            return False
        return True


def cosigned(name: str, when: int, checkpoint: Checkpoint) -> bytes:
    """What an ML-DSA-44 cosignature signs."""
    signer, origin = name.encode(), checkpoint.origin.encode()
    head = b"subtree/v1\n\0" + bytes([len(signer)]) + signer + struct.pack(">Q", when) + bytes([len(origin)]) + origin
    return head + struct.pack(">QQ", 0, checkpoint.size) + checkpoint.root


@dataclass(frozen=True)
class Checkpoint:
    """A head of the log: what it says, and its signatures as (name, key id, signature)."""

    origin: str
    size: int
    root: bytes
    signatures: tuple[tuple[str, bytes, bytes], ...] = ()

    @property
    def text(self) -> bytes:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    @property
    def note(self) -> str:
        lines = (f"— {name} {base64.b64encode(id + made).decode()}\n" for name, id, made in self.signatures)
        return self.text.decode() + "\n" + "".join(lines)

    @classmethod
    def parse(cls, note: str) -> Checkpoint:
        text, blank, signed = note.rpartition("\n\n")
        lines = text.split("\n")
        if not blank or len(note) > MAX_NOTE or len(lines) != 3 or not _DECIMAL.fullmatch(lines[1]):
            raise BadNote("not a checkpoint: origin, size and root, an empty line, signatures")
        root = _base64(lines[2])
        if not lines[0] or len(root) != 32 or not signed.endswith("\n"):
            raise BadNote("not a checkpoint: the root is a SHA-256 in base64")
        return cls(lines[0], int(lines[1]), root, tuple(map(_signature, signed.removesuffix("\n").split("\n"))))

    def signers(self, keys: Iterable[Key]) -> list[Key]:
        """The keys that have signed it. Raises BadNote if a known key's signature does not hold."""
        found = []
        for key in keys:
            for name, id, signature in self.signatures:
                if (name, id) == (key.name, key.id):
                    if not key.holds(self, signature):
                        raise BadNote(f"the signature of {name} ({id.hex()}) under size {self.size} does not hold")
                    found.append(key)
        return found


def succession(origin: str, keys: Sequence[str]) -> Checkpoint:
    """What the keys of a log sign about those that follow them: in the form of a checkpoint, so that both kinds of key
    can, and under a name that no log has. Its root is the SHA-256 of the keys, one a line."""
    text = "".join(f"{key}\n" for key in keys)
    return Checkpoint(f"{origin}/keys", len(keys), hashlib.sha256(text.encode()).digest())


_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def _signature(line: str) -> tuple[str, bytes, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, signature = rest.partition(" ")
    raw = _base64(signature)
    if dash != "—" or not name or len(raw) < 5:
        raise BadNote("not a checkpoint: a signature is a dash, a name and base64")
    return name, raw[:4], raw[4:]


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadNote("not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise BadNote("not base64 as it is written")  # two texts for the same bytes: one of them was made up
    return raw


# --- What a verifier trusts (c2sp.org/tlog-policy, as far as logs, witnesses and groups of them go). ----------------


@dataclass
class Trust:
    """Keys of the log, keys of witnesses by name, and how many of whom must have cosigned."""

    log: list[Key] = field(default_factory=list)
    witnesses: dict[str, Key] = field(default_factory=dict)
    groups: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    quorum: str = "none"

    @classmethod
    def parse(cls, text: str) -> Trust:
        """A policy file, or simply one verifier key of the log a line. Raises BadNote."""
        trust = cls()
        for line in (line.strip() for line in text.splitlines()):
            match line.split():
                case []:
                    continue
                case [word, *_] if word.startswith("#"):
                    continue
                case ["log", key, *_]:
                    trust.log.append(Key.parse(key))
                case ["witness", name, key, *_]:
                    trust.witnesses[name] = Key.parse(key)
                case ["group", name, count, *members]:
                    known = {"any": 1, "all": len(members)}
                    number = known[count] if count in known else int(count) if count.isdecimal() else 0
                    if not 0 < number <= len(members) or set(members) - trust.witnesses.keys() - trust.groups.keys():
                        raise BadNote(f"policy: the group {name} cannot be made up of {', '.join(members)}")
                    trust.groups[name] = (number, members)
                case ["quorum", name]:
                    if name != "none" and name not in trust.witnesses and name not in trust.groups:
                        raise BadNote(f"policy: nobody is called {name}")
                    trust.quorum = name
                case [key]:
                    trust.log.append(Key.parse(key))
                case _:
                    raise BadNote(f"policy: {line[:60]!r} is not understood")
        if not trust.log:
            raise BadNote("no key of the log is given")
        return trust

    def signed(self, checkpoint: Checkpoint) -> bool:
        """Whether the log itself signed it, with every kind of key that it has. Raises BadNote."""
        signers = checkpoint.signers(self.log)
        named = any(key.name == checkpoint.origin for key in self.log)
        return named and {key.kind for key in signers} >= {key.kind for key in self.log}

    def witnessed(self, checkpoint: Checkpoint) -> bool:
        seen = {key.name for key in checkpoint.signers(self.witnesses.values())}
        here = {name for name, key in self.witnesses.items() if key.name in seen}
        return self.quorum == "none" or self._met(self.quorum, here)

    def _met(self, name: str, here: set[str]) -> bool:
        if name not in self.groups:
            return name in here
        number, members = self.groups[name]
        return sum(self._met(member, here) for member in members) >= number


# --- Proof files (c2sp.org/tlog-proof). -------------------------------------------------------------------------------

PROOF = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Proof:
    """One entry (`extra` of the file), its place, the path to the root, and the head."""

    entry: bytes
    index: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    def __str__(self) -> str:
        lines = [PROOF, f"extra {base64.b64encode(self.entry).decode()}", f"index {self.index}"]
        lines += [base64.b64encode(hash).decode() for hash in self.path]
        return "\n".join(lines) + "\n\n" + self.checkpoint.note

    @classmethod
    def parse(cls, text: str) -> Proof:
        head, _, note = text.partition("\n\n")
        match head.split("\n"):
            case [first, extra, index, *path] if first == PROOF and extra[:6] == "extra " and index[:6] == "index ":
                hashes = tuple(map(_base64, path))
                if not _DECIMAL.fullmatch(index[6:]) or len(hashes) > 63 or any(len(hash) != 32 for hash in hashes):
                    raise BadNote("not a proof: an index and hashes of 32 bytes")
                return cls(_base64(extra[6:]), int(index[6:]), hashes, Checkpoint.parse(note))
        raise BadNote(f"not a proof: it begins with {PROOF!r}, extra and index")

    def holds(self) -> bool:
        size, root = self.checkpoint.size, self.checkpoint.root
        return root_of_inclusion(leaf_hash(self.entry), self.index, size, self.path) == root


# --- Where logs are found. --------------------------------------------------------------------------------------------


Run = tuple[int, list[bytes], bytes | None]
"""The index of the first entry, some entries, and where those stand beside them their hashes in hex, in a row."""

RUN = 4 * WIDTH  # entries at once: what each run costs is then nothing


class Log(Protocol):
    """`live`: a gateway may be writing to it, so its newest entries may wait for their checkpoint."""

    live: bool

    def notes(self) -> list[str]:
        """The checkpoints, by size."""
        ...

    def runs(self) -> Iterator[Run]:
        """All entries in their order. Raises Broken."""
        ...

    def tile(self, level: int, number: int) -> bytes | None:
        """What is kept of the tree, hashes in a row; None where nothing is."""
        ...


class Broken(Exception):
    """What is at `index` cannot even be read."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


LAST_HEADS = 70
"""So many checkpoints a gateway can make between two that it shows to its witnesses."""


class Database:
    """The gateway's SQLite database, read-only and as of one moment, beside a gateway that runs."""

    live = True

    def __init__(self, path: Path) -> None:
        self._db = self._opened(path, "mode=ro")
        try:
            self._db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            # SQLite wants to write beside it even so. A copy at rest, on a disk that is only read, is read as it is.
            self._db.close()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
            wal = path.with_name(f"{path.name}-wal")
            if wal.exists() and wal.stat().st_size:
                hint = f"copy {path.name} and {wal.name} to a folder that you may write to"
                raise sqlite3.OperationalError(f"{error}; {hint}") from error
            self._db = self._opened(path, "immutable=1")

    @staticmethod
    def _opened(path: Path, how: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
        db.execute("BEGIN")
        return db

    def notes(self) -> list[str]:
        return [_text(note) for (note,) in self._db.execute("SELECT note FROM audit_checkpoint ORDER BY size")]

    def runs(self, after: int = 0) -> Iterator[Run]:
        """Without the transactions that end before entry `after`."""
        first: int = 0
        entries: list[bytes] = []
        sql = "SELECT first_idx, last_idx, entries FROM audit WHERE last_idx > ? ORDER BY last_idx"
        for begin, end, body in self._db.execute(sql, (after,)):
            if not isinstance(begin, int) or not isinstance(body, bytes):
                yield first, entries, None
                raise Broken(first + len(entries), "the entries are not bytes, or have no number")
            # The store counts from one.
            if begin - 1 != first + len(entries) or len(entries) >= RUN:
                yield first, entries, None
                first, entries = begin - 1, []
            entries += body.split(b"\n")
            if first + len(entries) != end:
                yield first, entries, None
                raise Broken(min(first + len(entries), end), "a row does not hold as many entries as it says")
        yield first, entries, None

    def tile(self, level: int, number: int) -> bytes | None:
        row = self._db.execute("SELECT hashes FROM audit_tile WHERE level = ? AND n = ?", (level, number)).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else None

    def entry(self, index: int) -> bytes | None:
        sql = "SELECT first_idx, entries FROM audit WHERE last_idx >= ? ORDER BY last_idx LIMIT 1"
        row = self._db.execute(sql, (index + 1,)).fetchone()
        if row is not None and not (isinstance(row[0], int) and isinstance(row[1], bytes)):
            raise Broken(index, f"the row of entry {index} does not hold bytes, or no number")
        lines = [] if row is None else row[1].split(b"\n")
        at = -1 if row is None else index + 1 - row[0]
        return lines[at] if 0 <= at < len(lines) else None

    def head(self) -> Checkpoint | None:
        """The newest checkpoint. Raises BadNote."""
        row = self._db.execute("SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        return None if row is None else Checkpoint.parse(_text(row[0]))

    def proof(self, index: int) -> Proof:
        """Under the newest checkpoint; of the last ones under one that witnesses have signed, too, where there is such.
        Raises LookupError when there is no such entry or no checkpoint over it, Broken when nothing leads there."""
        head, entry = self._cosigned(index) or self.head(), self.entry(index)
        if entry is None:
            raise LookupError(f"there is no entry {index}")
        if head is None or index >= head.size:
            raise LookupError(f"entry {index} is not under a checkpoint yet; that takes some ten seconds")
        node = nodes_of(cache(self.tile))
        proof = Proof(entry, index, tuple(inclusion(node, index, head.size)), head)
        if not proof.holds():
            raise Broken(index, f"what is kept of the tree does not lead from entry {index} to the checkpoint")
        return proof

    def _cosigned(self, index: int) -> Checkpoint | None:
        sql = "SELECT note FROM audit_checkpoint WHERE size > ? ORDER BY size DESC LIMIT ?"
        for (note,) in self._db.execute(sql, (index, LAST_HEADS)):
            head = Checkpoint.parse(_text(note))
            if any(name != head.origin for name, _, _ in head.signatures):
                return head
        return None

    def close(self) -> None:
        self._db.close()


class Export:
    """What `gateway audit export` writes: a first line with the checkpoints, then one line for each entry."""

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            try:
                self._notes = [_text(note) for note in json.loads(file.readline())["checkpoints"]]
            except (ValueError, TypeError, KeyError) as error:
                raise BadNote(f"{path} is no export of an audit log: its first line has no checkpoints") from error

    def notes(self) -> list[str]:
        return self._notes

    def runs(self) -> Iterator[Run]:
        with self._path.open("rb") as file:
            file.readline()
            yield from _runs(file, 0)

    def tile(self, level: int, number: int) -> bytes | None:
        return None


def _runs(lines: Iterable[bytes], first: int) -> Iterator[Run]:
    """Lines of an export, from entry `first` on. Raises Broken."""
    source = iter(lines)
    while some := list(islice(source, RUN)):
        entries: list[bytes] = []
        leaves: list[bytes] = []
        for index, line in enumerate(some, first):
            head, _, record = line.removesuffix(b"\n").partition(b'","record":')
            if head[:-64] != b'{"index":%d,"leaf":"' % index or record[-2:] != b"}}":
                yield first, entries, b"".join(leaves)
                raise Broken(index, "what stands there is no entry, or another one")
            entries.append(record[:-1])
            leaves.append(head[-64:])
        yield first, entries, b"".join(leaves)
        first += len(entries)


MANIFEST = ".manifest.json"


class Segments:
    """A folder of closed segments (`gateway audit export --segments`): each a file of entries, and a manifest that
    names its hash, that of the manifest before, and a checkpoint over all up to its end."""

    live = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifests = sorted(folder.glob("*" + MANIFEST))
        if not self._manifests:
            raise BadNote(f"{folder} holds no segments of an audit log")

    def notes(self) -> list[str]:
        try:
            return [str(json.loads(path.read_bytes())["checkpoint"]) for path in self._manifests]
        except (ValueError, TypeError, KeyError) as error:
            raise BadNote(f"a manifest in {self._folder} cannot be read") from error

    def runs(self) -> Iterator[Run]:
        end, before = 0, ""
        for path in self._manifests:
            raw = path.read_bytes()
            tree = json.loads(raw)
            if (tree.get("first"), tree.get("previous")) != (end, before):
                raise Broken(end, f"{path.name} does not follow the manifest before it")
            file = path.with_name(path.name.removesuffix(MANIFEST) + ".jsonl")
            body = file.read_bytes()
            lines = body.splitlines()
            yield from _runs(lines, end)
            if hashlib.sha256(body).hexdigest() != tree.get("sha256"):
                raise Broken(end, f"the segment beside {path.name} is not the one that was written")
            head = Checkpoint.parse(str(tree["checkpoint"]))
            names = {"end": end + len(lines), "file": file.name, "log": head.origin}
            if {name: tree.get(name) for name in names} != names or head.size != names["end"]:
                raise Broken(end, f"{path.name} says something else than what lies beside it")
            end, before = end + len(lines), hashlib.sha256(raw).hexdigest()

    def tile(self, level: int, number: int) -> bytes | None:
        return None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def open_log(path: Path) -> Log:
    """Raises BadNote, OSError or sqlite3.Error when it is none."""
    if path.is_dir():
        return Segments(path)
    with path.open("rb") as file:
        database = file.read(16) == b"SQLite format 3\0"
    return Database(path) if database else Export(path)


# --- What an entry says (docs/reference/audit.md). --------------------------------------------------------------------

Form = dict[str, object]
"""The fields of an entry, each with its type: one of Python's, several, a form, or texts in a list. `?` behind a name:
it may be left out."""

_WORDS = {"*": str}  # any names, and texts behind them

_FORM_0: Form = {  # the first releases: without `v`
    "at": int,
    "digest": (str, type(None)),
    "on_behalf_of": (str, type(None)),
    "outcome": str,
    "phase": str,
    "principal": str,
    "request_id": str,
    "rule": str,
    "target": str,
    "task_id": (str, type(None)),
    "tenant": str,
    "verb": str,
    "verdict": str,
}
_FORM_1: Form = {
    "action": str,
    "actor": {"chain?": [str], "sub": str},
    "at": int,
    "cause?": str,
    "change?": dict,
    "correlation?": str,
    "decision": {"effect": str, "policy?": str, "reason?": str, "rule": str},
    "marks?": _WORDS,
    "object": str,
    "outcome": str,
    "phase": str,
    "request": {"digest?": str, "id": str, "length?": int},
    "task?": str,
    "tenant": str,
    "trace?": str,
    "upstream?": {"hash": str},
    "v": int,
}
_FORM_2: Form = {
    **_FORM_1,
    "actor": {"chain?": [str], "client?": str, "iss?": str, "sub": str},
    "log_id": str,
    "mono": int,
    "replica": str,
}
FORMS = {0: _FORM_0, 1: _FORM_1, 2: _FORM_2}

Said = tuple[bytes, bytes, bytes, bytes, bytes]
"""Of an entry what is looked at here: its log, microseconds since its replica began, the phase, the replica, the
request's id. The first two and the replica are empty where an older format does not name them."""

_SAID = ("log_id", "mono", "phase", "replica", "id")  # in the order in which canonical JSON has them


class Odd(Exception):
    """What stands there is no entry of its format."""


class Newer(Exception):
    """It may be one, of a format that came after this file."""


def said(entry: bytes) -> Said:
    """Raises Odd, Newer."""
    plain = _PLAIN.get(entry[-6:])
    found = None if plain is None or b"\\" in entry else plain.fullmatch(entry)
    if found is None:
        return _said_slowly(entry)
    groups = found.groups()
    return groups if len(groups) == 5 else (b"", b"", groups[0], b"", groups[1])


def _said_slowly(entry: bytes) -> Said:
    try:
        tree = json.loads(entry)
    except (ValueError, RecursionError):
        raise Odd("it cannot be read as JSON") from None
    version = tree.get("v", 0) if isinstance(tree, dict) else 0
    if not isinstance(version, int) or version < 0:
        raise Odd("`v` is no number")
    if version not in FORMS:
        raise Newer
    for problem in _unlike(FORMS[version], tree, ""):
        raise Odd(problem)
    id = tree["request"]["id"] if version else tree["request_id"]
    log, mono, phase, replica = (tree.get(name, "") for name in _SAID[:4])
    return _raw(log), _raw(mono), _raw(phase), _raw(replica), _raw(id)


def _raw(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _unlike(form: object, value: object, name: str) -> Iterator[str]:
    """What is wrong with a value, in words."""
    if isinstance(form, list) and isinstance(value, list):
        for each in value:
            yield from _unlike(form[0], each, name)
    elif isinstance(form, dict) and isinstance(value, dict):
        known = {key.rstrip("?"): inner for key, inner in form.items()}
        for key, each in value.items():
            inner = known.get(key, form.get("*"))
            place = f"{name}.{key}".lstrip(".")
            yield from [f"`{place}` is not known"] if inner is None else _unlike(inner, each, place)
        for key in form.keys() - {"*"} - value.keys():
            if not key.endswith("?"):
                yield f"`{f'{name}.{key}'.lstrip('.')}` is missing"
    elif not isinstance(form, type | tuple) or not isinstance(value, form) or isinstance(value, bool):
        yield f"`{name or 'it'}` has the wrong type"


def _pattern(form: object, name: str = "") -> str:
    """A form as canonical JSON, as nearly all entries stand there: without a backslash, and without what an operator
    changed, which may be anything. Six times as fast as reading it."""
    if form is _WORDS:
        return r'\{"[^"]*+":"[^"]*+"(?:,"[^"]*+":"[^"]*+")*+\}'
    if isinstance(form, dict):
        return r"\{" + _pattern_of_fields(form) + r"\}"
    if isinstance(form, list):
        return r'\["[^"]*+"(?:,"[^"]*+")*+\]'
    inner = "[0-9]{1,16}+" if form is int else '[^"]*+' if form is str else "(?!)"
    inner = f"({inner})" if name in _SAID else inner
    return f'"{inner}"' if form is str else inner


def _pattern_of_fields(form: Form) -> str:
    names = sorted(name for name in form if form[name] is not dict)
    last = max(at for at, name in enumerate(names) if name[-1] != "?")
    parts = []
    for at, name in enumerate(names):
        key = name.rstrip("?")
        part = f'"{key}":{_pattern(form[name], key)}'
        part = f",{part}" if at > last else f"{part}," if at < last else part
        parts.append(part if key == name else f"(?:{part})?")
    return "".join(parts)


_PLAIN = {b'"v":%d}' % v: re.compile(_pattern(FORMS[v]).encode()) for v in (1, 2)}

# --- Verifying. -----------------------------------------------------------------------------------------------------


class Exit(IntEnum):
    OK = 0
    TAMPERED = 1
    INCOMPLETE = 2
    KEY = 3


@dataclass
class Report:
    """`first` is the first bad entry; where only a stretch can be told, it lies in [first, end). Of a log that is too
    short it is where that ends; what stands between `covered` and there has lost the signature over it."""

    exit: Exit
    sentence: str
    size: int = 0
    covered: int = 0
    first: int | None = None
    end: int | None = None
    unknown: int = 0
    notes: list[str] = field(default_factory=list)


class _Found(Exception):
    """Why the log need not be read any further."""

    def __init__(
        self, sentence: str, first: int | None = None, end: int | None = None, exit: Exit = Exit.TAMPERED
    ) -> None:
        super().__init__(sentence)
        self.first = first
        self.end = end
        self.exit = exit


_UNWITNESSED = "The newest checkpoint lacks the witnesses that the policy asks for."

WITNESS_SECONDS = 180.0
"""So old may an entry of a live log be without a witness over it: they are shown a head once a minute."""
FRESH_SECONDS = 60.0
"""So old may an entry of a live log be without a checkpoint over it."""
_AT = re.compile(rb'[{,]"at":([0-9]+)')
_NEW_KEYS = b'{"action":"RotateAuditKey",'


class Verification:
    """One reading of a log from its beginning to its end."""

    def __init__(self, log: Log, trust: Trust, since: Sequence[Checkpoint], now: float) -> None:
        self._log = log
        self._trust = replace(trust)  # the log may name further keys
        self._since = since
        self._now = now
        self._tree = Tree()
        self._good = 0  # all before this is as it was signed
        self._agreed = 0  # and this much as it was when somebody saw it
        self._begun: dict[bytes, int] = {}
        self._newest = b""
        self._origin = b""
        self._replicas: dict[bytes, int] = {}  # and how long each had been there when it wrote the newest entry
        self._wrong: tuple[int, str] | None = None  # the first entry that says what it cannot say, and what
        self._newer = 0  # entries of formats that are not known here
        self._named_now: list[Key] = []  # by entries that no checkpoint covers yet
        self._announced: list[Key] = []
        self.named: list[list[Key]] = []  # all keys that the log has named so, each time together
        self._witnessed = 0  # so much of it the witnesses have seen that the policy asks for
        self._unwitnessed = b""  # and the first entry that they have not

    def report(self) -> Report:
        try:
            heads = self._signed()
            self._origin = (heads or list(self._since))[-1].origin.encode()
            self._witnessed = self._seen_by_witnesses(heads)
            self._read(heads)
            return self._verdict(heads)
        except _Found as found:
            return Report(found.exit, str(found), self._tree.size, self._good, found.first, found.end)

    def _signed(self) -> list[Checkpoint]:
        """All checkpoints, by size. Signatures by keys that only the log itself can name are looked at as it does."""
        heads = []
        for note in self._log.notes():
            try:
                heads.append(Checkpoint.parse(note))
            except BadNote as error:
                raise _Found(f"A checkpoint was changed: {error}") from error
        if not heads and not self._since:
            raise _Found("Nothing is signed yet: there is no checkpoint.", exit=Exit.INCOMPLETE)
        if any(before.size >= after.size for before, after in pairwise(heads)):
            raise _Found("The checkpoints are not in their order")
        if heads and not self._since and not any(self._known(head) for head in heads):
            raise _Found("No checkpoint was signed by the keys that are given.", exit=Exit.KEY)
        return heads

    def _seen_by_witnesses(self, heads: list[Checkpoint]) -> int:
        try:
            return next((head.size for head in reversed(heads) if self._trust.witnessed(head)), 0)
        except BadNote as error:
            raise _Found(f"A checkpoint was changed: {error}") from error

    def _known(self, head: Checkpoint) -> bool:
        try:
            return self._trust.signed(head)
        except BadNote as error:
            raise _Found(f"A checkpoint was changed: {error}") from error

    def _read(self, heads: list[Checkpoint]) -> None:
        marks = sorted([*self._since, *heads], key=lambda head: head.size)
        try:
            for run in self._log.runs():
                self._take(run, marks)
        except Broken as broken:
            self._compare()
            raise _Found(f"Entry {broken.index} was tampered with: {broken}", broken.index) from broken
        except (sqlite3.Error, OSError, ValueError) as error:
            self._compare()
            size = self._tree.size
            raise _Found(f"The log cannot be read from entry {size} on: {error}", size) from error
        if marks and marks[0].size == 0:
            self._check(marks.pop(0))
        if marks:
            self._compare()
            lost = f"{marks[-1].size - self._tree.size} entries from {self._tree.size} on"
            text = f"Entries were removed: {lost} were signed and are not there"
            if self._good < self._tree.size:
                text += f", and nothing is left to vouch for those from {self._good} on"
            raise _Found(text, self._tree.size)
        self._compare()

    def _take(self, run: Run, marks: list[Checkpoint]) -> None:
        first, entries, claimed = run
        size = self._tree.size
        if first != size:
            self._compare()
            what = "are missing" if first > size else "stand there twice"
            raise _Found(f"Entries from {min(first, size)} on {what}", min(first, size))
        leaves = leaf_hashes(entries)
        if claimed is not None and (hashes := hexlify(b"".join(leaves))) != claimed:
            at = first + next(at for at in range(len(hashes)) if hashes[at] != claimed[at]) // 64
            raise _Found(f"Entry {at} is not what was written: its hash differs", at)
        done = 0
        while marks and marks[0].size <= first + len(leaves):
            upto = marks[0].size - first
            self._extend(entries[done:upto], leaves[done:upto])
            self._check(marks.pop(0))
            done = upto
        self._extend(entries[done:], leaves[done:])

    def _extend(self, entries: list[bytes], leaves: list[bytes]) -> None:
        self._look(self._tree.size, entries)
        for level, number, tile in self._tree.extend(leaves):
            self._same(level, number, tile)

    def _compare(self) -> None:
        for level, number, tile in self._tree.partial():
            self._same(level, number, tile)

    def _same(self, level: int, number: int, tile: list[bytes]) -> None:
        """Raises if entries do not have the hashes that are kept of them. Those vouch for nothing; they tell where."""
        kept, ours = self._log.tile(level, number) or b"", b"".join(tile)
        common = min(len(kept), len(ours))
        if kept[:common] == ours[:common]:
            return
        at = next(at for at in range(common) if kept[at] != ours[at]) // 32
        span = WIDTH**level
        first = (number * WIDTH + at) * span
        text = f"Entry {first} is not what was written: its hash differs"
        if level:
            text = f"The hash that is kept of the entries {first} to {first + span - 1} was changed"
        raise _Found(text, first)

    def _check(self, mark: Checkpoint) -> None:
        seen = mark in self._since
        if not seen and not self._known(mark):
            self._trust.log = self._named(mark)
        if mark.root != self._tree.root():
            self._compare()
            # The log's own checkpoints may be of another history than the one that was seen.
            first = self._agreed if seen else self._good
            where = f"between entry {first} and entry {mark.size - 1}"
            text = f"Entries were rewritten, their hashes too: they are not what was signed, {where}"
            raise _Found(text, first, mark.size)
        self._good = mark.size
        if seen:
            self._agreed = mark.size
        elif self._named_now:
            self._announced, self._named_now = self._named_now, []
            self.named.append(self._announced)

    def _named(self, mark: Checkpoint) -> list[Key]:
        """The keys that the log itself has named in what was signed before. Raises if they have not signed this."""
        kinds = {key.kind for key in self._announced}
        try:
            signers = mark.signers(self._announced)
        except BadNote as error:
            raise _Found(f"A checkpoint was changed: {error}") from error
        if not signers or {key.kind for key in signers} < kinds:
            text = f"The checkpoint over {mark.size} entries was signed by somebody else"
            raise _Found(text, self._good, mark.size)
        return list(self._announced)

    def _look(self, first: int, entries: list[bytes]) -> None:
        """What the entries say, as far as it matters here: that they are of this log and in the order in which they
        were written, which calls have an end, and new keys."""
        begun = self._begun
        for at, entry in enumerate(entries, first):
            try:
                log, mono, phase, replica, id = said(entry)
            except Odd as error:
                self._note(at, f"is none of its format: {error}")
                continue
            except Newer:
                self._newer += 1
                continue
            if log or self._replicas:
                self._place(at, log, replica, mono)
            if phase == b"outcome":
                begun.pop(id, None)
            if phase != b"intent":
                continue
            begun[id] = at
            if entry.startswith(_NEW_KEYS):
                self._succeed(at, entry)
        if entries:
            self._newest = entries[-1]
        if 0 <= self._witnessed - first < len(entries):
            self._unwitnessed = entries[self._witnessed - first]

    def _succeed(self, at: int, entry: bytes) -> None:
        """New keys: those before them must have signed for it. The checkpoint over the entry does not say so much, for
        what was put into the database between a kill and the next start is under one, too."""
        keys, word = _announced(entry)
        if not any(_vouched(keys, word, before) for before in (self._trust.log, self._announced)):
            self._note(at, "names keys that those before them did not sign for")
            return
        self._named_now = keys

    def _place(self, at: int, log: bytes, replica: bytes, mono: bytes) -> None:
        if log != self._origin:
            self._note(at, f"is of another log: {_text(log)!r}" if log else "names no log, and those before it do")
            return
        micros, replicas = int(mono), self._replicas
        if micros <= replicas.get(replica, -1):
            self._note(at, "was written before, by the clock of its replica, and stands behind a later one or twice")
        replicas[replica] = micros

    def _note(self, at: int, what: str) -> None:
        """Told at the end: where hashes or signatures are wrong, they say more."""
        if self._wrong is None:
            self._wrong = at, f"Entry {at} {what}"

    def _verdict(self, heads: list[Checkpoint]) -> Report:
        size, covered = self._tree.size, heads[-1].size if heads else 0
        if any(old.size > covered for old in self._since):
            raise _Found("Checkpoints were removed: one over more entries was seen before", covered, size)
        if self._wrong is not None:
            raise _Found(self._wrong[1], self._wrong[0])
        report = Report(Exit.OK, f"{size} entries, all as they were written.", size, covered, unknown=len(self._begun))
        if self._begun:
            report.notes.append(
                f"{len(self._begun)} calls have begun and no end: how they ended is not known, or they go on "
                f"(the first is entry {min(self._begun.values())})"
            )
        if self._newer:
            report.notes.append(f"{self._newer} entries are of a newer format: what they say was not looked at")
        if heads and self._witnessed < covered:  # whatever stands behind it vouches for nothing
            if not self._witnessed or not self._log.live or self._age(self._unwitnessed) > WITNESS_SECONDS:
                report.exit, report.sentence = Exit.KEY, _UNWITNESSED
                report.notes.append(f"of {covered} entries they have seen {self._witnessed}")
                return report
            report.notes.append(f"the newest {covered - self._witnessed} have not been shown to the witnesses yet")
        return self._tail(report, size - covered) if size > covered else report

    def _age(self, entry: bytes) -> float:
        """Seconds, by what it says itself."""
        found = _AT.search(entry)
        return self._now - int(found[1]) / 1000 if found else max(FRESH_SECONDS, WITNESS_SECONDS)

    def _tail(self, report: Report, count: int) -> Report:
        report.notes.append(f"the newest {count} are not under a checkpoint yet")
        if not self._log.live:
            raise _Found("Entries were added behind the last checkpoint", report.covered)
        if self._age(self._newest) > FRESH_SECONDS:
            report.exit = Exit.INCOMPLETE
            report.sentence = f"{report.covered} entries are as they were written; {count} were never signed."
            report.first = report.covered
        return report


def _announced(entry: bytes) -> tuple[list[Key], Checkpoint | None]:
    """The keys that an entry names, and the word of those before them; None where a release before format 2 wrote it,
    which had none to give."""
    try:
        tree = json.loads(entry)
        after = tree["change"]["after"]
        keys = [Key.parse(text) for text in after["keys"]]
        return keys, Checkpoint.parse(after["note"]) if tree["v"] > 1 else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], Checkpoint("", 0, b"")


def _vouched(keys: list[Key], word: Checkpoint | None, before: list[Key]) -> bool:
    if word is None:
        return True
    if not keys or not before or word.text != succession(before[0].name, list(map(str, keys))).text:
        return False
    try:
        return {key.kind for key in word.signers(before)} >= {key.kind for key in before}
    except BadNote:
        return False


def verify(log: Log, trust: Trust, since: Sequence[Checkpoint] = (), now: float | None = None) -> Report:
    """Reads the whole log. `since` are checkpoints that were seen before, from a witness or a note to oneself; those
    that neither the log's keys have signed nor such as it names itself count for nothing."""
    now = time.time() if now is None else now
    known = [head for head in since if _counts(head, trust.log)]
    reading = Verification(log, trust, known, now)
    report = reading.report()
    others = [head for head in since if head not in known]
    if not others or report.exit in (Exit.TAMPERED, Exit.KEY):
        return report
    later = [head for head in others if any(_counts(head, keys) for keys in reading.named)]
    if later:  # which of them are ours is known at the end only
        report = Verification(log, trust, [*known, *later], now).report()
    if len(later) < len(others):
        _strange(report, len(others) - len(later), bool(known or later))
    return report


def _strange(report: Report, count: int, others: bool) -> None:
    if not others and report.exit is Exit.OK:
        report.exit = Exit.KEY
        report.sentence = "No checkpoint that was seen before was signed by keys of this log; it may be another's."
    report.notes.append(f"{count} checkpoints that were seen before are not signed by this log and count for nothing")


def _counts(head: Checkpoint, keys: list[Key]) -> bool:
    try:
        return Trust(keys).signed(head)
    except BadNote:
        return False


def verify_proof(proof: Proof, trust: Trust) -> Report:
    try:
        if not trust.signed(proof.checkpoint):
            return Report(Exit.KEY, "The checkpoint was not signed by the keys that are given.")
    except BadNote as error:
        return Report(Exit.TAMPERED, f"The checkpoint was changed: {error}.")
    if not proof.holds():
        return Report(Exit.TAMPERED, "The proof does not lead from the entry to the checkpoint.", first=proof.index)
    if (problem := _misplaced(proof)) is not None:
        return Report(Exit.TAMPERED, f"Entry {proof.index} {problem}.", first=proof.index)
    if not trust.witnessed(proof.checkpoint):
        return Report(Exit.KEY, _UNWITNESSED)
    origin, size = proof.checkpoint.origin, proof.checkpoint.size
    return Report(Exit.OK, f"Entry {proof.index} of {origin} is in the log of {size} entries.", size, size)


def _misplaced(proof: Proof) -> str | None:
    try:
        log = said(proof.entry)[0]
    except Newer:
        return None
    except Odd as error:
        return f"is none of its format: {error}"
    return f"is of another log: {_text(log)!r}" if log not in (b"", proof.checkpoint.origin.encode()) else None


def notes_in(text: str) -> list[Checkpoint]:
    """The checkpoints of a file that holds one after the other, as a file witness keeps them. What stands between them,
    as where a disk was full, is one without a signature. Raises BadNote when there is nothing else."""
    found, at = [], 0
    for note in _NOTE.finditer(text):
        found += [_TORN] if text[at : note.start()].strip() else []
        try:
            found.append(Checkpoint.parse(note[0]))
        except BadNote:
            found.append(_TORN)
        at = note.end()
    found += [_TORN] if text[at:].strip() else []
    if all(each is _TORN for each in found):
        raise BadNote("there is no checkpoint in the file that was named or in the head beside the keys")
    return found


_NOTE = re.compile(r"^[^\n]+\n[0-9]+\n[^\n]+\n\n(?:— [^\n]+\n)+", re.MULTILINE)
_TORN = Checkpoint("", 0, EMPTY)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verifies the gateway's audit log, its exports and its proof files.")
    parser.add_argument("what", choices=("verify", "proof"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--keys", type=Path, required=True, help="verifier keys of the log, or a policy file")
    parser.add_argument("--since", type=Path, help="checkpoints that were seen before")
    options = parser.parse_args(arguments)
    try:
        trust = Trust.parse(options.keys.read_text())
        if options.what == "proof":
            proof = Proof.parse(options.file.read_text())
            report = verify_proof(proof, trust)
            if report.exit is Exit.OK:
                print(proof.entry.decode())
        else:
            since = notes_in(options.since.read_text()) if options.since else []
            report = verify(open_log(options.file), trust, since)
    except (BadNote, OSError, UnicodeDecodeError, sqlite3.Error) as error:
        report = Report(Exit.KEY, f"Nothing was verified: {error}.")
    for sentence in (report.sentence, *report.notes):
        print(sentence, file=sys.stderr)
    return report.exit


if __name__ == "__main__":
    sys.exit(main())
