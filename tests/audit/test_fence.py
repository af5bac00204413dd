"""Two that could both append to one log: the one that was deposed is refused, and nothing forks."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.stores import schema
from gateway.stores.datafolder import prepare
from gateway.stores.sequence import Deposed, SqliteSequence, Turn
from gateway.verifier import Database, Exit, verify
from tests.audit.logs import Written, entries
from tests.audit.sequences import SequenceContract
from tests.postgresql import Session
from tests.serving import ROOT
from tests.stores.contract import NOW


class SqliteSeat:
    def __init__(self, path: Path) -> None:
        self._db = schema.open_writer(path)
        self._db.execute("PRAGMA busy_timeout = 20000")
        self.sequence = SqliteSequence(self._db)

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def undo(self) -> None:
        self._db.execute("ROLLBACK")

    def kill(self) -> None:
        self._db.close()


class SqliteLog:
    def __init__(self, path: Path) -> None:
        prepare(path)
        self._path = path

    def enter(self) -> SqliteSeat:
        return SqliteSeat(self._path)

    def entries(self) -> list[tuple[int, bytes]]:
        with closing(Database(self._path)) as log:
            return [(first + at + 1, entry) for first, some, _ in log.runs() for at, entry in enumerate(some)]


class TestSqliteSequence(SequenceContract):
    @pytest.fixture
    def log(self, tmp_path: Path) -> SqliteLog:
        return SqliteLog(tmp_path / "gateway.db")


class PostgresqlSequence:
    """The same idea where writers do not take turns by themselves: it is the head row that makes them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take_over(self) -> Turn:
        ((epoch, end),) = self._session.ask("UPDATE audit_head SET epoch = epoch + 1 RETURNING epoch, last_idx")
        return Turn(int(epoch), int(end))

    def append(self, turn: Turn, entries: bytes) -> Turn:
        lines = entries.decode().split("\n")
        end = turn.end + len(lines)
        mine = f"WHERE epoch = {turn.epoch} AND last_idx = {turn.end}"
        if not self._session.ask(f"UPDATE audit_head SET last_idx = {end} {mine} RETURNING 1"):
            raise Deposed("another one has taken the log over")
        rows = ", ".join(f"({at}, '{line}')" for at, line in enumerate(lines, turn.end + 1))
        self._session.ask(f"INSERT INTO audit VALUES {rows}")
        return Turn(turn.epoch, end)


class PostgresqlSeat:
    def __init__(self, session: Session) -> None:
        self._session = session
        self.sequence = PostgresqlSequence(session)

    def begin(self) -> None:
        self._session.ask("BEGIN")

    def commit(self) -> None:
        self._session.ask("COMMIT")

    def undo(self) -> None:
        self._session.ask("ROLLBACK")

    def kill(self) -> None:
        self._session.kill()


class PostgresqlLog:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._schema = f"fence_{uuid4().hex}"
        self._own = stack.enter_context(Session())
        self._own.ask(f"CREATE SCHEMA {self._schema}")
        stack.callback(self._own.ask, f"DROP SCHEMA {self._schema} CASCADE")
        self._own.ask(f"SET search_path = {self._schema}")
        self._own.ask("CREATE TABLE audit_head (id int PRIMARY KEY CHECK (id = 1), epoch bigint, last_idx bigint)")
        self._own.ask("INSERT INTO audit_head VALUES (1, 0, 0)")
        self._own.ask("CREATE TABLE audit (idx bigint PRIMARY KEY, entry text NOT NULL)")

    def enter(self) -> PostgresqlSeat:
        session = self._stack.enter_context(Session())
        session.ask(f"SET search_path = {self._schema}")
        return PostgresqlSeat(session)

    def entries(self) -> list[tuple[int, bytes]]:
        rows = self._own.ask("SELECT idx, entry FROM audit ORDER BY idx")
        return [(int(idx), entry.encode()) for idx, entry in rows]


class TestPostgresqlSequence(SequenceContract):
    @pytest.fixture
    def log(self) -> Iterator[PostgresqlLog]:
        with ExitStack() as stack:
            yield PostgresqlLog(stack)


# Whole stores, in processes of their own.


def leader(folder: Path, mark: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.audit.leader", str(folder), mark]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def heard(process: subprocess.Popen[str], lines: int | None = None) -> list[str]:
    assert process.stdout is not None
    return [line.strip() for line in islice(process.stdout, lines)]


@pytest.mark.security
def test_a_leader_that_slept_through_a_take_over_wakes_up_and_is_refused(tmp_path: Path) -> None:
    rng = random.Random(58)
    acknowledged: list[str] = []
    sleeping: list[subprocess.Popen[str]] = []
    with ExitStack() as stack:
        for number in range(4):
            process = stack.enter_context(leader(tmp_path, f"life{number}"))
            stack.callback(process.kill)
            first = heard(process, rng.randrange(30, 120))
            while not first:  # whoever was put to sleep in the middle of a transaction holds the database
                os.kill(sleeping[-1].pid, signal.SIGCONT)
                process = stack.enter_context(leader(tmp_path, f"life{number}"))
                os.kill(sleeping[-1].pid, signal.SIGSTOP)
                first = heard(process, rng.randrange(30, 120))
            acknowledged += first
            os.kill(process.pid, signal.SIGSTOP)
            sleeping.append(process)
        for process in sleeping:
            os.kill(process.pid, signal.SIGCONT)
        for process in sleeping[:-1]:
            *rest, told, again = heard(process)
            acknowledged += rest
            assert told == again == "Another gateway has taken this database over"
            assert process.wait(20) == 0
        sleeping[-1].kill()
        acknowledged += heard(sleeping[-1])
    check(tmp_path, acknowledged)


def check(folder: Path, acknowledged: list[str]) -> None:
    """Everything that was acknowledged stands there once, nothing else but what nobody was told, and it is signed."""
    log = Written(folder)
    text = b"\n".join(entries(log.db)).decode()
    for id in acknowledged:
        assert text.count(f'"id":"{id}"') == 1, id
    assert "and yet" not in text
    with closing(sqlite3.connect(log.db)) as db:
        assert db.execute("SELECT count(*) FROM audit_checkpoint").fetchone()[0] > 1
    with closing(Database(log.db)) as database:
        report = verify(database, log.trust, [log.head], NOW / 1000)
    assert report.exit is Exit.OK, report
    assert report.covered > 0
