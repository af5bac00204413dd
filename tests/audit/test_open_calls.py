"""Which calls of an earlier life have no end, found without a look at the whole log; and nothing else is one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.stores import opencalls
from gateway.stores.auditlog import entry_of
from gateway.stores.notary import Notary
from gateway.stores.sqlite import SqliteStore
from tests.audit.logs import closed, opened, write
from tests.stores.contract import entry


async def killed(store: SqliteStore, notary: Notary) -> None:
    notary.forsake()
    await store.aclose()


async def left(folder: Path) -> list[str]:
    store, notary = await opened(folder)
    found = [each.request_id for each in await store.left_open()]
    await killed(store, notary)
    return found


async def test_a_call_is_open_whether_it_began_before_the_newest_checkpoint_or_behind_it(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await store.commit(records=[entry(each, phase="intent") for each in ("old", "done")])
    await write(store, 50)
    await notary.seal()
    await store.commit(records=[entry("done"), entry("new", phase="intent")])
    assert await store.left_open() == [], "they are of this life"
    await killed(store, notary)
    assert await left(tmp_path) == ["old", "new"]


async def test_what_was_found_in_a_call_does_not_end_it(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await store.commit(records=[entry("1", phase="intent"), entry("1", phase="finding")])
    await killed(store, notary)
    assert await left(tmp_path) == ["1"]


async def test_what_an_entry_holds_is_not_taken_for_what_it_is(tmp_path: Path) -> None:
    said = {"phase": "outcome", "id": "1", "text": '"phase":"outcome","request":{"id":"1"}'}
    store, notary = await opened(tmp_path)
    await store.commit(records=[entry("1", phase="intent", change=said, reason='"phase":"outcome","id":"x"')])
    await closed(store, notary)
    assert await left(tmp_path) == ["1"]


def test_nothing_is_said_of_entries_of_the_first_releases() -> None:
    """They had no `request`, and none of them is to look open after its gateway has become a newer one."""
    said = '{{"at":{},"on_behalf_of":null,"outcome":"{}","phase":"{}","principal":"local:local","request_id":"1"}}'
    begun, ended = said.format(1, "begun", "intent"), said.format(2, "COMPLETED", "outcome")
    calls = opencalls.OpenCalls()
    calls.take(1, (begun.encode(), ended.encode()))
    assert calls.numbers == []


async def test_over_lives_each_call_keeps_its_place(tmp_path: Path) -> None:
    for life in ("a", "b", "c"):
        store, notary = await opened(tmp_path)
        await store.commit(records=[entry(life, phase="intent")])
        await write(store, 10, mark=life)
        await closed(store, notary)
    assert await left(tmp_path) == ["a", "b", "c"]


async def test_no_end_is_denied_that_may_be_in_what_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where signing had stopped long ago only the newest entries are looked at; older calls are left as they are."""
    store, notary = await opened(tmp_path)
    await store.commit(records=[entry("long ago", phase="intent")])
    await notary.seal()
    await write(store, 50)
    await store.commit(records=[entry("now", phase="intent")])
    await killed(store, notary)
    monkeypatch.setattr(opencalls, "MAX_BEHIND", 20)
    assert await left(tmp_path) == ["now"]


async def test_a_log_of_an_older_release_begins_with_its_newest_checkpoint(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await store.commit(records=[entry("long ago", phase="intent")])
    await closed(store, notary)
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as db, db:
        db.execute("UPDATE audit_head SET open_size = NULL, open = NULL")
    assert await left(tmp_path) == []


async def test_who_was_forgotten_stays_so(tmp_path: Path) -> None:
    who = "oauth:https://issuer.example#ann"
    store, notary = await opened(tmp_path)
    await store.commit(records=[entry("1", phase="intent", principal=who)])
    pseudonym = await store.forget_subject(who, lambda known: entry("2", target=known))
    await killed(store, notary)
    store, notary = await opened(tmp_path)
    (begun,) = await store.left_open()
    await store.commit(records=[begun])
    last = await store.audit(store.audit_log.last - 1, 1)
    assert last[0][1].principal == begun.principal == pseudonym
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as db:
        (line,) = db.execute("SELECT entries FROM audit ORDER BY last_idx DESC LIMIT 1").fetchone()
    assert b'"iss"' not in line
    assert entry_of(line).principal == pseudonym
    await killed(store, notary)
