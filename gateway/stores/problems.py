"""What can be wrong with a store, in two families.

`StoreProblem`: the store cannot be opened; the CLI prints the sentence and what to do about it, and exits
with 2. `BadChange`: a change contradicts what is stored. Callers are expected never to cause it, so it is no
GatewayError: it shows as an incident number, and fails only the commit that it was part of.
"""

from __future__ import annotations

from pathlib import Path


class StoreProblem(Exception):
    """The data cannot be opened: `sentence` says what is wrong, `hint` what to do."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(f"{sentence} {hint}")
        self.sentence = sentence
        self.hint = hint


class DataLocked(StoreProblem):
    """Another process works on this data. `pid` is None when it could not be read."""

    def __init__(self, pid: int | None, path: Path) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"The data in {path.parent} is in use by {who}.",
            "Stop that gateway, or give this one its own folder with --data DIR.",
        )
        self.pid = pid
        self.path = path


class DataNotWritable(StoreProblem):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The gateway cannot write to {path}: {reason}.",
            "Give this user the right to write there, or choose another folder with --data DIR.",
        )
        self.path = path


class NewerDatabase(StoreProblem):
    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            f"{path} was written by a newer gateway (format {found}, this one knows {known}).",
            "Start that version again, or restore a backup from before the upgrade.",
        )
        self.path = path
        self.found = found
        self.known = known


class CorruptDatabase(StoreProblem):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is not a sound gateway database ({reason}).",
            "Restore a backup, or move the file away to start with an empty one.",
        )
        self.path = path


class DiskFull(StoreProblem):
    def __init__(self, path: Path) -> None:
        super().__init__(f"There is no space left for {path}.", "Free some space, then start again.")
        self.path = path


class DiskTrouble(StoreProblem):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The system could not read or write {path} ({reason}).",
            "Look at the disk and at the limits for this process (ulimit -f), then start again.",
        )
        self.path = path


class BadChange(Exception):
    """A change that the stored data forbids (a second task of one id, a move out of a terminal state, a gap
    in a log) or that cannot be written at all. Nothing of its commit was written."""
