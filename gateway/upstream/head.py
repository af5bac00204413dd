"""The heads of one exchange: what a request may say, and what the head of an answer means. Pure.

Sources: RFC 9110, RFC 9112. llhttp has refused malformed lines, and lengths that contradict each other, before an
answer's head comes here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

# Status line and fields of one answer, and as much of what frames a body without being one (chunk extensions,
# trailers). Node's client has the same.
MAX_HEAD = 16 * 1024
# Of an answer; each one costs objects here, and real servers send some 40 at most.
MAX_FIELDS = 128

Fields = list[tuple[bytes, bytes]]


class Unsendable(ValueError):
    """A request that HTTP/1.1 cannot carry as one request; the text is a sentence without the value."""


# About the hop, its framing or its end: ours to say. Two voices about a length are a smuggled request.
_OURS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
# Whole head, so that one look judges method, target, names and values. No line of it can hold a line end, and
# `request_head` counts the lines: together that rules out injection.
_HEAD_TEXT: Final = re.compile(
    r"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(?:[!#-'*+.0-9a-z^_`|~-]+: [^\x00-\x08\x0a-\x1f\x7f]*\r\n)+"
)
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


def request_head(method: str, target: str, authority: str, headers: Mapping[str, str], length: int | None) -> bytes:
    """The head of a request. `length` is the size of the body in bytes, None when it has none.

    Raises Unsendable: line ends or other control characters anywhere, what is no field name, and fields that are ours.
    """
    head = _head(method, target, authority, tuple(headers.items()))
    if length is None and method in _BODILESS:
        return head + b"\r\n"
    return b"%bcontent-length: %d\r\n\r\n" % (head, length or 0)


@lru_cache(maxsize=256)  # an agent or server is asked again and again with the same fields
def _head(method: str, target: str, authority: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """All but the length and the end. Raises Unsendable."""
    fields = {"host": authority, "accept": "*/*", "accept-encoding": "identity", "user-agent": "gateway"}
    for name, value in headers:
        key = name.lower()
        if key in _OURS:
            raise Unsendable(f"the header field {key!r} belongs to the connection, callers do not set it")
        fields[key] = value
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    text = f"{method} {target} HTTP/1.1\r\n{lines}"
    if text.count("\n") != len(fields) + 1 or not _HEAD_TEXT.fullmatch(text):
        raise Unsendable("the request has characters in its method, target or header fields that HTTP cannot carry")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unsendable("the request has a header field that is not Unicode text") from None


def too_large(fields: Fields) -> bool:
    return sum(len(name) + len(value) for name, value in fields) > MAX_HEAD


def joined(fields: Fields) -> dict[str, str]:
    """Lower-case names; fields of one name joined as RFC 9110 §5.3 allows. Latin-1 takes every byte."""
    headers: dict[str, str] = {}
    for name, value in fields:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
