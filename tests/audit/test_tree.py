"""The tree and its proofs: the vectors of RFC 6962, and what another implementation makes of the same leaves."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import statistics
import time
from contextlib import closing
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from gateway.verifier import (
    EMPTY,
    BadNote,
    Checkpoint,
    Key,
    NodeAt,
    Proof,
    Tree,
    Trust,
    consistency,
    consistent,
    inclusion,
    leaf_hash,
    leaf_hashes,
    nodes_of,
    notes_in,
    root_of_inclusion,
    tree_root,
)

# From the tests of Certificate Transparency's reference implementation; RFC 6962 itself has only the picture.
LEAVES = [bytes.fromhex(each) for each in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def grown(hashes: list[bytes], steps: random.Random) -> tuple[Tree, dict[tuple[int, int], list[bytes]]]:
    """A tree that has grown in steps of any size, and all its tiles."""
    tree, tiles, at = Tree(), {}, 0
    while at < len(hashes):
        step = steps.choice((1, 2, 100, 255, 256, 257, 1000))
        for level, number, tile in tree.extend(hashes[at : at + step]):
            tiles[level, number] = list(tile)
        at += step
    tiles.update({(level, number): list(tile) for level, number, tile in tree.partial()})
    return tree, tiles


def nodes(tiles: dict[tuple[int, int], list[bytes]]) -> NodeAt:
    return nodes_of(lambda level, number: b"".join(tiles.get((level, number), [])))


def test_the_roots_are_those_of_the_reference() -> None:
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    tree = Tree()
    assert tree.root() == EMPTY == hashlib.sha256().digest()
    for count, root in enumerate(ROOTS, 1):
        assert list(tree.extend([hashes[count - 1]])) == []
        assert tree.root().hex() == tree_root(hashes[:count]).hex() == root


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000])
def test_a_tree_that_remembers_only_its_edge_has_the_root_of_all_leaves(size: int) -> None:
    hashes = leaves(size)
    tree, tiles = grown(hashes, random.Random(size))
    assert tree.size == size
    assert tree.root() == tree_root(hashes)
    assert sum(map(len, tree.tiles)) <= 256 * len(tree.tiles)
    again = Tree(size, [tiles.get((level, size // 256 ** (level + 1)), []) for level in range(len(tree.tiles))])
    assert again.root() == tree.root(), "it can be taken up from its tiles"


def test_proofs_are_those_of_another_implementation() -> None:
    rng = random.Random(6962)
    theirs = InmemoryTree(algorithm="sha256")
    for number in range(700):
        theirs.append_entry(b"%d" % number)
    hashes = leaves(700)
    node = nodes(grown(hashes, rng)[1])
    for _ in range(150):
        size = rng.randint(1, 700)
        index = rng.randrange(size)
        root = tree_root(hashes[:size])
        assert theirs.get_root(size) == root
        path = inclusion(node, index, size)
        told = theirs.prove_inclusion(index + 1, size)
        assert path == told.path[1:], "theirs begins with the leaf itself"
        assert root_of_inclusion(hashes[index], index, size, path) == root
        old = rng.randint(1, size)
        steps = consistency(node, old, size)
        assert consistent(old, tree_root(hashes[:old]), size, root, steps)


@given(st.integers(1, 600), st.data())
def test_a_proof_holds_for_its_own_leaf_place_size_and_history_only(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    node = nodes(grown(hashes, random.Random(size))[1])
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root, old_root = tree_root(hashes), tree_root(hashes[:old])
    path, steps = inclusion(node, index, size), consistency(node, old, size)
    assert root_of_inclusion(hashes[index], index, size, path) == root
    assert consistent(old, old_root, size, root, steps)
    other = leaf_hash(b"another")
    assert root_of_inclusion(other, index, size, path) != root
    assert root_of_inclusion(hashes[index], index, size, [*path, other]) != root
    assert root_of_inclusion(hashes[index], size, size, path) is None
    if path:
        assert root_of_inclusion(hashes[index], index, size, path[1:]) != root
        assert root_of_inclusion(hashes[index], index ^ 1, size, path) != root
    assert not consistent(old, other, size, root, steps)
    assert not consistent(old, old_root, size, other, steps)
    assert not consistent(size + 1, root, size, root, [])
    assert not consistent(old, old_root, size, root, [*steps, other])


@pytest.mark.slow
def test_a_proof_out_of_a_million_leaves_reads_a_few_tiles_and_takes_milliseconds() -> None:
    """5 ms at most, of the processor's time, so that others on the machine do not matter; tiles come out of SQLite."""
    size, step = 1_000_000, 1 << 16
    tree = Tree()
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE tile (level INTEGER, n INTEGER, hashes BLOB, PRIMARY KEY (level, n))")
        for first in range(0, size, step):
            leaves = leaf_hashes(b"%d" % number for number in range(first, min(first + step, size)))
            full = [(level, number, b"".join(tile)) for level, number, tile in tree.extend(leaves)]
            db.executemany("INSERT INTO tile VALUES (?, ?, ?)", full)
        db.executemany("INSERT INTO tile VALUES (?, ?, ?)", [(*at, b"".join(tile)) for *at, tile in tree.partial()])
        reads: list[tuple[int, int]] = []

        def tile(level: int, number: int) -> bytes | None:
            reads.append((level, number))
            row = db.execute("SELECT hashes FROM tile WHERE level = ? AND n = ?", (level, number)).fetchone()
            return None if row is None else bytes(row[0])

        took, root = [], tree.root()
        for index in random.Random(3).sample(range(size), 100):
            reads.clear()
            began = time.process_time()
            path = inclusion(nodes_of(cache(tile)), index, size)
            took.append(time.process_time() - began)
            assert root_of_inclusion(leaf_hash(b"%d" % index), index, size, path) == root
            assert len(path) <= 20
            assert len(reads) <= 6
    assert statistics.median(took) < 0.005


# Notes.

EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_SIGNATURE = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
SOFA = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""  # noqa: E501


def test_the_example_of_the_note_specification_verifies() -> None:
    import base64

    key = Key.parse(EXAMPLE_KEY)
    assert str(key) == EXAMPLE_KEY
    raw = base64.b64decode(EXAMPLE_SIGNATURE)
    assert raw[:4] == key.id
    said = cast(Any, SimpleNamespace(text=b"This is an example message.\n"))
    assert key.holds(said, raw[4:])
    assert not key.holds(cast(Any, SimpleNamespace(text=b"This is another message.\n")), raw[4:])


def test_the_example_of_the_checkpoint_specification_is_read() -> None:
    head = Checkpoint.parse(SOFA)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.note == SOFA
    assert notes_in(SOFA * 3) == [head] * 3


@pytest.mark.parametrize(
    "note",
    [
        "",
        SOFA.replace("20852163", "020852163"),
        SOFA.replace("20852163", "-1"),
        SOFA.replace("\n\n", "\n"),
        SOFA.replace("q2I=", "q2J="),
        SOFA.replace("YQ8=", "YQ9="),
        SOFA.replace("— ", "- "),
        SOFA.removesuffix("\n"),
        SOFA.replace("CsUY", "sUY"),
        SOFA.replace("sofa\n2", "sofa\nmore\n2"),
        "x" * (300 * 1024) + SOFA,
    ],
)
def test_what_is_no_checkpoint_is_refused(note: str) -> None:
    with pytest.raises(BadNote):
        Checkpoint.parse(note)


@given(st.text(max_size=200))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (Checkpoint.parse, Proof.parse, Key.parse, Trust.parse, notes_in):
        for each in (text, SOFA + text, text + SOFA, f"c2sp.org/tlog-proof@v1\nextra {text}\nindex 0\n\n{SOFA}"):
            try:
                parse(each)
            except BadNote:
                continue


def test_a_policy_asks_for_a_quorum_of_witnesses() -> None:
    keys = [str(Key(f"w{number}.example", 4, bytes([number]) * 32)) for number in range(3)]
    lines = [f"log {EXAMPLE_KEY}", *(f"witness w{n} {key}" for n, key in enumerate(keys))]
    trust = Trust.parse(
        "\n".join([*lines, "# both, or the third", "group two all w0 w1", "group g any two w2", "quorum g"])
    )
    assert trust.groups == {"two": (2, ["w0", "w1"]), "g": (1, ["two", "w2"])}
    assert not trust.witnessed(Checkpoint.parse(SOFA))
    for bad in ("", "quorum nobody", "group g 3 w0 w1", f"log {EXAMPLE_KEY[:-2]}", "log"):
        with pytest.raises(BadNote):
            Trust.parse("\n".join([*lines[1:], bad]))
