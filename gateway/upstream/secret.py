"""Values that the configuration names and does not hold: in a file, or in the gateway's own environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value

# A key or a token; what is longer was not meant to be one.
SECRET_LIMIT = 64 * 1024


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
