"""The JSON Canonicalization Scheme (RFC 8785): one spelling for each JSON value, so that a signature fits anywhere."""

from __future__ import annotations

import math

import orjson

from gateway.dialects.strict_json import JSON

# Up to here every integer is a double of its own (RFC 8785 §3.2.2.3, RFC 7493 §2.2).
_EXACT = 2**53


def canonical(value: JSON) -> bytes:
    """The canonical bytes of what the strict reader gives; raises ValueError for numbers that JSON does not have."""
    return _text(value).encode()


def _text(value: JSON) -> str:
    if isinstance(value, dict):
        # By UTF-16 code units (§3.2.3), which is not the order of code points beyond the basic plane.
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_string(name)}:{_text(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return str(value)
    return _double(float(value))


def _string(text: str) -> str:
    # orjson escapes exactly what ECMAScript's JSON.stringify does (§3.2.2.2).
    return orjson.dumps(text).decode()


def _double(number: float) -> str:
    """ECMAScript's Number::toString (ECMA-262 §6.1.6.1.20): Python finds the same digits and sets them otherwise."""
    if not math.isfinite(number):
        raise ValueError("JSON has no infinity and no NaN")
    if number == 0:
        return "0"  # minus zero too
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    written = whole + fraction
    digits = written.lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(written) - len(digits))  # so many digits stand before it
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    shown = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{shown}e{point - 1:+d}"
