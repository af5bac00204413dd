"""A document as passages: paragraphs, each with its line and the headings above it."""

from __future__ import annotations

import re
from collections.abc import Iterator

PASSAGE_CHARS_MAX = 2000  # about what a person reads as one quote
PASSAGE_LINES_MAX = 40
HEADING_CHARS_MAX = 200
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
