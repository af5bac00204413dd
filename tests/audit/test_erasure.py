"""A person can be forgotten, and the log is as sound as before (crypto-shredding)."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.model.audit import AuditEntry, AuditQuery
from gateway.stores.problems import BadChange
from gateway.stores.sqlite import SqliteStore
from gateway.verifier import Database, Exit, verify, verify_proof
from tests.audit.logs import Written, closed, entries, opened
from tests.stores.contract import NOW, entry

CANARY = "oauth:idp#canary-7f3a"


def record(pseudonym: str) -> AuditEntry:
    return entry("erasure", target=pseudonym, verb="EraseSubject")


ABOUT: dict[str, Any] = {
    "target": CANARY,
    "reason": f"the principal {CANARY} is frozen: by {CANARY}, {CANARY}.",
    "change": {
        "after": [{"by": CANARY, "words": [{"by": CANARY, "said": "approve"}]}],
        "before": [{"name": CANARY, "reason": f"{CANARY} left"}],
    },
}
"""Wherever a name stands beside who did it."""


async def filled(store: SqliteStore) -> None:
    await store.commit(records=[entry("about", principal="local:local", verb="Freeze", **ABOUT)])
    for number in range(40):
        await store.commit(
            records=[
                entry(f"c{number}", principal=CANARY),
                entry(f"a{number}", principal="key:ann"),
                entry(f"d{number}", principal="agent:echo", chain=("agent:asker", CANARY), client="canary-7f3a"),
            ]
        )


def holding(folder: Path, word: str) -> list[str]:
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and word.encode() in path.read_bytes()]


async def test_names_are_shown_and_not_in_the_log(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await filled(store)
    page = await store.search_audit(AuditQuery(1000, principal=CANARY))
    assert {each.principal for _, each in page.entries} == {CANARY, "agent:echo"}
    assert len(page.entries) == 80
    ((_, about),) = (await store.search_audit(AuditQuery(9, target=CANARY))).entries
    assert (about.target, about.reason, about.change) == tuple(ABOUT.values())
    await closed(store, notary)
    assert not [line for line in entries(tmp_path / "gateway.db") if b"canary" in line or b"key:ann" in line]
    Written(tmp_path).export(tmp_path / "log.jsonl")
    assert holding(tmp_path, "canary-7f3a") == ["gateway.db"], "beside the log, for whoever may read it"


@pytest.mark.security
async def test_of_somebody_erased_nothing_is_left(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await filled(store)
    await notary.seal()
    log = Written(tmp_path)
    with closing(Database(log.db)) as db:
        others = db.proof(1)
    lines = entries(log.db)
    pseudonym = await store.forget_subject(CANARY, record)
    assert pseudonym is not None
    assert pseudonym.startswith("oauth:~")
    assert holding(tmp_path, "canary-7f3a") == [], "while the gateway runs, its write-ahead log included"
    assert await store.forget_subject(CANARY, record) is None
    page = await store.search_audit(AuditQuery(1000, principal=pseudonym))
    assert len(page.entries) == 80
    assert (await store.search_audit(AuditQuery(1000, principal=CANARY))).entries == []
    assert len((await store.search_audit(AuditQuery(1000, principal="key:ann"))).entries) >= 40
    await store.commit(records=[entry("back", principal=CANARY)])
    await store.commit()
    (_, newest), *_ = (await store.search_audit(AuditQuery(1, principal=CANARY))).entries
    assert newest.request_id == "back", "who comes again is somebody new"
    await closed(store, notary)
    assert entries(log.db)[: len(lines)] == lines
    with closing(Database(log.db)) as db:
        assert verify(db, log.trust, [log.head], NOW / 1000).exit is Exit.OK
    assert verify_proof(others, log.trust).exit is Exit.OK


async def test_a_name_and_its_key_open_the_commitment(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await filled(store)
    await closed(store, notary)
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as db:
        rows = db.execute("SELECT pseudonym, name, salt FROM audit_subject").fetchall()
    assert {name for _, name, _ in rows} == {CANARY, "key:ann"}
    for pseudonym, name, key in rows:
        kind, _, commitment = pseudonym.partition(":~")
        assert name.startswith(kind)
        assert hmac.digest(key, name.encode(), hashlib.sha256).hex().startswith(commitment)
    assert len({key for _, _, key in rows}) == 2


async def test_what_a_failed_transaction_had_named_is_named_again(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    with pytest.raises(BadChange):
        await store.commit(records=[entry("bad", principal="key:new", outcome="\ud800")])
    await store.commit(records=[entry("good", principal="key:new")])
    assert [each.request_id for _, each in (await store.search_audit(AuditQuery(9, principal="key:new"))).entries] == [
        "good"
    ]
    await closed(store, notary)
