"""JSON-RPC's envelope as msgspec reads it: params and result stay the bytes they are."""

from __future__ import annotations

from typing import Literal

import msgspec


class Request(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | int | None = None


class Response(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    id: str | int | None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


request = msgspec.json.Decoder(Request).decode
response = msgspec.json.Decoder(Response).decode
encode = msgspec.json.Encoder().encode


def refusal(code: int, text: str, id: str | int | None = None) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
