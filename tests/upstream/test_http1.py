"""Our own HTTP/1.1, through the front door: what servers may send, what they must not, and what never leaves here."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import EgressRules
from gateway.upstream.egress import Answer, Egress
from tests.serving import BOUND
from tests.upstream.loopback import Request, Upstream, always, answer, canary, serve

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(EgressRules()) as egress:
        yield egress


# --- How a body ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "connections"),
    [
        (OK + b"content-length: 5\r\n\r\nagent", 1),
        (CHUNKED + b"2\r\nag\r\n3\r\nent\r\n0\r\n\r\n", 1),
        (CHUNKED + b'5;note="x"\r\nagent\r\n0\r\nserver-timing: 1\r\nx: 2\r\n\r\n', 1),
        (OK + b"Content-Length: 5\r\nConnection: keep-alive, close\r\n\r\nagent", 2),
        (OK + b"\r\nagent", 2),
        (b"HTTP/1.0 200 OK\r\n\r\nagent", 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nagent", 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nagent", 1),
        # RFC 9112 §6.1: chunked in HTTP/1.0 is faulty framing; what follows is not to be trusted.
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n5\r\nagent\r\n0\r\n\r\n", 2),
        # Apache offers HTTP/2 in passing.
        (OK + b"upgrade: h2c\r\nconnection: upgrade, keep-alive\r\ncontent-length: 5\r\n\r\nagent", 1),
        (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nagent", 1),
    ],
    ids=lambda data: data.decode()[9:60] if isinstance(data, bytes) else str(data),
)
@pytest.mark.parametrize("dripping", [False, True])
async def test_a_body_is_read_to_its_end_however_it_is_framed(
    egress: Egress, data: bytes, connections: int, dripping: bool
) -> None:
    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in [data[n : n + 1] for n in range(len(data))] if dripping else [data]:
            writer.write(piece)
            await asyncio.sleep(0)
        if connections == 2:
            writer.close()

    async with serve(script) as upstream:
        for _ in range(2):
            assert (await post(egress, upstream)).body == b"agent"
    assert upstream.connections == connections


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("HEAD", OK + b"content-length: 5000000000\r\n\r\n"),
        ("HEAD", CHUNKED),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5000000000\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_is_not_waited_for_and_the_next_one_is_read_right(
    egress: Egress, method: str, data: bytes
) -> None:
    async def script(request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"next") if request.line.startswith("POST") else data)

    async with serve(script) as upstream:
        first = await egress.request(method, upstream.url, None, {}, timeout=5, trusted=True)
        assert (first.status, first.body) == (int(data[9:12]), b"")
        assert (await post(egress, upstream)).body == b"next"
    assert upstream.connections == 1


async def test_what_comes_ahead_of_the_answer_is_skipped(egress: Egress) -> None:
    ahead = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with serve(always(ahead + answer(b"last"))) as upstream:
        for _ in range(2):
            got = await post(egress, upstream)
            assert (got.status, got.headers, got.body) == (200, {"content-length": "4"}, b"last")
    assert upstream.connections == 1


async def test_a_stream_that_breaks_hands_on_what_it_had_and_then_says_so(egress: Egress) -> None:
    async with (
        serve(always(CHUNKED + b"5\r\nagent\r\n", then_close=True)) as upstream,
        egress.stream("GET", upstream.url, None, {}, idle_timeout=5, trusted=True) as got,
    ):
        assert await anext(aiter(got.chunks)) == b"agent"
        with pytest.raises(GatewayError, match="closed the connection before its answer was complete"):
            await anext(aiter(got.chunks))


async def test_a_body_that_ends_with_its_connection_must_not_end_with_a_broken_one(egress: Egress) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\nhalf")
        # Closing without lingering sends a reset.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with listening(handler) as url:
        with pytest.raises(GatewayError, match="closed the connection before its answer was complete"):
            await egress.post(url, b"", {}, timeout=5, trusted=True)


async def test_an_answer_that_announces_too_much_is_not_waited_for(egress: Egress) -> None:
    async with serve(always(OK + b"content-length: 5000000000\r\n\r\n")) as upstream:
        with pytest.raises(GatewayError, match="answered with more than 4194304 bytes"):
            await post(egress, upstream)


async def test_all_that_one_read_brings_is_one_chunk(egress: Egress) -> None:
    events = b"".join(b"9\r\ndata: %d\n\n\r\n" % n for n in range(10))
    async with (
        serve(always(CHUNKED + events + b"0\r\n\r\n")) as upstream,
        egress.stream("GET", upstream.url, None, {}, idle_timeout=5, trusted=True) as got,
    ):
        assert [len(chunk) async for chunk in got.chunks] == [90]


# --- What is not well-formed -------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize(
    "data",
    [
        # Two readings of a length are two readings of where the next answer begins.
        OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nagent\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nagent\r\n0\r\n\r\n",
        OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nagent",
        OK + b"content-length: 5, 5\r\n\r\nagent",
        OK + b"content-length: +5\r\n\r\nagent",
        OK + b"content-length: 0x5\r\n\r\nagent",
        OK + b"content-length: 18446744073709551616\r\n\r\nagent",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nagent\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n5\r\nagent\r\n0\r\n\r\n",
        OK + b"transfer-encoding: xchunked\r\n\r\n5\r\nagent\r\n0\r\n\r\n",
        OK + b"transfer-encoding: identity\r\n\r\nagent",
        CHUNKED + b"five\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"5 \r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"4\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"6\r\nagent\r\n0\r\n\r\n",
        CHUNKED + b"5\nagent\n0\n\n",
        OK + b"x: a\r\n folded: b\r\ncontent-length: 0\r\n\r\n",
        OK + b"x : a\r\ncontent-length: 0\r\n\r\n",
        OK + b"x: a\0b\r\ncontent-length: 0\r\n\r\n",
        OK + b"x: a\rb: c\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nx: a\ncontent-length: 0\n\n",
        b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.7 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        # Nobody asked for another protocol.
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nPRI",
    ],
    ids=lambda data: repr(data[9:])[2:70],
)
async def test_what_two_readers_could_read_differently_is_not_read(egress: Egress, data: bytes) -> None:
    async with serve(always(data)) as upstream:
        await not_well_formed(egress, upstream)


FILLER = b"y" * 17_000
TOO_MUCH: dict[str, list[bytes]] = {
    "one long field": [OK + b"x: " + FILLER + b"\r\ncontent-length: 0\r\n\r\n"],
    "many fields": [OK + b"".join(b"x: %d\r\n" % n for n in range(129)) + b"content-length: 0\r\n\r\n"],
    "a head without end": [OK + b"x: ", FILLER],
    "a status line without end": [b"HTTP/1.1 200 ", FILLER],
    "hints without end": [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 700],
    "a chunk extension without end": [CHUNKED + b"5;", FILLER],
    "a trailer without end": [CHUNKED + b"5\r\nagent\r\n0\r\n", b"x: ", FILLER],
}


@pytest.mark.security
@pytest.mark.parametrize("pieces", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_what_is_no_body_has_a_size(egress: Egress, pieces: list[bytes]) -> None:
    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with serve(script) as upstream:
        await not_well_formed(egress, upstream)


async def test_a_large_head_within_the_limits_is_read(egress: Egress) -> None:
    fields = {f"x-{n}": "y" * 120 for n in range(120)}
    async with serve(always(answer(b"agent", **fields))) as upstream:
        got = await post(egress, upstream)
    assert (len(got.headers), got.body) == (121, b"agent")


# --- Where an answer ends, nothing begins ------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize(
    "more",
    [answer(b"forged"), b"HTTP/1.1 200 OK\r\ncontent-le", b"H", b"agent", b"HTTP/1.1 100 Continue\r\n\r\n"],
)
@pytest.mark.parametrize("first", [answer(b"mine"), CHUNKED + b"4\r\nmine\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_bytes_behind_an_answer_are_never_the_next_one(egress: Egress, first: bytes, more: bytes) -> None:
    async with serve(always(first + more)) as upstream:
        for _ in range(2):
            assert (await post(egress, upstream)).body == b"mine"
    assert upstream.connections == 2, "a connection with more on it is not used again"


@pytest.mark.security
@pytest.mark.parametrize(
    ("method", "data"),
    [("HEAD", OK + b"content-length: 6\r\n\r\nforged"), ("GET", b"HTTP/1.1 204 No Content\r\n\r\nforged")],
)
async def test_nor_are_bytes_behind_an_answer_without_a_body(egress: Egress, method: str, data: bytes) -> None:
    async with serve(always(data)) as upstream:
        for _ in range(2):
            assert (await egress.request(method, upstream.url, None, {}, timeout=5, trusted=True)).body == b""
    assert upstream.connections == 2


@pytest.mark.security
async def test_a_stream_that_was_left_cannot_read_on(egress: Egress) -> None:
    async with serve(always(answer(b"mine"))) as upstream:
        async with egress.stream("GET", upstream.url, None, {}, idle_timeout=5, trusted=True) as left:
            assert await left.read() == b"mine"
        async with egress.stream("GET", upstream.url, None, {}, idle_timeout=5, trusted=True):
            assert [chunk async for chunk in left.chunks] == []
    assert upstream.connections == 1


# --- What we send ------------------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"x": "a\r\nauthorization: b"}),
        ("POST", {"x": "a\nb"}),
        ("POST", {"x": "a\rb"}),
        ("POST", {"x": "a\0b"}),
        ("POST", {"x": "a\x7fb"}),
        ("POST", {"x": "a\r\n\r\nGET /admin HTTP/1.1"}),
        ("POST", {"x\r\ny": "a"}),
        ("POST", {"x y": "a"}),
        ("POST", {"x:": "a"}),
        ("POST", {"": "a"}),
        ("POST", {"ü": "a"}),
        ("POST", {"x": "\ud800"}),
        ("POST / HTTP/1.1\r\nx: y\r\n\r\nGET", {}),
        ("GET /admin", {}),
        ("", {}),
    ],
)
async def test_a_request_that_could_be_read_as_two_never_leaves(
    egress: Egress, method: str, headers: dict[str, str]
) -> None:
    async with canary() as bird:
        with pytest.raises(GatewayError, match=r"HTTP cannot carry|not Unicode") as caught:
            await egress.request(method, bird.url, b"{}", headers, timeout=5, trusted=True)
    assert caught.value.reason is Reason.EGRESS_REFUSED
    assert caught.value.metadata == {"delivered": "no"}


@pytest.mark.security
@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "connection", "\u212aeep-alive"])
async def test_a_caller_has_no_say_about_host_and_framing(egress: Egress, name: str) -> None:
    async with canary() as bird:
        with pytest.raises(GatewayError, match="belongs to the connection") as caught:
            await egress.post(bird.url, b"{}", {name: "1"}, timeout=5, trusted=True)
    assert caught.value.metadata == {"delivered": "no"}


async def test_other_fields_replace_ours_and_go_out_in_utf8(egress: Egress) -> None:
    async with serve(always(answer())) as upstream:
        await egress.post(upstream.url, b"", {"User-Agent": "mine", "x": "grüß\tdich"}, timeout=5, trusted=True)
    headers = upstream.requests[0].headers
    assert headers["user-agent"] == "mine"
    assert headers["x"].encode("latin-1").decode() == "grüß\tdich"
    assert headers["content-length"] == "0"


# --- More than a buffer ------------------------------------------------------------------------------------


async def test_a_large_body_waits_for_its_reader_and_is_held_once(egress: Egress) -> None:
    body = bytes(range(256)) * (64 * 1024)
    stalled = asyncio.Event()
    seen = hashlib.sha256()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await stalled.wait()
        left = len(body)
        while left:
            piece = await reader.read(64 * 1024)
            seen.update(piece)
            left -= len(piece)
        writer.write(answer(b"read"))

    async with listening(handler) as url:
        tracemalloc.start()
        call = asyncio.create_task(egress.post(url, body, {}, timeout=30, trusted=True))
        asyncio.get_running_loop().call_later(0.1, stalled.set)  # the pace of the server
        assert (await call).body == b"read"
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert seen.digest() == hashlib.sha256(body).digest()
    assert peak < 4 * MIB, "the body has 16 MiB"


async def test_an_answer_in_chunks_of_two_bytes_weighs_no_more_than_the_bytes_it_brings(egress: Egress) -> None:
    pieces = [bytes(divmod(number, 256)) for number in range(MIB // 32)]
    wire = b"".join(b"2\r\n%b\r\n" % piece for piece in pieces) * 16 + b"0\r\n\r\n"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + wire)

    async with listening(handler) as url:
        tracemalloc.start()
        got = await egress.post(url, b"", {}, timeout=30, trusted=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert got.body == b"".join(pieces) * 16
    assert peak < 8 * MIB, "as a list of pieces its 1 MiB would be 20"


async def test_an_answer_before_the_end_of_a_large_body_is_taken_and_the_rest_kept_back(egress: Egress) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too large", "413 Content Too Large"))
        await asyncio.Event().wait()  # and reads no more

    async with listening(handler) as url:
        for _ in range(2):
            got = await egress.post(url, bytes(32 * MIB), {}, timeout=10, trusted=True)
            assert (got.status, got.body) == (413, b"too large")


async def test_a_server_that_does_not_read_a_large_body_is_not_waited_for_beyond_the_deadline(egress: Egress) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        await asyncio.Event().wait()

    async with listening(handler) as url:
        await egress.post(url, b"", {}, timeout=BOUND, trusted=True)  # connected: the next one has all its time to send
        with pytest.raises(GatewayError) as caught:
            await egress.post(url, bytes(32 * MIB), {}, timeout=0.1, trusted=True)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
    assert caught.value.metadata == {"delivered": "unknown"}


async def test_a_slow_reader_of_a_stream_holds_the_server_back_and_is_no_reason_to_give_up(egress: Egress) -> None:
    total, piece, idle = 64 * MIB, bytes(64 * 1024), 1.0
    stalled = asyncio.Event()
    sent = 0

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"content-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait([drained], timeout=1.5 * idle)
            if not drained.done():
                stalled.set()
            await drained
        stalled.set()

    async with (
        serve(script) as upstream,
        asyncio.timeout(3 * BOUND),
        egress.stream("GET", upstream.url, None, {}, idle_timeout=idle, trusted=True) as got,
    ):
        await stalled.wait()
        assert sent < 32 * MIB, "what the kernel's buffers hold, and little more"
        sizes = [len(chunk) async for chunk in got.chunks]
    assert sum(sizes) == total
    assert max(sizes) <= (64 + 256) * 1024


async def test_a_large_answer_is_read_whole(egress: Egress) -> None:
    body = bytes(range(256)) * (12 * 1024)
    async with serve(always(answer(body))) as upstream:
        for _ in range(2):
            assert (await post(egress, upstream)).body == body
    assert upstream.connections == 1


async def post(egress: Egress, upstream: Upstream) -> Answer:
    return await egress.post(upstream.url, b"{}", {}, timeout=5, trusted=True)


async def not_well_formed(egress: Egress, upstream: Upstream) -> None:
    with pytest.raises(GatewayError) as caught:
        await post(egress, upstream)
    assert caught.value.reason is Reason.UPSTREAM_FAILED
    assert caught.value.message == f"127.0.0.1:{upstream.port} did not answer with well-formed HTTP"
    assert caught.value.metadata == {"delivered": "unknown"}


@asynccontextmanager
async def listening(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that is given the connection itself: nothing is read for it. Gives the URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
