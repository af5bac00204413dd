"""What stands in front of every route, asked directly: tests cannot come from other machines."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.server.front import Front


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def asked(client: Any, *proxies: str) -> int:
    """The status that a request from this peer gets."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    front = Front(inside, hosts=["gw.example"], origins=[], proxies=proxies)
    scope = {
        "type": "http",
        "client": client,
        "headers": [(b"host", b"gw.example"), (b"x-forwarded-for", b"192.0.2.1")],
    }
    await front(scope, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.security
@pytest.mark.parametrize(
    ("peer", "status"),
    [("192.0.2.1", 200), ("10.9.8.7", 200), ("127.0.0.1", 200), ("::1", 200), ("::ffff:192.0.2.1", 200),
     ("192.0.2.2", 403), ("11.0.0.1", 403), ("2001:db8::1", 403), ("::ffff:192.0.2.2", 403),
     ("", 403), ("nobody", 403)],
)  # fmt: skip
async def test_where_a_proxy_ends_tls_nobody_else_may_connect(peer: str, status: int) -> None:
    assert await asked((peer, 4711), "192.0.2.1", "10.0.0.0/8") == status


async def test_a_peer_without_an_address_is_nobody() -> None:
    assert await asked(None, "192.0.2.1") == 403
    assert await asked(None) == 200
