"""What clients saw, one JSON line per moment, in the order in which it happened.

The clients and the supervisor share one event loop, so the order of the lines is the order of the moments: when the
answer to one request stands before another was sent, the second must not contradict the first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TextIO


class What(StrEnum):
    SENT = "sent"  # a request is about to leave
    ANSWERED = "answered"  # its answer came, whole
    EVENT = "event"  # one event of its stream came
    ERROR = "error"  # it was refused, with a reason
    LOST = "lost"  # no (whole) answer: it may have been done or not
    GIVEN_UP = "given up"  # the same request again and again, and never an answer
    KILLED = "killed"  # the gateway, with SIGKILL
    READY = "ready"  # the gateway, again


@dataclass(frozen=True, slots=True)
class Entry:
    what: What
    call: int = 0  # which request this belongs to
    who: str = ""  # the principal
    verb: str = ""
    agent: str = ""
    message_id: str = ""
    body: str = ""  # fingerprint of the message: equal means the same message
    task_id: str = ""
    state: str = ""
    reply: str = ""  # the id of the Message that was the answer
    text: str = ""  # what was said: by the client, by the agent, by the error
    reason: str = ""
    n: int = 0  # its line in the history
    at: float = 0.0  # seconds since the history began

    def __str__(self) -> str:
        fields = {name: value for name, value in asdict(self).items() if value and name not in ("n", "what")}
        shown = {name: value[:80] if isinstance(value, str) else value for name, value in fields.items()}
        return f"{self.n}: {self.what} {json.dumps(shown, ensure_ascii=False)}"


class History:
    """Appends entries to a file and keeps them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._calls = 0

    def call(self) -> int:
        """A number for the next request."""
        self._calls += 1
        return self._calls

    def add(self, entry: Entry) -> Entry:
        numbered = Entry(**{**asdict(entry), "n": len(self.entries) + 1, "at": round(self.now, 4)})
        self.entries.append(numbered)
        self._file.write(json.dumps({k: v for k, v in asdict(numbered).items() if v != ""}) + "\n")
        return numbered

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[Entry]:
    known = {field.name for field in fields(Entry)}
    for line in path.read_text("utf-8").splitlines():
        tree = json.loads(line)
        yield Entry(**{k: v for k, v in tree.items() if k in known} | {"what": What(tree["what"])})
