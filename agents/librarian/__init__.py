"""Librarian: answers from a folder of documents by quoting them, with file and line. Needs no model.

    librarian: {run: "agents.librarian:Librarian", with: {folder: docs}}

From the outside in: this file talks (progress, questions back, quotes), `words` makes out what is wanted, `index` finds
it (one FTS5 table, in a thread of its own), `passages` cuts documents up, `folder` reads them and mistrusts them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from agents.librarian.index import Found, Hit, Index, similar_documents
from agents.librarian.words import Wanted, said, understand
from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event, StatusUpdate

SLICE_S = 0.5  # one turn of the thread: how soon a cancelled run stops, and how often a long one reports
QUOTES_MAX = 20
CHOICES_MAX = 9
SEVERAL = 3  # two documents are quoted side by side; from three on, asking helps more

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


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
        wanted = understand(said(message), context.resume)
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


def _take_turn(files: Iterator[int]) -> int | None:
    """Read files for one slice of time. How many there are so far, None when all are read."""
    end = time.monotonic() + SLICE_S
    for number in files:
        if time.monotonic() >= end:
            return number
    return None


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
