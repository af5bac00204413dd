"""Audit logs for tests: written by the real store and signed by the real notary."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.auditformats import jsonl
from gateway.stores.notary import Notary
from gateway.stores.sqlite import SqliteStore, open_sqlite
from gateway.verifier import Checkpoint, Database, Trust, notes_in
from tests.stores.contract import NOW, entry


@dataclass(frozen=True)
class Written:
    """A log at rest. `signed` are all its checkpoints, as somebody who had watched would know them."""

    folder: Path

    @property
    def db(self) -> Path:
        return self.folder / "gateway.db"

    @property
    def trust(self) -> Trust:
        return Trust.parse((self.folder / "audit" / "keys").read_text())

    @property
    def head(self) -> Checkpoint:
        return notes_in((self.folder / "audit" / "head").read_text())[-1]

    @property
    def signed(self) -> list[Checkpoint]:
        with closing(Database(self.db)) as log:
            return [Checkpoint.parse(note) for note in log.notes()]

    def export(self, path: Path) -> Path:
        with closing(Database(self.db)) as log:
            path.write_bytes(b"".join(line + b"\n" for line in jsonl(log, -1)))
        return path


async def opened(folder: Path, node: str | None = None) -> tuple[SqliteStore, Notary]:
    """A life of a gateway; `node` is its id, like none before."""
    node = os.urandom(8).hex() if node is None else node
    store = await open_sqlite(folder / "gateway.db", now=lambda: NOW, node=node, host="gw.example")
    notary = Notary(store, folder / "audit", lambda: NOW)
    await notary.start()
    return store, notary


async def closed(store: SqliteStore, notary: Notary) -> None:
    await notary.aclose()
    await store.aclose()


async def write(store: SqliteStore, count: int, *, mark: str = "", rng: random.Random | None = None) -> None:
    """Entries in transactions of one to nine of them."""
    chance = rng or random.Random(count)
    written = 0
    while written < count:
        some = min(chance.randint(1, 9), count - written)
        await store.commit(records=[entry(f"{mark}{written + each}", outcome="ök") for each in range(some)])
        written += some


async def written(folder: Path, sizes: Sequence[int] = (100, 357, 600, 700)) -> Written:
    """A log with a checkpoint at each of these sizes."""
    store, notary = await opened(folder)
    before = 0
    for size in sizes:
        await write(store, size - before, mark=f"{before}-")
        await notary.seal()
        before = size
    await closed(store, notary)
    return Written(folder)


def entries(db: Path) -> list[bytes]:
    with closing(sqlite3.connect(db)) as connection:
        rows = connection.execute("SELECT entries FROM audit ORDER BY last_idx").fetchall()
    return [line for (body,) in rows for line in body.split(b"\n")]
