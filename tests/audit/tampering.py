"""Everything that somebody with the right to write, and without the keys, can do to a log; and with them, to history.

Each act is made at random, on a copy of the database or of an export, and says where the first bad entry is: exactly,
or for those who compute the hashes anew, that it lies between two checkpoints.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.auditformats import jsonl
from gateway.stores.sealing import Sealed, Sealer, put
from gateway.stores.signingkeys import KeyFiles
from gateway.verifier import Checkpoint, Database, Tree, leaf_hash
from tests.audit.logs import Written
from tests.stores.contract import NOW


@dataclass(frozen=True)
class Act:
    """What was done: the first bad entry, and whether it can be told exactly. None: no entry was touched."""

    first: int | None
    exact: bool = True


@dataclass(frozen=True)
class Scene:
    """A log, what it looked like earlier, another history under the same keys, keys of a stranger's, and entries that a
    gateway wrote into another log."""

    log: Written
    export: Path
    earlier: Path
    earlier_size: int
    fork: Path
    fork_at: int
    stranger: Sealer
    foreign: list[bytes]

    @property
    def sizes(self) -> list[int]:
        return [head.size for head in self.log.signed]


# --- On the database. ------------------------------------------------------------------------------------------


def rows(db: sqlite3.Connection) -> list[tuple[int, list[bytes]]]:
    found = db.execute("SELECT last_idx, entries FROM audit ORDER BY last_idx").fetchall()
    return [(last, body.split(b"\n")) for last, body in found]


def rewrite(db: sqlite3.Connection, entries: list[bytes], rng: random.Random) -> None:
    """All entries anew, in transactions of any size."""
    db.execute("DELETE FROM audit")
    at = 0
    while at < len(entries):
        some = entries[at : at + rng.randint(1, 9)]
        db.execute("INSERT INTO audit VALUES (?, ?, ?)", (at + len(some), at + 1, b"\n".join(some)))
        at += len(some)


def every(db: sqlite3.Connection) -> list[bytes]:
    return [line for _, lines in rows(db) for line in lines]


def flipped(data: bytes, rng: random.Random) -> tuple[bytes, int]:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :], at


def bit_of_an_entry(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    last, lines = rng.choice(rows(db))
    body, at = flipped(b"\n".join(lines), rng)
    db.execute("UPDATE audit SET entries = ? WHERE last_idx = ?", (body, last))
    return Act(last - len(lines) + b"\n".join(lines)[:at].count(b"\n"))


def bit_of_a_hash(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    level, number, hashes = rng.choice(db.execute("SELECT level, n, hashes FROM audit_tile").fetchall())
    body, at = flipped(hashes, rng)
    db.execute("UPDATE audit_tile SET hashes = ? WHERE level = ? AND n = ?", (body, level, number))
    return Act((number * 256 + at // 32) * 256**level)


def bit_of_a_checkpoint(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    size, note = rng.choice(db.execute("SELECT size, note FROM audit_checkpoint").fetchall())
    db.execute("UPDATE audit_checkpoint SET note = ? WHERE size = ?", (flipped(note, rng)[0], size))
    return Act(None)


def number_of_a_row(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    last, lines = rng.choice(rows(db))
    first = last - len(lines) + 1
    db.execute("UPDATE audit SET first_idx = ? WHERE last_idx = ?", (first + rng.choice((-2, -1, 1, 2)), last))
    return Act(None)


def delete(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    entries = every(db)
    at = rng.randrange(len(entries))
    rewrite(db, entries[:at] + entries[at + 1 :], rng)
    return Act(at)


def delete_a_row(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    last, lines = rng.choice(rows(db))
    db.execute("DELETE FROM audit WHERE last_idx = ?", (last,))
    return Act(last - len(lines))


def insert(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    entries = every(db)
    at = rng.randrange(len(entries) + 1)
    rewrite(db, [*entries[:at], rng.choice(entries).replace(b'"v":2', b'"v":2 '), *entries[at:]], rng)
    return Act(at)


def swap(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    entries = every(db)
    one, other = sorted(rng.sample(range(len(entries)), 2))
    entries[one], entries[other] = entries[other], entries[one]
    rewrite(db, entries, rng)
    return Act(one)


def truncate(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    """And all that spoke of the rest."""
    entries = every(db)
    at = rng.randrange(1, len(entries))
    rewrite(db, entries[:at], rng)
    db.execute("DELETE FROM audit_checkpoint WHERE size > ?", (at,))
    hashes(db, entries[:at])
    return Act(at)


def roll_back(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    with closing(sqlite3.connect(scene.earlier)) as earlier:
        earlier.backup(db)
    return Act(scene.earlier_size)


def change_and_hash_again(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    """Any of the others, and then a tree over it that is sound in itself."""
    entries = every(db)
    at = rng.randrange(len(entries))
    choice = rng.randrange(3)
    if choice == 0:
        entries[at] = entries[at].replace(b'"effect":"PASS"', b'"effect":"FLAG"')
    elif choice == 1:
        entries.insert(at, entries[at])
        at += 1
    else:
        entries[at : at + 2] = reversed(entries[at : at + 2])
        if at == len(entries) - 1:
            entries[at] = b"{}"
    rewrite(db, entries, rng)
    hashes(db, entries)
    return Act(at, exact=False)


def sign_with_another_key(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    """The same, and every checkpoint from there on is signed again, by somebody else."""
    act = change_and_hash_again(db, scene, rng)
    for head in signed_by_the_stranger(scene, every(db), act):
        put(Sealed(head, {}), NOW, db.cursor())
    return act


def signed_by_the_stranger(scene: Scene, entries: list[bytes], act: Act) -> list[Checkpoint]:
    """All heads over the first bad entry, under the log's name."""
    origin, heads = scene.log.head.origin, []
    signers = scene.stranger.keys.load(origin)
    assert act.first is not None
    for size in [size for size in scene.sizes if size > act.first]:
        tree = Tree()
        list(tree.extend([leaf_hash(entry) for entry in entries[:size]]))
        bare = Checkpoint(origin, size, tree.root())
        heads.append(Checkpoint(origin, size, bare.root, tuple(each.sign(bare, NOW // 1000) for each in signers)))
    return heads


def fork(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    """Another history from some entry on, rightly signed: by whoever holds the keys."""
    with closing(sqlite3.connect(scene.fork)) as other:
        other.backup(db)
    return Act(scene.fork_at, exact=False)


# The newest entries wait for their checkpoint; after a kill the next life of the gateway signs what stands there. What
# somebody put among them meanwhile is under a good signature, and is found by what it says.


def written_in(entries: list[bytes], scene: Scene, rng: random.Random) -> tuple[list[bytes], Act]:
    """Entries that were rightly written, but not here or not now, behind the end."""
    size, some = len(entries), rng.randint(1, 3)
    what = rng.choice(("of another log", "once more", "of before", "of no format"))
    if what == "of another log":
        more = rng.sample(scene.foreign, some)
    elif what == "once more":
        at = rng.randrange(size - some)
        more = entries[at : at + some]
    elif what == "of before":
        more = [formerly(each) for each in rng.sample(entries, some)]
    else:
        more = [rng.choice((b"{}", b"[]", b"no JSON", b'{"v":2}', entries[-1].replace(b'"at":', b'"then":')))]
    return more, Act(size)


def formerly(entry: bytes) -> bytes:
    """As a release before format 2 would have written it."""
    tree = json.loads(entry)
    for name in ("log_id", "mono", "replica"):
        del tree[name]
    return json.dumps({**tree, "v": 1}, ensure_ascii=False, separators=(",", ":")).encode()


def signed_by_the_gateway(scene: Scene, entries: list[bytes]) -> Checkpoint:
    """The head that it makes over what it finds."""
    tree = Tree()
    list(tree.extend([leaf_hash(entry) for entry in entries]))
    bare = Checkpoint(scene.log.head.origin, len(entries), tree.root())
    signers = KeyFiles(scene.log.folder / "audit").load(bare.origin)
    return Checkpoint(bare.origin, bare.size, bare.root, tuple(each.sign(bare, NOW // 1000) for each in signers))


def splice(db: sqlite3.Connection, scene: Scene, rng: random.Random) -> Act:
    entries = every(db)
    more, act = written_in(entries, scene, rng)
    rewrite(db, [*entries, *more], rng)
    hashes(db, [*entries, *more])
    put(Sealed(signed_by_the_gateway(scene, [*entries, *more]), {}), NOW, db.cursor())
    return act


def hashes(db: sqlite3.Connection, entries: Iterable[bytes]) -> None:
    tree = Tree()
    tiles = [*tree.extend([leaf_hash(entry) for entry in entries]), *tree.partial()]
    db.execute("DELETE FROM audit_tile")
    db.executemany("INSERT INTO audit_tile VALUES (?, ?, ?)", [(*place, b"".join(tile)) for *place, tile in tiles])


ON_DATABASES: tuple[Callable[[sqlite3.Connection, Scene, random.Random], Act], ...] = (
    bit_of_an_entry,
    bit_of_a_hash,
    bit_of_a_checkpoint,
    number_of_a_row,
    delete,
    delete_a_row,
    insert,
    swap,
    truncate,
    roll_back,
    change_and_hash_again,
    sign_with_another_key,
    fork,
    splice,
)


def tampered_database(scene: Scene, rng: random.Random, path: Path) -> tuple[str, Act]:
    shutil.copyfile(scene.log.db, path)
    act = rng.choice(ON_DATABASES)
    with closing(sqlite3.connect(path)) as db:
        done = act(db, scene, rng)
        db.commit()
    return act.__name__, done


# --- On an export. ---------------------------------------------------------------------------------------------


def line_changed(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    at = rng.randrange(1, len(lines))
    lines[at] = flipped(lines[at], rng)[0]
    return Act(at - 1)


def head_changed(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    tree = json.loads(lines[0])
    at = rng.randrange(len(tree["checkpoints"]))
    tree["checkpoints"][at] = flipped(tree["checkpoints"][at].encode(), rng)[0].decode(errors="replace")
    lines[0] = json.dumps(tree).encode()
    return Act(None)


def line_deleted(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    at = rng.randrange(1, len(lines))
    del lines[at]
    return Act(at - 1)


def line_inserted(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    at = rng.randrange(1, len(lines) + 1)
    forged = rng.choice(lines[1:])
    while at < len(lines) and forged == lines[at]:
        forged = rng.choice(lines[1:])
    lines.insert(at, forged)
    return Act(at - 1)


def lines_swapped(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    one, other = sorted(rng.sample(range(1, len(lines)), 2))
    lines[one], lines[other] = lines[other], lines[one]
    return Act(one - 1)


def cut_off(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    at = rng.randrange(1, len(lines))
    del lines[at:]
    return Act(at - 1)


def cut_off_with_its_heads(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    """And all that spoke of the rest."""
    act = cut_off(lines, scene, rng)
    assert act.first is not None
    under(lines, [head for head in scene.log.signed if head.size <= len(lines) - 1])
    return act


def rolled_back(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    """An export of earlier, which was right then."""
    lines[:] = exported(scene.earlier)
    return Act(scene.earlier_size)


def line_and_hash_changed(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    at = rng.randrange(1, len(lines))
    lines[at] = of(at - 1, record(lines[at]).replace(b'"outcome":"', b'"outcome":"not '))
    return Act(at - 1, exact=False)


def hashed_again(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    """An entry more, one less, or two in another order, and all numbers and hashes as if it had been so."""
    records = [record(each) for each in lines[1:]]
    at = rng.randrange(len(records) - 1)
    choice = rng.randrange(3)
    if choice == 0:
        del records[at]
    elif choice == 1:
        records.insert(at, records[at].replace(b'"v":2', b'"v":2 '))
    else:
        records[at : at + 2] = reversed(records[at : at + 2])
    lines[1:] = [of(number, each) for number, each in enumerate(records)]
    return Act(at, exact=False)


def signed_with_another_key(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    act = line_and_hash_changed(lines, scene, rng)
    assert act.first is not None
    theirs = signed_by_the_stranger(scene, [record(each) for each in lines[1:]], act)
    under(lines, [*(head for head in scene.log.signed if head.size <= act.first), *theirs])
    return act


def forked(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    """Another history from some entry on, rightly signed: by whoever holds the keys."""
    lines[:] = exported(scene.fork)
    return Act(scene.fork_at, exact=False)


def spliced(lines: list[bytes], scene: Scene, rng: random.Random) -> Act:
    entries = [record(each) for each in lines[1:]]
    more, act = written_in(entries, scene, rng)
    lines += [of(number, each) for number, each in enumerate(more, len(entries))]
    under(lines, [*scene.log.signed, signed_by_the_gateway(scene, [*entries, *more])])
    return act


def record(line: bytes) -> bytes:
    return line.partition(b',"record":')[2][:-1]


def of(index: int, record: bytes) -> bytes:
    return b'{"index":%d,"leaf":"%s","record":%s}' % (index, leaf_hash(record).hex().encode(), record)


def under(lines: list[bytes], heads: list[Checkpoint]) -> None:
    """These are all the heads that it has."""
    size = heads[-1].size if heads else 0
    lines[0] = json.dumps({**json.loads(lines[0]), "checkpoints": [each.note for each in heads], "size": size}).encode()


def exported(db: Path) -> list[bytes]:
    with closing(Database(db)) as log:
        return list(jsonl(log, -1))


ON_EXPORTS: tuple[Callable[[list[bytes], Scene, random.Random], Act], ...] = (
    line_changed,
    head_changed,
    line_deleted,
    line_inserted,
    lines_swapped,
    cut_off,
    cut_off_with_its_heads,
    rolled_back,
    line_and_hash_changed,
    hashed_again,
    signed_with_another_key,
    forked,
    spliced,
)
"""Every kind of `ON_DATABASES`, as far as an export has what is changed there."""

SEEN_BEFORE = (cut_off_with_its_heads, rolled_back, forked)
"""Those that show only to whoever saw a head of the log before."""


def tampered_export(scene: Scene, rng: random.Random, path: Path) -> tuple[str, Act]:
    lines = scene.export.read_bytes().splitlines()
    act = rng.choice(ON_EXPORTS)
    done = act(lines, scene, rng)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return act.__name__, done


def stretch(scene: Scene, index: int) -> tuple[int, int]:
    """The checkpoints around an entry."""
    sizes = [0, *scene.sizes]
    at = min(bisect_right(sizes, index), len(sizes) - 1)
    return sizes[at - 1], sizes[at]
