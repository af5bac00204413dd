"""Finding tools instead of listing them: three tools in place of hundreds, for models whose attention is short.

A mount with `search: true` lists `search_tools`, `describe_tool` and `call_tool`. They see and do exactly what the
caller may see and do there. How they are ranked is `core/ranking.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.core.ranking import NAME_WEIGHT, Index, words
from gateway.core.tools import links
from gateway.core.tools.naming import Mount
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.tool import Definition, Kind, Tree, digest
from gateway.model.toolcall import View

MAX_RESULTS = 20  # of one search; a model that needs more should ask again, in other words
DEFAULT_RESULTS = 5
MAX_QUERY = 1_000  # characters
MAX_INDEXES = 64  # views that stay indexed; 300 tools take 0.5 MB and 15 ms


def _schema(required: list[str], **properties: Tree) -> Tree:
    return {"type": "object", "properties": properties, "required": required}


_META: list[Tree] = [
    {
        "name": "search_tools",
        "description": "Finds tools by what they do. Say in a few words what is to be done.",
        "inputSchema": _schema(
            ["query"],
            query={"type": "string", "description": "What is to be done."},
            limit={"type": "integer", "minimum": 1, "maximum": MAX_RESULTS, "description": "How many at most."},
        ),
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "describe_tool",
        "description": "Shows a tool that was found, with the schema of its arguments.",
        "inputSchema": _schema(["name"], name={"type": "string", "description": "Its name, as search_tools gave it."}),
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "call_tool",
        "description": "Calls a tool that was found, and gives its result.",
        "inputSchema": _schema(
            ["name"],
            name={"type": "string", "description": "Its name, as search_tools gave it."},
            arguments={"type": "object", "description": "Its arguments, as describe_tool shows them."},
        ),
    },
]
META = {tree["name"]: Definition.of("gateway", Kind.TOOL, tree) for tree in _META}
_STAMP = digest(_META)


def listing(mount: Mount, ttl_ms: int) -> View:
    """What a mount with search lists."""
    return View(mount.id, Kind.TOOL, META, _STAMP, ttl_ms)


class Search:
    def __init__(self) -> None:
        self._indexes: dict[tuple[str, str], Index] = {}

    def find(self, view: View, arguments: Tree) -> Tree:
        query, limit = arguments.get("query"), arguments.get("limit", DEFAULT_RESULTS)
        if not isinstance(query, str) or not query or len(query) > MAX_QUERY:
            raise invalid("arguments.query", f"must be a text of 1 to {MAX_QUERY} characters")
        if type(limit) is not int or not 1 <= limit <= MAX_RESULTS:
            raise invalid("arguments.limit", f"must be 1 to {MAX_RESULTS}")
        found = [
            {"name": name, "description": str(view.named[name].tree.get("description") or "")[:500]}
            for name in self._index(view).find(query, limit)
        ]
        text = "\n".join(f"{each['name']}: {each['description']}" for each in found) or "Nothing was found."
        return _result(text, {"tools": found})

    def describe(self, view: View, mount: Mount, arguments: Tree) -> Tree:
        name = arguments.get("name")
        definition = view.named.get(name) if isinstance(name, str) else None
        if definition is None:
            raise GatewayError(Reason.NOT_FOUND, f"Unknown tool: {str(name)[:200]}")
        server = definition.server
        tree = links.definition(
            Kind.TOOL, definition.tree, str(name), definition.address, lambda u: mount.uri(server, u)
        )
        return _result(str(tree.get("description") or name), {"tool": tree})

    def _index(self, view: View) -> Index:
        key = (view.mount, view.stamp)
        found = self._indexes.get(key)
        if found is None:
            if len(self._indexes) >= MAX_INDEXES:
                del self._indexes[next(iter(self._indexes))]
            found = self._indexes[key] = index((name, each.tree) for name, each in view.named.items())
        return found


def index(tools: Iterable[tuple[str, Tree]]) -> Index:
    return Index((name, _document(name, tree)) for name, tree in tools)


def _document(name: str, tree: Tree) -> Iterable[str]:
    yield from words(name) * NAME_WEIGHT
    yield from words(str(tree.get("title") or ""))
    yield from words(str(tree.get("description") or ""))
    schema: Any = tree.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for field, inner in properties.items() if isinstance(properties, dict) else ():
        yield from words(field)
        if isinstance(inner, dict):
            yield from words(str(inner.get("description") or ""))


def _result(text: str, structured: Tree) -> Tree:
    return {"resultType": "complete", "content": [{"type": "text", "text": text}], "structuredContent": structured}
