"""limit-serve: reads SendMessage into types and answers a Message. No credential, policy, record or task."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from benchmarks.limits import asgi, envelope


class Part(msgspec.Struct, omit_defaults=True):
    text: str | None = None
    data: Any = None
    metadata: dict[str, Any] | None = None


class Message(msgspec.Struct, rename="camel", omit_defaults=True):
    message_id: str
    role: Literal["ROLE_USER", "ROLE_AGENT"]
    parts: list[Part]
    context_id: str | None = None
    task_id: str | None = None


class SendMessage(msgspec.Struct):
    message: Message


params = msgspec.json.Decoder(SendMessage).decode


async def handle(body: bytes, send: asgi.Send) -> None:
    try:
        request = envelope.request(body)
        asked = params(request.params).message
    except msgspec.DecodeError as error:
        return await asgi.answer(send, envelope.refusal(-32700, str(error)))
    reply = Message("r-1", "ROLE_AGENT", [Part("Hello World")], asked.context_id)
    result = {"jsonrpc": "2.0", "id": request.id, "result": {"message": reply}}
    await asgi.answer(send, envelope.encode(result))


app = asgi.app(handle)
