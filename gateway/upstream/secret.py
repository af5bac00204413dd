"""Values that the configuration names and does not hold: in a file, or in the gateway's own environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value

# A key or a token; what is longer was not meant to be one.
SECRET_LIMIT = 64 * 1024
# What is shorter is no secret, and a letter of every other word.
_SHORTEST = 4
# A long value is hidden in pieces, so that what is cut off of it hides nothing.
_PIECE = 1024


@value
class Secret:
    """Exactly one of `file` and `variable`; `before` is put in front of the value (`Bearer `)."""

    file: Path | None = None
    variable: str | None = None
    before: str = ""

    def __repr__(self) -> str:
        return f"Secret({self.place})"

    @property
    def place(self) -> str:
        return f"the file {self.file}" if self.file is not None else f"the variable {self.variable}"


def settle(setting: str | Secret, ours: Mapping[str, str]) -> str:
    """The value itself, without space around it. Read anew at each call, so that a rotated secret is found.

    Raises GatewayError(UNAVAILABLE), whose sentence names the place and never the value."""
    if isinstance(setting, str):
        return setting
    if setting.file is None:
        found = ours.get(setting.variable or "")
    else:
        try:
            with setting.file.open(encoding="utf-8") as file:
                found = file.read(SECRET_LIMIT + 1)
        except (OSError, UnicodeDecodeError):
            found = None
    if not found or not found.strip() or len(found) > SECRET_LIMIT:
        raise GatewayError(Reason.UNAVAILABLE, f"A secret cannot be read from {setting.place}")
    return setting.before + found.strip()


def hiding(settings: Mapping[str, str | Secret], ours: Mapping[str, str]) -> Callable[[str], str]:
    """Puts `[name]` in place of each value that the configuration names and does not hold, as it is now: in lines of
    text, so a value of several lines is hidden line by line."""
    names: dict[str, str] = {}
    for name, setting in settings.items():
        if isinstance(setting, Secret):
            names |= dict.fromkeys(_pieces(settle(setting, ours).removeprefix(setting.before)), name)
    if not names:
        return str
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return lambda text: pattern.sub(lambda found: f"[{names[found[0]]}]", text)


def _pieces(secret: str) -> list[str]:
    lines = [line.strip() for line in secret.splitlines()]
    cut = [line[start : start + _PIECE] for line in lines for start in range(0, len(line), _PIECE)]
    return [form for piece in cut if len(piece) >= _SHORTEST for form in (piece, quote(piece, safe=""))]
