"""What is wrong with a configuration, said so that the operator can go to the line and put it right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

# Where a value sits: the keys and list positions from the top of the file, as pydantic counts them.
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right. `line` is None where there is none: flags, environment, a missing file."""

    file: str
    line: int | None
    field: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        sentence = f"{self.reason}; {self.hint}" if self.hint else self.reason
        return ": ".join(printable(part) for part in (place, self.field, sentence) if part)


class ConfigError(Exception):
    """The configuration cannot be used. Carries every problem found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(loc: Loc) -> str:
    """`("agents", "echo", "tenants", 0)` as people write it: `agents.echo.tenants[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant. Case and hyphens are forgiven: `Public-URL` is `public_url`."""
    folded = {name.casefold().replace("-", "_"): name for name in known}
    wanted = word.casefold().replace("-", "_")
    matches = difflib.get_close_matches(wanted, folded)
    # Of equally near ones the one with the same letters: `gaents` is `agents` with two swapped, not `grants`.
    matches.sort(key=lambda match: sorted(match) != sorted(wanted))
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a word that is not known: the nearest one, or else all there are."""
    names = list(known)
    near = nearest(word, names)
    return f"did you mean '{near}'?" if near else f"known here: {', '.join(names)}"


def printable(text: str) -> str:
    """Text from the file on its way to a terminal: control characters are shown, not obeyed."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
