"""Headers that repeat the body: made, checked, and never believed against it."""

from typing import Any

import pytest

from gateway.dialects.mcp import headers
from gateway.dialects.mcp.errors import Code, Refusal
from gateway.dialects.mcp.message import CLIENT_CAPABILITIES, PROTOCOL_VERSION

VERSION = "2026-07-28"
META = {PROTOCOL_VERSION: VERSION, CLIENT_CAPABILITIES: {}}


def sent(**said: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), text.encode("latin-1")) for name, text in said.items()]


def call(name: Any = "add", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments, "_meta": META}


def fine(**changes: str) -> list[tuple[bytes, bytes]]:
    return sent(**{"mcp_protocol_version": VERSION, "mcp_method": "tools/call", "mcp_name": "add", **changes})


@pytest.mark.requirement("mcp.headers.match-the-body")
@pytest.mark.parametrize(
    ("raw", "params"),
    [
        (fine(mcp_method="tools/list"), call()),
        (fine(mcp_method="Tools/Call"), call()),
        (fine(mcp_name="sub"), call()),
        (fine(mcp_name="ADD"), call()),
        (fine(mcp_protocol_version="2025-11-25"), call()),
        (fine()[:2], call()),
        (fine()[1:], call()),
        ([fine()[0], fine()[2]], call()),
        (fine(mcp_name="=?base64?YWRk"), call()),
        (fine(mcp_name="=?base64?YWR?="), call()),
        ([*fine(), (b"mcp-name", b"add")], call()),
    ],
)
def test_a_head_that_differs_from_its_body_is_refused(raw: Any, params: Any) -> None:
    with pytest.raises(Refusal) as refused:
        headers.check(raw, "tools/call", params)
    assert refused.value.code == Code.HEADER_MISMATCH


@pytest.mark.requirement("mcp.headers.whitespace-and-base64")
@pytest.mark.parametrize("name", ["  add\t", "=?base64?YWRk?=", "add"])
def test_spaces_around_a_value_and_its_base64_form_change_nothing(name: str) -> None:
    headers.check(fine(mcp_name=name), "tools/call", call())


@pytest.mark.parametrize("name", ["añadir", " add", "add ", "=?base64?YWRk?=", "a\nb", "日本", "", "a b"])
def test_what_is_made_is_what_is_read(name: str) -> None:
    made = headers.make("tools/call", call(name), VERSION)
    headers.check([(key.encode(), each.encode("latin-1")) for key, each in made.items()], "tools/call", call(name))
    assert headers.unwrap(made["mcp-name"]) == name


SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
        "sure": {"type": "boolean", "x-mcp-header": "Sure"},
    },
}


def test_the_arguments_of_annotated_properties_become_headers() -> None:
    annotated = headers.parameters(SCHEMA)
    params = call(region="Köln", deep={"count": 2**53 + 1}, sure=False)
    made = headers.make("tools/call", params, VERSION, annotated)
    assert made["mcp-param-region"].startswith("=?base64?")
    assert made["mcp-param-count"] == "9007199254740993"
    assert made["mcp-param-sure"] == "false"
    raw = [(key.encode(), each.encode()) for key, each in made.items()]
    headers.check_parameters(raw, params["arguments"], annotated)


@pytest.mark.requirement("mcp.headers.parameters-match-the-body")
@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        (sent(mcp_param_region="eu"), {"region": "us"}),
        (sent(mcp_param_region="eu"), {}),
        (sent(mcp_param_region="eu"), {"region": None}),
        (sent(), {"region": "eu"}),
        (sent(mcp_param_region="eu") * 2, {"region": "eu"}),
        (sent(mcp_param_region="=?base64?@@?="), {"region": "eu"}),
        (sent(mcp_param_count="43"), {"deep": {"count": 42}}),
        (sent(mcp_param_sure="True"), {"sure": True}),
    ],
)
def test_a_parameter_header_that_differs_from_its_argument_is_refused(raw: Any, arguments: Any) -> None:
    with pytest.raises(Refusal):
        headers.check_parameters(raw, arguments, headers.parameters(SCHEMA))


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        (sent(mcp_param_count="42.0"), {"deep": {"count": 42}}),
        (sent(mcp_param_count="42"), {"deep": {"count": 42.0}}),
        (sent(mcp_param_unknown="x"), {}),
        (sent(), {"deep": "no object"}),
    ],
)
def test_numbers_are_compared_as_numbers_and_strangers_are_ignored(raw: Any, arguments: Any) -> None:
    headers.check_parameters(raw, arguments, headers.parameters(SCHEMA))


@pytest.mark.requirement("mcp.headers.invalid-annotation-hides-the-tool")
@pytest.mark.parametrize(
    "schema",
    [
        {"x-mcp-header": "Root"},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "object", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": ["string"], "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A B"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 7}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "X\r\nEvil: 1"}}},
        {"properties": {n: {"type": "string", "x-mcp-header": n} for n in ("k", "K")}},
        {"properties": {"a": {"items": {"type": "string", "x-mcp-header": "A"}}}},
        {"anyOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        {"$defs": {"d": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}}},
    ],
)
def test_an_annotation_that_nobody_can_use_is_found(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"x-mcp-header|found"):
        headers.parameters(schema)


def test_data_that_looks_like_an_annotation_is_none() -> None:
    data = {"x-mcp-header": "Not a header"}
    assert headers.parameters({"properties": {"a": {"default": data, "enum": [data], "const": data}}}) == {}
    assert headers.parameters(True) == {}


def test_a_schema_without_an_end_is_not_followed_to_it() -> None:
    deep: Any = {}
    for _ in range(headers.MAX_SCHEMA_NODES + 1):
        deep = {"items": deep}
    with pytest.raises(ValueError, match="too large"):
        headers.parameters(deep)
