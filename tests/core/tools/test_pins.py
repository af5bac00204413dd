"""Whatever a server changes in a tool, the tool waits; whatever poses as another one is refused (security.md S8)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.core.tools.hygiene import objection
from gateway.core.tools.pins import Pins, Quarantine
from gateway.dialects.mcp.headers import parameters
from gateway.model.tool import Definition, Kind
from gateway.stores.memory import MemoryStore

pytestmark = pytest.mark.security

TOOL: dict[str, Any] = {
    "name": "search",
    "title": "Search",
    "description": "Finds documents.",
    "inputSchema": {
        "type": "object",
        "properties": {"words": {"type": "string", "description": "What to find."}, "limit": {"type": "integer"}},
        "required": ["words"],
    },
    "outputSchema": {"type": "object", "properties": {"found": {"type": "array", "items": {"type": "string"}}}},
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
    "icons": [{"src": "https://docs.example/icon.png", "sizes": ["48x48"]}],
    "_meta": {"ui": {"resourceUri": "ui://docs/search"}},
    "inventedLater": [1, 2.5, None],
}


def mutations(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """The tool with one thing changed, added or left out, for every place in it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        here = (*path, key)
        yield changed(here, lambda parent, last: parent.pop(last))
        if not isinstance(inner, dict | list):
            yield changed(here, lambda parent, last: parent.__setitem__(last, "changed"))
            yield changed(here, lambda parent, last: parent.__setitem__(last, [parent[last]]))
        else:
            yield changed(here, lambda parent, last: grow(parent[last]))
        yield from mutations(inner, here)


def grow(container: Any) -> None:
    container.append("added") if isinstance(container, list) else container.update(added=1)


def changed(path: tuple[Any, ...], do: Any) -> Any:
    tree = copy.deepcopy(TOOL)
    parent: Any = tree
    for key in path[:-1]:
        parent = parent[key]
    do(parent, path[-1])
    return tree


async def test_every_change_of_every_field_of_200_tools_waits_before_the_next_use() -> None:
    pins = Pins(MemoryStore(now=lambda: 0), lambda: 0)
    names = [f"tool{number}" for number in range(200)]
    first = [Definition.of("docs", Kind.TOOL, {**TOOL, "name": name}) for name in names]
    offered, waiting = await pins.judge("docs", first, Quarantine.CHANGED)
    assert (len(offered), waiting) == (200, [])
    every = [tree for tree in mutations(TOOL) if tree.get("name") == "search"]
    assert len(every) > 60
    for number, tree in enumerate(every):
        again = [Definition.of("docs", Kind.TOOL, {**tree, "name": name}) for name in names]
        offered, waiting = await pins.judge("docs", again, Quarantine.CHANGED)
        assert (offered, len(waiting)) == ([], 200), number
        assert {each.why for each in waiting} == {"changed"}
    reordered = [Definition.of("docs", Kind.TOOL, dict(reversed(each.tree.items()))) for each in first]
    offered, waiting = await pins.judge("docs", reordered, Quarantine.CHANGED)
    assert (len(offered), waiting) == (200, []), "the order of keys says nothing"


LOOKALIKES = {
    "a": "аɑα⍺ａ𝐚𝑎", "c": "сϲⅽｃ𝐜", "d": "ԁⅾｄ𝐝", "e": "еҽｅ𝐞", "g": "ɡցｇ𝐠", "h": "һհｈ𝐡", "i": "іıⅰｉ𝐢", "j": "јϳｊ𝐣",
    "l": "ӏⅼｌ𝐥", "m": "ⅿｍ𝐦", "n": "ոռｎ𝐧", "o": "оοօｏ𝐨", "p": "рρｐ𝐩", "q": "ԛզｑ𝐪", "r": "гｒ𝐫", "s": "ѕꜱｓ𝐬",
    "t": "ｔ𝐭τ", "u": "υսｕ𝐮", "v": "ѵνⅴｖ𝐯", "w": "ԝѡｗ𝐰", "x": "хⅹｘ𝐱", "y": "уγｙ𝐲", "z": "ｚ𝐳ᴢ", "A": "АΑＡ𝐀",
    "B": "ВΒＢ𝐁", "C": "СϹⅭＣ", "E": "ЕΕＥ𝐄", "H": "НΗＨ𝐇", "I": "ІΙⅠＩ", "J": "ЈＪ𝐉", "K": "КΚＫ𝐊", "M": "МΜⅯＭ",
    "N": "ΝＮ𝐍", "O": "ОΟＯ𝐎", "P": "РΡＰ𝐏", "S": "ЅՏＳ𝐒", "T": "ТΤＴ𝐓", "X": "ХΧⅩＸ", "Y": "УΥＹ𝐘", "Z": "ΖＺ𝐙",
    "0": "０𝟎߀", "1": "１𝟏", "-": "‐‑–—−－", "_": "＿‿", ".": "․．", "/": "∕⁄／",
}  # fmt: skip
PAIRS = [(plain, alike) for plain, others in LOOKALIKES.items() for alike in others]


def test_a_name_with_a_letter_that_only_looks_right_is_refused() -> None:
    assert len(PAIRS) >= 170
    for plain, alike in PAIRS:
        for name in (f"read{plain}file", plain):
            good = Definition.of("docs", Kind.TOOL, {"name": name, "inputSchema": {"type": "object"}})
            bad = Definition.of(
                "docs", Kind.TOOL, {"name": name.replace(plain, alike), "inputSchema": {"type": "object"}}
            )
            assert objection(good, parameters) is None, name
            assert objection(bad, parameters) is not None, (plain, alike)
