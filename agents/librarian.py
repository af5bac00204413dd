"""Librarian: answers from a folder of documents by quoting them, with file and line. Needs no model.

    librarian: {run: "agents.librarian:Librarian", with: {folder: docs}}

Three things, from the outside in: `Librarian` talks (progress, questions back, quotes), `Index` finds (one
FTS5 table, in a thread of its own), and the functions at the end read the folder and mistrust it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar

from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event, StatusUpdate

FILES_MAX = 10_000
FILE_BYTES_MAX = 2 << 20
TOTAL_BYTES_MAX = 64 << 20  # six seconds of indexing on one core, 40 MB of memory, the rest spilled to disk
ENTRIES_MAX = 100_000  # looked at in all, so that a folder of a million pictures does not keep us walking
PASSAGE_CHARS_MAX = 2000  # about what a person reads as one quote
PASSAGE_LINES_MAX = 40
HEADING_CHARS_MAX = 200
REFRESH_MS = 2000  # a changed file is seen after this; a busy agent walks its folder at most this often
SLICE_S = 0.5  # one turn of the thread: how soon a cancelled run stops, and how often a long one reports
QUESTION_CHARS_MAX = 4000
WORDS_MAX = 16
WORD_CHARS_MAX = 64
PREFIX_CHARS_MIN = 3  # shorter beginnings fit half of the language
HITS_MAX = 200
QUOTES_MAX = 20
CHOICES_MAX = 9
SIMILAR = 0.75  # a document whose best passage has this share of the best score answers about as well
SEVERAL = 3  # two documents are quoted side by side; from three on, asking helps more

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


# --- The conversation. -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for: the words, perhaps in one `file` only, and the `choices` if an answer chose none."""

    words: tuple[str, ...]
    file: str | None = None
    choices: tuple[str, ...] = ()


class Librarian:
    resumable = True  # reading changes nothing, and the quotes' ids are the same in a second run

    def __init__(self, folder: str, *, quotes: int = 5, base: Path | None = None) -> None:
        """`folder` may be relative to `base`, which the loader gives: where the configuration file lies."""
        self._index = Index(_folder(folder, base))
        self._quotes = _whole_number("quotes", quotes, 1, QUOTES_MAX)
        # One thread: SQLite's connection stays in it, turns of several runs take place one after the other,
        # and a large folder keeps no thread from the rest of the gateway.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="librarian")

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        wanted = understand(_said(message), context.resume)
        if wanted.choices:
            yield _ask_which(context, wanted.words, wanted.choices)
            return
        if not wanted.words:
            yield _ask_what(context)
            return
        # Progress repeats what was put aside: a run that starts again after a crash finds it there.
        aside = {} if context.resume is None else {"resume": context.resume}
        try:
            turns = self._index.refresh(context.now())
            while (files := await self._in_thread(_take_turn, turns)) is not None:
                yield context.working(f"Indexing: {files} files so far.", **aside)
        except OSError as error:
            # The path is the operator's business; the caller learns only that it is not their fault.
            log.warning("the folder of documents cannot be read: %s", error)
            yield context.failed("The folder of documents cannot be read at the moment.")
            return
        searched = await self._in_thread(self._index.summary)
        yield context.working(f"Searching {searched} for: {', '.join(wanted.words)}.", **aside)
        found = await self._in_thread(self._index.search, wanted.words, wanted.file)
        choices = similar_documents(found.hits) if len(wanted.words) == 1 and wanted.file is None else []
        if len(choices) >= SEVERAL:
            yield _ask_which(context, wanted.words, choices[:CHOICES_MAX], more=len(choices) - CHOICES_MAX)
            return
        hits = found.hits[: self._quotes]
        for number, hit in enumerate(hits, 1):
            yield context.artifact(
                hit.text,
                id=f"quote-{number}",
                name=hit.name,
                description=hit.heading or None,
                metadata={"file": hit.file, "line": hit.line, "score": hit.score},
            )
        yield context.completed(_summary(wanted, found, hits, searched))

    async def aclose(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._index.close()

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))


def _said(message: Message) -> str:
    """The answer of a form (the schemas below) or the text, made safe to hand to SQLite."""
    forms = [part.data for part in message.parts if isinstance(part.data, dict)]
    filled = [form[key] for form in forms for key in ("document", "words") if isinstance(form.get(key), str)]
    said: str = filled[0] if filled else message.text
    whole = said[:QUESTION_CHARS_MAX].encode("utf-8", "replace").decode()  # lone surrogates become "?"
    return unicodedata.normalize("NFC", whole).strip()


def understand(said: str, resume: Any) -> Wanted:
    """A question, or the answer to the one before: a number, a document's name, or more words."""
    words, choices = _texts(resume, "words"), _texts(resume, "choices")
    if not choices:
        return Wanted(searchable(said))
    if number := re.fullmatch(r"#?([0-9]{1,3})[.)]?", said):
        nth = int(number[1])
        chosen = choices[nth - 1 : nth] if nth else ()
    else:
        chosen = tuple(choice for choice in choices if said.casefold() in _names(choice))
        more = searchable(said)
        if not chosen and more:
            return Wanted(tuple(dict.fromkeys((*words, *more)))[:WORDS_MAX])
    return Wanted(words, file=chosen[0]) if len(chosen) == 1 else Wanted(words, choices=choices)


def _texts(resume: Any, key: str) -> tuple[str, ...]:
    kept: dict[str, list[str]] = resume if isinstance(resume, dict) else {}
    return tuple(kept.get(key, ()))


def _names(document: str) -> set[str]:
    path = PurePosixPath(document.casefold())
    return {str(path), path.name, path.stem}


def searchable(text: str) -> tuple[str, ...]:
    """The words worth looking for. Control characters part words: a NUL would end SQLite's reading early."""
    words: dict[str, str] = {}
    for whole in re.split(r"[\s\x00-\x1f\x7f\"]+", text):
        chunk = whole[:WORD_CHARS_MAX]
        letters = re.findall(r"[^\W_]+", chunk.casefold())
        if letters and not all(piece in STOP_WORDS for piece in letters):
            word = re.sub(r"^[\W_]+|[\W_]+$", "", chunk)
            words.setdefault(word.casefold(), word)
    return tuple(words.values())[:WORDS_MAX]


def _ask_what(context: Context) -> StatusUpdate:
    schema = {"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"]}
    return context.need_input("What shall I look for? Name a word or two.", schema=schema, resume={"words": []})


def _ask_which(context: Context, words: Sequence[str], choices: Sequence[str], *, more: int = 0) -> StatusUpdate:
    listed = [f"{number}. {choice}" for number, choice in enumerate(choices, 1)]
    rest = [f"… and {more} more"] if more > 0 else []
    head = f"Several documents speak of {' '.join(words)}. Which one do you mean?"
    tail = "Answer with a number, a name, or more words."
    properties = {
        "document": {"type": "string", "enum": list(choices)},
        "words": {"type": "string", "description": "more words, to search again"},
    }
    return context.need_input(
        "\n".join([head, *listed, *rest, tail]),
        schema={"type": "object", "properties": properties, "minProperties": 1},
        resume={"words": list(words), "choices": list(choices)},
    )


def _summary(wanted: Wanted, found: Found, hits: Sequence[Hit], searched: str) -> str:
    words, place = ", ".join(wanted.words), wanted.file or searched
    if not hits:
        return f"Nothing found for: {words}. Searched {place}."
    noun = "passage" if len(hits) == 1 else "passages"
    lines = [f"{len(hits)} {noun} for {words}, best first: {', '.join(hit.name for hit in hits)}."]
    if found.missing:
        lines.append(f"Not found: {', '.join(found.missing)}.")
    elif not found.together:
        lines.append("No passage has all of these words.")
    return " ".join(lines)


# --- Finding. ----------------------------------------------------------------------------------------------


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


def _take_turn(files: Iterator[int]) -> int | None:
    """Read files for one slice of time. How many there are so far, None when all are read."""
    end = time.monotonic() + SLICE_S
    for number in files:
        if time.monotonic() >= end:
            return number
    return None


def _quoted(word: str) -> str:
    """A string of FTS5's query language: inside it nothing is an operator, and a quote is doubled."""
    return '"' + word.replace('"', '""') + '"'


def similar_documents(hits: Sequence[Hit]) -> list[str]:
    """The documents, best first, whose best passage is about as good as the best of all."""
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.file, hit.score)
    return [file for file, score in best.items() if score >= SIMILAR * hits[0].score]


# --- Reading the folder. What lies in it may have been put there by anybody. -------------------------------


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


HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
FENCE = re.compile(r" {0,3}(```|~~~)")


def passages(text: str, *, markdown: bool) -> Iterator[tuple[int, str, str]]:
    """Each paragraph as (line, headings above it, text). In Markdown a fenced block stays whole."""
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    start, size, fence = 1, 0, ""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        heading = HEADING.fullmatch(line) if markdown and not fence else None
        mark = FENCE.match(line) if markdown else None
        ends = heading is not None or not (line.strip() or fence)
        if lines and (ends or len(lines) >= PASSAGE_LINES_MAX or size + len(line) > PASSAGE_CHARS_MAX):
            yield start, " › ".join(title for _, title in headings), "\n".join(lines)
            lines = []
        if heading is not None:
            level = len(heading[1])
            headings = [(above, title) for above, title in headings if above < level] + [(level, _title(heading[2]))]
        elif not ends:
            if not lines:
                start, size = number, 0
            # A very long line becomes several passages, all with its number.
            while len(line) > PASSAGE_CHARS_MAX:
                yield number, " › ".join(title for _, title in headings), line[:PASSAGE_CHARS_MAX]
                line = line[PASSAGE_CHARS_MAX:]
            lines.append(line)
            size += len(line) + 1
        if mark is not None and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
    if lines:
        yield start, " › ".join(title for _, title in headings), "\n".join(lines)


def _title(text: str) -> str:
    return text.strip().rstrip("#").rstrip()[:HEADING_CHARS_MAX]


# --- The operator's settings. ------------------------------------------------------------------------------


def _folder(value: object, base: Path | None) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("folder: must be the path of a folder of documents")
    path = (base or Path()).absolute() / Path(value).expanduser()
    if not path.is_dir():
        raise ValueError(f"folder: {path} is not a folder")
    return path


def _whole_number(field: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{field}: must be a whole number from {least} to {most}")
    return value


# Words that stand in every document of the language; single letters are what apostrophes leave ("what's").
_STOP_WORDS = """
a about all also am an and any are as at be been but by can could d did do does for from give had has have he
her him his how i if in into is it its just let ll m me my no not of on or our please re s shall she should so
some t tell than that the their them then there these they this those to too us ve was we were what when where
which while who whom whose why will with would you your
aber alle als am an auch auf aus bei bin bis bitte da das dass dein dem den denn der des die dies diese dieser
dieses doch du durch ein eine einem einen einer eines er es etwas für gibt hat habe haben ich ihr im in ist ja
kann kein keine können man mein mich mir mit muss nach nein nicht noch nur ob oder sein sich sie sind so soll
über um und uns unter vom von vor war warum was wenn wer werden wie wieso wir wird wo wofür womit zu zum zur
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
