"""Parts of a YAML file, written as people write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# What YAML takes for text without quotes; inside a list a comma would end it.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 ,.;'()/_-]*")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9 ./_-]*")
_NOT_TEXT = frozenset({"true", "false", "null"})


def yaml_item(item: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one item of a list, as a file would have it."""
    mark = "- "
    for name, value in item.items():
        yield f"{mark}{name}: {_plain(value) or yaml_flow(value)}"
        mark = "  "


def _plain(value: Any) -> str | None:
    fits = isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT
    return value if fits and not value.endswith(" ") else None


def yaml_flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_flow(name)}: {yaml_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value.strip()
    return json.dumps(value, ensure_ascii=False)
