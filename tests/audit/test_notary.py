"""The notary over lives of a gateway: what it signs, what it refuses to sign, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import auditformats, main
from gateway.model.audit import AuditQuery
from gateway.model.errors import GatewayError, Reason
from gateway.stores import notary as notaries
from gateway.stores import sealing
from gateway.stores.auditlog import Place, Rows, line
from gateway.stores.sealing import Sealed, Sealer, put
from gateway.stores.signingkeys import KeyFiles
from gateway.stores.sqlite import SqliteStore, open_sqlite
from gateway.verifier import (
    COSIGNED_MLDSA44,
    ED25519,
    Checkpoint,
    Database,
    Exit,
    Proof,
    Report,
    Segments,
    Tree,
    Trust,
    consistency,
    consistent,
    leaf_hash,
    nodes_of,
    open_log,
    succession,
    verify,
    verify_proof,
)
from tests.audit.logs import Written, closed, entries, opened, write, written
from tests.stores.contract import NOW, entry


def checked(folder: Path, now: float = NOW / 1000) -> Report:
    log = Written(folder)
    with closing(Database(log.db)) as db:
        return verify(db, log.trust, [log.head], now)


async def test_a_log_is_signed_with_both_kinds_of_key_by_files_of_their_owner(tmp_path: Path) -> None:
    log = await written(tmp_path)
    assert [head.size for head in log.signed] == [100, 357, 600, 700]
    assert {key.kind for key in log.head.signers(log.trust.log)} == {ED25519, COSIGNED_MLDSA44}
    assert log.head.origin.startswith("gw.example/audit-")
    assert stat.S_IMODE((tmp_path / "audit" / "signing-key").stat().st_mode) == 0o600
    report = checked(tmp_path)
    assert (report.exit, report.size, report.covered) == (Exit.OK, 700, 700)


async def test_each_checkpoint_is_the_beginning_of_the_next(tmp_path: Path) -> None:
    log = await written(tmp_path)
    with closing(Database(log.db)) as db:
        node = nodes_of(db.tile)
        for old in log.signed:
            steps = consistency(node, old.size, log.head.size)
            assert consistent(old.size, old.root, log.head.size, log.head.root, steps)


async def test_every_entry_has_a_proof_that_needs_no_gateway(tmp_path: Path) -> None:
    log = await written(tmp_path)
    lines = entries(log.db)
    with closing(Database(log.db)) as db:
        for index in (0, 99, 100, 255, 256, 511, 699):
            proof = Proof.parse(str(db.proof(index)))
            assert proof.entry == lines[index]
            assert verify_proof(proof, log.trust).exit is Exit.OK
            forged = Proof(proof.entry.replace(b"PASS", b"FLAG"), index, proof.path, proof.checkpoint)
            assert verify_proof(forged, log.trust).exit is Exit.TAMPERED
        with pytest.raises(LookupError, match="no entry 700"):
            db.proof(700)


async def test_a_gateway_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await write(store, 300)
    await notary.seal()
    await write(store, 50, mark="unsigned-")
    notary.forsake()  # a kill leaves no checkpoint and no mark of an orderly end
    await store.aclose()
    store, notary = await opened(tmp_path, "n2")
    await write(store, 10, mark="second-")
    await closed(store, notary)
    assert notary.trouble is None
    report = checked(tmp_path)
    assert (report.exit, report.size, report.covered) == (Exit.OK, 360, 360)


async def test_what_is_changed_before_it_is_signed_does_not_get_signed(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await notary.seal()
    await store.commit(records=[entry("first")])
    await notary.seal()
    await store.commit(records=[entry("second")])
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as db:
        db.execute("UPDATE audit SET entries = replace(entries, 'second', 'forged') WHERE last_idx = 2")
        db.commit()
    await closed(store, notary)
    report = checked(tmp_path)
    assert (report.exit, report.first) == (Exit.TAMPERED, 1)


@pytest.mark.security
async def test_what_is_added_between_two_runs_stops_the_notary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = await written(tmp_path, (20,))
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("INSERT INTO audit (last_idx, first_idx, entries) VALUES (21, 21, ?)", (entries(log.db)[0],))
        db.commit()
    for life in ("n2", "n3"):
        store, notary = await opened(tmp_path, life)
        await store.commit(records=[entry("more")])
        await closed(store, notary)
        assert notary.trouble is not None
    assert "is not signed any more: the log had 20 entries when it was closed, and has 21 now" in caplog.text
    assert log.head.size == 20
    report = checked(tmp_path, NOW / 1000 + 3600)
    assert (report.exit, report.first) == (Exit.TAMPERED, 20), "its own clock says that it was written before"


@pytest.mark.security
async def test_a_database_that_was_rolled_back_gets_no_second_history(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = await written(tmp_path, (20,))
    old = log.db.read_bytes()
    store, notary = await opened(tmp_path, "n2")
    await write(store, 10, mark="second-")
    await closed(store, notary)
    log.db.write_bytes(old)
    (tmp_path / "audit" / "closed").unlink()
    store, notary = await opened(tmp_path, "n3")
    await store.commit(records=[entry("another")])
    await closed(store, notary)
    assert notary.trouble is not None
    assert "over 30 entries was signed before; the database knows of 20" in caplog.text
    assert checked(tmp_path).exit is Exit.TAMPERED


@pytest.mark.security
async def test_hashes_that_do_not_lead_to_the_last_checkpoint_are_not_built_upon(tmp_path: Path) -> None:
    log = await written(tmp_path, (20,))
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("UPDATE audit_tile SET hashes = zeroblob(640)")
        db.commit()
    store, notary = await opened(tmp_path, "n2")
    await store.commit(records=[entry("more")])
    await closed(store, notary)
    assert notary.trouble is not None


@pytest.mark.security
@pytest.mark.parametrize("what", ["log", "keys"])
async def test_a_log_that_is_not_called_what_was_signed_is_not_signed_any_further(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    log = await written(tmp_path / "log", (20,))
    if what == "log":
        with closing(sqlite3.connect(log.db)) as db:
            db.execute("UPDATE audit_head SET log = 'other.example/audit-1'")
            db.commit()
    else:
        other = await written(tmp_path / "other", (20,))
        shutil.copy(other.folder / "audit" / "signing-key", log.folder / "audit" / "signing-key")
    store, notary = await opened(tmp_path / "log")
    await write(store, 5, mark="more-")
    await closed(store, notary)
    assert notary.trouble is not None
    assert "is not signed any more: the log is called" in caplog.text
    assert log.head.size == 20


async def test_the_log_of_an_older_release_is_taken_into_the_tree(tmp_path: Path) -> None:
    old = (
        '{"at":1764000000000,"digest":null,"on_behalf_of":"key:ann","outcome":"ok","phase":"outcome",'
        '"principal":"agent:echo","request_id":"r","rule":"allow","target":"echo","task_id":null,'
        '"tenant":"","verb":"GetTask","verdict":"PASS"}'
    )
    store = await open_sqlite(tmp_path / "gateway.db", now=lambda: NOW, node="n1")
    await store.write(lambda cursor: cursor.execute("INSERT INTO audit VALUES (1, 1, ?)", (old.encode(),)))
    await store.aclose()
    store, notary = await opened(tmp_path, "n2")
    await write(store, 5)
    (_, first), *_ = await store.audit(0, 1)
    assert (await store.search_audit(AuditQuery(9, principal="key:ann"))).entries[-1] == (1, first)
    assert (first.principal, first.chain, first.verb) == ("agent:echo", ("key:ann",), "GetTask")
    await closed(store, notary)
    assert checked(tmp_path).exit is Exit.OK


async def test_a_thousand_entries_are_signed_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, notary = await opened(tmp_path)
    sealed, seal = asyncio.Event(), notary.seal

    async def watched() -> None:
        await seal()
        sealed.set()

    monkeypatch.setattr(notary, "seal", watched)
    await asyncio.gather(*(store.commit(records=[entry(str(number))]) for number in range(notaries.ENTRIES)))
    async with asyncio.timeout(20):
        await sealed.wait()
    assert Written(tmp_path).head.size == notaries.ENTRIES
    await closed(store, notary)


async def test_between_two_checkpoints_the_tree_takes_what_would_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ENTRIES": 10, "AT_ONCE": 20, "PAUSE_SECONDS": 3600.0}.items():
        monkeypatch.setattr(notaries, name, value)
    loop, most, grow = asyncio.get_running_loop(), asyncio.Event(), Sealer.grow

    def watched(sealer: Sealer, rows: Rows) -> Rows:
        left = grow(sealer, rows)
        if sealer.size > 450:
            loop.call_soon_threadsafe(most.set)
        return left

    monkeypatch.setattr(Sealer, "grow", watched)
    store, notary = await opened(tmp_path)
    await write(store, 500)
    async with asyncio.timeout(20):
        await most.wait()
    assert len(Written(tmp_path).signed) == 1, "the next is an hour away"
    await closed(store, notary)
    report = checked(tmp_path)
    assert (report.exit, report.covered) == (Exit.OK, 500)


async def test_keys_that_cannot_be_loaded_are_not_tried_for_each_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ENTRIES": 10, "AT_ONCE": 20, "PAUSE_SECONDS": 3600.0}.items():
        monkeypatch.setattr(notaries, name, value)
    tried: list[Sealer] = []

    def broken(sealer: Sealer, db: sqlite3.Connection) -> None:
        tried.append(sealer)
        raise OSError("no keys")

    monkeypatch.setattr(Sealer, "load", broken)
    store, notary = await opened(tmp_path)
    await write(store, 500)
    await closed(store, notary)
    assert len(tried) == 2, "at the first ten entries, and at the end"


async def test_a_gateway_that_ends_while_a_checkpoint_is_made_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, began, second = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    calls: list[Rows] = []
    grow = Sealer.grow

    def slow(sealer: Sealer, rows: Rows) -> Rows:
        calls.append(rows)
        if len(calls) > 1:
            second.set()
        else:
            loop.call_soon_threadsafe(began.set)
            second.wait(0.3)  # whoever comes in between does it now
        return grow(sealer, rows)

    monkeypatch.setattr(Sealer, "grow", slow)
    store, notary = await opened(tmp_path)
    await write(store, 300)
    store.audit_log.full()
    async with asyncio.timeout(10):
        await began.wait()
        await write(store, 10, mark="last-")
        await closed(store, notary)
    assert notary.trouble is None
    report = checked(tmp_path)
    assert (report.exit, report.covered) == (Exit.OK, 310)


async def test_entries_that_could_not_be_read_back_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, notary = await opened(tmp_path)
    await write(store, 50)
    await notary.seal()
    await write(store, 50, mark="more-")
    store.audit_log.lose()
    read, failures = store.read, [GatewayError(Reason.UNAVAILABLE, "The store cannot read now")]

    async def fails_once(*what: Any) -> Any:
        if failures:
            raise failures.pop()
        return await read(*what)

    monkeypatch.setattr(store, "read", fails_once)
    with pytest.raises(GatewayError):
        await notary.seal()
    await write(store, 50, mark="again-")
    await closed(store, notary)
    assert (notary.trouble, Written(tmp_path).head.size) == (None, 150)
    assert checked(tmp_path).exit is Exit.OK


async def test_a_gateway_that_did_nothing_makes_no_keys(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await closed(store, notary)
    assert not (tmp_path / "audit" / "signing-key").exists()


async def test_the_newest_entries_of_a_running_gateway_may_wait_for_their_checkpoint(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await write(store, 10)
    await notary.seal()
    await write(store, 3)
    report = checked(tmp_path)
    assert (report.exit, report.size, report.covered) == (Exit.OK, 13, 10)
    assert report.notes == ["the newest 3 are not under a checkpoint yet"]
    late = checked(tmp_path, NOW / 1000 + 61)
    assert (late.exit, late.first) == (Exit.INCOMPLETE, 10)
    await closed(store, notary)


async def test_calls_that_have_no_end_are_told(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    said = {"phase": "outcome", "id": "2", "text": '"phase":"outcome","request":{"id":"2"}'}
    await store.commit(records=[entry("1", phase="intent"), entry("2", phase="intent", change=said), entry("1")])
    await closed(store, notary)
    report = checked(tmp_path)
    assert (report.exit, report.unknown) == (Exit.OK, 1)
    assert report.notes == [
        "1 calls have begun and no end: how they ended is not known, or they go on (the first is entry 1)"
    ]


# New keys.


async def announced(store: SqliteStore, before: list[str], after: list[str], word: str) -> None:
    change = {"after": {"keys": after, "note": word}, "before": {"keys": before}}
    await store.commit(records=[entry("rotation", verb="RotateAuditKey", phase="intent", change=change)])


async def rotated(folder: Path, times: int = 1) -> tuple[Trust, Written]:
    """A log whose keys have changed so many times, and what somebody trusts who knows the first ones only."""
    store, notary = await opened(folder)
    await write(store, 20)
    await notary.seal()
    first = Written(folder).trust
    for number in range(times):
        await notary.rotate(partial(announced, store))
        await write(store, 10, mark=f"{number}-")
        await notary.seal()
    await closed(store, notary)
    store, notary = await opened(folder, "n2")
    await write(store, 5, mark="again-")
    await closed(store, notary)
    return first, Written(folder)


async def test_whoever_has_the_first_keys_verifies_what_the_next_ones_sign(tmp_path: Path) -> None:
    first, log = await rotated(tmp_path, times=3)
    assert len(log.trust.log) == 8
    assert not first.signed(log.head)
    for trust in (first, log.trust):
        for file in (log.db, log.export(tmp_path / "log.jsonl")):
            report = verify(open_log(file), trust, [log.head], NOW / 1000)
            assert (report.exit, report.size) == (Exit.OK, 20 + 3 * 11 + 5)
    assert [key.name for key in first.log] == [log.head.origin] * 2, "what is trusted is not changed by verifying"


@pytest.mark.security
async def test_keys_that_only_an_unsigned_entry_names_are_not_believed(tmp_path: Path) -> None:
    log = await written(tmp_path / "log", (20,))
    stranger = Sealer(tmp_path / "stranger", "stranger.example", lambda: NOW)
    signers = stranger.keys.load(log.head.origin)
    change = {"after": {"keys": [str(signer.key) for signer in signers]}, "before": {"keys": []}}
    place = Place(log.head.origin, "stranger")
    forged = line(entry("forged", verb="RotateAuditKey", phase="intent", change=change), place)
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("INSERT INTO audit VALUES (21, 21, ?)", (forged,))
        tree = Tree()
        list(tree.extend([leaf_hash(each) for each in [*entries(log.db), forged]]))
        bare = Checkpoint(log.head.origin, 21, tree.root())
        signatures = tuple(signer.sign(bare, NOW // 1000) for signer in signers)
        note = Checkpoint(bare.origin, 21, bare.root, signatures).note
        db.execute("INSERT INTO audit_checkpoint VALUES (21, 0, ?)", (note.encode(),))
        db.execute("UPDATE audit_tile SET hashes = ?", (b"".join(tree.tiles[0]),))
        db.commit()
    report = checked(tmp_path / "log")
    assert (report.exit, report.first, report.end) == (Exit.TAMPERED, 20, 21)


WORDS = ("nobody", "the new keys", "the old keys, for others", "one of the old keys")


@pytest.mark.security
@pytest.mark.parametrize("who", WORDS)
async def test_keys_that_were_put_in_between_a_kill_and_the_next_start_are_not_believed(
    tmp_path: Path, who: str
) -> None:
    """The gateway signs what it finds then; that does not say whose signatures count from there on."""
    store, notary = await opened(tmp_path / "log")
    await write(store, 20)
    await notary.seal()
    notary.forsake()
    await store.aclose()
    log, origin = Written(tmp_path / "log"), store.audit_log.name
    first, old = log.trust, KeyFiles(tmp_path / "log" / "audit").load(origin)
    new = KeyFiles(tmp_path / "stranger").load(origin)
    keys = [str(signer.key) for signer in new]
    named = succession(origin, keys[::-1] if who == WORDS[2] else keys)
    signers = {WORDS[0]: [], WORDS[1]: new, WORDS[2]: old, WORDS[3]: [old[0], new[1]]}[who]
    word = replace(named, signatures=tuple(signer.sign(named, NOW // 1000) for signer in signers)).note
    change = {"after": {"keys": keys, **({"note": word} if signers else {})}, "before": {"keys": []}}
    forged = line(entry("forged", verb="RotateAuditKey", phase="intent", change=change), Place(origin, "stranger"))
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("INSERT INTO audit VALUES (21, 21, ?)", (forged,))
        db.commit()
    store, notary = await opened(tmp_path / "log")
    await write(store, 5, mark="more-")
    await closed(store, notary)
    assert notary.trouble is None
    with closing(Database(log.db)) as db:
        report = verify(db, first, now=NOW / 1000)
    assert (report.exit, report.first) == (Exit.TAMPERED, 20)
    assert report.sentence == "Entry 20 names keys that those before them did not sign for"
    tree = Tree()
    list(tree.extend([leaf_hash(each) for each in [*entries(log.db), forged]]))
    bare = Checkpoint(origin, 27, tree.root())
    theirs = replace(bare, signatures=tuple(signer.sign(bare, NOW // 1000) for signer in new))
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("INSERT INTO audit VALUES (27, 27, ?)", (forged,))
        put(Sealed(theirs, dict(tiles_of(tree))), NOW, db.cursor())
        db.commit()
    with closing(Database(log.db)) as db:
        report = verify(db, first, now=NOW / 1000)
    assert (report.exit, report.first, report.end) == (Exit.TAMPERED, 26, 27)


def tiles_of(tree: Tree) -> Iterator[tuple[tuple[int, int], bytes]]:
    for level, number, tile in tree.partial():
        yield (level, number), b"".join(tile)


async def test_a_rotation_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await write(store, 5)

    async def dies(before: list[str], after: list[str], word: str) -> None:
        await announced(store, before, after, word)
        raise RuntimeError("the machine went off")

    with pytest.raises(RuntimeError):
        await notary.rotate(dies)
    notary.forsake()
    await store.aclose()
    store, notary = await opened(tmp_path, "n2")
    await write(store, 5, mark="second-")
    await notary.seal()
    first = Written(tmp_path).trust
    assert first.signed(Written(tmp_path).head), "the old keys are still in force"
    await notary.rotate(partial(announced, store))
    await write(store, 5, mark="third-")
    await closed(store, notary)
    with closing(Database(tmp_path / "gateway.db")) as db:
        assert verify(db, first, now=NOW / 1000).exit is Exit.OK


@pytest.mark.security
async def test_a_head_that_later_keys_have_signed_is_held_against_the_log_too(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path / "log")
    await write(store, 20)
    await notary.seal()
    log = Written(tmp_path / "log")
    first, copies = log.trust, {}
    for name in ("before", "between", "after"):
        if name == "between":
            await notary.rotate(partial(announced, store))
        await write(store, 10, mark=name)
        await notary.seal()
        copies[name] = tmp_path / f"{name}.db"
        with closing(sqlite3.connect(log.db)) as db, closing(sqlite3.connect(copies[name])) as copy:
            db.backup(copy)
    await closed(store, notary)
    assert not first.signed(log.head)

    def looked_at(name: str) -> Report:
        with closing(Database(copies[name])) as db:
            return verify(db, first, [log.head], NOW / 1000)

    assert looked_at("after").exit is Exit.OK
    report = looked_at("between")
    assert (report.exit, report.first) == (Exit.TAMPERED, 41), "it was rolled back"
    assert looked_at("before").exit is Exit.KEY, "it does not even name who signed that head"


async def test_a_head_of_another_log_vouches_for_nothing_and_that_is_said(tmp_path: Path) -> None:
    log = await written(tmp_path / "log", (20,))
    other = (await written(tmp_path / "other", (20,))).head
    with closing(Database(log.db)) as db:
        report = verify(db, log.trust, [other], NOW / 1000)
        assert report.exit is Exit.KEY
        assert report.sentence.startswith("No checkpoint that was seen before was signed by keys of this log")
        report = verify(db, log.trust, [other, log.head], NOW / 1000)
    assert report.exit is Exit.OK
    assert report.notes == ["1 checkpoints that were seen before are not signed by this log and count for nothing"]


@pytest.mark.parametrize("change", ["CAST(replace(entries, 'PASS', 'FLAG') AS BLOB)", "CAST(entries AS TEXT)", "7"])
async def test_no_proof_is_written_that_does_not_lead_to_the_checkpoint(tmp_path: Path, change: str) -> None:
    log = await written(tmp_path, (20,))
    with closing(sqlite3.connect(log.db)) as db:
        db.execute(f"UPDATE audit SET entries = {change}")
        db.commit()
    assert main(["audit", "prove", "7", "--data", str(tmp_path), "--out", str(tmp_path / "proof")]) == 1
    assert not (tmp_path / "proof").exists()


# Segments.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in (sealing, auditformats):
        monkeypatch.setattr(module, "SEGMENT", 100)
    return 100


async def test_a_full_segment_gets_a_checkpoint_of_its_own(tmp_path: Path, small: int) -> None:
    log = await written(tmp_path, (50, 430, 500))
    assert [head.size for head in log.signed] == [50, 100, 200, 300, 400, 430, 500]
    assert checked(tmp_path).exit is Exit.OK


async def test_closed_segments_are_written_once_and_verified_without_the_rest(tmp_path: Path, small: int) -> None:
    log = await written(tmp_path / "log", (250,))
    kept = tmp_path / "kept"
    kept.mkdir()

    def more() -> list[str]:
        with closing(Database(log.db)) as db:
            return [path.name for path in auditformats.segments(db, kept)]

    assert more() == [f"0000000{n}{end}" for n in (0, 1) for end in (".jsonl", ".manifest.json")]
    assert more() == []
    report = verify(Segments(kept), log.trust, now=NOW / 1000)
    assert (report.exit, report.size) == (Exit.OK, 200)
    store, notary = await opened(tmp_path / "log", "n2")
    await write(store, 60, mark="more-")
    await closed(store, notary)
    assert more() == ["00000002.jsonl", "00000002.manifest.json"]
    assert verify(Segments(kept), log.trust, now=NOW / 1000).size == 300
    acts: list[Callable[[], None]] = [
        lambda: changed(kept / "00000001.jsonl", b'"outcome":"', b'"outcome":"x'),
        lambda: changed(kept / "00000001.manifest.json", b'"first": 100', b'"first": 101'),
        lambda: (kept / "00000001.manifest.json").unlink(),
    ]
    for act in acts:
        before = {path: path.read_bytes() for path in kept.iterdir()}
        act()
        report = verify(Segments(kept), log.trust, now=NOW / 1000)
        assert (report.exit, report.first) == (Exit.TAMPERED, 100)
        for path, body in before.items():
            path.write_bytes(body)


@pytest.mark.security
@pytest.mark.parametrize("field", ["log", "first", "end", "file", "sha256", "previous", "checkpoint"])
async def test_no_field_of_a_manifest_can_be_changed(tmp_path: Path, small: int, field: str) -> None:
    log = await written(tmp_path / "log", (250,))
    kept = tmp_path / "kept"
    kept.mkdir()
    with closing(Database(log.db)) as db:
        *_, newest = auditformats.segments(db, kept)
        older = db.notes()[0]
    tree = json.loads(newest.read_bytes())
    tree[field] = older if field == "checkpoint" else tree[field] + 1 if field in ("first", "end") else "other"
    newest.write_text(json.dumps(tree))
    assert verify(Segments(kept), log.trust, now=NOW / 1000).exit is Exit.TAMPERED


def changed(path: Path, old: bytes, new: bytes) -> None:
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new, 1))
