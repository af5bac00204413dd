"""Lists as bytes, written once per view and era: 300 tools weigh 200 kB and change rarely."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from gateway.core.cursor import Cursors
from gateway.core.tools import links
from gateway.dialects.mcp import forms
from gateway.dialects.mcp.message import SERVER_INFO
from gateway.model.errors import GatewayError, invalid
from gateway.model.tool import Definition, Era, Kind, Tree
from gateway.model.toolcall import View

PAGE = 1_000  # definitions of one page; few lists have a second
MAX_LISTS = 512  # written pages that are kept, the least recently made first to go

_Key = tuple[str, Kind, str, int, Era, int]


class Lists:
    def __init__(self, cursors: Cursors, info: Tree) -> None:
        self._cursors = cursors
        self._info = info
        self._written: dict[_Key, bytes] = {}

    def page(self, view: View, cursor: object, era: Era, rename: Callable[[str, str], str]) -> bytes:
        """One page of a list as a finished result. `rename` gives the mount's form of a server's URI.
        Raises INVALID_PARAMS for a cursor that is not of this list as it is now."""
        start = self._start(view, cursor)
        key = (view.mount, view.kind, view.stamp, view.ttl_ms, era, start)
        body = self._written.pop(key, None)
        if body is None:
            body = self._write(view, start, era, rename)
            if len(self._written) >= MAX_LISTS:
                del self._written[next(iter(self._written))]
        self._written[key] = body
        return body

    def _start(self, view: View, cursor: object) -> int:
        if cursor is None:
            return 0
        if not isinstance(cursor, str):
            raise invalid("cursor", "must be a text")
        try:
            return int(self._cursors.open(cursor, _bound(view)))
        except GatewayError:
            raise invalid("cursor", "is none of this list, or the list has changed; begin again without one") from None

    def _write(self, view: View, start: int, era: Era, rename: Callable[[str, str], str]) -> bytes:
        chosen = list(view.named.items())[start : start + PAGE]
        result: Tree = {view.kind.value: [_shown(view.kind, name, each, era, rename) for name, each in chosen]}
        if start + PAGE < len(view.named):
            result["nextCursor"] = self._cursors.seal(str(start + PAGE), _bound(view))
        if era is Era.MODERN:
            result = forms.cached(forms.modern(result), view.ttl_ms, private=True)
            result["_meta"] = {SERVER_INFO: self._info}
        return orjson.dumps(result)


def _shown(kind: Kind, name: str, definition: Definition, era: Era, rename: Callable[[str, str], str]) -> Tree:
    server = definition.server
    tree = links.definition(kind, definition.tree, name, definition.address, lambda uri: rename(server, uri))
    return forms.legacy_tool(tree) if era is Era.LEGACY and kind is Kind.TOOL else tree


def _bound(view: View) -> str:
    return f"{view.mount}\0{view.kind}\0{view.stamp}"
