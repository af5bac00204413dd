"""The JSON-RPC 2.0 envelope: what a well-formed call is, and how answers are written around finished bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

JSON: TypeAlias = Any
Id: TypeAlias = str | int | float | None

_MEMBERS = {"jsonrpc", "method", "params", "id"}


def is_single_call(tree: JSON) -> bool:
    """True for one well-formed request with an id and by-name parameters: the form that nearly every client sends.
    Everything else (batches, notifications, positional parameters, malformed) goes the long way."""
    return (
        type(tree) is dict
        and tree.get("jsonrpc") == "2.0"
        and type(tree.get("method")) is str
        and type(tree.get("id")) in (str, int)
        and type(tree.get("params", {})) is dict
        and tree.keys() <= _MEMBERS
    )


def result(id: Id, body: bytes) -> bytes:
    """A success whose result is already written."""
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (orjson.dumps(id), body)


def error(id: Id, body: bytes) -> bytes:
    """A failure; `body` is the error object."""
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (orjson.dumps(id), body)
