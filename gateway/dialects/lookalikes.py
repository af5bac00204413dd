"""Members that one reader passes over and another takes for a member that it knows.

JSON's names are exact, but readers exist that compare them without case: Go's encoding/json (which also takes U+017F
for `s` and U+212A for `k`), and others by a setting. We keep what we do not know and pass it on, so `Name` beside
`name` would be decided upon as the one and done as the other (CVE-2026-27896).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.errors import invalid


class Members:
    """The members that one kind of object has, as we know it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._folded = {name.casefold(): name for name in sorted(self._names)}

    def check(self, given: Iterable[str], where: str) -> None:
        """Raises INVALID_PARAMS for a name that is none of these and reads like one. `where` is the object's path, with
        a dot behind it, or empty."""
        if not self._names.issuperset(given):
            for name in given:
                self._judge(name, where)

    def _judge(self, name: str, where: str) -> None:
        meant = self._folded.get(name.casefold())
        if meant is not None and name not in self._names:
            raise invalid(f"{where}{meant}", "comes in another spelling, which some readers take for it; use this one")
