"""Which connection a call gets: old or new, to which address, with whose certificate, and when it is given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.upstream import pool
from gateway.upstream.address import EgressRules
from gateway.upstream.egress import Egress
from tests.serving import BOUND
from tests.upstream.loopback import Request, Upstream, always, answer, canary, serve
from tests.upstream.tls import contexts

other_loopbacks = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(EgressRules()) as egress:
        yield egress


# --- Used again, or not ------------------------------------------------------------------------------------


async def test_a_connection_that_its_server_has_closed_meanwhile_is_not_asked(egress: Egress) -> None:
    closing, closed = asyncio.Event(), asyncio.Event()

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await closing.wait()
        writer.close()
        closed.set()

    async with serve(script) as upstream, serve(always(answer())) as other:
        await post(egress, upstream)
        closing.set()
        await closed.wait()
        await post(egress, other)  # by now the goodbye has arrived
        await post(egress, upstream)
    assert [request.line for request in upstream.requests] == ["POST / HTTP/1.1"] * 2


async def test_nor_when_the_loop_has_had_no_time_to_hear_of_it(egress: Egress) -> None:
    with by_hand() as (server, url):
        for _ in range(2):
            client, _ = await exchanged(egress, server, url)
            client.close()  # and the next call is made before the loop looks at any socket


@pytest.mark.security
async def test_bytes_that_the_loop_has_not_seen_yet_are_seen_before_a_connection_is_asked(egress: Egress) -> None:
    with by_hand() as (server, url):
        client, _ = await exchanged(egress, server, url)
        with client:
            client.send(answer(b"somebody else's"))
            with pytest.raises(GatewayError, match="nobody had asked") as caught:
                await egress.post(url, b"", {}, timeout=5, trusted=True)
            assert caught.value.metadata == {"delivered": "no"}
        client, body = await exchanged(egress, server, url)
        client.close()
    assert body == b"mine"


@pytest.mark.security
async def test_a_connection_whose_server_spoke_first_is_good_for_one_answer_at_most(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real = loop.create_connection
    clients: list[socket.socket] = []

    async def create_connection(*arguments: Any, **how: Any) -> Any:
        client, _ = server.accept()  # the kernel has connected it by now
        client.send(answer(b"early"))
        clients.append(client)
        return await real(*arguments, **how)

    monkeypatch.setattr(loop, "create_connection", create_connection)
    with by_hand() as (server, url):
        for _ in range(2):
            # Refused with "nobody had asked" when the loop has seen it before we ask, which is up to the loop.
            with contextlib.suppress(GatewayError):
                await egress.post(url, b"", {}, timeout=5, trusted=True)
        for client in clients:
            client.close()
    assert len(clients) == 2, "what the server says to the first question must not answer the second"


@pytest.mark.parametrize(
    ("method", "first_words", "sent"),
    [("GET", b"", 2), ("HEAD", b"", 2), ("POST", b"", 1), ("PUT", b"", 1), ("GET", b"HTTP/1.1 2", 1)],
)
async def test_only_what_is_harmless_is_asked_again_and_only_if_there_was_no_word_of_an_answer(
    egress: Egress, method: str, first_words: bytes, sent: int
) -> None:
    async def script(request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(upstream.requests) == 2:
            writer.write(first_words)
            writer.close()
        else:
            writer.write(answer(b""))

    async with serve(script) as upstream:
        await egress.request("GET", upstream.url, None, {}, timeout=5, trusted=True)
        if sent == 2:
            await egress.request(method, upstream.url, None, {}, timeout=5, trusted=True)
        else:
            with pytest.raises(GatewayError, match="closed the connection") as caught:
                await egress.request(method, upstream.url, None, {}, timeout=5, trusted=True)
            assert caught.value.metadata == {"delivered": "unknown"}
    assert len(upstream.requests) == 1 + sent


async def test_it_is_asked_again_on_a_new_connection_since_the_other_old_ones_are_likely_broken_too(
    egress: Egress,
) -> None:
    restarted = False
    both = asyncio.Barrier(2)

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if restarted and upstream.connections == 2:
            writer.transport.abort()
            return
        if not restarted:
            await both.wait()
        writer.write(answer())

    async with serve(script) as upstream, asyncio.timeout(5):
        await asyncio.gather(post(egress, upstream), post(egress, upstream))
        restarted = True
        got = await egress.request("GET", upstream.url, None, {}, timeout=5, trusted=True)
    assert (got.status, upstream.connections) == (200, 3)


async def test_an_idle_connection_is_closed_before_its_server_does_it(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "KEEPALIVE", 0.05)
    hung_up = asyncio.Event()

    async def script(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        assert await reader.read() == b""
        hung_up.set()

    async with serve(script) as upstream, asyncio.timeout(5):
        await post(egress, upstream)
        await hung_up.wait()
        await post(egress, upstream)
    assert upstream.connections == 2


async def test_a_cancelled_call_hangs_up_at_once(egress: Egress) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        hung_up.set()

    async with serve(script) as upstream, asyncio.timeout(5):
        call = asyncio.create_task(post(egress, upstream))
        await asked.wait()
        call.cancel()
        await hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_closing_ends_the_calls_that_are_under_way(egress: Egress) -> None:
    asked = asyncio.Event()

    async def script(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    async with serve(script) as upstream, asyncio.timeout(5):
        call = asyncio.create_task(post(egress, upstream))
        await asked.wait()
        await egress.aclose()
        with pytest.raises(GatewayError, match="closed the connection") as caught:
            await call
    assert caught.value.metadata == {"delivered": "unknown"}


async def test_deadlines_end_their_own_call_and_no_other(egress: Egress) -> None:
    async def script(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    clock = asyncio.get_running_loop().time

    async def call(url: str, timeout: float) -> float:
        """How long after its deadline it ended."""
        until = clock() + timeout
        with pytest.raises(GatewayError) as caught:
            await egress.post(url, b"", {}, timeout=timeout, trusted=True)
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
        return clock() - until

    async with serve(script) as upstream, asyncio.timeout(BOUND):
        longest = asyncio.create_task(call(upstream.url, 3600))
        late = await asyncio.gather(*(call(upstream.url, timeout) for timeout in (0.25, 0.05, 0.15, 0.1)))
        assert min(late) >= 0, "none ended with a shorter one"
        assert not longest.done(), "and none waited for a longer one"
        longest.cancel()


# --- So many to one host -----------------------------------------------------------------------------------


async def test_calls_beyond_the_limit_of_a_host_wait_for_their_turn_in_order() -> None:
    go = asyncio.Semaphore(0)
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait(request.body)
        await go.acquire()
        writer.write(answer(request.body))

    async with serve(script) as upstream, Egress(EgressRules(), connections_per_host=2) as egress, asyncio.timeout(5):

        async def call(n: int) -> bytes:
            return (await egress.post(upstream.url, b"%d" % n, {}, timeout=5, trusted=True)).body

        calls = [asyncio.create_task(call(n)) for n in range(6)]
        assert {await arrived.get(), await arrived.get()} == {b"0", b"1"}
        calls[3].cancel()  # one who waits goes away
        for n in (2, 4, 5):
            go.release()
            assert await arrived.get() == b"%d" % n
        for _ in range(2):
            go.release()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [a for a in answers if isinstance(a, bytes)] == [b"0", b"1", b"2", b"4", b"5"]
    assert upstream.connections == 2


async def test_who_waits_too_long_for_a_turn_has_sent_nothing() -> None:
    arrived = asyncio.Event()

    async def script(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.body == b"hang":
            arrived.set()
            await reader.read()
        writer.write(answer())

    async with serve(script) as upstream, Egress(EgressRules(), connections_per_host=1) as egress, asyncio.timeout(5):
        first = asyncio.create_task(egress.post(upstream.url, b"hang", {}, timeout=5, trusted=True))
        await arrived.wait()
        with pytest.raises(GatewayError, match="could not be connected to in time") as caught:
            await egress.post(upstream.url, b"", {}, timeout=0.05, trusted=True)
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
        assert caught.value.metadata == {"delivered": "no"}
        first.cancel()
        await post(egress, upstream)  # the place is free again
    assert [request.body for request in upstream.requests] == [b"hang", b""]


# --- Where a name leads ------------------------------------------------------------------------------------


@other_loopbacks
async def test_when_one_address_of_a_name_refuses_the_next_one_is_tried(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_leads_to(monkeypatch, "127.0.0.9", "::1", "127.0.0.1")
    async with serve(always(answer(b"here"))) as upstream:
        url = f"http://agent.test:{upstream.port}"
        assert (await egress.post(url, b"", {}, timeout=5, trusted=True)).body == b"here"
    assert upstream.requests[0].headers["host"] == f"agent.test:{upstream.port}"


@other_loopbacks
async def test_an_address_that_stays_silent_does_not_keep_the_next_one_waiting(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(always(answer(b"here"))) as upstream, asyncio.timeout(5):
        with silent("127.0.0.9", upstream.port):
            name_leads_to(monkeypatch, "127.0.0.9", "127.0.0.1")
            url = f"http://agent.test:{upstream.port}"
            assert (await egress.post(url, b"", {}, timeout=5, trusted=True)).body == b"here"


@other_loopbacks
async def test_nor_the_caller_beyond_the_time_for_connecting(egress: Egress) -> None:
    with silent("127.0.0.9", 0) as port:
        with pytest.raises(GatewayError, match="could not be connected to in time") as caught:
            await egress.post(f"http://127.0.0.9:{port}", b"", {}, timeout=0.1, trusted=True)
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
        assert caught.value.metadata == {"delivered": "no"}
        with pytest.raises(GatewayError, match="could not be connected to in time"):
            async with egress.stream(
                "GET", f"http://127.0.0.9:{port}", None, {}, connect_timeout=0.1, idle_timeout=60, trusted=True
            ):
                pass


@pytest.mark.security
@other_loopbacks
async def test_each_address_of_a_name_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    async with canary("127.0.0.9", port), Egress(EgressRules(allow=("127.0.0.1",))) as egress:
        async with serve(always(answer(b"here")), port=port):
            name_leads_to(monkeypatch, "127.0.0.9", "127.0.0.1", "10.0.0.1")
            url = f"http://agent.test:{port}"
            assert (await egress.post(url, b"", {}, timeout=5)).body == b"here"
        name_leads_to(monkeypatch, "127.0.0.9", "10.0.0.1")
        with pytest.raises(GatewayError, match=r"egress\.allow") as caught:
            await egress.post(url, b"", {}, timeout=5)
        assert caught.value.reason is Reason.EGRESS_REFUSED
        assert caught.value.metadata == {"delivered": "no"}
        name_leads_to(monkeypatch, "127.0.0.9", "127.0.0.1")  # where nobody listens any more
        with pytest.raises(GatewayError, match="refused the connection") as caught:
            await egress.post(url, b"", {}, timeout=5)
        assert caught.value.metadata == {"delivered": "no"}


@pytest.mark.security
async def test_a_name_is_looked_up_for_each_connection_and_not_again_for_the_socket(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = name_leads_to(monkeypatch, "127.0.0.1")
    async with serve(always(answer())) as upstream:
        for _ in range(3):
            await egress.post(f"http://agent.test:{upstream.port}", b"", {}, timeout=5, trusted=True)
    assert lookups == ["agent.test"]


async def test_a_name_that_leads_nowhere_says_so(egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    name_leads_to(monkeypatch)
    with pytest.raises(GatewayError, match=r"agent\.test could not be resolved to an address") as caught:
        await egress.post("http://agent.test", b"", {}, timeout=5, trusted=True)
    assert caught.value.metadata == {"delivered": "no"}


async def test_an_ipv6_literal_is_reached_and_named_in_brackets(egress: Egress) -> None:
    async with ipv6_server() as upstream:
        url = f"http://[::1]:{upstream.port}"
        assert (await egress.post(url, b"", {}, timeout=5, trusted=True)).body == b"{}"
    assert upstream.requests[0].headers["host"] == f"[::1]:{upstream.port}"


# --- With whose certificate --------------------------------------------------------------------------------


async def test_over_tls_a_host_is_who_its_certificate_says_and_hears_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name_leads_to(monkeypatch, "127.0.0.1")
    server, trust = contexts(tmp_path, "agent.test", "127.0.0.1")
    asked_for: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    async with serve(always(answer(b"hi")), tls=server) as upstream, Egress(EgressRules(), tls=trust) as egress:
        for host in ("agent.test", "127.0.0.1"):
            for _ in range(2):
                url = f"https://{host}:{upstream.port}"
                assert (await egress.post(url, b"", {}, timeout=5, trusted=True)).body == b"hi"
    assert asked_for == ["agent.test", None], "an address is no server name (RFC 6066 §3)"
    assert upstream.connections == 2, "and a connection under TLS is kept like any other"


@pytest.mark.security
async def test_a_certificate_for_another_host_is_not_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name_leads_to(monkeypatch, "127.0.0.1")
    server, trust = contexts(tmp_path, "other.test", "127.0.0.2", "::2")
    async with serve(always(answer()), tls=server) as upstream, Egress(EgressRules(), tls=trust) as egress:
        for host in ("agent.test", "127.0.0.1"):
            with pytest.raises(GatewayError, match=r"certificate that is not accepted: (Hostname|IP address) mis") as e:
                await egress.post(f"https://{host}:{upstream.port}", b"{}", {}, timeout=5, trusted=True)
            assert e.value.metadata == {"delivered": "no"}
    assert upstream.requests == []


async def test_an_ipv6_literal_is_checked_against_the_addresses_of_a_certificate(tmp_path: Path) -> None:
    right, trust_right = contexts(tmp_path, "::1")
    wrong, trust_wrong = contexts(tmp_path, "::2")
    async with ipv6_server(right) as upstream, Egress(EgressRules(), tls=trust_right) as egress:
        assert (await egress.post(f"https://[::1]:{upstream.port}", b"", {}, timeout=5, trusted=True)).body == b"{}"
    async with ipv6_server(wrong) as upstream, Egress(EgressRules(), tls=trust_wrong) as egress:
        with pytest.raises(GatewayError, match="certificate that is not accepted: IP address mismatch"):
            await egress.post(f"https://[::1]:{upstream.port}", b"", {}, timeout=5, trusted=True)


async def test_large_bodies_and_streams_go_through_tls_too(tmp_path: Path) -> None:
    server, trust = contexts(tmp_path, "127.0.0.1")
    body = bytes(range(256)) * (12 * 1024)

    async def script(request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(request.body))

    async with serve(script, tls=server) as upstream, Egress(EgressRules(), tls=trust) as egress:
        url = f"https://127.0.0.1:{upstream.port}"
        assert (await egress.post(url, body, {}, timeout=10, trusted=True)).body == body
        async with egress.stream("POST", url, body, {}, idle_timeout=5, trusted=True) as got:
            assert b"".join([chunk async for chunk in got.chunks]) == body
    assert upstream.connections == 1


async def test_a_server_that_hangs_up_during_the_handshake_could_not_be_reached(egress: Egress) -> None:
    with by_hand() as (server, url):
        call = asyncio.create_task(egress.post(url.replace("http", "https"), b"{}", {}, timeout=5, trusted=True))
        async with asyncio.timeout(5):
            client, _ = await asyncio.get_running_loop().sock_accept(server)
        client.close()
        with pytest.raises(GatewayError, match="could not be reached") as caught:
            await call
    assert caught.value.metadata == {"delivered": "no"}


# --- The stage ---------------------------------------------------------------------------------------------


async def post(egress: Egress, upstream: Upstream) -> bytes:
    return (await egress.post(upstream.url, b"", {}, timeout=5, trusted=True)).body


def name_leads_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """What the resolver says about every name from now on. Gives the list of names that it was asked for."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **how: Any) -> list[Any]:
        if not host.endswith(".test"):
            return await real(host, port, **how)  # loops read numeric addresses in this way
        asked.append(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for address in addresses for found in await real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


@contextmanager
def silent(address: str, port: int) -> Iterator[int]:
    """A port whose connections are never established, because its queue is full. Gives its number."""
    with socket.socket() as listener:
        listener.bind((address, port))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in waiting:
            each.close()


@contextmanager
def by_hand() -> Iterator[tuple[socket.socket, str]]:
    """A listening socket whose connections the test itself reads and writes, behind the back of the loop."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}"


async def exchanged(egress: Egress, server: socket.socket, url: str) -> tuple[socket.socket, bytes]:
    """One call over a new connection: the server's end of it, and the body that came."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        call = asyncio.create_task(egress.post(url, b"", {}, timeout=5, trusted=True))
        client, _ = await loop.sock_accept(server)
        client.setblocking(False)
        await loop.sock_recv(client, 4096)
        client.send(answer(b"mine"))
        return client, (await call).body


@asynccontextmanager
async def ipv6_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    try:
        async with serve(always(answer()), host="::1", tls=tls) as upstream:
            yield upstream
    except OSError:
        pytest.skip("this machine has no IPv6")
