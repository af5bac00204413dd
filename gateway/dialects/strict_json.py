"""Bytes -> JSON and back: the one reader and the one writer.

Strategy: let orjson parse (strict UTF-8, strict grammar, no NaN, no lone surrogates, all in Rust), then look
at the tree once, level by level, for what orjson lets pass. Every rule here exists because two parsers
disagree about it, and a document that two parsers read differently is how a request is smuggled past a policy
(RFC 8259 §4 and §6 call these "unpredictable"; RFC 7493, I-JSON, forbids most of them).

Rule 1: no duplicate keys. orjson keeps the last one and has no hook. But every string in a document costs
exactly two unescaped quote bytes, so a document has more quotes than its tree has strings if and only if a
key was dropped.
Rule 2: integers are exact. orjson turns what exceeds 64 bits into a float without a word.
Rule 3: nothing is unbounded: depth and number of nodes have a limit.

What is forwarded is `write(read(data))`, never `data`.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import orjson

from gateway.model.errors import GatewayError, Reason

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

MAX_DEPTH: Final = 64
"""Nested containers. A2A and MCP documents stay below 15; Node, Go and Java readers behind us all take 64."""

MAX_NODES: Final = 100_000
"""Values, containers included. The largest honest body of 1 MiB (a list of short objects) has about 60
000."""

_BACKSLASH, _QUOTE, _BRACKET, _BRACE = b'\\"[{'
_MAX_INT: Final = 2**63 - 1
"""Signed 64 bits: what SQL, protobuf and every 64-bit reader behind us can hold (house rule)."""

_DIGITS: Final = bytes(0x30 if chr(byte).isdecimal() and byte < 128 else 0x20 for byte in range(256))
_LONG: Final = b"0" * 19
"""A run of digits after that translation (five times as fast as the expression). Nothing shorter exceeds 64 bits."""

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_LONG_INTEGER: Final = re.compile(rb"(?<![\d.eE+-])-?\d{19,}+(?![.eE])")
"""A number written without fraction or exponent, and with the 19 digits or more of 2^63."""

_DEEP: Final = f"arrays and objects are nested deeper than {MAX_DEPTH} levels"

_SAID: Final = (
    ("depth limit", _DEEP),
    ("infinity", "a number is larger than a double can hold; send it as a string"),
    ("surrogate", "a string holds half of a surrogate pair; send whole characters"),
)
"""Words of orjson's sentences, which are fixed and quote nothing, and what we say for each: these are documents that
other readers take."""

_INEXACT: Final = "an integer is outside the signed 64-bit range; send it as a string"

_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")


def read(data: bytes) -> JSON:
    """The value that `data` spells, whole and unambiguous.

    Raises GatewayError(PARSE_ERROR) whose message says what is wrong and quotes nothing of the body.
    """
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _refused(_explain(data, error)) from None
    if not _is_plain(data, tree):
        _judge(data, tree)
    return tree  # type: ignore[no-any-return]


def write(value: object) -> bytes:
    """One line of UTF-8 JSON for a plain tree (dict with str keys, list, str, int, float, bool, None).

    Raises TypeError for anything else, and for integers beyond 64 bits: both are mistakes of ours.
    """
    return orjson.dumps(value)


def _is_plain(data: bytes, tree: JSON) -> bool:
    """Whether bounds that cost next to nothing show that every rule holds, as they do for nearly every document:
    too few brackets to be deep, too few bytes to be wide, no run of digits that could be inexact, and as many quotes
    as the tree has when it is written (without escapes, every quote is the end of a string)."""
    return (
        _BACKSLASH not in data
        and data.count(_BRACKET) + data.count(_BRACE) <= MAX_DEPTH
        and len(data) <= MAX_NODES
        and data.translate(_DIGITS).find(_LONG) < 0
        and data.count(_QUOTE) == orjson.dumps(tree).count(_QUOTE)
    )


def _judge(data: bytes, tree: JSON) -> None:
    """Rule by rule. Raises PARSE_ERROR."""
    strings = _look(tree, data)
    quotes = data.count(_QUOTE)
    if _BACKSLASH in data:
        # A run of n backslashes is n//2 escaped backslashes; without these pairs, `\\"` can only be an escaped
        # quote.
        unpaired = data.replace(b"\\\\", b"")
        quotes -= unpaired.count(b'\\"')
        if b"\\u0000" in unpaired:
            raise _refused(r"a string contains the character NUL (\u0000), which is not accepted")
    if quotes != 2 * strings:
        raise _refused("an object has the same key twice; send each key once")


def _look(tree: JSON, data: bytes) -> int:
    """The number of strings (keys and values) in `tree`; refuses depth, width and inexact integers on the
    way.

    Level by level instead of recursive: the depth is the loop counter, and nothing can exhaust a stack.
    """
    strings = 0
    nodes = 0
    wide_float = False
    level: list[dict[str, JSON] | list[JSON]] = [[tree]]
    for _ in range(MAX_DEPTH + 1):  # + 1: the list around the root
        below: list[dict[str, JSON] | list[JSON]] = []
        for container in level:
            nodes += len(container)
            if type(container) is dict:
                strings += len(container)
                values = container.values()
            else:
                values = container  # type: ignore[assignment]
            for value in values:
                kind = type(value)
                if kind is str:
                    strings += 1
                elif kind is dict or kind is list:
                    below.append(value)  # type: ignore[arg-type]
                elif kind is int:
                    if value > _MAX_INT:  # type: ignore[operator]
                        raise _refused(_INEXACT)
                elif kind is float and not -_MAX_INT < value < _MAX_INT:  # type: ignore[operator]
                    wide_float = True
        if nodes > MAX_NODES:
            raise _refused(f"the document has more than {MAX_NODES} values")
        if not below:
            break
        level = below
    else:
        raise _refused(_DEEP)
    if wide_float:
        _refuse_rounded_integers(data)
    return strings


def _refuse_rounded_integers(data: bytes) -> None:
    """Refuse `18446744073709551616`, which orjson reads as 1.8446744073709552e19; let `1e300` pass.

    Only called for the rare document that holds a float beyond ±2^63, and at most once for each: the tree
    cannot say how the number was written, so the text must."""
    for digits in _LONG_INTEGER.findall(_STRING.sub(b"", data)):
        # The length first: int() is quadratic, and refuses more than 4 300 digits.
        if len(digits) > 20 or not -_MAX_INT - 1 <= int(digits) <= _MAX_INT:
            raise _refused(_INEXACT)


def _explain(data: bytes, error: orjson.JSONDecodeError) -> str:
    """A sentence for the commonest causes, a position for the others."""
    if not data.strip():
        return "the body is empty; send a JSON document"
    if data.startswith(b"\xef\xbb\xbf"):
        return "the body starts with a byte order mark; send plain UTF-8"
    start = data[:64]
    if data.startswith(_WIDE_BOMS) or start.count(0) * 5 >= len(start) * 2:  # half of ASCII in UTF-16 is zeros
        return "the body is not UTF-8 (it looks like UTF-16 or UTF-32); send UTF-8"
    try:
        data.decode()
    except UnicodeDecodeError as bad:
        return f"the body is not valid UTF-8 at byte {bad.start}"
    where = f"line {error.lineno}, column {error.colno}"
    for words, sentence in _SAID:
        if words in error.msg:
            return f"{sentence} ({where})"
    return f"the body is not valid JSON at {where}: {error.msg}"


def _refused(what: str) -> GatewayError:
    return GatewayError(Reason.PARSE_ERROR, f"Not acceptable as JSON: {what}.")


__all__ = ["JSON", "MAX_DEPTH", "MAX_NODES", "read", "write"]
