"""ACP's ids are UUIDs. A task's id here is 32 hexadecimal digits, which is a UUID without its dashes."""

from __future__ import annotations

import re

_HEX = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid(id: str) -> str | None:
    """An id of ours in ACP's form; None for one that has no such form (a context that an A2A client named)."""
    if _HEX.fullmatch(id):
        return f"{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:]}"
    return id if _UUID.fullmatch(id) else None


def plain(uuid: str) -> str:
    """A UUID of ACP's, in any of its spellings, as ids are here. What is none stays, to be found nowhere."""
    lower = uuid.lower()
    return lower.replace("-", "") if _UUID.fullmatch(lower) else lower
