"""Judging the head of a request: what is ambiguous, too large or not offered is refused. Pure: bytes in, a verdict out.

Sources: RFC 9110 and 9112; the holes as measured in docs/adr/0006 and `tests/server/test_edge.py`. The Host
allow-list and the Origin check need configuration and live at ASGI level; here there is only one sound Host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import orjson

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Sizes in bytes, times in seconds. Each says its reason: change it where that does not hold."""

    max_target: int = 8 * 1024
    """Path and query. RFC 9110 §4.1 asks for at least 8 000; nginx and Apache chose 8 KiB."""

    max_headers: int = 64
    """Field lines. Browsers behind two proxies send about 30; each one costs an object here."""

    max_head: int = 16 * 1024
    """Names and values together. A bearer token of 8 KiB and its company fit; Node chose the same."""

    max_body: int = 1024 * 1024
    """Counted as received, for Content-Length before a byte is read. Files travel by reference (A2A
    `url` parts)."""

    max_pipelined: int = 16
    """Requests waiting on one connection. One read of 256 KiB could otherwise queue 10 000 of them."""

    max_connections: int = 10_000
    """Open at a time, per server; the next one gets 503. Some 8 KiB each when idle, 1.3 MiB at the worst."""

    head_deadline: float = 5.0
    """From the connection to the first byte of a request, and from there to the end of its head."""

    keep_alive: float = 5.0
    """Silence between two requests (uvicorn's own default)."""

    body_deadline: float = 15.0
    """From the first byte of a request to the last of its body. 1 MiB in 15 s is 70 KiB/s, slower than 3G."""

    body_grace: float = 5.0
    """No rate is asked before this: one lost packet costs 1 to 3 s (RFC 6298 first timeout, doubled once)."""

    min_rate: float = 1024.0
    """Bytes per second, after the grace for a body, and for the reader of an answer (Apache's mod_reqtimeout:
    500)."""

    write_buffer: int = 256 * 1024
    """Unsent answer per connection, beyond which the handler waits. Some 2 000 stream events."""

    write_stall: float = 10.0
    """A full write buffer that drains slower than `min_rate` for this long ends the connection."""

    max_unsent: int = 256 * 1024 * 1024
    """Unsent answers of all connections together, looked at twice a second. Beyond it those who have most waiting
    for them are cut off: ten thousand slow readers of large answers must not take the machine's memory."""

    linger: float = 2.0
    """After a refusal, how long what the client still sends is read and dropped, so that it sees the answer
    and not a reset (RFC 9112 §9.6)."""

    linger_bytes: int = 2 * 1024 * 1024
    """And how much of it: twice a full body."""


class Refused(Exception):
    """Why a request is not let in: an HTTP status, and a sentence that says what to do instead."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def response(self, *, with_body: bool = True) -> bytes:
        """The whole answer as bytes. The body has the error shape of AIP-193, like A2A's HTTP+JSON binding
        (§11.6)."""
        status = _CANONICAL.get(self.status, "INVALID_ARGUMENT")
        body = orjson.dumps({"error": {"code": self.status, "status": status, "message": self.message, "details": []}})
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "cache-control: no-store\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")


_CANONICAL: Final = {
    408: "DEADLINE_EXCEEDED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    505: "UNIMPLEMENTED",
}

_UNDERSCORE, _PERCENT = b"_%"  # looking for a number takes a third of the time that looking for bytes does
_METHODS: Final = frozenset({b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS"})
"""llhttp also knows CONNECT, TRACE, PROPFIND, SOURCE, ...: none of them has a meaning here."""

_LISTS: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language a2a-extensions baggage cache-control connection "
    b"cookie forwarded if-match if-none-match link pragma prefer te tracestate via warning x-a2a-extensions "
    b"x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
"""Fields that may come on several lines because they are lists (RFC 9110 §5.3). Every other one comes once:
of two `authorization`, `a2a-version` or `mcp-name`, one component reads the first and another the last."""

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""A name, IPv4 or bracketed IPv6 address, and a port. No userinfo, no list, no percent; `_` for compose
services."""

_PLAIN_TARGET: Final = re.compile(
    rb"""(?:/(?!\.\.?(?:[/?]|\Z))[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?  # segments, none empty, none `.` or `..`
         (?:\?[!"\x24-\x7e]*)?                                     # query: visible ASCII but no fragment""",
    re.VERBOSE,
)
"""Nearly every target: no percent signs in the path, nothing to decide. (RFC 3986 pchar without `;`.)"""

_ENCODED: Final = re.compile(rb"%(?:25)*(?:2[fF]|5[cC]|3[bB]|7[fF]|[01][0-9A-Fa-f])")
"""An encoded slash, backslash, semicolon or control character, however many times over."""

_DOTS: Final = re.compile(rb"(?:\.|%(?:25)*2[eE]){1,2}")
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PATH: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,=:@%/-]+")
_QUERY: Final = re.compile(rb"[!\"\x24-\x7e]*")


def judge_target(target: bytes) -> None:
    """Refuse a request target that two components could read as two different paths."""
    if target[:1] != b"/":
        raise Refused(400, "Send the path alone as request target (origin-form), starting with a slash.")
    path, _, query = target.partition(b"?")
    if b";" in path:
        raise Refused(400, "The path contains a semicolon; matrix parameters are not used here.")
    if b"//" in path:
        raise Refused(400, "The path contains an empty segment; send single slashes.")
    if _ENCODED.search(path):
        raise Refused(400, "The path contains an encoded slash, backslash, semicolon or control character.")
    if any(_DOTS.fullmatch(segment) for segment in path.split(b"/")):
        raise Refused(400, "The path contains a dot segment; send the path it stands for.")
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query) or _BAD_PERCENT.search(path):
        raise Refused(400, "The request target contains characters that must be percent-encoded.")
    if not _is_utf8(path):
        raise Refused(400, "The path does not decode to UTF-8.")


def path_of(target: bytes) -> str:
    """The decoded path of a judged target, without its query."""
    return unquote(target.decode("ascii")) if _PERCENT in target else target.decode("ascii")


def _is_utf8(path: bytes) -> bool:
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), path)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def judge_head(method: bytes, version: str, target: bytes, headers: Headers, limits: EdgeLimits) -> dict[bytes, bytes]:
    """Refuse a head that is ambiguous, too large or asks for what is not offered; else its fields by name.

    `headers` has lower-case names and values without outer whitespace.
    """
    if len(headers) > limits.max_headers:
        raise Refused(431, f"Send at most {limits.max_headers} header fields.")
    fields = dict(headers)
    names = b" ".join(fields)
    size = len(names) + sum(map(len, fields.values()))
    if len(fields) != len(headers):
        _judge_repeated(headers)
        size = sum(len(name) + len(value) for name, value in headers)
    if size > limits.max_head:
        raise Refused(431, f"Send at most {limits.max_head} bytes of header fields.")
    if _UNDERSCORE in names:
        # CGI-style readers behind us turn X_User and X-User into one variable.
        raise Refused(400, "A header name contains an underscore; use hyphens.")
    if version != "1.1":
        # 1.0 has no chunked answers, hence no streams, and frames its requests differently.
        raise Refused(505, "Use HTTP/1.1 (nginx: proxy_http_version 1.1).")
    if method not in _METHODS:
        raise Refused(501, "This method is not offered; use GET or POST.")
    if not _HOST.fullmatch(fields.get(b"host", b"")):
        raise Refused(400, "Send exactly one Host header: a name or an address, and a port if needed.")
    if not (target[:1] == b"/" and _PLAIN_TARGET.fullmatch(target)):
        judge_target(target)
    if int(fields.get(b"content-length", 0)) > limits.max_body:  # llhttp lets nothing but digits pass
        raise too_large(limits)
    if not _UNUSUAL.isdisjoint(fields):
        _judge_unusual(fields)
    return fields


def _judge_repeated(headers: Headers) -> None:
    seen = set()
    for name, _ in headers:
        if name in seen and name not in _LISTS:
            raise Refused(400, "A header that may appear only once is sent twice.")
        seen.add(name)


_UNUSUAL: Final = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})


def _judge_unusual(fields: dict[bytes, bytes]) -> None:
    """What changes how the rest is read. llhttp has already refused malformed and contradicting lengths."""
    if fields.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise Refused(501, "The only transfer coding offered is chunked.")
    if b"transfer-encoding" in fields and b"content-length" in fields:
        raise Refused(400, "Send Content-Length or Transfer-Encoding, not both.")
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        # A decompression bomb needs a decompressor, so there is none for requests.
        raise Refused(415, "Send the body without Content-Encoding.")
    if fields.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise Refused(417, "The only expectation understood is 100-continue.")
    if fields.get(b"upgrade", b"h2c").lower() != b"h2c":
        raise Refused(400, "No protocol upgrade is offered; send plain HTTP/1.1 requests.")


def too_large(limits: EdgeLimits) -> Refused:
    return Refused(413, f"Send at most {limits.max_body} bytes of body; pass larger content by URL.")


def without_upgrade(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The head of a request as if it had not offered h2c."""
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    for name, value in headers:
        if name == b"connection":
            value = b"close" if b"close" in value.lower() else b"keep-alive"
        if name not in (b"upgrade", b"http2-settings"):
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"
