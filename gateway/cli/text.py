"""Words on their way to a terminal.

Agents, cards and tasks are written by others. Everything that a command prints goes through `say`, `note` or
`dump`, and so through `clean`: what could move the cursor, recolour, reorder or hide text is shown by number.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

# Controls (C0 without tab and newline, DEL, C1), what reorders text (UAX #9; CVE-2021-42574), what is
# invisible (zero width, soft hyphen, tags), line separators, and lone surrogates, which no encoding has.
# The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_SPACES = re.compile(r"\s+")


def clean(text: str) -> str:
    r"""The text with every unsafe character as `\u001b`; newlines and tabs stay."""
    return _UNSAFE.sub(_number, text.replace("\r\n", "\n"))


def _number(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:  # as JSON writes it, so that `dump` may use the same form
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def line(text: object, width: int = 200) -> str:
    """The text on one line, cut at `width`: for names, table cells and commands."""
    flat = clean(_SPACES.sub(" ", str(text)).strip())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def say(text: str = "", end: str = "\n") -> None:
    """To standard output: what was asked for."""
    sys.stdout.write(clean(text) + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """To standard error: progress, hints, what went wrong."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def dump(value: Any, *, indent: int | None = 2) -> None:
    """One JSON value to standard output. Unsafe characters become JSON escapes: the value stays the same."""
    say(pretty(value, indent=indent))


def pretty(value: Any, *, indent: int | None = 2) -> str:
    return clean(json.dumps(value, ensure_ascii=False, indent=indent))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, the last one as long as it is."""
    cells = [list(heads), *([line(cell, 80) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads) - 1)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
        say("  ".join(padded).rstrip())


def moment(value: object) -> str:
    """A time as the API gives it (text, or milliseconds since the epoch) for people."""
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(value) if value else "-"


def span(seconds: object) -> str:
    """Seconds in the largest unit that they are a whole number of: 4 hours, 90 seconds."""
    if not isinstance(seconds, int):
        return line(seconds)
    units = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, length = next(each for each in units if (seconds >= each[1] and seconds % each[1] == 0) or each[1] == 1)
    count = seconds // length
    return f"{count} {unit}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    return f"{count:,} bytes" if count != 1 else "1 byte"
