"""Witnesses: a file and a small server, which sign what goes on from what they saw, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from conformance.audit.witness import Witness, server
from gateway.cli import main
from gateway.config import parse
from gateway.model.problems import StartError
from gateway.stores import witnesses as stores_witnesses
from gateway.stores.notary import Notary
from gateway.stores.sqlite import SqliteStore
from gateway.stores.witnesses import CosigningWitness, FileWitness, Witnesses
from gateway.upstream.address import EgressRules
from gateway.upstream.egress import Egress
from gateway.upstream.httpx2_transport import control_client
from gateway.upstream.witness import HttpWitness
from gateway.verifier import (
    WITNESS_SECONDS,
    Checkpoint,
    Database,
    Exit,
    Trust,
    notes_in,
    open_log,
    verify,
    verify_proof,
)
from gateway.witnessing import witnesses
from tests.audit.logs import Written, closed, opened, write
from tests.serving import BOUND, ECHO, ROOT, message, running
from tests.stores.contract import NOW


@contextmanager
def listening(witness: Witness) -> Iterator[str]:
    http: ThreadingHTTPServer = server(witness)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def policy(log: Written, witness: Witness) -> Trust:
    keys = "".join(f"log {key}\n" for key in log.trust.log)
    return Trust.parse(f"{keys}witness w {witness.key}\nquorum w\n")


async def watched(folder: Path, witness: Witness, url: str, egress: Egress) -> tuple[SqliteStore, Notary]:
    store, first = await opened(folder)
    first.forsake()
    asked = HttpWitness(url, lambda: control_client(egress, trusted=True))
    shown = Witnesses([FileWitness(folder / "elsewhere")], [CosigningWitness(asked, witness.key, store)])
    notary = Notary(store, folder / "audit", lambda: NOW, shown)
    await notary.start()
    return store, notary


async def made(folder: Path) -> Written:
    store, notary = await opened(folder)
    await write(store, 20)
    await closed(store, notary)
    return Written(folder)


async def test_a_witness_signs_what_goes_on_from_what_it_saw(tmp_path: Path) -> None:
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)
    egress = Egress(EgressRules())
    with listening(witness) as url:
        for life in range(3):
            store, notary = await watched(tmp_path, witness, url, egress)
            await write(store, 50, mark=f"{life}-")
            await closed(store, notary)
            assert notary.trouble is None
            assert log.head.signers([witness.key]) == [witness.key]
    await egress.aclose()
    told = notes_in((tmp_path / "elsewhere").read_text())
    assert [head.size for head in told] == [70, 120, 170]
    with closing(Database(log.db)) as db:
        assert verify(db, policy(log, witness), told, NOW / 1000).exit is Exit.OK
    another = Witness(tmp_path / "another", log.trust, "another.example")
    with closing(Database(log.db)) as db:
        assert verify(db, policy(log, another), told, NOW / 1000).exit is Exit.KEY, "it never signed"


@pytest.mark.security
async def test_entries_that_are_not_signed_yet_stand_in_for_no_witness(tmp_path: Path) -> None:
    """Whoever has the signing key can always add one to a history that no witness has seen."""
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)
    with closing(Database(log.db)) as db:
        assert verify(db, policy(log, witness), now=NOW / 1000).exit is Exit.KEY
    store, notary = await opened(tmp_path)
    notary.forsake()
    await write(store, 1, mark="later-")
    await store.aclose()
    with closing(Database(log.db)) as db:
        assert verify(db, log.trust, now=NOW / 1000).notes == ["the newest 1 are not under a checkpoint yet"]
        assert verify(db, policy(log, witness), now=NOW / 1000).exit is Exit.KEY


async def test_between_two_looks_of_the_witnesses_a_live_log_is_not_without_them(tmp_path: Path) -> None:
    """They are shown one head in a minute, and there are six of them and more."""
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)
    egress = Egress(EgressRules())
    with listening(witness) as url:
        store, notary = await watched(tmp_path, witness, url, egress)
        for mark in ("seen-", "not-yet-"):
            await write(store, 10, mark=mark)
            await notary.seal()
        notary.forsake()
        await store.aclose()
    await egress.aclose()
    asked = policy(log, witness)
    with closing(Database(log.db)) as db:
        report = verify(db, asked, now=NOW / 1000)
        assert (report.exit, report.covered) == (Exit.OK, 40)
        assert report.notes == ["the newest 10 have not been shown to the witnesses yet"]
        late = verify(db, asked, now=NOW / 1000 + WITNESS_SECONDS + 1)
        assert (late.exit, late.notes) == (Exit.KEY, ["of 40 entries they have seen 30"])
        assert verify_proof(db.proof(29), asked).exit is Exit.OK
        assert verify_proof(db.proof(30), asked).exit is Exit.KEY
    assert verify(open_log(log.export(tmp_path / "log.jsonl")), asked).exit is Exit.KEY, "it goes on no more"


async def test_a_witness_that_never_ends_its_answer_delays_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)

    class Asked:
        def __init__(self, url: str) -> None:
            self.url = url

        async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
            if self.url == "silent":
                await asyncio.Event().wait()
            elif self.url == "talkative":
                return 409, "9" * 5000
            return witness.add(body.decode())

    monkeypatch.setattr(stores_witnesses, "PATIENCE_SECONDS", 0.05)
    store, first = await opened(tmp_path)
    first.forsake()
    asked = [CosigningWitness(Asked(url), witness.key, store) for url in ("silent", "talkative", "good")]
    notary = Notary(store, tmp_path / "audit", lambda: NOW, Witnesses([], asked))
    await notary.start()
    await write(store, 5)
    async with asyncio.timeout(BOUND):
        await notary.seal()
    await closed(store, notary)
    assert notary.trouble is None
    assert log.head.signers([witness.key]) == [witness.key]
    assert "silent has not answered in time" in caplog.text
    assert "talkative answered with status 409" in caplog.text


@pytest.mark.security
@pytest.mark.parametrize("left", [0.1, 0.4, 0.9])
async def test_half_a_head_in_the_file_of_a_witness_hides_none_of_the_others(tmp_path: Path, left: float) -> None:
    """As a disk that was full leaves it; the file cannot be mended where it is only ever appended to."""
    log = await made(tmp_path)
    file, head = tmp_path / "elsewhere", log.head
    witness = FileWitness(file)
    witness.tell(head)
    with file.open("a") as torn:
        torn.write(head.note[: int(len(head.note) * left)])
    witness.tell(head)
    told = notes_in(file.read_text())
    assert [each == head for each in told] == [True, False, True]
    with closing(Database(log.db)) as db:
        report = verify(db, log.trust, told, NOW / 1000)
    assert report.exit is Exit.OK
    assert report.notes == ["1 checkpoints that were seen before are not signed by this log and count for nothing"]
    for nothing in ("", "\n", head.note[:40]):
        file.write_text(nothing)
        assert main(["audit", "verify", "--data", str(tmp_path), "--since", str(file)]) == 3


@pytest.mark.security
async def test_a_forged_signature_of_a_witness_is_found(tmp_path: Path) -> None:
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)
    forged = replace(log.head, signatures=(*log.head.signatures, (witness.key.name, witness.key.id, bytes(2428))))
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("UPDATE audit_checkpoint SET note = ?", (forged.note.encode(),))
        db.commit()
    with closing(Database(log.db)) as db:
        report = verify(db, policy(log, witness), now=NOW / 1000)
    assert report.exit is Exit.TAMPERED
    assert "the signature of witness.example/small" in report.sentence


@pytest.mark.security
async def test_a_witness_refuses_another_history_and_the_gateway_stops_signing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = await made(tmp_path / "log")
    shutil.copytree(tmp_path / "log", tmp_path / "fork")
    witness = Witness(tmp_path / "witness", log.trust)
    egress = Egress(EgressRules())
    with listening(witness) as url:
        for folder, mark, count in (("log", "ours-", 30), ("fork", "theirs-", 40)):
            store, notary = await watched(tmp_path / folder, witness, url, egress)
            await write(store, count, mark=mark)
            await closed(store, notary)
    await egress.aclose()
    assert notary.trouble is not None
    assert "does not go on from the one it saw" in caplog.text
    fork = Written(tmp_path / "fork")
    told = notes_in((tmp_path / "log" / "elsewhere").read_text())
    with closing(Database(fork.db)) as db:
        report = verify(db, fork.trust, told, NOW / 1000)
    assert (report.exit, report.first, report.end) == (Exit.TAMPERED, 0, 50)


@pytest.mark.security
async def test_a_witness_that_has_seen_more_tells_of_a_rollback(tmp_path: Path) -> None:
    log = await made(tmp_path)
    old = log.db.read_bytes()
    witness = Witness(tmp_path / "witness", log.trust)
    egress = Egress(EgressRules())
    with listening(witness) as url:
        store, notary = await watched(tmp_path, witness, url, egress)
        await write(store, 30, mark="lost-")
        await closed(store, notary)
        log.db.write_bytes(old)
        for trace in ("head", "closed"):  # whoever did it knew of these
            (tmp_path / "audit" / trace).unlink()
        store, notary = await watched(tmp_path, witness, url, egress)
        await write(store, 1, mark="new-")
        await closed(store, notary)
    await egress.aclose()
    assert notary.trouble is not None
    assert "has seen 50 entries and there are 21" in notary.trouble


async def test_a_witness_that_is_away_delays_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)
    egress = Egress(EgressRules())
    with listening(witness) as url:
        pass
    store, notary = await watched(tmp_path, witness, url, egress)
    await write(store, 5)
    await closed(store, notary)
    await egress.aclose()
    assert (notary.trouble, log.head.size) == (None, 25)
    assert "a witness did not sign the audit log" in caplog.text
    assert notes_in((tmp_path / "elsewhere").read_text())[-1].size == 25


async def test_the_witness_keeps_to_its_protocol(tmp_path: Path) -> None:
    log = await made(tmp_path)
    witness = Witness(tmp_path / "witness", log.trust)
    note = log.head.note
    assert witness.add("nonsense")[0] == 400
    assert witness.add(f"old 30\n\n{note}")[0] == 400
    assert witness.add(f"old 0\n\n{note.replace('gw.example', 'other.example')}")[0] == 404
    assert witness.add(f"old 0\n\n{Checkpoint(log.head.origin, 20, bytes(32), log.head.signatures).note}")[0] == 403
    assert witness.add(f"old 5\n\n{note}") == (409, "0\n")
    status, line = witness.add(f"old 0\n\n{note}")
    assert status == 200
    assert Checkpoint.parse(note + line).signers([witness.key]) == [witness.key]
    assert witness.add(f"old 20\n\n{note}")[0] == 200
    assert witness.add(f"old 20\nAAAA\n\n{note}")[0] == 422
    with closing(sqlite3.connect(log.db)) as db:
        assert db.execute("SELECT count(*) FROM audit").fetchone()[0] > 0


async def test_a_gateway_shows_its_heads_to_the_witnesses_of_its_file(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    async with running(data, ECHO) as gateway:
        await gateway.result("SendMessage", {"message": message("hello")})
    witness = Witness(tmp_path / "witness", Written(data).trust)
    with listening(witness) as url:
        config = f"{ECHO}audit: {{witness_file: {elsewhere}, witnesses: [{{url: '{url}', key: '{witness.key}'}}]}}\n"
        async with running(data, config) as gateway:
            await gateway.result("SendMessage", {"message": message("hello")})
    head = Written(data).head
    assert head.signers([witness.key]) == [witness.key]
    assert notes_in(elsewhere.read_text()) == [head]


def test_a_witness_without_a_key_that_is_one_stops_the_start() -> None:
    config = parse("audit: {witnesses: [{url: 'https://witness.example', key: 'witness.example+1234'}]}", base=ROOT)
    with pytest.raises(StartError, match="no verifier key"):
        witnesses(config.audit, cast(Any, None), cast(Any, None))
