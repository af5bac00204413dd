"""What the load generator sends, and what a right answer to it holds."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

NUMBER = "%(n)d"
# Every messageId is new, because the gateway answers one that it has seen from its record. And it is as good as random,
# like those of real clients: numbers that only go up would all land on the last page of a database's index.
MESSAGE_ID = "%(id)016x"
_SPREAD = 0x9E3779B97F4A7C15  # odd, so that no two numbers below 2^64 become the same
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of request. NUMBER and, in the body, MESSAGE_ID stand where what is new in each request belongs."""

    body: bytes
    expect: bytes
    headers: tuple[str, ...] = ()
    events: tuple[int, ...] = ()  # how many server-sent events a right answer may have; none: it is one JSON document
    grpc: bool = False  # the body is a protobuf message


def echo() -> Call:
    """JSON that a server gives back as it is."""
    body = json.dumps({"jsonrpc": "2.0", "id": 0, "result": "hello"}).replace('"id": 0', f'"id": {NUMBER}')
    return Call(body.encode(), b"hello")


def send(expect: str, *, prefix: str = "") -> Call:
    """SendMessage of A2A 1.0; the prefix of the messageId chooses what agents/echo.py plays."""
    return _message("SendMessage", expect, prefix, "application/json", ())


def grpc_send(expect: str, agent: str = "", *, prefix: str = "") -> Call:
    """The same over gRPC; `agent` is the word (`tenant`) that means one of several on a server."""
    text = b"hello"
    # SendMessageRequest {tenant = 1, message = 2 {message_id = 1, role = 4, parts = 5 {text = 1}}}
    message = _field(1, f"{prefix}{MESSAGE_ID}".encode(), len(prefix) + 16) + b"\x20\x01" + _field(5, _field(1, text))
    size = len(message) - len(MESSAGE_ID) + 16  # as long as it is once the number stands there
    body = (_field(1, agent.encode()) if agent else b"") + _field(2, message, size)
    return Call(body.replace(b"%", b"%%").replace(b"%%(id)016x", b"%(id)016x"), expect.encode(), grpc=True)


def _field(number: int, content: bytes, size: int | None = None) -> bytes:
    """A field of protobuf's wire format with a length below 128."""
    size = len(content) if size is None else size
    assert size < 128
    return bytes((number << 3 | 2, size)) + content


def stream(expect: str, *events: int) -> Call:
    """SendStreamingMessage of A2A 1.0."""
    return _message("SendStreamingMessage", expect, "", "text/event-stream", events)


def tool(name: str, expect: str) -> Call:
    """tools/call of MCP 2026-07-28, with the headers and the `_meta` that each request has."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
    }
    params = json.dumps({"name": name, "arguments": {"text": f"hello {NUMBER}"}, "_meta": meta}, separators=(",", ":"))
    body = f'{{"jsonrpc":"2.0","id":{NUMBER},"method":"tools/call","params":{params}}}'
    headers = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", f"Mcp-Name: {name}")
    return Call(body.encode(), expect.encode(), (*headers, "Accept: application/json, text/event-stream"))


def _message(method: str, expect: str, prefix: str, accept: str, events: tuple[int, ...]) -> Call:
    message = {"messageId": f"{prefix}{MESSAGE_ID}", "role": "ROLE_USER", "parts": [{"text": f"hello {NUMBER}"}]}
    params = json.dumps({"message": message}, separators=(",", ":"))
    body = f'{{"jsonrpc":"2.0","id":{NUMBER},"method":"{method}","params":{params}}}'
    return Call(body.encode(), expect.encode(), ("A2A-Version: 1.0", f"Accept: {accept}"), events)


@dataclass(slots=True)
class Target:
    """A call and the place that it goes to."""

    port: int
    path: str
    call: Call
    credential: str | None = None
    host: str = "127.0.0.1"
    _head: bytes = b""

    def __post_init__(self) -> None:
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {self.host}:{self.port}", "Content-Type: application/json"]
        if self.credential is not None:
            lines.append(f"Authorization: Bearer {self.credential}")
        self._head = "\r\n".join([*lines, *self.call.headers, "Content-Length: "]).encode()

    def request(self) -> tuple[int, bytes]:
        """The next request: its number and its bytes."""
        number, body = self.body()
        return number, b"%s%d\r\n\r\n%s" % (self._head, len(body), body)

    def body(self) -> tuple[int, bytes]:
        """The same without what HTTP/1.1 puts before it."""
        number = next(_numbers)
        return number, self.call.body % {b"n": number, b"id": number * _SPREAD & (2**64 - 1)}
