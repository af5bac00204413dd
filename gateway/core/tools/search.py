"""Finding tools instead of listing them: three tools in place of hundreds, for models whose attention is short.

A mount with `search: true` lists `search_tools`, `describe_tool` and `call_tool`. They see and do exactly what the
caller may see and do there. Ranking is BM25 over names and descriptions (Robertson and Zaragoza 2009, with their
constants).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from gateway.core.tools import links
from gateway.core.tools.naming import Mount
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.tool import Definition, Kind, Tree, digest
from gateway.model.toolcall import View

MAX_RESULTS = 20  # of one search; a model that needs more should ask again, in other words
DEFAULT_RESULTS = 5
MAX_QUERY = 1_000  # characters
MAX_INDEXES = 64  # views that stay indexed; 300 tools take 0.5 MB and 15 ms

_K1, _B = 1.2, 0.75
_NAME_WEIGHT = 3  # a word of the name says more than one of the description
_SEAM = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\D)(?=\d)|(?<=\d)(?=\D)")
_WORD = re.compile(r"[^\W_]+")
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ed", "es", "s", "e", "y")
_EMPTY = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "at",
        "by",
        "can",
        "do",
        "for",
        "from",
        "i",
        "in",
        "is",
        "it",
        "me",
        "my",
        "of",
        "on",
        "or",
        "please",
        "that",
        "the",
        "this",
        "to",
        "we",
        "with",
        "you",
    ]
)


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
        index = self._indexes.get(key)
        if index is None:
            if len(self._indexes) >= MAX_INDEXES:
                del self._indexes[next(iter(self._indexes))]
            index = self._indexes[key] = Index((name, each.tree) for name, each in view.named.items())
        return index


class Index:
    def __init__(self, tools: Iterable[tuple[str, Tree]]) -> None:
        self._words = {name: Counter(_document(name, tree)) for name, tree in tools}
        self._lengths = {name: sum(words.values()) for name, words in self._words.items()}
        self._mean = sum(self._lengths.values()) / max(1, len(self._lengths))
        spread = Counter(word for words in self._words.values() for word in words)
        count = len(self._words)
        self._weight = {word: math.log(1 + (count - n + 0.5) / (n + 0.5)) for word, n in spread.items()}

    def find(self, query: str, limit: int) -> list[str]:
        """The names that fit best, the best first; none that shares no word with the query."""
        wanted = set(words(query))
        scores = {name: self._score(name, wanted) for name in self._words}
        ranked = sorted((name for name, score in scores.items() if score > 0), key=lambda name: (-scores[name], name))
        return ranked[:limit]

    def _score(self, name: str, wanted: set[str]) -> float:
        found = self._words[name]
        length = _K1 * (1 - _B + _B * self._lengths[name] / self._mean)
        return sum(
            self._weight[word] * found[word] * (_K1 + 1) / (found[word] + length) for word in wanted if word in found
        )


def words(text: str) -> list[str]:
    """The words of a text, of names in camelCase and snake_case too, without their endings."""
    return [_stem(word.lower()) for word in _WORD.findall(_SEAM.sub(" ", text)) if word.lower() not in _EMPTY]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _document(name: str, tree: Tree) -> Iterable[str]:
    yield from words(name) * _NAME_WEIGHT
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
