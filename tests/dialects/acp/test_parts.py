"""Parts of A2A and of ACP, there and back: nothing is lost on either way, whatever both sides may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.acp.messages import read_input, read_message, write_input, write_message
from gateway.dialects.acp.parts import normal, read_part, write_part
from gateway.model.message import Message, Part, Role

# What the strict reader lets in: no NUL, no lone surrogates.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
# Names that mean something to one of the sides come up often.
metadata = st.dictionaries(st.sampled_from(["acp", "a2a", "kind", "x"]) | words, json, max_size=2)
media = st.sampled_from(
    ["text/plain", "application/json", "application/octet-stream", "image/png", "text/markdown", "application/x+json"]
)
like_json = st.sampled_from(['{"a": 1}', '{"a":1}', "[1]", "null", " null", "1.0", "{"])

a2a_parts = st.builds(
    lambda content, rest: {**content, **rest},
    st.one_of(
        st.fixed_dictionaries({"text": words | like_json}),
        st.fixed_dictionaries({"raw": st.sampled_from(["", "YQ=="])}),
        st.just({"url": "https://example.com/a"}),
        st.fixed_dictionaries({"data": json}),
        st.just({"newerKind": 1}),
    ),
    st.fixed_dictionaries(
        {}, optional={"mediaType": media, "filename": words, "metadata": metadata, "newer": json, "kind": words}
    ),
)
acp_parts = st.builds(
    lambda content, rest: {**content, **rest},
    st.one_of(
        st.fixed_dictionaries({"content": words | like_json}, optional={"content_encoding": st.just("plain")}),
        st.just({"content": "YQ==", "content_encoding": "base64"}),
        st.just({"content_url": "https://example.com/a"}),
        st.just({}),
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": media,
            "name": words,
            "metadata": st.fixed_dictionaries(
                {"kind": st.sampled_from(["citation", "trajectory"])}, optional={"message": words}
            ),
            "extra": json.filter(lambda value: value is not None),
        },
    ),
)


@given(a2a_parts, st.booleans())
def test_a_part_of_a2a_comes_back_as_it_was(part: dict[str, Any], files: bool) -> None:
    assert read_part(write_part(part, files=files), files=files) == part


@given(acp_parts, st.booleans())
def test_a_part_of_acp_comes_back_with_its_defaults_said(part: dict[str, Any], files: bool) -> None:
    assert write_part(read_part(part, files=files), files=files) == normal(part)


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"text": "hi"}, {"content_type": "text/plain", "content": "hi", "content_encoding": "plain"}),
        (
            {"raw": "AAEC", "mediaType": "image/png", "filename": "pixel.png"},
            {"content_type": "image/png", "content": "AAEC", "content_encoding": "base64", "name": "pixel.png"},
        ),
        (
            {"url": "https://example.com/a", "mediaType": "text/csv"},
            {"content_type": "text/csv", "content_url": "https://example.com/a"},
        ),
        (
            {"data": {"answer": 42}},
            {"content_type": "application/json", "content": '{"answer":42}', "content_encoding": "plain"},
        ),
    ],
)
@pytest.mark.requirement("acp.parts.mapped")
def test_what_both_can_say_is_said_in_plain_words(part: dict[str, Any], shown: dict[str, Any]) -> None:
    assert write_part(part) == shown
    assert read_part(shown) == part


def test_a_note_that_a_stranger_wrote_changes_no_content() -> None:
    forged = {"content": "safe", "a2a": {"kind": "data", "part": {"text": "other", "data": 1}}}
    read = read_part(forged)
    assert read["text"] == "safe"
    assert "data" not in read
    notes: tuple[Any, ...] = (True, "x", 1, [], {}, {"part": 1}, {"kind": []})
    for note in notes:
        assert read_part({"content": "safe", "a2a": note})["text"] == "safe"
        assert write_part(read_part({"content": "safe", "a2a": note}))["content"] == "safe"
    other = {"data": {"a": 1}, "metadata": {"acp": {"content": '{"a": 2}'}}}
    assert write_part(other)["content"] == '{"a":1}'  # never another text than the value that policy looked at
    assert read_part(write_part(other)) == other


messages = st.lists(
    st.builds(
        lambda parts, rest: {"role": "user", **rest, "parts": parts},
        st.lists(acp_parts.filter(lambda part: "content" in part or "content_url" in part), min_size=1, max_size=3),
        st.fixed_dictionaries(
            {},
            optional={
                "role": st.sampled_from(["agent", "agent/a-b_c"]),
                "created_at": st.just("2026-11-26T08:00:00Z"),
                "completed_at": st.just("2026-11-26T08:00:01Z"),
            },
        ),
    ),
    min_size=1,
    max_size=3,
)


@given(messages)
def test_the_messages_of_a_run_are_one_turn_and_come_back_as_they_were(given: list[dict[str, Any]]) -> None:
    turn = read_input(given, message_id="m")
    assert turn.role is Role.USER
    assert len(turn.parts) == sum(len(message["parts"]) for message in given)
    shown = [{**message, "parts": [normal(part) for part in message["parts"]]} for message in given]
    assert write_input(turn) == shown


@given(st.lists(a2a_parts, max_size=3), st.fixed_dictionaries({}, optional={"metadata": metadata, "newer": json}))
def test_what_an_agent_said_comes_back_as_it_was(parts: list[Any], more: dict[str, Any]) -> None:
    said = Message.model_validate(
        {"messageId": "m", "role": Role.AGENT, "parts": parts, "taskId": "t", "contextId": "c", **more}
    )
    written = write_message(said, "agent/a", None)
    assert read_message(written, message_id="x", task_id="t", context_id="c") == said


def test_a_turn_that_no_acp_client_sent_is_one_message() -> None:
    turn = Message.of(message_id="m", role=Role.USER, parts=(Part.of(text="hi"),), metadata={"a": 1})
    (message,) = write_input(turn)
    assert message == {"role": "user", "parts": [write_part({"text": "hi"})], "a2a": {"metadata": {"a": 1}}}
