"""Opening the database file: is it ours, can this version read it, and its settings."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.stores.batch import primary_code
from gateway.stores.problems import (
    CorruptDatabase,
    DataNotWritable,
    DiskFull,
    DiskTrouble,
    NewerDatabase,
    StoreProblem,
)
from gateway.stores.writer import PATIENCE_MS

# "A2AG", in the file's header: tells our database from somebody else's.
APPLICATION_ID = 0x41324147
# Upserts without a conflict target. 2021; Debian 11 has it.
OLDEST_SQLITE = (3, 35, 0)

MIGRATIONS = sorted(Path(__file__).with_name("migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
VERSION = int(MIGRATIONS[-1].name[:4])

_WRITER = """
PRAGMA synchronous = FULL;
-- On macOS a plain fsync leaves the data in the drive's cache; elsewhere these two mean nothing.
PRAGMA fullfsync = ON;
PRAGMA checkpoint_fullfsync = ON;
-- Savepoints keep their undo pages in memory, and no row reaches the file before COMMIT: the loop never waits
-- for a disk to write.
PRAGMA temp_store = MEMORY;
PRAGMA cache_spill = OFF;
-- 4 MB. Four times as much saves half a microsecond a call once there are a million messages, and is memory for good.
PRAGMA cache_size = -4000;
-- 4 MB, SQLite's own figure: four times as much was no faster and made the slowest commits half as slow again.
PRAGMA wal_autocheckpoint = 1000;
PRAGMA journal_size_limit = 67108864;
-- The loop must never sit in SQLite's busy handler (writer.py waits in its thread).
PRAGMA busy_timeout = 0;
"""


@contextmanager
def problems(path: Path) -> Iterator[None]:
    """What SQLite says while the database is opened, in sentences for people."""
    try:
        yield
    except sqlite3.Error as error:
        raise _problem(path, error) from error


def _problem(path: Path, error: sqlite3.Error) -> StoreProblem:
    code = primary_code(error)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return CorruptDatabase(path, str(error))
    # The -shm file is mapped, so a full disk can show itself as an I/O error.
    if code == sqlite3.SQLITE_FULL or os.statvfs(path.parent).f_bavail == 0:
        return DiskFull(path)
    if code == sqlite3.SQLITE_IOERR:
        return DiskTrouble(path, getattr(error, "sqlite_errorname", str(error)))
    return DataNotWritable(path, str(error))


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes, with the newest schema."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreProblem(
            f"This Python has SQLite {sqlite3.sqlite_version}, which is too old.",
            f"Use a Python with SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer.",
        )
    with problems(path):
        db = _connect(path, "rw")
        try:
            _check(db, path)
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise DataNotWritable(path, "this file system cannot hold a write-ahead log")
            migrate(db)
            db.executescript(_WRITER)
        except BaseException:
            db.close()
            raise
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    with problems(path):
        db = _connect(path, "ro")
        db.execute("PRAGMA query_only = ON")
    return db


def empty_log(path: Path) -> None:
    """Take the write-ahead log into the database and truncate it: old pages stand in it until then."""
    with problems(path):
        db = _connect(path, "rw")
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.close()


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,  # transactions are ours, not the module's
        check_same_thread=False,  # the loop and the commit thread take turns; readers are lent to one thread
        timeout=PATIENCE_MS / 1000,
        cached_statements=256,  # all there are, several times
    )


def _check(db: sqlite3.Connection, path: Path) -> None:
    found = _pragma(db, "user_version")
    owner = _pragma(db, "application_id")
    empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if owner != APPLICATION_ID and not (empty and owner == 0):
        raise CorruptDatabase(path, "it belongs to another program")
    if found > VERSION:
        raise NewerDatabase(path, found, VERSION)


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date, all missing steps in one transaction."""
    found = _pragma(db, "user_version")
    missing = [step for step in MIGRATIONS if int(step.name[:4]) > found]
    if not missing:
        return
    steps = "\n".join(step.read_text("utf-8") for step in missing)
    marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
    try:
        db.executescript(f"BEGIN IMMEDIATE;\n{steps}\n{marks}\nCOMMIT;")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value
