"""A JWK set from a file: public keys, which may stand on a command line's path but not in its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.cli.exits import Stop


def read_keys(path: Path) -> dict[str, Any]:
    """The set in the file that --keys names. Raises Stop."""
    try:
        keys = json.loads(path.read_bytes())
    except OSError as error:
        raise Stop(f"--keys {path}: {error.strerror}") from None
    except ValueError:
        keys = None
    if not isinstance(keys, dict):
        raise Stop(f'--keys {path} is no JWK set: {{"keys": [...]}}')
    return keys
