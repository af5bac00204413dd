"""Whoever changes a log is found, and where: a few hundred random acts here, ten thousand in `make security`."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.cli import main
from gateway.stores.sealing import Sealer
from gateway.verifier import BadNote, Database, Exit, Export, Log, Report, verify
from tests.audit.logs import Written, closed, entries, opened, write, written
from tests.audit.tampering import (
    ON_DATABASES,
    ON_EXPORTS,
    Act,
    Scene,
    stretch,
    tampered_database,
    tampered_export,
)
from tests.stores.contract import NOW

Tamper = Callable[[Scene, random.Random, Path], tuple[str, Act]]

SIZES = (100, 357, 600, 700)
FORK_AT = 357


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("log")
    fork = tmp_path_factory.mktemp("fork") / "data"
    stranger = Sealer(tmp_path_factory.mktemp("stranger"), "stranger.example", lambda: NOW)
    await written(folder, (100, FORK_AT))
    shutil.copytree(folder, fork)
    earlier = shutil.copy(folder / "gateway.db", fork.parent / "earlier.db")
    for where, mark in ((folder, "ours-"), (fork, "theirs-")):
        store, notary = await opened(where, mark)
        for before, size in ((357, 600), (600, 700)):
            await write(store, size - before, mark=f"{mark}{before}-")
            await notary.seal()
        await closed(store, notary)
    log = Written(folder)
    export = log.export(tmp_path_factory.mktemp("export") / "log.jsonl")
    other = await written(tmp_path_factory.mktemp("other"), (60,))
    return Scene(log, export, Path(earlier), FORK_AT, fork / "gateway.db", FORK_AT, stranger, entries(other.db))


@pytest.fixture
def acts(request: pytest.FixtureRequest) -> int:
    return 5_000 if request.config.option.markexpr == "security" else 150


def looked_at(scene: Scene, log: Log, rng: random.Random) -> Report:
    """By somebody who knows the last checkpoint, or by a witness, who knows all."""
    return verify(log, scene.log.trust, rng.choice(([scene.log.head], scene.log.signed)), NOW / 1000)


def found(scene: Scene, name: str, act: Act, report: Report) -> str | None:
    """What is wrong with the report of an act; None if it names it."""
    if report.exit is not Exit.TAMPERED:
        return f"{name} at {act.first}: {report}"
    if act.first is None:
        return None
    if act.exact:
        return None if report.first == act.first else f"{name} at {act.first}, not {report.first}: {report.sentence}"
    if report.end is None and report.first == act.first:
        return None  # exactly, though only a stretch was asked for: what an entry says of itself tells
    if report.end is None and "not there, and nothing is left to vouch" in report.sentence:
        return None if report.covered <= act.first else f"{name} at {act.first}: {report}"
    if report.first is None or report.end is None:
        return f"{name} at {act.first}: {report}"
    if not report.first <= act.first < report.end and (report.first, report.end) != stretch(scene, act.first):
        return f"{name} at {act.first}, not in {report.first} to {report.end}: {report.sentence}"
    return None


@pytest.mark.security
async def test_every_act_on_the_database_is_found_where_it_was_done(scene: Scene, acts: int, tmp_path: Path) -> None:
    rng = random.Random(acts)
    seen: Counter[str] = Counter()
    for _ in range(acts):
        name, act = tampered_database(scene, rng, tmp_path / "tampered.db")
        with closing(Database(tmp_path / "tampered.db")) as log:
            assert found(scene, name, act, looked_at(scene, log, rng)) is None
        seen[name] += 1
    assert seen.keys() == {act.__name__ for act in ON_DATABASES}


@pytest.mark.security
async def test_every_act_on_an_export_is_found_where_it_was_done(scene: Scene, acts: int, tmp_path: Path) -> None:
    rng = random.Random(acts)
    seen: Counter[str] = Counter()
    for _ in range(acts):
        name, act = tampered_export(scene, rng, tmp_path / "tampered.jsonl")
        try:
            report = looked_at(scene, Export(tmp_path / "tampered.jsonl"), rng)
        except BadNote as error:
            report = Report(Exit.TAMPERED, str(error))
        assert found(scene, name, act, report) is None
        seen[name] += 1
    assert seen.keys() == {act.__name__ for act in ON_EXPORTS}


async def test_what_nobody_touched_is_found_sound(scene: Scene) -> None:
    with closing(Database(scene.log.db)) as log:
        assert looked_at(scene, log, random.Random(1)).exit is Exit.OK
    assert looked_at(scene, Export(scene.export), random.Random(1)).exit is Exit.OK
    with closing(Database(scene.fork)) as log:
        assert verify(log, scene.log.trust, now=NOW / 1000).exit is Exit.OK, "a fork is sound in itself"


async def test_keys_of_somebody_else_verify_nothing(scene: Scene) -> None:
    foreign = [signer.key for signer in scene.stranger.keys.load(scene.log.head.origin)]
    trust = scene.log.trust
    trust.log = foreign
    with closing(Database(scene.log.db)) as log:
        assert verify(log, trust, now=NOW / 1000).exit is Exit.KEY


async def test_a_log_whose_keys_are_gone_is_not_one_that_was_never_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = await written(tmp_path, (20,))
    keys = (tmp_path / "audit" / "keys").rename(tmp_path / "elsewhere")
    assert main(["audit", "verify", "--data", str(tmp_path)]) == 3
    assert "audit/keys is not there; name a copy with --keys" in capsys.readouterr().out
    assert main(["audit", "verify", "--data", str(tmp_path), "--keys", str(keys)]) == 0
    (tmp_path / "audit" / "head").unlink()
    assert main(["audit", "verify", "--data", str(tmp_path)]) == 3
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("DELETE FROM audit_checkpoint")
        db.commit()
    assert main(["audit", "verify", "--data", str(tmp_path)]) == 2
