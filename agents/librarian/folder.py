"""The folder of documents. What lies in it may have been put there by anybody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

FILES_MAX = 10_000
FILE_BYTES_MAX = 2 << 20
TOTAL_BYTES_MAX = 64 << 20  # six seconds of indexing on one core, 40 MB of memory, the rest spilled to disk
ENTRIES_MAX = 100_000  # looked at in all, so that a folder of a million pictures does not keep us walking


@dataclass(frozen=True, slots=True)
class Document:
    path: str  # as people know it, relative to the folder
    target: str  # the same, or where a link inside the folder leads
    size: int
    stamp: tuple[int, ...]  # differs when the content does


def walk(root: Path) -> Iterator[Document | str]:
    """The documents in a fixed order, and a reason for each thing that is not taken.

    Hidden names are left out without a word. A link counts only if it leads to a file inside the folder
    (a mounted Kubernetes ConfigMap is made of such links); linked folders are never entered.
    """
    entries = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as listing:
                names = sorted(entry.name for entry in islice(listing, ENTRIES_MAX + 1))
        except OSError:
            if not folder:
                raise
            yield "unreadable"
            continue
        below: list[str] = []
        for name in names:
            entries += 1
            if entries > ENTRIES_MAX:
                yield "or more beyond the limits"
                return
            if name.startswith("."):
                continue
            found = _look(root, f"{folder}{name}")
            if found == "folder":
                below.append(f"{folder}{name}/")
            else:
                yield found
        folders += reversed(below)


def _look(root: Path, path: str) -> Document | str:
    """The document at `path`, "folder", or the reason why it is neither."""
    # No lone surrogates (names that are not UTF-8), line breaks or writing-direction marks: names are shown.
    if not path.isprintable():
        return "oddly named"
    target = path
    try:
        about = os.lstat(root / path)
        if stat.S_ISLNK(about.st_mode):
            real = Path(os.path.realpath(root / path))
            if not real.is_relative_to(root) or not real.is_file():
                return "links out of the folder or to folders"
            target, about = real.relative_to(root).as_posix(), real.lstat()
    except OSError:
        return "unreadable"
    if stat.S_ISDIR(about.st_mode):
        return "folder"
    if not stat.S_ISREG(about.st_mode):
        return "not text"
    if about.st_size > FILE_BYTES_MAX:
        return "too large"
    return Document(path, target, about.st_size, (about.st_size, about.st_mtime_ns, about.st_ino))


def read(root: Path, path: str) -> bytes:
    """The file's bytes, or its first ones if they show that it is no text. Every step down refuses links, so
    what was swapped for one since `walk` looked leads nowhere."""
    *folders, name = path.split("/")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for step in folders:
            inner = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Without O_NONBLOCK a named pipe, put there meanwhile, would hold the thread until somebody writes.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is not a file any more")
        head = opened.read(8192)
        return head if b"\0" in head else head + opened.read(FILE_BYTES_MAX - len(head))
