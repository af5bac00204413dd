"""Schemas of operators and of strangers."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.checks.schemas import DeclaredSchema, Schema, compiled
from gateway.model.compliance import Place, Subject

ORDER = {
    "type": "object",
    "properties": {"item": {"type": "string", "pattern": "^[a-z]+$"}, "count": {"type": "integer", "minimum": 1}},
    "required": ["item"],
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "all": {"items": {"$ref": "#"}}},
}


async def found(check: Any, place: Place, content: Any, declared: Any = None) -> list[tuple[str, str]]:
    findings = await check.find(Subject(place, "shop/order", content, declared))
    return [(each.what, each.where) for each in findings]


async def test_an_error_is_named_by_keyword_and_place_and_never_repeats_the_content() -> None:
    check = Schema(ORDER)
    assert await found(check, Place.ARGUMENTS, {"item": "tea", "count": 2}) == []
    assert await found(check, Place.ARGUMENTS, {"count": 0}) == [
        ("schema: minimum", "/count"),
        ("schema: required", ""),
    ]
    assert await found(check, Place.ARGUMENTS, {"item": "S3CRET"}) == [("schema: pattern", "/item")]


async def test_it_is_for_the_data_of_messages_and_the_structured_content_of_results() -> None:
    check = Schema(ORDER)
    parts = {"parts": [{"text": "hi"}, {"data": {"item": 1}}]}
    assert await found(check, Place.MESSAGE, parts) == [("schema: type", "/parts/1/data/item")]
    assert await found(check, Place.RESULT, {"content": []}) == []
    assert await found(check, Place.RESULT, {"structuredContent": {}}) == [("schema: required", "/structuredContent")]


async def test_a_tool_is_held_to_what_it_declares() -> None:
    check = DeclaredSchema()
    assert await found(check, Place.ARGUMENTS, {}, ORDER) == [("schema: required", "")]
    assert await found(check, Place.RESULT, {"content": []}, ORDER) == [("no structuredContent", "")]
    assert await found(check, Place.RESULT, {"structuredContent": {"item": "tea"}}, ORDER) == []
    assert await found(check, Place.RESULT, {"content": [], "isError": True}, ORDER) == []
    assert await found(check, Place.RESULT, {"resultType": "input_required"}, ORDER) == []
    assert await found(check, Place.ARGUMENTS, {}, None) == []


@pytest.mark.parametrize("schema", [True, {}, ORDER, TREE, {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {}}}])
def test_an_ordinary_schema_is_used(schema: Any) -> None:
    compiled(schema)


def doubling(steps: int) -> Any:
    each = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(steps)}
    return {"$ref": "#/$defs/s0", "$defs": {**each, f"s{steps}": {"type": "string"}}}


def nested(depth: int) -> Any:
    schema: Any = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


HOSTILE = {
    "somewhere else": {"$ref": "http://127.0.0.1:1/schema.json"},
    "a file": {"$ref": "file:///etc/passwd"},
    "nowhere": {"$ref": "#/$defs/none"},
    "a name in the air": {"$dynamicRef": "#node"},
    "itself": {"$ref": "#"},
    "itself by a detour": {"allOf": [{"anyOf": [{"$ref": "#"}]}]},
    "doubling": doubling(18),
    "a tree that doubles": {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]},
    "one that doubles by patterns": {"properties": {"a": {"$ref": "#"}}, "patternProperties": {".": {"$ref": "#"}}},
    "one that doubles by containing": {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
    "very deep": nested(80),
    "very wide": {"properties": {f"p{n}": {} for n in range(600)}},
    "no schema": {"type": "nonsense"},
    "a bad pattern": {"pattern": "(?=x)"},
    "not an object": ["type", "string"],
}


@pytest.mark.security
@pytest.mark.parametrize("schema", list(HOSTILE.values()), ids=list(HOSTILE))
def test_a_hostile_schema_is_refused_before_it_meets_a_value(schema: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        compiled(schema)


@pytest.mark.security
async def test_a_pattern_of_a_stranger_runs_in_linear_time() -> None:
    declared = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    text = "a" * 50_000 + "!"
    assert await found(DeclaredSchema(), Place.ARGUMENTS, {"a": text}, declared) == [("schema: pattern", "/a")]
