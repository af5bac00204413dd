"""What the admin API takes: each field of a body and each parameter with its schema and with what reads it, side by
side, so that what is described is what is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from gateway.model.base import milliseconds
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.value import value

Schema = Mapping[str, Any]

ABSENT = object()
"""The default of a field that is left out where it was not sent."""

MAX_TEXTS = 1000
"""Texts in one list, such as the scopes of a client."""


class Wrong(Exception):
    """What is sent is not what a field takes; the sentence goes on behind its name."""


@value
class Field:
    """`read` gives what the handler works with, of what was sent: JSON in a body, a text in a path or a query. It
    raises Wrong. One that is `required` is also read when it was not sent, as None, so that it says what it must be."""

    name: str
    about: str
    schema: Schema
    read: Callable[[Any], Any]
    required: bool = False
    default: Any = None


def taken(fields: Iterable[Field], sent: Mapping[str, Any]) -> dict[str, Any]:
    """What was sent, read. Raises INVALID_PARAMS, which names the field."""
    found = {}
    for field in fields:
        if field.name in sent or field.required:
            found[field.name] = one(field, sent.get(field.name))
        elif field.default is not ABSENT:
            found[field.name] = field.default
    return found


def one(field: Field, sent: Any) -> Any:
    try:
        return field.read(sent)
    except Wrong as wrong:
        raise invalid(field.name, str(wrong)) from None


def known(fields: Iterable[Field], sent: Iterable[str], what: str) -> None:
    """Raises INVALID_PARAMS for what is none of them: a field that is misspelled would be left undone without a word, a
    pin of keys for example."""
    names = [field.name for field in fields]
    if (unknown := next((name for name in sent if name not in names), None)) is not None:
        raise invalid(unknown[:100], f"is no {what} here; there are {', '.join(names) or 'none'}")


def json_object(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise GatewayError(Reason.INVALID_REQUEST, "The body must be a JSON object")
    return tree


# Fields of bodies.


def text(name: str, about: str, *, required: bool = True, default: str | None = None) -> Field:
    """One that is not required may be null, which is the same as not to send it."""

    def read(sent: Any) -> str | None:
        if sent is None and not required:
            return default
        if not isinstance(sent, str) or not sent:
            raise Wrong("must be a text")
        return sent

    return Field(
        name, about, {"type": "string" if required else ["string", "null"], "minLength": 1}, read, required, default
    )


def texts(name: str, about: str, default: tuple[str, ...] = ()) -> Field:
    def read(sent: Any) -> tuple[str, ...]:
        if not isinstance(sent, list) or not all(isinstance(each, str) for each in sent):
            raise Wrong("must be a list of texts")
        if len(sent) > MAX_TEXTS:
            raise Wrong(f"must have at most {MAX_TEXTS} texts")
        return tuple(sent) or default

    items = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_TEXTS}
    return Field(name, about, items, read, default=default)


def flag(name: str, about: str, default: Any = False) -> Field:
    def read(sent: Any) -> bool:
        if not isinstance(sent, bool):
            raise Wrong("must be true or false")
        return sent

    return Field(name, about, {"type": "boolean"}, read, default=default)


def whole(name: str, about: str, default: int, *, least: int = 1) -> Field:
    def read(sent: Any) -> int:
        if isinstance(sent, bool) or not isinstance(sent, int) or sent < least:
            raise Wrong(f"must be a whole number, at least {least}")
        return sent

    return Field(name, about, {"type": "integer", "minimum": least, "default": default}, read, default=default)


def tree(name: str, about: str, *, required: bool = True) -> Field:
    """An object that is not ours to interpret."""

    def read(sent: Any) -> dict[str, Any]:
        if not isinstance(sent, dict):
            raise Wrong("must be an object")
        return sent

    return Field(name, about, {"type": "object"}, read, required, None if required else {})


def choice(name: str, about: str, words: type[StrEnum], *, required: bool = True, default: Any = None) -> Field:
    def read(sent: Any) -> StrEnum:
        if sent not in list(words):
            raise Wrong(f"must be one of {', '.join(words)}")
        return words(sent)

    schema = {"type": "string", "enum": [each.value for each in words]}
    return Field(name, about, schema, read, required, default)


# Parameters: texts, whatever they mean.


def word(name: str, about: str) -> Field:
    return Field(name, about, {"type": "string"}, str)


def number(name: str, about: str, default: Any = None, *, least: int = 0, most: int = 10**15 - 1) -> Field:
    def read(sent: Any) -> int:
        if sent is None or not (sent.isascii() and sent.isdecimal() and len(sent) < 20 and least <= int(sent) <= most):
            raise Wrong(f"must be a whole number of {least} to {most}")
        return int(sent)

    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    if isinstance(default, int):
        schema["default"] = default
    return Field(name, about, schema, read, default=default)


def truth(name: str, about: str) -> Field:
    def read(sent: Any) -> bool:
        if sent not in ("true", "false"):
            raise Wrong("must be true or false")
        return bool(sent == "true")

    return Field(name, about, {"type": "boolean", "default": False}, read, default=False)


def moment(name: str, about: str) -> Field:
    """Milliseconds since the epoch, written so or as RFC 3339 has it."""

    def read(sent: Any) -> int:
        if sent.isascii() and sent.isdecimal() and len(sent) <= 15:
            return int(sent)
        if (found := milliseconds(sent)) is None:
            raise Wrong("must be a time, for example 2026-11-21T08:00:00Z, or milliseconds")
        return found

    form = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0}]}
    return Field(name, about, form, read)
