"""A log that a gateway of before format 2 has written goes on where it ended: its entries keep their form, and are
found, proved and verified like the others. `tests/corpus/audit-v1` is such a log."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.model.audit import AuditQuery
from gateway.stores import schema
from gateway.verifier import Checkpoint, Database, Exit, open_log, verify, verify_proof
from tests.audit.logs import Written, entries
from tests.audit.test_another_language import NODE, says
from tests.serving import ROOT, running

CORPUS = ROOT / "tests" / "corpus" / "audit-v1"
OLD = 17  # entries
SCHEMA = 46


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder as that gateway left it, as far as its log goes."""
    folder = tmp_path / "data"
    shutil.copytree(CORPUS / "audit", folder / "audit")
    folder.chmod(0o700)
    with closing(sqlite3.connect(folder / "gateway.db")) as db:
        for step in schema.MIGRATIONS:
            if int(step.name[:4]) <= SCHEMA:
                db.executescript(step.read_text("utf-8"))
        db.executescript((CORPUS / "log.sql").read_text("utf-8"))
        db.executescript(f"PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = {SCHEMA};")
    (folder / "gateway.db").chmod(0o600)
    return folder


def checked(data: Path, *seen: Checkpoint) -> tuple[Exit, int]:
    log = Written(data)
    with closing(Database(log.db)) as db:
        report = verify(db, log.trust, [log.head, *seen])
    return report.exit, report.size


async def test_it_verifies_as_it_is(data: Path) -> None:
    assert checked(data) == (Exit.OK, OLD)
    with closing(Database(data / "gateway.db")) as db:
        for index in range(OLD):
            assert verify_proof(db.proof(index), Written(data).trust).exit is Exit.OK


async def test_a_gateway_of_today_goes_on_with_it_under_its_name(data: Path, tmp_path: Path) -> None:
    log = Written(data)
    before, seen = entries(log.db), log.head
    async with running(data) as gateway:
        await gateway.send("hello", who=await gateway.key("eve"))
        found = await gateway.app.store.search_audit(AuditQuery(99, principal="key:ann", verb="SendMessage"))
        assert [number for number, _ in found.entries] == [10, 9, 8, 7, 6, 5, 4, 3]
        assert {(entry.principal, entry.client, entry.stamp) for _, entry in found.entries} == {("key:ann", None, None)}
        of_both = (await gateway.app.store.search_audit(AuditQuery(99, verb="SendMessage"))).entries
        assert {entry.stamp is None for _, entry in of_both} == {True, False}
    after = entries(log.db)
    assert after[:OLD] == before, "what was written is as it was"
    assert {json.loads(each)["v"] for each in after[:OLD]} == {1}
    assert {(tree["v"], tree["log_id"]) for tree in map(json.loads, after[OLD:])} == {(2, seen.origin)}
    assert checked(data, seen) == (Exit.OK, len(after))
    export = log.export(tmp_path / "log.jsonl")
    trust = log.trust
    assert verify(open_log(export), trust, [seen]).exit is Exit.OK
    # Whoever has nothing but its first keys believes the rotation that the old entries announce, and what follows.
    trust.log = trust.log[:2]
    assert verify(open_log(export), trust).exit is Exit.OK
    if NODE is not None:
        assert says(log, export)[0] == 0
