"""The body comes back: what uvicorn alone costs."""

from __future__ import annotations

from benchmarks.limits import asgi

app = asgi.app(lambda body, send: asgi.answer(send, body))
