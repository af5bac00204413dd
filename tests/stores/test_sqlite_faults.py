"""The SQLite store when processes die and disks fail: nothing acknowledged is lost, nothing lost is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.model.task import TaskState
from gateway.stores.problems import DiskFull
from gateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.child import STARVED_AT
from tests.stores.contract import NODE, NOW, advance, chunk, entry, key, new_task, reserve, status, written

ROOT = Path(__file__).parents[2]
KILLS = 20


async def open_store(path: Path) -> SqliteStore:
    return await open_sqlite(path, now=lambda: NOW, node=NODE)


def child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stores.child", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def batched(ids: list[str], size: int) -> Iterator[list[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


@pytest.mark.slow
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    random_numbers = random.Random(20)
    acknowledged: set[str] = set()
    for kill in range(KILLS):
        with child("commit", str(path), str(kill * 1_000_000)) as process:
            assert process.stdout is not None
            lines = list(islice(process.stdout, random_numbers.randrange(1, 400)))
            process.kill()
            # What it said before it died counts, also when we had not heard it yet.
            lines += process.stdout
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
        store = await open_store(path)
        record = await store.audit(0, 1_000_000)
        assert [idx for idx, _ in record] == list(range(1, len(record) + 1))
        ids = [entry.request_id for _, entry in record]
        assert len(ids) == len(set(ids))
        assert acknowledged <= set(ids)
        await store.aclose()
    store = await open_store(path)
    for id in random_numbers.sample(sorted(acknowledged), 200):
        assert await store.task("t", id) is not None
        assert [record.seq for record in await store.events("t", id, 0)] == [1]
        assert (await store.reservation("t", "key:ann", id))[0].settled
    for few in batched(sorted(acknowledged), 500):
        again = await asyncio.gather(*(store.commit(reserve(key(id), task_id="again")) for id in few))
        assert [holder and holder.task_id for holder in again] == few
    await store.aclose()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 2 MB. A run that is killed leaves it mounted, and among pytest's own folders it would stop every
    later run, which cannot remove it."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "gateway-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


async def test_a_full_disk_refuses_commits_and_recovers_when_there_is_space(small_disk: Path) -> None:
    store = await open_store(small_disk / "gateway.db")
    await store.commit(new_task(), records=[entry("before")])
    filler = fill(small_disk)
    row = new_task().row
    acknowledged = ["before"]
    refusal = None
    while refusal is None:
        n = len(acknowledged)
        change = advance(row, chunk("x" * 2000, append=n > 1))
        try:
            await store.commit(change, records=[entry(str(n))])
        except GatewayError as error:
            refusal = error
        else:
            row = change.row
            acknowledged.append(str(n))
    assert (refusal.reason, refusal.retryable) == (Reason.UNAVAILABLE, True)
    assert await written(store) == acknowledged
    filler.unlink()
    change = advance(row, status(TaskState.COMPLETED, "there is space again"))
    await store.commit(change, records=[entry("after")])
    await store.aclose()
    again = await open_store(small_disk / "gateway.db")
    record = await again.audit(0, 1_000)
    assert [(idx, e.request_id) for idx, e in record] == list(enumerate([*acknowledged, "after"], 1))
    assert await again.task("t", "task-1") == change.row
    await again.aclose()


async def test_on_a_full_disk_nobody_is_told_that_an_entry_will_be_written(small_disk: Path) -> None:
    """What is not recorded does not happen: reads, too, fail until there is space."""
    store = await open_store(small_disk / "gateway.db")
    filler = fill(small_disk)
    with contextlib.suppress(GatewayError):
        while True:  # until what the file system has set aside is used up
            await store.commit(records=[entry("x" * 2000)])
    assert not store.later(records=[entry("unseen")])
    filler.unlink()
    store.later(records=[entry("tried")])
    await store.commit(records=[entry("there is space again")])
    assert store.later(records=[entry("seen")])
    await store.aclose()


async def test_a_disk_that_is_full_from_the_start_is_a_problem(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(DiskFull):
        await open_store(small_disk / "data" / "gateway.db")


async def test_after_an_io_error_nothing_is_acknowledged_until_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with child("starve", str(path)) as process:
        output, _ = process.communicate(timeout=60)
    *acknowledged, reason, sentence = output.splitlines()
    assert process.returncode == 0
    assert len(acknowledged) > STARVED_AT // 50_000
    assert reason == Reason.UNAVAILABLE
    assert sentence == "The store failed and needs a restart"
    store = await open_store(path)
    assert await written(store) == acknowledged
    await store.commit(records=[entry("again")])
    await store.aclose()
