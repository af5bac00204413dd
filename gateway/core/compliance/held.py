"""Texts that come in pieces: a chunk of a stream may end in the middle of what a rule looks for.

What could still become something longer waits for the next chunk of its artifact: the last word, numbers in groups, a
key that has begun and not ended. It waits no longer than that, and never while nothing more can come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from gateway.model.message import Part
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate

MAX_WORD = 512  # characters: longer than any key or address that a rule knows
MAX_BLOCK = 16_384  # a private key in PEM form has some 3 000
MAX_ENDS = 256  # artifacts that are in the middle of something at once; the one that began first does not wait longer

# The end of a text that may go on: a header that announces a token, an IBAN in groups, digits in groups (a card's or
# phone's number), or one word.
_OPEN = re.compile(
    r"(?:(?i:authorization)[\"'\s:=]{0,16}(?:(?i:bearer)\s{1,16})?\S{0,512}\s{0,4}"
    r"|[A-Z]{2}\d{2}(?: ?[A-Z0-9]){0,30} ?"
    r"|\d[\d ./()\-]{0,63}"
    rf"|\S{{1,{MAX_WORD}}})\Z"
)
_BEGUN, _ENDED = "-----BEGIN ", re.compile(r"-----END [A-Z0-9 ]{1,64}-----")


class Held:
    """The open ends of a run's artifacts. What an agent says in between about other things, or in other artifacts, does
    not end what it has begun here."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[ArtifactUpdate, str]] = {}

    def joined(self, event: Event) -> str | None:
        """The text that a chunk comes to, with what was held before it; None for one that may not be cut."""
        text = _text(event)
        if text is None or not isinstance(event, ArtifactUpdate) or event.last_chunk:
            return None
        before = self._ends.get(event.artifact.artifact_id) if event.append else None
        return text if before is None else before[1] + text

    def take(self, event: Event, cut: int | None = None) -> Iterator[Event]:
        """The event, with what was held before it and without what has to wait now: all but the first `cut` characters,
        where somebody else knows."""
        if not isinstance(event, ArtifactUpdate):
            if not _goes_on(event):
                yield from self.release()
            yield event
            return
        id, text = event.artifact.artifact_id, _text(event)
        if text is None or not event.append:
            yield from self._let_go(id)
        if text is None:
            yield event
            return
        if (before := self._ends.pop(id, None)) is not None:
            # What nobody has seen yet begins where it began; whether more follows is for the newest to say.
            text = before[1] + text
            event = _joined(before[0], event)
        if cut is None:
            cut = len(text) if event.last_chunk else settled(text)
        if cut:
            yield _with(event, text[:cut])
            event = event.model_copy(update={"append": True})
        if cut < len(text):
            self._ends[id] = (event, text[cut:])
            if len(self._ends) > MAX_ENDS:
                yield from self._let_go(next(iter(self._ends)))

    def release(self) -> Iterator[Event]:
        """All that was held: nothing more comes, or somebody is asked something."""
        for id in tuple(self._ends):
            yield from self._let_go(id)

    def _let_go(self, id: str) -> Iterator[Event]:
        if (end := self._ends.pop(id, None)) is not None:
            yield _with(*end)


def _goes_on(event: Event) -> bool:
    """Whether the agent works on after it."""
    return isinstance(event, StatusUpdate) and not (event.status.state.terminal or event.status.state.interrupted)


def _text(event: Event) -> str | None:
    """The text of a chunk that is nothing but text: only those are ever continued by the next."""
    if not isinstance(event, ArtifactUpdate) or len(event.artifact.parts) != 1:
        return None
    return event.artifact.parts[0].text


def _joined(first: ArtifactUpdate, then: ArtifactUpdate) -> ArtifactUpdate:
    """The first chunk, with what the next one says beside its text."""
    update: dict[str, Any] = {"last_chunk": then.last_chunk}
    if then.metadata:
        update["metadata"] = {**(first.metadata or {}), **then.metadata}
    if then.artifact.metadata:
        metadata = {**(first.artifact.metadata or {}), **then.artifact.metadata}
        update["artifact"] = first.artifact.model_copy(update={"metadata": metadata})
    return first.model_copy(update=update)


def _with(event: ArtifactUpdate, text: str) -> ArtifactUpdate:
    part: Part = event.artifact.parts[0].model_copy(update={"text": text})
    return event.model_copy(update={"artifact": event.artifact.model_copy(update={"parts": (part,)})})


def settled(text: str) -> int:
    """How much of the text nothing that comes can change."""
    begun = text.rfind(_BEGUN)
    if begun >= 0 and len(text) - begun <= MAX_BLOCK and _ENDED.search(text, begun) is None:
        return begun
    open_end = _OPEN.search(text, max(0, len(text) - MAX_WORD - 1))
    return len(text) if open_end is None else word(text, open_end.start())


def word(text: str, at: int) -> int:
    """Where the word begins that goes on there: what is cut inside of it is no word any more."""
    least = max(0, at - MAX_WORD)
    while at > least and not text[at - 1].isspace():
        at -= 1
    return at


def uncut(text: str, cut: int, found: Iterable[tuple[int, int]]) -> int:
    """As much of the text as ends in the middle of nothing that was found; `cut`, where that would be too little."""
    most = cut
    for start, stop in sorted(found, reverse=True):
        if start < cut < stop:
            cut = start
    # Whoever looks for something without an end is not waited for without an end.
    return cut if len(text) - cut <= MAX_BLOCK else most
