"""RFC 8785, with its own vectors."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from a2a.utils._jcs import canonicalize
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.jcs import canonical
from gateway.dialects.strict_json import read

# Appendix B: the bits of a double, and how it is written.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "written"), NUMBERS)
def test_a_double_is_written_as_in_appendix_b(bits: str, written: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number) == written.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000"])
def test_what_is_no_number_of_json_is_refused(bits: str) -> None:
    with pytest.raises(ValueError, match="infinity"):
        canonical(struct.unpack(">d", bytes.fromhex(bits))[0])


def test_the_example_of_section_3_2_4() -> None:
    """Numbers, strings and literals (§3.2.2), and the bytes that come of them."""
    source = (
        rb'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        rb'"string": "\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/","literals": [null, true, false]}'
    )
    assert canonical(read(source)) == bytes.fromhex(
        "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e756d62657273223a5b3333333333333333332e33"
        "3333333333332c31652b33302c342e352c302e3030322c31652d32375d2c22737472696e67223a22e282ac245c75303030665c6e41"
        "27425c225c5c5c5c5c222f227d"
    )


def test_members_are_sorted_by_utf_16_code_units() -> None:
    """The example of §3.2.3: an emoji comes before a letter of the same plane's end."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    tree: Any = dict.fromkeys(names, 0)
    order = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(read(canonical(tree))) == order  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "written"), [(2**53, "9007199254740992"), (2**53 + 1, "9007199254740992")])
def test_integers_beyond_doubles_are_the_double_next_to_them(number: int, written: str) -> None:
    assert canonical(number) == written.encode()


texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_another_implementation_writes_the_same(tree: Any) -> None:
    assert canonical(tree) == canonicalize(tree).encode()
