"""The one way out, against real servers on loopback. A canary is a server that nobody may reach."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import EgressRules, public
from gateway.upstream.egress import Egress
from tests.upstream.loopback import Request, Script, always, answer, canary, serve

MIB = 1024 * 1024


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(EgressRules()) as egress:
        yield egress


async def test_a_post_brings_back_status_headers_and_body(egress: Egress) -> None:
    async with serve(always(answer(b'{"ok":1}', "201 Created", ETag="x", Link="a", link="b"))) as upstream:
        got = await egress.post(f"{upstream.url}/rpc?x=%2F", b"{}", {"a2a-version": "1.0"}, timeout=5, trusted=True)
    assert (got.status, got.body) == (201, b'{"ok":1}')
    assert got.headers == {"content-length": "8", "etag": "x", "link": "a, b"}
    (request,) = upstream.requests
    assert (request.line, request.body) == ("POST /rpc?x=%2F HTTP/1.1", b"{}")
    assert request.headers["a2a-version"] == "1.0"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{upstream.port}"


async def test_any_method_works_with_and_without_a_body(egress: Egress) -> None:
    async with serve(always(answer(b"", "204 No Content"))) as upstream:
        for method, body in (("GET", None), ("DELETE", None), ("PUT", b"x"), ("HEAD", None)):
            got = await egress.request(method, upstream.url, body, {}, timeout=5, trusted=True)
            assert (got.status, got.body) == (204, b"")
    assert [(r.line.split()[0], r.body) for r in upstream.requests] == [
        ("GET", b""),
        ("DELETE", b""),
        ("PUT", b"x"),
        ("HEAD", b""),
    ]


async def test_a_body_of_several_mebibytes_goes_out_whole(egress: Egress) -> None:
    body = os.urandom(3 * MIB)
    async with serve(always(answer())) as upstream:
        await egress.post(upstream.url, body, {}, timeout=10, trusted=True)
    assert upstream.requests[0].body == body
    assert upstream.requests[0].headers["content-length"] == str(len(body))


# Where we connect


@pytest.mark.security
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0x7f000001",
        "2130706433",
        "127.1",
        "0.0.0.0",
        "①②⑦.0.0.1",
        "[::ffff:127.0.0.1]",
    ],
)
async def test_a_strangers_url_never_reaches_loopback(egress: Egress, host: str) -> None:
    async with canary("0.0.0.0") as bird:
        error = await refused(egress, f"http://{host}:{bird.port}/")
    assert "egress.allow" in error.message


@pytest.mark.security
async def test_a_name_that_resolves_to_an_inner_address_is_refused_when_the_socket_is_made(
    egress: Egress,
) -> None:
    name = own_name()
    async with canary("0.0.0.0") as bird:
        error = await refused(egress, f"http://{name}:{bird.port}/")
    assert f'egress.allow: ["{name}:{bird.port}"]' in error.message


@pytest.mark.security
async def test_a_connection_made_for_the_operator_is_not_lent_to_a_stranger(egress: Egress) -> None:
    async with serve(always(answer())) as upstream:
        await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)
        await refused(egress, upstream.url)
        await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)
    assert len(upstream.requests) == 2
    assert upstream.connections == 1, "the operator's connection stays in its own pool"


@pytest.mark.security
async def test_nor_when_only_the_pool_can_tell_because_the_name_shows_nothing(egress: Egress) -> None:
    name = own_name()
    async with serve(always(answer()), host="0.0.0.0") as upstream:
        url = f"http://{name}:{upstream.port}"
        await egress.post(url, b"", {}, timeout=5, trusted=True)
        await refused(egress, url)
    assert upstream.connections == 1


@pytest.mark.parametrize("allow", ["127.0.0.1", "127.0.0.0/8", "localhost"])
async def test_what_the_operator_allows_is_reached(allow: str) -> None:
    async with serve(always(answer(b"in"))) as upstream, Egress(EgressRules(allow=(allow,))) as egress:
        host = "localhost" if allow == "localhost" else "127.0.0.1"
        assert (await egress.post(f"http://{host}:{upstream.port}", b"", {}, timeout=5)).body == b"in"


@pytest.mark.security
@pytest.mark.parametrize("deny", ["127.0.0.0/8", "localhost"])
async def test_deny_wins_over_trust_at_the_socket_too(deny: str) -> None:
    rules = EgressRules(allow_loopback=True, deny=(deny, "::1"))
    async with canary() as bird, Egress(rules) as egress:
        with pytest.raises(GatewayError, match=r"egress\.deny") as caught:
            await egress.post(f"http://localhost:{bird.port}/", b"", {}, timeout=5, trusted=True)
    assert caught.value.reason is Reason.EGRESS_REFUSED


@pytest.mark.security
async def test_a_redirect_is_an_answer_and_nobody_follows_it(egress: Egress) -> None:
    async with canary() as bird, serve(always(answer(b"", "302 Found", location=bird.url))) as upstream:
        got = await egress.request("GET", upstream.url, None, {}, timeout=5, trusted=True)
    assert (got.status, got.headers["location"]) == (302, bird.url)


@pytest.mark.security
async def test_neither_proxy_settings_nor_cookies_nor_netrc_change_a_call(
    egress: Egress, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with canary() as bird, serve(always(answer(set_cookie="sid=1; Path=/"))) as upstream:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, bird.url)
        for _ in range(2):
            await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)
    assert not {"cookie", "authorization"} & upstream.requests[1].headers.keys()


@pytest.mark.security
async def test_a_url_that_is_not_plain_http_is_refused_in_a_sentence(egress: Egress) -> None:
    error = await refused(egress, "http://user:pw@example.com/")
    assert error.message == "the URL must not contain a user name or password"


# How much, how long


@pytest.mark.parametrize("body", [b"x" * (64 * 1024), b""])
async def test_an_answer_up_to_the_limit_is_read(egress: Egress, body: bytes) -> None:
    async with serve(always(answer(body))) as upstream:
        assert (await egress.post(upstream.url, b"", {}, timeout=5, limit=64 * 1024, trusted=True)).body == body


@pytest.mark.security
@pytest.mark.parametrize(
    "head",
    [b"content-length: 70000", b"transfer-encoding: chunked", b"connection: close"],
    ids=lambda h: h.decode(),
)
async def test_a_longer_answer_is_refused_however_it_is_framed(egress: Egress, head: bytes) -> None:
    body = b"x" * 70_000
    framed = b"11170\r\n" + body + b"\r\n0\r\n\r\n" if b"chunked" in head else body
    data = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + framed
    async with serve(always(data, then_close=b"close" in head)) as upstream:
        error = await failed(egress, upstream.url, limit=65_536)
    assert error.reason is Reason.UPSTREAM_TOO_LARGE
    assert error.message == f"127.0.0.1:{upstream.port} answered with more than 65536 bytes"


@pytest.mark.security
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_decompression_bomb_costs_no_memory(egress: Egress, coding: str) -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    bomb = b"".join(squeeze.compress(bytes(MIB)) for _ in range(100)) + squeeze.flush()
    async with serve(always(answer(bomb, content_encoding=coding))) as upstream:
        tracemalloc.start()
        error = await failed(egress, upstream.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert error.reason is Reason.UPSTREAM_TOO_LARGE
    assert peak < 12 * MIB, "the limit is 4 MiB, held once in parts"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "raw deflate", "GZIP"])
async def test_one_layer_of_compression_is_undone(egress: Egress, coding: str, size: int) -> None:
    plain = b"agent" * (size // 5) + b"." * (size % 5)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, {"deflate": 15, "raw deflate": -15}.get(coding, 31))
    packed = squeeze.compress(plain) + squeeze.flush()
    async with serve(always(answer(packed, content_encoding=coding.removeprefix("raw ")))) as upstream:
        got = await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)
    assert got.body == plain
    assert not {"content-encoding", "content-length"} & got.headers.keys()


# Without the time, which would give these tests another name in every process that collects them.
PACKED = gzip.compress(b"x", mtime=0)
PACKED_TWICE = gzip.compress(PACKED, mtime=0)
PACKED_LONG = gzip.compress(b"x" * 999, mtime=0)


@pytest.mark.security
@pytest.mark.parametrize(
    ("coding", "body", "what"),
    [
        ("br", b"?", "content-encoding 'br', which was not asked for"),
        ("gzip, gzip", PACKED_TWICE, "'gzip, gzip', which was not asked for"),
        ("gzip", b"not gzip", "sent compressed data that cannot be read"),
        ("gzip", PACKED_LONG[:-9], "sent compressed data that cannot be read"),
        ("gzip", PACKED + b"more", "sent compressed data that cannot be read"),
    ],
)
async def test_other_and_broken_compression_is_a_failure(egress: Egress, coding: str, body: bytes, what: str) -> None:
    async with serve(always(answer(body, content_encoding=coding))) as upstream:
        error = await failed(egress, upstream.url)
    assert error.reason is Reason.UPSTREAM_FAILED
    assert what in error.message


async def test_an_upstream_that_stays_silent_times_out(egress: Egress) -> None:
    async def script(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (silence if request.body == b"{}" else always(answer()))(request, reader, writer)

    async with serve(script) as upstream:
        await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)  # connected: all the time is for the answer
        error = await failed(egress, upstream.url, timeout=0.05)
    assert error.reason is Reason.UPSTREAM_TIMEOUT
    assert error.message == f"127.0.0.1:{upstream.port} did not answer in time"


async def test_an_answer_that_trickles_cannot_outlive_the_deadline(egress: Egress) -> None:
    async with serve(trickle(b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n")) as upstream:
        error = await failed(egress, upstream.url, timeout=0.1)
    assert error.reason is Reason.UPSTREAM_TIMEOUT


# What can break


async def test_a_closed_port_is_a_failure_before_anything_was_sent(egress: Egress, port: int) -> None:
    error = await failed(egress, f"http://127.0.0.1:{port}")
    assert error.reason is Reason.UPSTREAM_FAILED
    assert error.message == f"127.0.0.1:{port} refused the connection"
    assert error.metadata == {"delivered": "no"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "closed the connection before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "closed the connection before its answer was complete"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "closed the connection before its answer was complete",
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "127.0.0.1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "did not answer with well-formed HTTP"),
        (b"HTTP/1.1 two OK\r\n\r\n", "did not answer with well-formed HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", "did not answer with well-formed HTTP"),
    ],
)
async def test_a_broken_answer_is_a_failure_in_one_sentence(egress: Egress, data: bytes, what: str) -> None:
    async with serve(always(data, then_close=True)) as upstream:
        error = await failed(egress, upstream.url)
    assert error.reason is Reason.UPSTREAM_FAILED
    assert what in error.message
    assert error.metadata == {"delivered": "unknown"}


async def test_tls_to_a_server_without_it_says_so(egress: Egress) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(b"", "400 Bad Request"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failed(egress, f"https://127.0.0.1:{port}")
    assert error.reason is Reason.UPSTREAM_FAILED
    assert error.message == f"127.0.0.1:{port} could not be reached: TLS failed"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_certificate_that_nobody_vouches_for_is_not_accepted_and_one_of_ours_is(
    egress: Egress, tmp_path: Path
) -> None:
    pem = tmp_path / "server.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=here -addext"
    await asyncio.to_thread(
        subprocess.run,
        [
            "openssl",
            *command.split(),
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(pem),
            "-out",
            str(pem) + ".crt",
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(str(pem) + ".crt", str(pem))
    trust = ssl.create_default_context(cafile=str(pem) + ".crt")
    async with serve(always(answer(b"hi")), tls=server) as upstream, Egress(EgressRules(), tls=trust) as believer:
        url = f"https://127.0.0.1:{upstream.port}"
        error = await failed(egress, url)
        assert (await believer.post(url, b"", {}, timeout=5, trusted=True)).body == b"hi"
    assert error.message == (
        f"127.0.0.1:{upstream.port} showed a certificate that is not accepted: self-signed certificate"
    )


@pytest.mark.parametrize(("method", "sent"), [("POST", 1), ("PATCH", 1), ("GET", 2)])
async def test_on_a_connection_that_broke_a_post_is_not_sent_again(egress: Egress, method: str, sent: int) -> None:
    """RFC 9110 §9.2.2. The GET shows the other half of the rule."""
    first = True

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        if first:
            first = False
            writer.write(answer())
        else:
            writer.transport.abort()

    async with serve(script) as upstream:
        await egress.request("GET", upstream.url, None, {}, timeout=5, trusted=True)
        with pytest.raises(GatewayError) as caught:
            await egress.request(method, upstream.url, b"x", {}, timeout=5, trusted=True)
    assert caught.value.reason is Reason.UPSTREAM_FAILED
    assert caught.value.metadata == {"delivered": "unknown"}
    assert len(upstream.requests) == 1 + sent


@pytest.mark.security
async def test_an_answer_nobody_asked_for_is_not_given_to_the_next_caller(egress: Egress) -> None:
    may_follow = asyncio.Event()
    followed = asyncio.Event()

    async def script(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"yours"))
        await may_follow.wait()
        writer.write(answer(b"somebody else's"))
        await writer.drain()
        followed.set()

    async with serve(script) as upstream, serve(always(answer())) as other:
        assert (await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)).body == b"yours"
        may_follow.set()
        await followed.wait()
        await egress.post(other.url, b"", {}, timeout=5, trusted=True)  # by now the stray bytes have arrived
        error = await failed(egress, upstream.url)
        assert "nobody had asked" in error.message
        assert error.metadata == {"delivered": "no"}
        assert (await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)).body == b"yours"


async def test_connections_are_kept_and_a_cancelled_call_gives_its_own_up(egress: Egress) -> None:
    async def script(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (silence if request.body == b"hang" else always(answer(request.body)))(request, reader, writer)

    async with serve(script) as upstream:
        for _ in range(3):
            await egress.post(upstream.url, b"a", {}, timeout=5, trusted=True)
        assert upstream.connections == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await egress.post(upstream.url, b"hang", {}, timeout=5, trusted=True)
        assert (await egress.post(upstream.url, b"b", {}, timeout=5, trusted=True)).body == b"b"
        assert upstream.connections == 2


async def test_after_closing_every_call_says_that_the_gateway_stops(egress: Egress) -> None:
    await egress.aclose()
    error = await failed(egress, "http://127.0.0.1:9")
    assert error.reason is Reason.UNAVAILABLE


# Streams


async def test_a_stream_hands_on_each_piece_as_it_comes(egress: Egress) -> None:
    seen = asyncio.Event()

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await seen.wait()  # the second event exists only because the first has arrived
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with serve(script) as upstream:
        for _ in range(2):
            seen.clear()
            async with egress.stream("POST", upstream.url, b"{}", {}, idle_timeout=5, trusted=True) as got:
                assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")
                pieces = []
                async for piece in got.chunks:
                    pieces.append(piece)
                    seen.set()
            assert pieces == [b"data: 1\n\n", b"data: 2\n\n"]
    assert upstream.connections == 1, "a stream that was read to its end gives its connection back"


async def test_leaving_a_stream_early_hangs_up(egress: Egress) -> None:
    hung_up = asyncio.Event()

    async def script(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
        await reader.read()
        hung_up.set()

    async with serve(script) as upstream, asyncio.timeout(5):
        async with egress.stream("POST", upstream.url, b"", {}, idle_timeout=5, trusted=True) as got:
            async for _ in got.chunks:
                break
        await hung_up.wait()


async def test_a_stream_that_goes_quiet_times_out(egress: Egress) -> None:
    async def script(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
        await silence(request, reader, writer)

    async with (
        serve(script) as upstream,
        egress.stream("POST", upstream.url, b"", {}, idle_timeout=0.05, trusted=True) as got,
    ):
        assert await anext(got.chunks) == b"data: 1\n\n"
        with pytest.raises(GatewayError) as caught:
            await anext(got.chunks)
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


@pytest.mark.security
async def test_headers_that_trickle_cannot_keep_a_stream_waiting(egress: Egress) -> None:
    async with serve(trickle(b"HTTP/1.1 200 OK\r\nx: ")) as upstream:
        with pytest.raises(GatewayError) as caught:
            async with egress.stream(
                "POST", upstream.url, b"", {}, connect_timeout=0.1, idle_timeout=0.1, trusted=True
            ):
                pass
    assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


@pytest.mark.security
async def test_a_stream_is_refused_and_broken_like_a_post(egress: Egress) -> None:
    async with canary() as bird:
        with pytest.raises(GatewayError, match=r"egress\.allow"):
            async with egress.stream("GET", bird.url, None, {}, idle_timeout=1):
                pass
    async with serve(always(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", then_close=True)) as upstream:
        with pytest.raises(GatewayError, match="closed the connection"):
            async with egress.stream("GET", upstream.url, None, {}, idle_timeout=1, trusted=True) as got:
                await got.read()


async def test_an_error_of_the_reader_leaves_a_stream_as_it_is(egress: Egress) -> None:
    async with serve(always(answer(b"x"))) as upstream:
        with pytest.raises(ConnectionError, match="mine"):
            async with egress.stream("GET", upstream.url, None, {}, idle_timeout=1, trusted=True):
                raise ConnectionError("mine")


# DNS rebinding, with a DNS server of our own in a network namespace

REBINDING = "GATEWAY_TEST_NETNS"


@pytest.mark.security
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(REBINDING), reason=f"makes a network namespace; set {REBINDING}=1 as root")
async def test_a_name_that_changes_its_address_never_reaches_loopback() -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and iproute2")
    rig = Path(__file__).with_name("rebinding.py")
    run = await asyncio.create_subprocess_exec(
        "unshare", "--net", "--mount", sys.executable, str(rig), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await run.communicate()
    assert run.returncode == 0
    report = dict(line.split("=") for line in out.decode().split())
    assert int(report["lookups"]) >= 100
    assert int(report["refused"]) > 0
    assert int(report["canary"]) == 0


def own_name() -> str:
    """This machine's name: not an address and not localhost, but it leads to one of ours."""
    name = socket.gethostname().lower()
    if any(public(str(info[4][0])) for info in socket.getaddrinfo(name, 80)):
        pytest.skip("this machine's own name resolves to a public address")
    return name


async def refused(egress: Egress, url: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await egress.post(url, b"{}", {}, timeout=5)
    assert caught.value.reason is Reason.EGRESS_REFUSED
    assert caught.value.metadata == {"delivered": "no"}
    return caught.value


async def failed(egress: Egress, url: str, *, timeout: float = 5, limit: int = 4 * MIB) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await egress.post(url, b"{}", {}, timeout=timeout, limit=limit, trusted=True)
    return caught.value


async def silence(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def trickle(head: bytes) -> Script:
    """A byte at a time, faster than any idle timeout and without end."""

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(0.01)  # the pace of the upstream, not a wait of the test

    return script
