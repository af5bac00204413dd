"""Resource URIs in results and definitions, in the mount's form. Only containers on the way to a URI are copied; all
else is the server's own tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.model.tool import Kind, Tree

Rename = Callable[[str], str]

ORIGIN = "gateway/origin"
"""The entry of `_meta` that says where a definition comes from: `server/name`."""


def definition(kind: Kind, tree: Tree, name: str, address: str, rename: Rename) -> Tree:
    """A definition as a mount shows it: its name there, its origin, and its links."""
    meta = tree.get("_meta")
    shown = {**tree, kind.key: name, "_meta": {**(meta if isinstance(meta, dict) else {}), ORIGIN: address}}
    ui = shown["_meta"].get("ui")
    if isinstance(ui, dict) and isinstance(ui.get("resourceUri"), str):
        shown["_meta"]["ui"] = {**ui, "resourceUri": rename(ui["resourceUri"])}
    return shown


def result(method: str, tree: Tree, rename: Rename) -> Tree:
    """The result of `method` with its links renamed."""
    if method == "tools/call" and isinstance(tree.get("content"), list):
        return {**tree, "content": [_block(each, rename) for each in tree["content"]]}
    if method == "resources/read" and isinstance(tree.get("contents"), list):
        return {**tree, "contents": [_with_uri(each, rename) for each in tree["contents"]]}
    if method == "prompts/get" and isinstance(tree.get("messages"), list):
        return {**tree, "messages": [_message(each, rename) for each in tree["messages"]]}
    return tree


def _message(tree: Any, rename: Rename) -> Any:
    if not isinstance(tree, dict) or not isinstance(tree.get("content"), dict):
        return tree
    return {**tree, "content": _block(tree["content"], rename)}


def _block(tree: Any, rename: Rename) -> Any:
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "resource_link":
        return _with_uri(tree, rename)
    if kind == "resource":
        return {**tree, "resource": _with_uri(tree.get("resource"), rename)}
    return tree


def _with_uri(tree: Any, rename: Rename) -> Any:
    if not isinstance(tree, dict) or not isinstance(tree.get("uri"), str):
        return tree
    return {**tree, "uri": rename(tree["uri"])}
