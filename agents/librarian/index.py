"""The passages of a folder in one FTS5 table, and what of them fits some words best."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.librarian.folder import FILES_MAX, TOTAL_BYTES_MAX, Document, read, walk
from agents.librarian.passages import passages

REFRESH_MS = 2000  # a changed file is seen after this; a busy agent walks its folder at most this often
PREFIX_CHARS_MIN = 3  # shorter beginnings fit half of the language
HITS_MAX = 200
SIMILAR = 0.75  # a document whose best passage has this share of the best score answers about as well


@dataclass(frozen=True, slots=True)
class Hit:
    file: str
    line: int
    heading: str
    text: str
    score: float  # higher is better

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Found:
    """The hits, best first; whether each has all the words (`together`); the words that stand nowhere."""

    hits: list[Hit]
    together: bool
    missing: list[str]


@dataclass(frozen=True, slots=True)
class Shelved:
    """What the table holds of one file: rows `first` up to `end`, or none and the reason."""

    stamp: tuple[int, ...]
    first: int
    end: int
    skipped: str = ""


class Index:
    """The passages of one folder in an FTS5 table. Belongs to one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shelf: dict[str, Shelved] = {}
        self._passed: Counter[str] = Counter()  # what the last walk did not take, by reason
        self._checked_ms: int | None = None
        self._next_row = 1
        self._db: sqlite3.Connection | None = None

    def refresh(self, now_ms: int) -> Iterator[int]:
        """Follow the folder. Yields the number of documents so far after each file that had to be read, so
        that the caller can pause or stop between two; what is done stays done. Raises OSError if the folder
        is gone."""
        if self._checked_ms is not None and 0 <= now_ms - self._checked_ms < REFRESH_MS:
            return
        passed: Counter[str] = Counter()
        seen: set[str] = set()
        files = size = 0
        root = self._folder.resolve()
        for item in walk(root):
            if isinstance(item, str):
                passed[item] += 1
                continue
            if files == FILES_MAX or size + item.size > TOTAL_BYTES_MAX:
                passed["or more beyond the limits"] += 1
                break
            seen.add(item.path)
            shelved = self._shelf.get(item.path)
            if shelved is None or shelved.stamp != item.stamp:
                shelved = self._put(root, item)
                yield files
            if not shelved.skipped:
                files, size = files + 1, size + item.size
        for path in self._shelf.keys() - seen:
            self._remove(path)
        self._passed, self._checked_ms = passed, now_ms

    def summary(self) -> str:
        """`12 files (skipped: 1 not text, 2 too large)`."""
        reasons = self._passed + Counter(shelved.skipped for shelved in self._shelf.values())
        files = reasons.pop("", 0)
        skipped = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
        return f"{files} file{'' if files == 1 else 's'}" + (f" (skipped: {skipped})" if skipped else "")

    def search(self, words: Sequence[str], file: str | None = None) -> Found:
        """All words, then words that begin so, then any word: the first that finds something."""
        exact = [_quoted(word) for word in words]
        begun = [_quoted(word) + ("*" if len(word) >= PREFIX_CHARS_MIN else "") for word in words]
        for terms, joint in ((exact, " AND "), (begun, " AND "), (exact, " OR "), (begun, " OR ")):
            if hits := self._match(joint.join(terms), file, HITS_MAX):
                together = joint == " AND "
                break
        else:
            together = False
        missing = (
            [] if together else [w for w, term in zip(words, begun, strict=True) if not self._match(term, file, 1)]
        )
        return Found(hits, together, missing)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _match(self, query: str, file: str | None, limit: int) -> list[Hit]:
        # The columns after the cost make the order the same on every machine.
        rows = self._connection().execute(
            "SELECT file, line, heading, text, bm25(passages) AS cost FROM passages"
            " WHERE passages MATCH ? AND (? IS NULL OR file = ?) ORDER BY cost, file, line, rowid LIMIT ?",
            (query, file, file, limit),
        )
        return [Hit(name, line, heading, text, float(f"{-cost:.4g}")) for name, line, heading, text, cost in rows]

    def _put(self, root: Path, item: Document) -> Shelved:
        self._remove(item.path)
        first, skipped, rows = self._next_row, "", []
        try:
            text = read(root, item.target).decode("utf-8-sig")
            if "\0" in text:
                skipped = "not text"
            else:
                markdown = item.path.lower().endswith((".md", ".markdown"))
                found = enumerate(passages(text, markdown=markdown), first)
                rows = [(row, text, heading, item.path, line) for row, (line, heading, text) in found]
        except UnicodeDecodeError:
            skipped = "not text"
        except OSError:  # removed, replaced or closed to us since the walk saw it
            skipped = "unreadable"
        with self._connection() as db:
            db.executemany("INSERT INTO passages (rowid, text, heading, file, line) VALUES (?, ?, ?, ?, ?)", rows)
        self._next_row = first + len(rows)
        shelved = self._shelf[item.path] = Shelved(item.stamp, first, self._next_row, skipped)
        return shelved

    def _remove(self, path: str) -> None:
        shelved = self._shelf.pop(path, None)
        if shelved is not None:
            with self._connection() as db:
                db.execute("DELETE FROM passages WHERE rowid >= ? AND rowid < ?", (shelved.first, shelved.end))

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            # "" is a private temporary database: in memory while small, spilled to a nameless file when not.
            self._db = sqlite3.connect("", check_same_thread=False)
            self._db.executescript(
                "PRAGMA cache_size = -32768; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;"
                "CREATE VIRTUAL TABLE passages USING fts5(text, heading, file UNINDEXED, line UNINDEXED,"
                " tokenize = 'unicode61 remove_diacritics 2')"
            )
        return self._db


def _quoted(word: str) -> str:
    """A string of FTS5's query language: inside it nothing is an operator, and a quote is doubled."""
    return '"' + word.replace('"', '""') + '"'


def similar_documents(hits: Sequence[Hit]) -> list[str]:
    """The documents, best first, whose best passage is about as good as the best of all."""
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.file, hit.score)
    return [file for file, score in best.items() if score >= SIMILAR * hits[0].score]
