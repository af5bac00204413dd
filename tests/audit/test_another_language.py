"""What another program, in another language, says of our exports and proofs."""

from __future__ import annotations

import base64
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.stores.sealing import Sealer
from gateway.verifier import ED25519, Checkpoint, Database, open_log, verify
from tests.audit.logs import Written, entries, written
from tests.audit.tampering import ON_EXPORTS, SEEN_BEFORE, Scene, head_changed, of, record, spliced, under
from tests.serving import ROOT
from tests.stores.contract import NOW

NODE = shutil.which("node")
PROGRAM = ROOT / "conformance" / "audit" / "verify.mjs"

pytestmark = pytest.mark.skipif(NODE is None, reason="it needs node on PATH")


LATTICE = os.environ.get("NOBLE_ML_DSA", "")  # ml-dsa.js of @noble/post-quantum, for a Node without ML-DSA


def says(log: Written, file: Path, *more: str) -> tuple[int, str]:
    assert NODE is not None
    words = [NODE, str(PROGRAM), str(file), str(log.folder / "audit" / "keys"), *more]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


async def test_it_verifies_what_we_export_and_prove(tmp_path: Path) -> None:
    log = await written(tmp_path)
    code, said = says(log, log.export(tmp_path / "log.jsonl"))
    assert (code, said.splitlines()[0]) == (0, "700 entries, all as they were written")
    with closing(Database(log.db)) as db:
        proof = tmp_path / "for the auditor.txt"
        proof.write_text(str(db.proof(300)))
    assert says(log, proof)[0] == 0
    proof.write_text(proof.read_text().replace("index 300", "index 301"))
    assert says(log, proof)[0] == 1


async def test_the_signatures_for_later_are_what_another_implementation_takes_for_such(tmp_path: Path) -> None:
    log = await written(tmp_path, (20,))
    export = log.export(tmp_path / "log.jsonl")
    more = [LATTICE] if LATTICE else []
    code, said = says(log, export, *more)
    assert code == 0, said
    if "Ed25519 only" in said:
        pytest.skip("this Node has no ML-DSA; NOBLE_ML_DSA names ml-dsa.js of @noble/post-quantum, which has")
    name, id, signature = next(each for each in log.head.signatures if len(each[2]) > 2000)
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    right, wrong = (base64.b64encode(id + each).decode() for each in (signature, changed))
    export.write_text(export.read_text().replace(right, wrong))
    assert says(log, export, *more) == (1, f"the signature of {name} ({id.hex()}) under size 20 does not hold\n")


@pytest.mark.security
async def test_it_takes_nothing_that_the_log_has_not_signed(tmp_path: Path) -> None:
    log = await written(tmp_path, (20, 50))
    export = log.export(tmp_path / "log.jsonl")
    lines = export.read_bytes().splitlines(keepends=True)
    forged = record(lines[-1].strip()).replace(b'"replica":"', b'"replica":"another-')
    export.write_bytes(b"".join([*lines, of(50, forged), b"\n"]))
    assert says(log, export) == (1, "entries from 50 on were added behind the last checkpoint\n")
    for kept, code in ((lambda kind: False, 2), (lambda kind: kind == ED25519, 3), (lambda kind: kind != ED25519, 3)):
        bare = [replace(head, signatures=signatures_by(log, head, kept)) for head in log.signed]
        under(lines, [head for head in bare if head.signatures])
        export.write_bytes(lines[0].strip() + b"\n" + b"".join(lines[1:]))
        assert says(log, export)[0] == code
        assert verify(open_log(export), log.trust).exit == code


def signatures_by(log: Written, head: Checkpoint, kept: Callable[[int], bool]) -> tuple[tuple[str, bytes, bytes], ...]:
    ids = {key.id for key in log.trust.log if kept(key.kind)}
    return tuple(line for line in head.signatures if line[1] in ids)


@pytest.mark.security
@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("index 0", "index x"),
        ("index 0", "index "),
        ("index 0", "index 00"),
        ("index 0", "index 0x0"),
        ("index 0", "index -0"),
        ("index 0", "index 1"),
        ("extra ", "other "),
        ("extra ", "extra  "),
        ("\nindex", "-\nindex"),
        ("\n20\n", "\n020\n"),
        ("\n20\n", "\n20\nmore\n"),
    ],
)
async def test_a_proof_is_what_is_written_in_it_to_the_letter(tmp_path: Path, what: str, other: str) -> None:
    log = await written(tmp_path, (20,))
    with closing(Database(log.db)) as db:
        text = str(db.proof(0))
    proof = tmp_path / "proof"
    proof.write_text(text.replace(what, other, 1))
    assert text != proof.read_text()
    assert says(log, proof)[0] in (1, 3)


async def test_it_finds_what_we_find(tmp_path: Path) -> None:
    log = await written(tmp_path, (20, 50))
    export = log.export(tmp_path / "log.jsonl")
    rng = random.Random(1)
    stranger = Sealer(tmp_path / "stranger", "stranger.example", lambda: NOW)
    foreign = entries((await written(tmp_path / "foreign", (20,))).db)
    scene = Scene(log, export, log.db, 50, log.db, 50, stranger, foreign)
    for act in (*ON_EXPORTS, *[spliced] * 12):  # of which there are several kinds
        if act is head_changed or act in SEEN_BEFORE:  # what signs the one, not every Node can check
            continue
        lines = export.read_bytes().splitlines()
        done = act(lines, scene, rng)
        other = tmp_path / "other.jsonl"
        other.write_bytes(b"".join(line + b"\n" for line in lines))
        code, said = says(log, other)
        assert code in (1, 3), act
        if done.first is not None and done.exact:
            assert re.search(rf"\b{done.first}\b", said), (act, done, said)
    head = log.signed[0]
    for changed in (f"{head.size}\\n", f"{head.size + 1}\\n"):
        text = export.read_text()
        other.write_text(text.replace(f"\\n{head.size}\\n", f"\\n{changed}", 1))
        assert says(log, other)[0] == (0 if other.read_text() == text else 1)
