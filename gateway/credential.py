"""The machine's own credential, in a file that only its owner reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gateway.core.keys import PREFIX, make_secret
from gateway.model.problems import Problem, StartError

_PLACEHOLDER = re.compile("change.?me|change.?this|test.?key|example|placeholder|password|secret", re.IGNORECASE)


def credential(data: Path) -> str:
    """The machine's own credential: read, or made on the first start, readable by its owner only."""
    path = data / "token"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_private(path, make_secret() + "\n")
        token = path.read_text().strip()
        _write_private(data / "curl-header", f"Authorization: Bearer {token}\n")
    except OSError as error:
        raise StartError(
            Problem(str(data), f"cannot keep data there: {error.strerror or error}", "choose a folder with --data DIR")
        ) from error
    if len(token) < 32:
        raise StartError(Problem(str(path), "holds no credential", "delete the file; a new one is made at the start"))
    if _guessable(token):
        what = "holds a credential that can be guessed"
        raise StartError(Problem(str(path), what, "delete the file; a new one is made at the start"))
    return token


def _guessable(token: str) -> bool:
    """A placeholder that somebody copied, or one word again and again. What is made here is neither, ever."""
    if len(set(token)) < 10 or token in (token + token)[1:-1]:
        return True
    return not token.startswith(PREFIX) and _PLACEHOLDER.search(token) is not None


def advertise(data: Path, admin: str | None) -> None:
    """Where the commands of this machine find /admin, if it has a listener of its own."""
    path = data / "admin"
    try:
        if admin is None:
            path.unlink(missing_ok=True)
        else:
            _write_private(path, admin + "\n")
    except OSError as error:
        raise StartError(
            Problem(str(path), f"cannot be written: {error.strerror or error}", "choose a folder with --data DIR")
        ) from error


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
