"""What one message is, which revision it belongs to, and how errors and results are said in each era."""

from typing import Any

import pytest

from gateway.dialects.mcp import errors, forms, message, versions
from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Era, PeerError


@pytest.mark.parametrize(
    "tree",
    [
        [],
        None,
        {},
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": None, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1.5, "method": "ping"},
        {"jsonrpc": "2.0", "id": True, "method": "ping"},
        {"jsonrpc": "2.0", "id": "x" * 257, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": 7},
        {"jsonrpc": "2.0", "id": 1, "method": ""},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "result": {}},
        {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": ""}},
        {"jsonrpc": "2.0", "id": 1, "result": 7},
        {"jsonrpc": "2.0", "id": 1, "error": "no"},
    ],
)
def test_what_is_no_message_is_refused(tree: Any) -> None:
    with pytest.raises(GatewayError) as refused:
        message.message(tree)
    assert refused.value.reason is Reason.INVALID_REQUEST


def test_the_three_kinds_of_message_are_told_apart() -> None:
    envelope = {"jsonrpc": "2.0"}
    assert message.message({**envelope, "id": 0, "method": "ping"}) == message.Request(0, "ping", {})
    assert message.message({**envelope, "method": "x", "params": {"a": 1}}) == message.Notification("x", {"a": 1})
    assert message.message({**envelope, "id": "a", "result": {}}) == message.Response("a", {})
    problem = {"code": -1, "message": "no"}
    assert message.message({**envelope, "id": "a", "error": problem}) == message.Response("a", {}, problem)


@pytest.mark.requirement("mcp.session.version-negotiation")
def test_a_session_speaks_what_was_asked_for_or_the_newest_that_has_sessions() -> None:
    assert [versions.negotiate(asked) for asked in versions.LEGACY] == list(versions.LEGACY)
    for asked in ("2026-07-28", "2024-11-05", "1", "", None, 7, {"a": 1}):
        assert versions.negotiate(asked) == "2025-11-25"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_code_that_is_not_one_of_the_withdrawn_ones(reason: Reason) -> None:
    error = GatewayError(reason, "words")
    code = errors.code_of(error)
    assert code in range(-32603, -32599) or code == -32700 or not -32768 <= code <= -32000
    for era in Era:
        assert errors.status_of(error, era) in (200, 400, 401, 403, 404, 415, 429, 503)
    body: Any = read(errors.body(error))
    assert body["message"] == "words"


def test_an_error_of_the_server_behind_us_is_said_as_it_was() -> None:
    body: Any = read(errors.body(PeerError(-32099, "mine", {"big": 2**60, "deep": [None]})))
    assert body == {"code": -32099, "message": "mine", "data": {"big": 2**60, "deep": [None]}}


@pytest.mark.requirement("mcp.session.resource-not-found")
def test_what_is_not_there_has_its_old_code_in_a_session() -> None:
    modern = PeerError(-32602, "Resource not found", {"uri": "x://y"})
    assert errors.code_of(errors.for_session(modern, "resources/read")) == -32002
    assert errors.for_session(modern, "tools/call") is modern


RESULT = {
    "zebra": 1,
    "resultType": "complete",
    "content": [{"type": "text", "text": "hi", "later": [1, 2.5, 2**60]}],
    "structuredContent": {"b": 1, "a": {"x": None}},
    "ttlMs": 5,
    "cacheScope": "public",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s"}, "mine": 1},
}


@pytest.mark.requirement("mcp.session.no-newer-fields")
def test_a_session_is_spared_what_only_the_newest_revision_has_and_loses_nothing_else() -> None:
    assert list(forms.legacy(RESULT, "2025-11-25").items()) == [
        ("zebra", 1),
        ("content", [{"type": "text", "text": "hi", "later": [1, 2.5, 2**60]}]),
        ("structuredContent", {"b": 1, "a": {"x": None}}),
        ("_meta", {"mine": 1}),
    ]
    assert RESULT["resultType"] == "complete", "the tree itself is not touched"


def test_structured_content_that_is_no_object_becomes_text_where_there_is_none() -> None:
    assert forms.legacy({"content": [], "structuredContent": [1, 2]}, "2025-11-25") == {
        "content": [{"type": "text", "text": "[1,2]"}]
    }


def test_a_content_type_that_a_revision_does_not_have_is_said_in_words() -> None:
    link = {"type": "resource_link", "name": "notes", "uri": "file:///n"}
    assert forms.legacy({"content": [link]}, "2025-06-18") == {"content": [link]}
    assert forms.legacy({"content": [link]}, "2025-03-26")["content"] == [{"type": "text", "text": "notes: file:///n"}]


def test_schemas_of_a_tool_describe_objects_in_a_session() -> None:
    tool = {"name": "t", "inputSchema": {"anyOf": []}, "outputSchema": {"type": "array"}, "mine": 1}
    assert forms.legacy_tool(tool) == {"name": "t", "inputSchema": {"type": "object", "anyOf": []}, "mine": 1}


def test_nothing_private_becomes_public() -> None:
    assert forms.cached({"cacheScope": "public"}, 7, private=True) == {"cacheScope": "private", "ttlMs": 7}
    assert forms.cached({"ttlMs": -1}, 7, private=False) == {"ttlMs": 7, "cacheScope": "private"}
    assert forms.cached({"ttlMs": 3, "cacheScope": "public"}, 7, private=False) == {"ttlMs": 3, "cacheScope": "public"}
