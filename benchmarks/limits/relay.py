"""limit-proxy and limit-relay: pass a call on to UPSTREAM. No credential, policy, record or task.

limit-proxy looks at both envelopes and never into them; limit-relay hands on the chunks of a stream unseen.
"""

from __future__ import annotations

import os

import msgspec

from benchmarks.limits import asgi, envelope
from benchmarks.limits.client import Client

METHODS = frozenset({"SendMessage", "tools/call"})
STREAM_HEADERS = b"accept: text/event-stream\r\na2a-version: 1.0\r\n"

upstream: Client


def connect() -> None:
    global upstream
    upstream = Client(os.environ["UPSTREAM"])


async def proxy(body: bytes, send: asgi.Send) -> None:
    try:
        request = envelope.request(body)
        if request.method not in METHODS:
            return await asgi.answer(send, envelope.refusal(-32601, "Method not found", request.id))
        status, answer = await upstream.post(body)
        envelope.response(answer)
    except msgspec.DecodeError as error:
        return await asgi.answer(send, envelope.refusal(-32700, str(error)))
    await asgi.answer(send, answer, status)


async def relay(body: bytes, send: asgi.Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in upstream.stream(body, STREAM_HEADERS):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


proxy_app = asgi.app(proxy, start=connect)
relay_app = asgi.app(relay, start=connect)
