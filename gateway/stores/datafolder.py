"""The folder that holds the data: who may read it, and that only one process works on it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.stores.problems import DataLocked, DataNotWritable, DiskFull

LOCK = "gateway.lock"


@contextmanager
def problems(path: Path) -> Iterator[None]:
    """What the operating system says about `path`, in sentences for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(path) from error
        raise DataNotWritable(path, error.strerror or str(error)) from error


def prepare(path: Path) -> None:
    """Make the folder and an empty database file that nobody else can read: it holds people's messages and
    webhooks' secrets. SQLite gives its -wal and -shm files the same mode. What exists keeps its mode."""
    with problems(path):
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


class FolderLock:
    """`flock` on gateway.lock, which holds our pid. The kernel gives it back however the process ends, so there
    is never a stale one; the file stays, because deleting it would let two processes lock two files."""

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        with problems(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(path)
        except BaseException:
            os.close(self._file)
            raise
        self._held = True

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._file, 20, 0).strip()
            raise DataLocked(int(pid) if pid.isdigit() else None, path) from error
        with problems(path):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        if self._held:
            self._held = False
            os.close(self._file)
