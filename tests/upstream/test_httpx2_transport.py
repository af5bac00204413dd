"""httpx2 over the egress, as a library such as mcp or authlib uses it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import EgressRules
from gateway.upstream.egress import Egress
from gateway.upstream.httpx2_transport import EgressTransport, control_client, gateway_error
from tests.upstream.loopback import Request, always, answer, canary, serve


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(EgressRules()) as egress:
        yield egress


async def test_a_library_posts_json_and_reads_the_answer(egress: Egress) -> None:
    async with serve(always(answer(b'{"ok":1}', content_type="application/json"))) as upstream:
        async with control_client(egress, trusted=True) as client:
            got = await client.post(f"{upstream.url}/token?x=1", json={"a": 1}, headers={"x-mine": "yes"})
        assert (got.status_code, got.json()) == (200, {"ok": 1})
    (request,) = upstream.requests
    assert request.line == "POST /token?x=1 HTTP/1.1"
    assert request.body == b'{"a":1}'
    assert request.headers["content-length"] == "7"
    assert request.headers["x-mine"] == "yes"
    assert request.headers["accept-encoding"] == "identity"


async def test_closing_one_client_leaves_the_connection_for_the_next(egress: Egress) -> None:
    async with serve(always(answer())) as upstream:
        for _ in range(2):
            async with control_client(egress, trusted=True) as client:
                await client.get(upstream.url)
    assert upstream.connections == 1


async def test_an_event_stream_arrives_event_by_event(egress: Egress) -> None:
    seen = asyncio.Event()

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n")
        await seen.wait()
        writer.write(b"data: 2\n\n")
        writer.close()

    async with (
        serve(script) as upstream,
        control_client(egress, trusted=True) as client,
        client.stream("GET", upstream.url) as response,
    ):
        pieces = []
        async for piece in response.aiter_bytes():
            pieces.append(piece)
            seen.set()
    assert pieces == [b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.security
async def test_an_event_stream_may_be_longer_than_the_limit_and_nothing_else_may(egress: Egress) -> None:
    data = b"data: " + b"x" * 200_000 + b"\n\n"
    async with control_client(egress, trusted=True, limit=65_536) as client:
        async with serve(always(answer(data, content_type="text/event-stream"))) as upstream:
            assert (await client.get(upstream.url)).content == data
        async with serve(always(answer(data, content_type="application/json"))) as upstream:
            with pytest.raises(httpx2.ReadError, match="more than 65536 bytes") as caught:
                await client.get(upstream.url)
    assert reason(caught.value) is Reason.UPSTREAM_TOO_LARGE


@pytest.mark.security
async def test_compressed_answers_come_plain_and_are_counted_plain(egress: Egress) -> None:
    small, bomb = (gzip.compress(bytes(size), 1) for size in (1000, 20_000_000))
    async with control_client(egress, trusted=True) as client:
        async with serve(always(answer(small, content_encoding="gzip"))) as upstream:
            assert (await client.get(upstream.url)).content == bytes(1000)
        async with serve(always(answer(bomb, content_encoding="gzip"))) as upstream:
            with pytest.raises(httpx2.ReadError, match="more than 4194304 bytes"):
                await client.get(upstream.url)


@pytest.mark.security
async def test_a_refused_address_is_a_connect_error_with_our_reason_inside(egress: Egress) -> None:
    async with canary() as bird, control_client(egress) as client:
        with pytest.raises(httpx2.ConnectError, match=r"egress\.allow") as caught:
            await client.get(bird.url)
    assert reason(caught.value) is Reason.EGRESS_REFUSED


@pytest.mark.security
async def test_redirects_are_not_followed_and_cookies_are_not_kept(egress: Egress) -> None:
    async with canary() as bird:
        moved = answer(b"", "302 Found", location=bird.url, set_cookie="sid=1")
        async with serve(always(moved)) as upstream, control_client(egress, trusted=True) as client:
            assert (await client.get(upstream.url)).status_code == 302
            await client.get(upstream.url)
    assert "cookie" not in upstream.requests[1].headers


@pytest.mark.security
async def test_a_host_header_of_the_library_does_not_go_out(egress: Egress) -> None:
    async with serve(always(answer())) as upstream, control_client(egress, trusted=True) as client:
        await client.get(upstream.url, headers={"host": "internal.example"})
    assert upstream.requests[0].headers["host"] == f"127.0.0.1:{upstream.port}"


async def test_the_librarys_own_timeouts_hold(egress: Egress) -> None:
    async def silence(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serve(silence) as upstream, control_client(egress, trusted=True) as client:
        with pytest.raises(httpx2.ReadTimeout) as caught:
            await client.get(upstream.url, timeout=httpx2.Timeout(5, read=0.05))
    assert reason(caught.value) is Reason.UPSTREAM_TIMEOUT


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"])
async def test_a_broken_answer_is_a_read_error(egress: Egress, data: bytes) -> None:
    transport = EgressTransport(egress, trusted=True)
    async with (
        serve(always(data, then_close=True)) as upstream,
        httpx2.AsyncClient(transport=transport) as client,
    ):
        with pytest.raises(httpx2.ReadError, match="closed the connection"):
            await client.get(upstream.url)


def test_our_error_is_found_in_causes_and_in_groups() -> None:
    ours = GatewayError(Reason.EGRESS_REFUSED, "no")
    wrapped = RuntimeError("library")
    wrapped.__cause__ = ours
    assert gateway_error(ExceptionGroup("tasks", [ValueError(), ExceptionGroup("inner", [wrapped])])) is ours
    assert gateway_error(ValueError()) is None


def reason(error: BaseException) -> Reason | None:
    ours = gateway_error(error)
    return ours.reason if ours else None
