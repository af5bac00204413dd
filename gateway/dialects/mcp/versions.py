"""The revisions, as a table. Nothing else in the gateway compares revision names.

Source: basic/versioning; a revision outside the table is unknown, however its name sorts.
"""

from __future__ import annotations

from gateway.model.tool import Era

ERAS: dict[str, Era] = {
    "2026-07-28": Era.MODERN,
    "2025-11-25": Era.LEGACY,
    "2025-06-18": Era.LEGACY,
    "2025-03-26": Era.LEGACY,
}
MODERN = tuple(version for version, era in ERAS.items() if era is Era.MODERN)
LEGACY = tuple(version for version, era in ERAS.items() if era is Era.LEGACY)
NEWEST = MODERN[0]
NEWEST_LEGACY = LEGACY[0]
UNSAID = "2025-03-26"
"""What a session without the version header speaks (2025-06-18, basic/transports: for backwards compatibility)."""

BATCHES = frozenset({"2025-03-26"})
"""Where a body may be an array of messages (2025-03-26, basic; removed in 2025-06-18)."""

PRIMED = frozenset({"2025-11-25"})
"""Where a stream begins with an event that has an id and no message (basic/transports). Older clients would read
one."""

# What a revision does not know of a result, and must therefore not be sent. Content types and fields were only ever
# added, and clients of that time ignore unknown fields; unknown content types they refuse.
_CONTENT_SINCE: dict[str, frozenset[str]] = {
    "2025-03-26": frozenset({"text", "image", "audio", "resource"}),
}
_CONTENT = frozenset({"text", "image", "audio", "resource", "resource_link"})


def negotiate(asked: object) -> str:
    """The revision of a session for which `asked` was proposed: that one, or the newest that has sessions
    (2025-11-25, basic/lifecycle: the server answers with another one that it supports)."""
    return asked if isinstance(asked, str) and asked in LEGACY else NEWEST_LEGACY


def knows_content(version: str, kind: object) -> bool:
    return kind in _CONTENT_SINCE.get(version, _CONTENT)
