"""The same result in the form of either era. Trees are never changed in place: what differs is copied.

Source: changelog of 2026-07-28 (resultType, caching), schema/2025-11-25 (what the older revisions can hold).
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dialects.mcp.message import SERVER_INFO
from gateway.dialects.mcp.versions import knows_content
from gateway.model.tool import Kind, Tree

CACHED = frozenset({*(kind.method for kind in Kind), "resources/read", "server/discover"})
"""Methods whose complete results must say how long and for whom they hold (server/utilities/caching)."""

_MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")


def modern(result: Tree) -> Tree:
    """A result of a session server as 2026-07-28 has it. The type is `complete` when none is said."""
    return result if "resultType" in result else {"resultType": "complete", **result}


def cached(result: Tree, ttl_ms: int, *, private: bool) -> Tree:
    """With the caching fields that a complete result needs; what the server said stays, but nothing of one caller's
    becomes public."""
    said = result.get("ttlMs")
    ttl = said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else ttl_ms
    scope = "private" if private or result.get("cacheScope") != "public" else "public"
    return {**result, "ttlMs": ttl, "cacheScope": scope}


def legacy(result: Tree, version: str) -> Tree:
    """A complete result as a session of `version` can hold it."""
    shown = {name: each for name, each in result.items() if name not in _MODERN_ONLY}
    if isinstance(shown.get("_meta"), dict) and SERVER_INFO in shown["_meta"]:
        shown["_meta"] = {name: each for name, each in shown["_meta"].items() if name != SERVER_INFO}
        if not shown["_meta"]:
            del shown["_meta"]
    if "structuredContent" in shown and not isinstance(shown["structuredContent"], dict):
        # An object or nothing, before 2026-07-28. Servers repeat the value as text; ours to do where one did not.
        lost = shown.pop("structuredContent")
        if not shown.get("content"):
            shown["content"] = [{"type": "text", "text": orjson.dumps(lost).decode()}]
    if isinstance(shown.get("content"), list):
        shown["content"] = [_content(each, version) for each in shown["content"]]
    return shown


def legacy_tool(tool: Tree) -> Tree:
    """A tool definition for a session: both schemas describe objects there (schema/2025-11-25, Tool)."""
    shown = dict(tool)
    schema = shown.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        shown["inputSchema"] = {"type": "object", **(schema if isinstance(schema, dict) else {})} | {"type": "object"}
    output = shown.get("outputSchema")
    if "outputSchema" in shown and not (isinstance(output, dict) and output.get("type") == "object"):
        del shown["outputSchema"]
    return shown


def _content(block: Any, version: str) -> Any:
    """A content block, as text when the revision has no such type: said in words rather than lost."""
    if not isinstance(block, dict) or knows_content(version, block.get("type")):
        return block
    if block.get("type") == "resource_link":
        return {"type": "text", "text": f"{block.get('name', 'resource')}: {block.get('uri', '')}"}
    return {"type": "text", "text": orjson.dumps(block).decode()}
