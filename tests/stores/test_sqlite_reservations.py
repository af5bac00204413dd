"""How the SQLite store finds a reservation: by memory, by its index, and across the merges between the two."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model.changes import Change, CreateTask, Release, Reserve, SaveReply
from gateway.model.rows import Key, Reservation
from gateway.stores import reservations
from gateway.stores.problems import BadChange
from gateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.contract import NODE, NOW, StoreContract, key, new_task, reserve, says


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


async def open_store(path: Path) -> SqliteStore:
    return await open_sqlite(path, now=lambda: NOW, node=NODE)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(path)
    yield store
    await store.aclose()


@pytest.fixture
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MERGE_SIZE", 5)
    monkeypatch.setattr(reservations, "MERGE_STEP", 2)


@pytest.fixture
def colliding_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "hashed", lambda *words: sum(map(ord, "".join(words))) % 9 - 4)


@pytest.mark.usefixtures("small_merges")
class TestWithSmallMerges(StoreContract):
    pass


@pytest.mark.usefixtures("small_merges", "colliding_hashes")
class TestWithCollidingHashes(StoreContract):
    pass


def indexed(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        count: int = db.execute("SELECT count(*) FROM reservation_by_hash").fetchone()[0]
        return count


def test_the_hash_is_the_same_in_every_life() -> None:
    assert reservations.hashed("t", "key:ann", "m1") == 2718946535605666146
    assert reservations.hashed("t", "key:ann", "m2") != reservations.hashed("t", "key:ann", "m1")


@pytest.mark.usefixtures("small_merges")
async def test_a_key_is_taken_wherever_it_is_found(path: Path) -> None:
    for life in range(3):
        store = await open_store(path)
        for n in range(30):
            held = reserve(key(f"{life}.{n}"), task_id=f"task-{life}.{n}")
            assert await store.commit(held) is None
            # Every one so far: in memory, half merged, in the index, from before the restart.
            for known in (f"{a}.{b}" for a in range(life + 1) for b in range(30) if (a, b) <= (life, n)):
                again = await store.commit(reserve(key(known), task_id="again"))
                assert again is not None
                assert again.task_id == f"task-{known}"
                assert await store.reservation("t", "key:ann", known) == [again]
        await store.aclose()
    assert indexed(path) >= 75


@pytest.mark.usefixtures("small_merges")
@pytest.mark.parametrize("collide", [False, True], ids=["hashes differ", "hashes collide"])
@pytest.mark.parametrize("seed", range(4))
async def test_any_history_is_that_of_a_dictionary(
    path: Path, seed: int, collide: bool, request: pytest.FixtureRequest
) -> None:
    """Keys taken, given back, settled, replied to and looked up, in batches of which some fail, over restarts."""
    if collide:
        request.getfixturevalue("colliding_hashes")
    chance = random.Random(seed)
    held: dict[Key, Reservation] = {}
    keys = [key(f"m{n}", agent=agent) for n in range(40) for agent in ("echo", "other")]
    store = await open_store(path)
    await store.commit(new_task())
    for _ in range(150):
        batch = [_step(chance, keys) for _ in range(chance.randint(1, 8))]
        results = await asyncio.gather(*(store.commit(*changes) for _, changes in batch), return_exceptions=True)
        for (what, changes), result in zip(batch, results, strict=True):
            expected = _expected(held, what, changes)
            assert isinstance(result, BadChange) if expected is BadChange else result == expected
        sought = chance.choice(keys)
        found = await store.reservation(sought.tenant, sought.principal, sought.message_id)
        assert found == [held[k] for k in keys if k.message_id == sought.message_id and k in held]
        if chance.random() < 0.1:
            await store.aclose()
            store = await open_store(path)
    for each in keys:
        assert await store.reservation("t", "key:ann", each.message_id, agent=each.agent) == [
            held[k] for k in [each] if k in held
        ]
    assert indexed(path) > 20
    await store.aclose()


def _step(chance: random.Random, keys: list[Key]) -> tuple[str, tuple[Change, ...]]:
    of = chance.choice(keys)
    task = f"task-{chance.getrandbits(32)}"
    take = reserve(of, task_id=task)
    steps: list[tuple[str, tuple[Change, ...]]] = [
        ("reserve", (take,)),
        ("reserve", (take,)),
        ("release", (Release(of),)),
        ("release", (Release(of),)),
        ("settle", (new_task(task, key=of),)),
        ("reply", (SaveReply(of, says(task)),)),
        ("bad", (Release(of), new_task())),
        ("bad", (new_task(task), take, new_task())),
    ]
    return chance.choice(steps)


def _expected(held: dict[Key, Reservation], what: str, changes: tuple[Change, ...]) -> object:
    """What the step answers; does to `held` what it does."""
    for change in changes:
        if isinstance(change, Reserve) and change.reservation.key in held:
            return held[change.reservation.key]
    if what == "bad":
        return BadChange
    for change in changes:
        if isinstance(change, Reserve):
            held[change.reservation.key] = change.reservation
        elif isinstance(change, Release):
            if change.key in held and not held[change.key].settled and held[change.key].reply is None:
                del held[change.key]
        elif isinstance(change, SaveReply) and change.key in held:
            held[change.key] = replace(held[change.key], reply=change.reply)
        elif isinstance(change, CreateTask) and change.key in held:
            held[change.key] = replace(held[change.key], settled=True)
    return None


@pytest.mark.usefixtures("small_merges")
async def test_a_number_is_not_used_again_when_the_newest_row_was_released(path: Path) -> None:
    """It may lie behind the mark, so the row that took it would be in neither place."""
    store = await open_store(path)
    for n in range(40):
        await store.commit(reserve(key(f"m{n}")))
        await store.commit(Release(key(f"m{n}")))
    await store.aclose()
    store = await open_store(path)
    await store.commit(reserve(key("new")))
    await store.aclose()
    store = await open_store(path)
    assert await store.commit(reserve(key("new"))) is not None
    await store.aclose()


@pytest.mark.usefixtures("small_merges")
async def test_a_message_that_is_refused_again_and_again_leaves_nothing_behind(path: Path) -> None:
    store = await open_store(path)
    for n in range(100):
        await store.commit(reserve(key("refused")))
        await store.commit(reserve(key(f"m{n}")))
        await store.commit(Release(key("refused")))
    await store.aclose()
    assert indexed(path) <= 100


async def test_a_merge_takes_small_steps(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MERGE_SIZE", 1000)
    monkeypatch.setattr(reservations, "MERGE_STEP", 10)
    seen = [0]
    for n in range(1600):
        await store.commit(reserve(key(str(n))))
        seen.append(indexed(path))
    assert max(b - a for a, b in itertools.pairwise(seen)) <= 20
    assert seen[-1] == 1000


async def test_a_key_with_a_lone_surrogate_is_refused(store: SqliteStore) -> None:
    with pytest.raises(BadChange):
        await store.commit(reserve(key("\ud800")))
