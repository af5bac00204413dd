"""People and what they have allowed: the same in memory and in SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.model.changes import EndGrant, PutUser
from gateway.model.people import GrantRecord, Person, UserRecord
from gateway.model.ports import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import open_sqlite
from tests.stores.contract import NODE, NOW

ADA = UserRecord("ada", "$argon2id$…", ("clerk", "eu"), NOW)
BOB = UserRecord("bob", "$argon2id$…", (), NOW + 1, removed=NOW + 2)


def grant(id: str, subject: str = "user:ada", client: str = "app", until: int = NOW + 100) -> GrantRecord:
    person = Person(subject, ("clerk",), "Ada")
    return GrantRecord(id, b"1" * 32, client, person, ("read", "write"), "https://gw.example", NOW, until)


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(now=lambda: NOW, node=NODE)
    if request.param == "sqlite":
        made = await open_sqlite(tmp_path / "gateway.db", now=lambda: NOW, node=NODE)
    yield made
    await made.aclose()


async def test_users_are_kept_by_name(store: Store) -> None:
    for user in (BOB, ADA):
        await store.commit(PutUser(user))
    assert await store.people.users() == [ADA, BOB]
    changed = replace(ADA, hash="other", removed=NOW + 5)
    await store.commit(PutUser(changed))
    assert await store.people.users() == [changed, BOB]


async def test_of_many_who_rotate_one_refresh_token_one_succeeds(store: Store) -> None:
    await store.people.put_grant(grant("one"))
    assert await store.people.grant("one") == grant("one")
    assert await store.people.grant("two") is None
    tries = [store.people.rotate("one", b"1" * 32, bytes([n]) * 32) for n in range(5)]
    done = await asyncio.gather(*tries)
    assert sorted(done) == [False] * 4 + [True]
    kept = await store.people.grant("one")
    assert kept is not None
    assert kept.mark == bytes([done.index(True)]) * 32
    assert not await store.people.rotate("two", b"1" * 32, b"2" * 32)


async def test_grants_are_found_by_person_and_client_and_end_one_by_one_and_by_themselves(store: Store) -> None:
    for each in (grant("a"), grant("b", client="web"), grant("c", subject="user:bob"), grant("d", until=NOW)):
        await store.people.put_grant(each)
    await store.people.put_grant(grant("e"))  # and those that had ended are forgotten
    assert await store.people.grant("d") is None
    await store.commit(EndGrant("a"), EndGrant("a"))
    assert await store.people.grant("a") is None
    assert await store.people.grants_of(subject="user:ada") == [grant("b", client="web"), grant("e")]
    assert await store.people.grants_of(client="app") == [grant("c", subject="user:bob"), grant("e")]
    assert await store.people.grants_of(subject="user:ada", client="app") == [grant("e")]
    assert [each.id for each in await store.people.grants_of()] == ["b", "c", "e"]


async def test_what_people_allowed_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    store = await open_sqlite(path, now=lambda: NOW, node=NODE)
    await store.commit(PutUser(ADA))
    await store.people.put_grant(grant("one"))
    await store.aclose()
    again = await open_sqlite(path, now=lambda: NOW, node=NODE)
    assert await again.people.users() == [ADA]
    assert await again.people.grant("one") == grant("one")
    await again.aclose()
