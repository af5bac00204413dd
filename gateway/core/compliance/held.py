"""Texts that come in pieces: a chunk of a stream may end in the middle of what a rule looks for.

What could still become something longer waits for the next chunk: the last word, digits in groups, a key that has begun
and not ended. It waits no longer than that, and never while nothing more can come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.model.message import Part
from gateway.model.task import ArtifactUpdate, Event

MAX_WORD = 512  # characters: longer than any key or address that a rule knows
MAX_BLOCK = 16_384  # a private key in PEM form has some 3 000

# The end of a text that may go on: digits in groups (a card's number), or one word.
_OPEN = re.compile(rf"(?:\d[\d .\-]{{0,63}}|\S{{1,{MAX_WORD}}})\Z")
_BEGUN, _ENDED = "-----BEGIN ", "-----END "


class Held:
    """The open ends of a run's artifacts."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[ArtifactUpdate, str]] = {}

    def take(self, event: Event) -> Iterator[Event]:
        """The event, with what was held before it and without what has to wait now."""
        text = _text(event)
        if text is None or not isinstance(event, ArtifactUpdate):
            yield from self.release()
            yield event
            return
        id = event.artifact.artifact_id
        if not event.append or any(other != id for other in self._ends):
            yield from self.release()
        if (before := self._ends.pop(id, None)) is not None:
            # What nobody has seen yet begins where it began; whether more follows is for the newest to say.
            text = before[1] + text
            event = before[0].model_copy(update={"last_chunk": event.last_chunk})
        cut = len(text) if event.last_chunk else _settled(text)
        if cut:
            yield _with(event, text[:cut])
            event = event.model_copy(update={"append": True})
        if cut < len(text):
            self._ends[id] = (event, text[cut:])

    def release(self) -> Iterator[Event]:
        """All that was held: nothing more comes, or something else does."""
        ends, self._ends = self._ends, {}
        for event, text in ends.values():
            yield _with(event, text)


def _text(event: Event) -> str | None:
    """The text of a chunk that is nothing but text: only those are ever continued by the next."""
    if not isinstance(event, ArtifactUpdate) or len(event.artifact.parts) != 1:
        return None
    return event.artifact.parts[0].text


def _with(event: ArtifactUpdate, text: str) -> ArtifactUpdate:
    part: Part = event.artifact.parts[0].model_copy(update={"text": text})
    return event.model_copy(update={"artifact": event.artifact.model_copy(update={"parts": (part,)})})


def _settled(text: str) -> int:
    """How much of the text nothing that comes can change."""
    begun = text.rfind(_BEGUN)
    if begun >= 0 and _ENDED not in text[begun:] and len(text) - begun <= MAX_BLOCK:
        return begun
    open_end = _OPEN.search(text, max(0, len(text) - MAX_WORD - 1))
    return len(text) if open_end is None else open_end.start()
