"""What a server may say about its tools. A definition is read by models and people who act on it, so one that hides
words, poses as another tool or cannot be taken in is left out, and the operator is told why (security.md S8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from gateway.model.tool import Definition, Kind, Tree

MAX_KEY = 128  # server/tools: tool names; the same for prompts
MAX_URI = 2048  # what browsers and proxies agree on
MAX_TEXT = 16_384  # characters of one text; the longest honest description seen has some 9 000
MAX_DEPTH = 32  # containers in each other; a schema of a real tool has up to 12
MAX_VALUES = 10_000  # of one definition; the largest real one has some 1 500

# ASCII only: a letter of another alphabet can look the same as one of these, and nobody can tell two tools apart.
_NAME = re.compile(r"[A-Za-z0-9_./:@+-]+")
# Controls (tab, line feed and carriage return stay), what reorders text (CVE-2021-42574), what is not seen. The joiners
# U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

CheckSchema = Callable[[Any], object]


def objection(definition: Definition, check_schema: CheckSchema) -> str | None:
    """Why this definition is not offered; None when nothing is wrong with it. `check_schema` raises ValueError for
    an input schema that no client may use."""
    named = definition.kind in (Kind.TOOL, Kind.PROMPT)
    if len(definition.key) > (MAX_KEY if named else MAX_URI):
        return "its name is too long"
    if named and not _NAME.fullmatch(definition.key):
        return "its name has characters that can be mistaken for others"
    for values, (depth, value) in enumerate(_walk(definition.tree)):
        if depth > MAX_DEPTH or values > MAX_VALUES:
            return "it is too large or nested too deeply"
        if isinstance(value, str) and (len(value) > MAX_TEXT or _HIDDEN.search(value)):
            return "a text in it is too long, or has characters that are not seen"
    if definition.kind is Kind.TOOL:
        return _schemas(definition.tree, check_schema)
    return None


def _schemas(tree: Tree, check_schema: CheckSchema) -> str | None:
    schema = tree.get("inputSchema")
    if not isinstance(schema, dict):
        return "it has no inputSchema"
    try:
        check_schema(schema)
    except ValueError as error:
        return str(error)
    for part in (schema, tree.get("outputSchema")):
        for _, value in _walk(part):
            reference = value.get("$ref") if isinstance(value, dict) else None
            if isinstance(reference, str) and not reference.startswith("#") and "://" in reference:
                return "its schema points into the network; a client that follows would call out for it"
    return None


def _walk(root: Any) -> Iterator[tuple[int, Any]]:
    """Every value and every key of a tree with its depth, the outermost first."""
    todo = [(0, root)]
    while todo:
        depth, value = todo.pop()
        yield depth, value
        if isinstance(value, dict):
            for name, inner in value.items():
                yield depth, name
                todo.append((depth + 1, inner))
        elif isinstance(value, list):
            todo += [(depth + 1, inner) for inner in value]
