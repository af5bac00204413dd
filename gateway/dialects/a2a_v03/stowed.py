"""What 1.0 says and 0.3 has no place for travels in `metadata` under one key, and comes out of it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Tree: TypeAlias = dict[str, Any]

KEY = "a2a_v1"


def stow(tree: Tree, said: Tree) -> Tree:
    """`tree` with `said` in its metadata."""
    if not said:
        return tree
    metadata = tree.get("metadata")
    return {**tree, "metadata": {**(metadata if isinstance(metadata, dict) else {}), KEY: said}}


def restored(tree: Tree, types: Mapping[str, type]) -> Tree:
    """`tree` with the fields that were stowed back in their places. Only what `stow` could have written is taken:
    fields of these types, none of them there already. Anything else is a peer's own metadata and stays."""
    metadata = tree.get("metadata")
    said = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(said, dict) or not said or not said.keys() <= types.keys() - tree.keys():
        return tree
    if not all(isinstance(value, types[name]) for name, value in said.items()):
        return tree
    assert isinstance(metadata, dict)
    rest = {name: value for name, value in metadata.items() if name != KEY}
    made = {**tree, "metadata": rest, **said}
    if not rest:
        del made["metadata"]
    return made
