"""Server-sent events: what `frame` writes anybody can read, and `Reader` reads what anybody writes."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import sse, strict_json
from gateway.model.errors import GatewayError, Reason


def reference(stream: bytes) -> list[sse.Event]:
    """WHATWG HTML §9.2.6, word by word, on the whole stream at once."""
    text = stream.decode(errors="surrogateescape").removeprefix("\ufeff")
    lines = re.split(r"\r\n|\r|\n", text)[:-1]  # what no line end closes is dropped
    events, data, name, last_id = [], "", "", ""
    for line in lines:
        if line == "":
            if data:
                body = data.removesuffix("\n").encode(errors="surrogateescape")
                events.append(sse.Event(body, name or "message", last_id))
            data, name = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


def read_in_pieces(stream: bytes, cuts: list[int]) -> list[sse.Event]:
    reader = sse.Reader()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [event for start, end in pairwise(edges) for event in reader.feed(stream[start:end])]


JSON_VALUES = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TOKENS = st.none() | st.text("abcXYZ019_.:/=+-", min_size=1, max_size=20)


@given(st.lists(st.tuples(JSON_VALUES, TOKENS, TOKENS), max_size=5))
def test_a_reference_parser_reads_back_exactly_what_frame_wrote(
    sent: list[tuple[Any, str | None, str | None]],
) -> None:
    stream = b""
    expected, last_id = [], ""
    for value, event, id in sent:
        data = strict_json.write(value)
        stream += sse.frame(data, event, id) + sse.COMMENT
        last_id = id if id is not None else last_id
        expected.append(sse.Event(data, event or "message", last_id))
    assert reference(stream) == expected
    assert sse.Reader().feed(stream) == expected
    assert [json.loads(event.data) for event in expected] == [value for value, _, _ in sent]


FIELDS = ["data: x", "data:x", "data", "data:", "data:  two", "data: é", "data: a:b", "data: \u2028\u0085"]
OTHERS = ["event: ping", "event:", "id: 7", "id", "id: \0", "retry: 10", "retry: x", "other: y", " data: z"]
NOTHING = ["", "", "", ": comment", ":", "\ufeffdata: q"]
LINES = st.sampled_from([*FIELDS, *OTHERS, *NOTHING]).map(str.encode)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=14).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(STREAMS, st.booleans(), st.lists(st.integers(0, 500), max_size=6))
def test_a_stream_means_the_same_however_it_is_cut(stream: bytes, marked: bool, cuts: list[int]) -> None:
    stream = b"\xef\xbb\xbf" * marked + stream
    assert read_in_pieces(stream, cuts) == reference(stream)
    assert read_in_pieces(stream, list(range(len(stream)))) == reference(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_given_out_with_the_line_end_that_completes_it(end: bytes) -> None:
    reader = sse.Reader()
    assert reader.feed(b"data: 1" + end) == []
    assert reader.feed(end) == [sse.Event(b"1")]


def test_many_data_lines_become_one_value_and_the_name_lasts_for_one_event() -> None:
    events = sse.Reader().feed(b"event: add\ndata: 1\ndata: 2\nid: 5\n\ndata: 3\n\n")
    assert events == [sse.Event(b"1\n2", "add", "5"), sse.Event(b"3", "message", "5")]


def test_an_open_event_at_the_end_of_the_stream_is_not_given_out() -> None:
    assert sse.Reader().feed(b"data: 1\n\ndata: 2\n") == [sse.Event(b"1")]


def test_an_empty_data_line_is_an_event_and_no_data_line_is_none() -> None:
    assert sse.Reader().feed(b"id: 1\ndata:\n\nid: 2\n\n: hello\n\n") == [sse.Event(b"", "message", "1")]


def test_the_reconnection_time_is_kept_when_it_is_a_number() -> None:
    reader = sse.Reader()
    reader.feed(b"retry: 2500\n\n")
    assert reader.retry == 2500
    reader.feed(b"retry: soon\n\nretry: " + b"9" * 5000 + b"\n\n")
    assert reader.retry == 2500


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_an_event_that_never_ends_is_refused_at_the_bound(step: int) -> None:
    reader = sse.Reader(max_event_bytes=1000)
    stream = b"data: " + b"x" * 5000
    whole_steps = 1000 // step
    for number in range(whole_steps):
        assert reader.feed(stream[number * step : (number + 1) * step]) == []
    with pytest.raises(GatewayError) as caught:
        reader.feed(stream[whole_steps * step : (whole_steps + 1) * step])
    assert caught.value.reason is Reason.UPSTREAM_TOO_LARGE


def test_a_whole_event_above_the_bound_is_refused_and_many_small_ones_are_not() -> None:
    assert len(sse.Reader(max_event_bytes=20).feed(b"data: 1234567\n\n" * 1000)) == 1000
    with pytest.raises(GatewayError):
        sse.Reader(max_event_bytes=20).feed(b"data: 123456789012345\n\n")


def test_comments_count_towards_the_bound() -> None:
    with pytest.raises(GatewayError):
        sse.Reader(max_event_bytes=100).feed(b": padding\n" * 11)


@pytest.mark.parametrize("data", [b"1\n2", b"1\r2", b"\n", b"1\r\n\r\ndata: forged"])
def test_data_with_a_line_end_is_never_framed(data: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        sse.frame(data)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "a\rb", "a\0b", "é", "a\u2028b", "x" * 257])
def test_an_event_name_or_id_outside_the_alphabet_is_never_framed(token: str) -> None:
    with pytest.raises(ValueError, match="must match"):
        sse.frame(b"1", token)
    with pytest.raises(ValueError, match="must match"):
        sse.frame(b"1", None, token)


def test_the_comment_is_silent() -> None:
    assert sse.Reader().feed(sse.COMMENT * 3) == reference(sse.COMMENT * 3) == []
