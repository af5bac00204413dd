"""The headers that repeat what the body says: made for a request that goes out, checked on one that comes in.

Source: basic/transports/streamable-http (standard request headers, custom headers from tool parameters). Whoever
reads both head and body must refuse a request in which they differ, or a router in between could be told one thing and
the server another.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.dialects.mcp.errors import header_mismatch
from gateway.dialects.mcp.message import PROTOCOL_VERSION, meta
from gateway.model.tool import Tree

VERSION_HEADER = "mcp-protocol-version"
METHOD_HEADER = "mcp-method"
NAME_HEADER = "mcp-name"
SESSION_HEADER = "mcp-session-id"
PARAM_PREFIX = "mcp-param-"
ANNOTATION = "x-mcp-header"

NAMED_BY: dict[str, str] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Which parameter `Mcp-Name` repeats."""

_WRAPPED = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)
_PLAIN = re.compile(r"[\x20-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_DECIMAL = re.compile(r"(-?[0-9]{1,40})(?:\.0+)?")
_TYPES = frozenset({"string", "integer", "boolean"})

MAX_SCHEMA_NODES = 10_000
"""Places in a schema that are looked at; the largest real tool schema seen has some 600."""

Path = tuple[str, ...]

# Where else than under `properties` a schema can hold schemas: an annotation there can never be read from a body.
_ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAP = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties"})


def wrap(text: str) -> str:
    """A value as a header can carry it: itself, or in base64 when a header would change or could not hold it."""
    if _PLAIN.fullmatch(text) and text == text.strip(" ") and not _WRAPPED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def unwrap(header: str) -> str | None:
    """The value that a header carries; None when what claims to be base64 is none. Spaces and tabs around it are the
    header's, not the value's (RFC 9110 §5.5)."""
    header = header.strip(" \t")
    wrapped = _WRAPPED.fullmatch(header)
    if wrapped is None:
        return header
    try:
        raw = base64.b64decode(wrapped[1], validate=True)
        text = raw.decode()
    except (binascii.Error, ValueError):
        return None
    return text if base64.b64encode(raw).decode() == wrapped[1] else None


def make(method: str, params: Tree, version: str, annotated: Mapping[Path, tuple[str, str]] | None = None) -> Tree:
    """The headers of one request: `annotated` is `parameters(inputSchema)` of the tool that is called."""
    headers = {VERSION_HEADER: version, METHOD_HEADER: method}
    name = params.get(NAMED_BY.get(method, ""))
    if isinstance(name, str):
        headers[NAME_HEADER] = wrap(name)
    for path, (token, _) in (annotated or {}).items():
        rendered = _rendered(_at(params.get("arguments"), path))
        if rendered is not None:
            headers[PARAM_PREFIX + token.lower()] = wrap(rendered)
    return headers


def check(raw: Iterable[tuple[bytes, bytes]], method: str, params: Tree) -> None:
    """Standard headers against the body. Raises HeaderMismatch (-32020)."""
    headers = _single(raw, _STANDARD)
    version = headers.get(VERSION_HEADER)
    if version is None or version.strip(" \t") != meta(params).get(PROTOCOL_VERSION):
        raise header_mismatch("MCP-Protocol-Version and _meta must name the same revision")
    if headers.get(METHOD_HEADER, "").strip(" \t") != method:
        raise header_mismatch("Mcp-Method must be the method of the body")
    key = NAMED_BY.get(method)
    if key is not None:
        name = params.get(key)
        header = headers.get(NAME_HEADER)
        if isinstance(name, str) and (header is None or unwrap(header) != name):
            raise header_mismatch(f"Mcp-Name must be the parameter {key!r} of the body")


def check_parameters(
    raw: Iterable[tuple[bytes, bytes]], arguments: object, annotated: Mapping[Path, tuple[str, str]]
) -> None:
    """`Mcp-Param-*` against the arguments: both there and equal, or neither. Raises HeaderMismatch (-32020)."""
    if not annotated:
        return
    headers = _single(raw, _by_bytes(PARAM_PREFIX + token.lower() for token, _ in annotated.values()))
    for path, (token, kind) in annotated.items():
        header = headers.get(PARAM_PREFIX + token.lower())
        argument = _at(arguments, path)
        rendered = _rendered(argument)
        where = f"Mcp-Param-{token} and the argument {'.'.join(path)!r}"
        if (header is None) is not (rendered is None):
            raise header_mismatch(f"{where} must both be there, or neither")
        if header is not None and rendered is not None:
            said = unwrap(header)
            if said is None or not _same(kind, rendered, said):
                raise header_mismatch(f"{where} must be the same")


def parameters(schema: Any) -> dict[Path, tuple[str, str]]:
    """Path of each annotated property -> (header name without prefix, JSON type).

    Raises ValueError, with the reason, for a schema whose annotations nobody may use: a client must not offer such a
    tool at all (custom headers: "MUST reject tool definitions")."""
    found: dict[Path, tuple[str, str]] = {}
    for path, place in _places(schema):
        if ANNOTATION not in place:
            continue
        token, kind = place[ANNOTATION], place.get("type")
        if not path:
            raise ValueError(f"{ANNOTATION} stands where no argument can be found by name")
        where = ".".join(path)
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(f"{ANNOTATION} of {where!r} is no header name")
        if not (isinstance(kind, str) and kind in _TYPES):
            raise ValueError(f"{ANNOTATION} of {where!r}: only a string, an integer or a boolean can be a header")
        if any(token.lower() == other.lower() for other, _ in found.values()):
            raise ValueError(f"{ANNOTATION} {token!r} is used twice")
        found[path] = (token, kind)
    return found


def _places(root: Any) -> Iterator[tuple[Path | None, Tree]]:
    """Every schema in a schema, with the path of properties that leads to it; None where there is none."""
    todo: list[tuple[Path | None, Any]] = [((), root)]
    seen = 0
    while todo:
        path, place = todo.pop()
        if not isinstance(place, dict):
            continue
        seen += 1
        if seen > MAX_SCHEMA_NODES:
            raise ValueError("the schema is too large")
        yield path, place
        for word, inner in place.items():
            if word == "properties" and isinstance(inner, dict):
                todo += [((*path, name) if path is not None else None, each) for name, each in inner.items()]
            elif word in _ONE:
                todo.append((None, inner))
            elif word in _LIST and isinstance(inner, list):
                todo += [(None, each) for each in inner]
            elif word in _MAP and isinstance(inner, dict):
                todo += [(None, each) for each in inner.values()]


def _by_bytes(names: Iterable[str]) -> dict[bytes, str]:
    return {name.encode(): name for name in names}


_STANDARD = _by_bytes((VERSION_HEADER, METHOD_HEADER, NAME_HEADER))


def _single(raw: Iterable[tuple[bytes, bytes]], wanted: Mapping[bytes, str]) -> dict[str, str]:
    """The headers of these names. One that is there twice would be read differently by different readers."""
    found: dict[str, str] = {}
    for name, header in raw:
        if (key := wanted.get(name)) is not None:
            if key in found:
                raise header_mismatch(f"{key} is there twice")
            found[key] = header.decode("latin-1")
    return found


def _at(arguments: object, path: Path) -> Any:
    for name in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(name)
    return arguments


def _rendered(argument: Any) -> str | None:
    """A primitive as text; None for null, for nothing, and for what no header can carry."""
    if isinstance(argument, bool):
        return "true" if argument else "false"
    return str(argument) if isinstance(argument, str | int | float) else None


def _same(kind: str, rendered: str, said: str) -> bool:
    """Integers are compared as numbers (42 and 42.0 are one), everything else as text."""
    if kind == "integer":
        mine, theirs = _DECIMAL.fullmatch(rendered), _DECIMAL.fullmatch(said)
        if mine and theirs:
            return int(mine[1]) == int(theirs[1])
    return rendered == said
