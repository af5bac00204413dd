"""The one JSON reader: what it takes, what it refuses, and that it means the same as every other reader."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import strict_json
from gateway.model.errors import GatewayError, Reason

pytestmark = pytest.mark.security

SUITE = Path(__file__).parents[1] / "corpus" / "json" / "test_parsing"

# Files that JSONTestSuite accepts and our policy does not.
REFUSED_BY_POLICY = {
    "y_object_duplicated_key.json": "two readers would take two different values",
    "y_object_duplicated_key_and_value.json": "the same, even where both values agree today",
    "y_object_escaped_null_in_key.json": "NUL ends strings in C and is refused by PostgreSQL",
    "y_string_null_escape.json": "the same, in a value",
}
# Files on which JSONTestSuite has no opinion and our policy says yes: underflow to zero is what every reader of
# doubles does, and none of them disagrees.
ACCEPTED_BY_POLICY = {"i_number_double_huge_neg_exp.json", "i_number_real_underflow.json"}

GENERATED = {
    "n_structure_100000_opening_arrays.json": b"[" * 100_000,
    "n_structure_open_array_object.json": b'[{"":' * 50_000 + b"\n",
}


def vectors(prefix: str) -> list[Any]:
    files = {path.name: path.read_bytes() for path in SUITE.glob(f"{prefix}_*.json")}
    files.update({name: data for name, data in GENERATED.items() if name.startswith(prefix)})
    return [pytest.param(name, data, id=name) for name, data in sorted(files.items())]


def refusal(data: bytes) -> str:
    with pytest.raises(GatewayError) as caught:
        strict_json.read(data)
    assert caught.value.reason is Reason.PARSE_ERROR
    return caught.value.message


def test_the_suite_is_complete() -> None:
    assert [len(vectors(prefix)) for prefix in ("n", "y", "i")] == [188, 95, 35]


@pytest.mark.parametrize(("name", "data"), vectors("n"))
def test_what_is_not_json_is_refused(name: str, data: bytes) -> None:
    refusal(data)


@pytest.mark.parametrize(("name", "data"), vectors("y"))
def test_what_is_json_is_read_like_any_other_reader_reads_it(name: str, data: bytes) -> None:
    if name in REFUSED_BY_POLICY:
        refusal(data)
    else:
        assert strict_json.read(data) == json.loads(data)


@pytest.mark.parametrize(("name", "data"), vectors("i"))
def test_where_the_standard_leaves_a_choice_the_policy_decides(name: str, data: bytes) -> None:
    if name in ACCEPTED_BY_POLICY:
        assert strict_json.read(data) == json.loads(data)
    else:
        refusal(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-be"), "UTF-16"),
        ('{"a":1}'.encode("utf-32"), "UTF-16 or UTF-32"),
        (b'{"a":"\xff"}', "not valid UTF-8 at byte 6"),
        (b'"\xc0\xaf"', "not valid UTF-8"),
        (b'"\xed\xa0\x80"', "not valid UTF-8"),
        (b'{"method":1,"method":2}', "same key twice"),
        (b'{"method":1,"\\u006dethod":2}', "same key twice"),
        (b'{"a":{"b":1,"b":1}}', "same key twice"),
        (b'[{"a":"x","a":{"y":"z"}}]', "same key twice"),
        (b'{"":1,"":2}', "same key twice"),
        (b'{"\\"":1,"\\"":2}', "same key twice"),
        (b'{"\\\\":1,"\\\\":2}', "same key twice"),
        (b'{"a\\u0022":1,"a\\"":2}', "same key twice"),
        (b"NaN", "line 1, column 1"),
        (b"[Infinity]", "not valid JSON"),
        (b"[-Infinity]", "not valid JSON"),
        (b"1e400", "a number is larger than a double can hold; send it as a string (line 1, column 1)"),
        (b"[" * 5_000 + b"]" * 5_000, "nested deeper than 64 levels"),
        (b"[9223372036854775808]", "64-bit"),
        (b"[18446744073709551615]", "64-bit"),
        (b"[18446744073709551616]", "64-bit"),
        (b"[-9223372036854775809]", "64-bit"),
        (b"[1e300,18446744073709551616]", "64-bit"),
        (b"1" + b"0" * 300, "64-bit"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'"\\udc00\\ud800"', "half of a surrogate pair"),
        (b'{"a":"x\\u0000"}', "NUL"),
        (b'{"x\\u0000":1}', "NUL"),
        (b'"\\\\\\u0000"', "NUL"),
        (b'"\x00"', "not valid JSON"),
        (b'{"a":1}{"a":1}', "not valid JSON"),
        (b"[1] x", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON at line 1, column 7: trailing comma is not allowed"),
        (b"{'a':1}", "not valid JSON"),
        (b"[1,//\n2]", "not valid JSON"),
    ],
)
def test_a_refusal_says_what_is_wrong(data: bytes, says: str) -> None:
    assert says in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b"9223372036854775807",
        b"-9223372036854775808",
        b"9007199254740993",
        b"1e300",
        b"-1.7976931348623157e308",
        b"[9223372036854775807, 1e300]",
        b'["18446744073709551616", 1e300]',
        b"[12345678901234567890.5, 1e-9999999999999999999]",
        b"[12345678901234567890e1]",
        b"1e-400",
        b'"\\\\u0000"',
        b'{"a":"\\"b\\"","c":"\\\\"}',
        b'{"a":1,"A":2}',
        b'"\\ud83d\\ude00"',
        b' {"a" : [ ] } ',
        b"null",
    ],
)
def test_what_only_looks_dangerous_is_read_exactly(data: bytes) -> None:
    assert strict_json.read(data) == json.loads(data)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_sixty_four_levels_are_read_and_one_more_is_refused(opening: bytes, closing: bytes) -> None:
    def nested(levels: int) -> bytes:
        return opening * levels + (b"1" if opening != b"[" else b"") + closing * levels

    assert strict_json.read(nested(strict_json.MAX_DEPTH)) is not None
    assert "deeper than 64" in refusal(nested(strict_json.MAX_DEPTH + 1))
    assert "deeper than 64" in refusal(nested(1000))
    refusal(nested(200_000))


def test_a_document_has_at_most_a_hundred_thousand_values() -> None:
    fits = [0] * (strict_json.MAX_NODES - 1)  # the array is a value too
    assert strict_json.read(strict_json.write(fits)) == fits
    assert "100000 values" in refusal(strict_json.write([*fits, 0]))
    assert "100000 values" in refusal(strict_json.write([[[0]] * 50_000]))


def test_many_large_floats_are_looked_up_once_not_once_each() -> None:
    floats = [1e300] * 90_000
    assert strict_json.read(strict_json.write(floats)) == floats


def test_a_refusal_never_repeats_the_body() -> None:
    for data in (
        b'{"secret-token',
        b'{"secret-token":1,"secret-token":2}',
        b"[secret-token]",
        b'"secret\xff"',
    ):
        assert "secret" not in refusal(data)


def test_writing_something_that_is_no_tree_is_our_mistake() -> None:
    for value in (object(), 2**64, "\ud800", {1: 2}):
        with pytest.raises(TypeError):
            strict_json.write(value)


KEYS = st.sampled_from(["a", "b", '"', "\\", "é", ""]) | st.text()
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", '"', "\\", "é", ""]) | st.text(), inner),
    max_leaves=20,
)


def _holds_nul(tree: Any) -> bool:
    return "\\u0000" in json.dumps(tree).replace("\\\\", "")


@given(TREES)
def test_every_tree_survives_writing_and_reading(tree: Any) -> None:
    if _holds_nul(tree):
        refusal(strict_json.write(tree))
    else:
        assert strict_json.read(strict_json.write(tree)) == tree
        assert strict_json.read(json.dumps(tree).encode()) == tree


def _oracle(data: bytes) -> Any:
    """The rules again, by the standard library's hooks: five times slower, and independent of the quote count."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) != len(items):
            raise ValueError
        return dict(items)

    def integer(text: str) -> int:
        if not -(2**63) <= (number := int(text)) < 2**63:
            raise ValueError
        return number

    def real(text: str) -> float:
        if math.isinf(number := float(text)):
            raise ValueError
        return number

    def constant(_: str) -> Any:
        raise ValueError

    tree = json.loads(
        data.decode(), object_pairs_hook=pairs, parse_int=integer, parse_float=real, parse_constant=constant
    )
    text = json.dumps(tree, ensure_ascii=False)
    text.encode()  # lone surrogates
    if _holds_nul(tree):
        raise ValueError
    return tree


FRAGMENTS = st.sampled_from(
    rb""""a" "\u0061" "\\" "\"" "\u0000" "\\u0000" "\ud800" 1 -0 1e400 1e300 18446744073709551616 9223372036854775807
    NaN true null { } [ ] : , {"a":1} {"a":1,"a":2} {"a":[],"\u0061":{}} []""".split()
) | st.sampled_from([b'"\xff"', b'"\xc3\xa9"'])
DOCUMENTS = st.lists(FRAGMENTS, max_size=9).map(b"".join) | st.lists(FRAGMENTS, max_size=6).map(
    lambda parts: b"[" + b",".join(parts) + b"]"
)


@given(DOCUMENTS)
def test_what_looks_plain_at_a_glance_keeps_every_rule(data: bytes) -> None:
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    if strict_json._is_plain(data, tree):
        strict_json._judge(data, tree)  # would raise


@given(DOCUMENTS)
def test_the_quote_count_and_the_hooks_of_the_standard_library_agree(data: bytes) -> None:
    try:
        expected = _oracle(data)
    except ValueError:
        refusal(data)
    else:
        assert strict_json.read(data) == expected


@given(TREES, st.data())
def test_a_broken_byte_gives_a_value_or_a_sentence_and_nothing_else(tree: Any, data: st.DataObject) -> None:
    text = bytearray(strict_json.write(tree))
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = strict_json.read(bytes(text))
    except GatewayError:
        refusal(bytes(text))
    else:
        assert orjson.loads(strict_json.write(value)) == value
