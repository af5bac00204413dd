"""Clients and revoked tokens: the same in memory and in SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.model.changes import PutClient, RevokeToken
from gateway.model.clients import ClientRecord, Origin, RevokedToken
from gateway.model.ports import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import open_sqlite
from tests.stores.contract import NODE, NOW

ADA = ClientRecord(
    "ada", b"a" * 32, ("read", "write"), NOW,
    grants=("authorization_code",), redirects=("https://a.example/x",), name="Ada's", origin=Origin.REGISTERED,
)  # fmt: skip
BOB = ClientRecord("bob", b"b" * 32, (), NOW + 1, revoked=NOW + 2)


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(now=lambda: NOW, node=NODE)
    if request.param == "sqlite":
        made = await open_sqlite(tmp_path / "gateway.db", now=lambda: NOW, node=NODE)
    yield made
    await made.aclose()


async def test_clients_are_kept_by_id(store: Store) -> None:
    assert await store.clients.all() == []
    for record in (BOB, ADA):
        await store.commit(PutClient(record))
    assert await store.clients.all() == [ADA, BOB]
    ended = ClientRecord("ada", ADA.hash, ADA.scopes, ADA.created, revoked=NOW + 9)
    await store.commit(PutClient(ended))
    assert await store.clients.all() == [ended, BOB]


async def test_revoked_tokens_are_kept_until_they_would_have_ended(store: Store) -> None:
    await store.commit(RevokeToken(RevokedToken("one", NOW + 10), NOW))
    await store.commit(RevokeToken(RevokedToken("one", NOW + 10), NOW))
    await store.commit(RevokeToken(RevokedToken("two", NOW + 20), NOW + 9))
    assert await store.clients.revoked() == [RevokedToken("one", NOW + 10), RevokedToken("two", NOW + 20)]
    await store.commit(RevokeToken(RevokedToken("three", NOW + 30), NOW + 10))
    assert await store.clients.revoked() == [RevokedToken("three", NOW + 30), RevokedToken("two", NOW + 20)]


async def test_clients_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    store = await open_sqlite(path, now=lambda: NOW, node=NODE)
    await store.commit(PutClient(ADA))
    await store.commit(RevokeToken(RevokedToken("one", NOW + 10), NOW))
    await store.aclose()
    again = await open_sqlite(path, now=lambda: NOW, node=NODE)
    assert await again.clients.all() == [ADA]
    assert await again.clients.revoked() == [RevokedToken("one", NOW + 10)]
    await again.aclose()
