"""HTTP+JSON: which operation a method and a path mean, as a table of a revision's own (`a2a_*/paths.py`).

Paths are relative to the interface's base URL and percent-decoded. A parameter never contains `/`, and a task id
never contains `:` (that is where the verb begins), so `/tasks/x:cancel` cannot be read as a task named `x:cancel`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from gateway.model.errors import GatewayError, Reason

TASK_ID = r"([^/:]+)"
LAST_TASK_ID = r"([^/]+)"  # a configuration's id is its client's choice, and no verb follows it

_SLASH = r"(?:[/\\]|%(?:25)*(?:2[fF]|5[cC]))"
_CLIMBS = re.compile(rf"(?:\A|{_SLASH})(?:\.|%(?:25)*2[eE]){{0,2}}(?:\Z|{_SLASH})|[\x00-\x1f\x7f]")


class Unaddressable(GatewayError):
    """An agent's word for something that no request can name: asking again is no use."""

    def __init__(self) -> None:
        super().__init__(Reason.INVALID_AGENT_RESPONSE, "The agent has given an id that no path can hold")


def segment(text: str) -> str:
    """A word of an agent's as one segment of a path at that agent. Raises Unaddressable for a word that would not stay
    one: quoting hides neither `..` nor nothing at all from a reader that resolves paths (RFC 3986 §5.2.4), nor a slash
    from one that decodes twice."""
    if _CLIMBS.search(text):
        raise Unaddressable
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class Operation:
    """`name` is 1.0's name of it (the JSON-RPC method); `ids` the parameters that the path gives."""

    name: str
    ids: dict[str, str]


class Table:
    """Rows of method, path pattern, operation and the names of the ids in the path."""

    def __init__(self, *rows: tuple[str, str, str, tuple[str, ...]]) -> None:
        self.rows = rows
        self._exact = {(verb, path): Operation(name, {}) for verb, path, name, ids in rows if not ids}
        self._patterns = tuple((verb, re.compile(path), name, ids) for verb, path, name, ids in rows if ids)
        self._fixed = frozenset(path for _, path, _, ids in rows if not ids)

    def match(self, verb: str, path: str) -> Operation | frozenset[str] | None:
        """The operation; or, when only the verb is wrong, the verbs that would be right; or None."""
        if (exact := self._exact.get((verb, path))) is not None:
            return exact
        allowed = {known for known, fixed in self._exact if fixed == path} if path in self._fixed else set()
        for known, pattern, name, ids in self._patterns:
            if (found := pattern.fullmatch(path)) is not None:
                if known == verb:
                    return Operation(name, dict(zip(ids, found.groups(), strict=True)))
                allowed.add(known)
        return frozenset(allowed) or None
