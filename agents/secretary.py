"""Secretary: takes notes and finds them again, with the tools of an MCP server. Needs no model.

    secretary: {run: "agents.secretary:Secretary", with: {notes: notes}}

`notes` is the MCP server: one that has the tools `find` (a `word`) and `add` (a `text`), as examples/tools/notes.py
has. The calls are the secretary's own, on behalf of whoever asked, and need a grant: `{to: "agent:secretary", tools:
[notes]}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator

from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event
from gateway.model.tool import ToolResult

SAID_CHARS_MAX = 2000  # about a page; a note is shorter
WORDS_MAX = 8  # each is a call
SHORTEST_WORD = 3  # shorter ones stand in every note

_NOTE = re.compile(r"(?:please )?(?:note|remember)(?: that)?[:,]?\s+(\S.*)", re.IGNORECASE | re.DOTALL)


class Secretary:
    resumable = False  # a note that is taken twice is there twice

    def __init__(self, notes: str = "notes") -> None:
        if not re.fullmatch(r"[a-z0-9-]{1,63}", notes):
            raise ValueError("notes: must be the name of an MCP server in this configuration")
        self._notes = notes

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        said = message.text.strip()
        if not said:
            yield context.need_input("What shall I note or look for?")
        elif len(said) > SAID_CHARS_MAX:
            yield context.rejected(f"A note has at most {SAID_CHARS_MAX} characters.")
        elif note := _NOTE.fullmatch(said):
            async for event in self._take(context, note[1]):
                yield event
        else:
            async for event in self._look(context, words(said)):
                yield event

    async def _take(self, context: Context, note: str) -> AsyncIterator[Event]:
        yield context.working("Taking a note.")
        done = await context.call_tool(f"{self._notes}/add", {"text": note})
        yield _failure(context, done) if done.failed else context.completed(f"Noted. {done.text}")

    async def _look(self, context: Context, wanted: list[str]) -> AsyncIterator[Event]:
        if not wanted:
            yield context.need_input("Which word shall I look for?")
            return
        yield context.working(f"Looking for: {', '.join(wanted)}.")
        found: Counter[str] = Counter()  # each note, and how many of the words it has
        for word in wanted:
            result = await context.call_tool(f"{self._notes}/find", {"word": word})
            if result.failed:
                yield _failure(context, result)
                return
            found.update(dict.fromkeys(filter(None, result.text.splitlines()), 1))
        if found:
            yield context.artifact("\n".join(note for note, _ in found.most_common()), id="notes", name="notes")
        yield context.completed(f"{len(found)} note{'' if len(found) == 1 else 's'} with {', '.join(wanted)}.")


def words(said: str) -> list[str]:
    """What to look for: the longer words of a question, each once, in their order."""
    every = (word.casefold() for word in re.findall(r"[^\W_]+", said))
    return list(dict.fromkeys(word for word in every if len(word) >= SHORTEST_WORD))[:WORDS_MAX]


def _failure(context: Context, result: ToolResult) -> Event:
    return context.failed(f"The notes could not be used: {result.text or 'the server does not say why'}")
