"""The HTTP edge, through the front door: raw bytes into a real server, and what comes back.

Two things are looked at in each refusal: the exact status, and that the application was never entered. The
holes these requests use were measured in uvicorn 0.54, hypercorn, granian and the SDKs (security goal S2;
deadlines: S3).
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
import uvicorn

from gateway.server.edge import server_config
from gateway.server.head import EdgeLimits, Refused, judge_target
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.security

BOUND = 30.0  # seconds that a test waits for what must happen much sooner
LARGE = 16 * 1024 * 1024  # more than any kernel takes off our hands
LOOPS: list[Literal["uvloop", "asyncio"]] = ["uvloop", "asyncio"]


@dataclass
class App:
    """A recording application. `/echo` answers what it got, `/stream` sends for ever, `/wait` waits for
    `go`."""

    entered: list[dict[str, Any]] = field(default_factory=list)
    left_stream: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        body = (await receive())["body"]
        self.entered.append(scope)
        if scope["path"] == "/wait":
            await asyncio.to_thread(self.go.wait, BOUND)
        if scope["path"] == "/quiet":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.to_thread(self.go.wait, BOUND)
            await send({"type": "http.response.body", "body": b"at last"})
            return
        if scope["path"] == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(LARGE)})
            return
        if scope["path"] == "/stream":
            await self._stream(receive, send)
            return
        answer = json.dumps(
            {
                "path": scope["path"],
                "query": scope["query_string"].decode(),
                "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
                "body": body.decode(),
            }
        ).encode()
        length = str(len(answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": answer})

    async def _stream(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        self.left_stream.set()


@dataclass
class Running:
    app: App
    port: int
    refused: list[int]
    connections: set[Any]

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(BOUND)
        connection.connect(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def exchange(self, request: bytes, *, drip: bool = False) -> bytes:
        """All that comes back until the server closes; fails if it does not close within the bound."""
        with self.connect() as connection:
            for piece in (request[i : i + 1] for i in range(len(request))) if drip else [request]:
                connection.sendall(piece)
            return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        piece = connection.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    return received


@contextmanager
def running(limits: EdgeLimits, loop: Literal["uvloop", "asyncio"] = "uvloop") -> Iterator[Running]:
    app, refused = App(), list[int]()
    config = server_config(app, "127.0.0.1", 0, limits, on_refused=refused.append, graceful_shutdown=1, loop=loop)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Running(app, listener.getsockname()[1], refused, server.server_state.connections)
        finally:
            server.should_exit = True
            app.go.set()
            thread.join()


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(EdgeLimits(), request.param) as started:
        yield started


def statuses(answer: bytes) -> list[int]:
    """The statuses of the answers in a byte stream, as the client reads them one after another."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        found.append(int(head.split(b" ", 2)[1]))
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        answer = rest[int(length[1]) :] if length else rest
    return found


def check_refusal(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [status]
    lines = head.lower().split(b"\r\n")
    assert b"connection: close" in lines
    assert b"content-type: application/json" in lines
    assert f"content-length: {len(body)}".encode() in lines
    error = json.loads(body)["error"]
    assert error["code"] == status
    assert error["message"].endswith(".")
    assert b"httptools" not in body
    assert b"Traceback" not in body


HOST = b"Host: gateway\r\n"
CLOSE = b"Connection: close\r\n"


def get(target: bytes, *fields: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in fields) + b"\r\n"


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /echo HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in fields) + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


FORBIDDEN: dict[str, tuple[int, bytes]] = {
    # Host (RFC 9112 §3.2): one, and sound
    "no host": (400, b"GET /echo HTTP/1.1\r\n\r\n"),
    "two hosts": (400, get(b"/echo", b"Host: gateway")),
    "two different hosts": (400, get(b"/echo", b"Host: evil")),
    "an empty host": (400, b"GET /echo HTTP/1.1\r\nHost:\r\n\r\n"),
    "a list of hosts": (400, b"GET /echo HTTP/1.1\r\nHost: gateway, evil\r\n\r\n"),
    "a host with userinfo": (400, b"GET /echo HTTP/1.1\r\nHost: gateway@evil\r\n\r\n"),
    "a host with a path": (400, b"GET /echo HTTP/1.1\r\nHost: gateway/evil\r\n\r\n"),
    "a host with a space": (400, b"GET /echo HTTP/1.1\r\nHost: gateway evil\r\n\r\n"),
    "a host with a percent sign": (400, b"GET /echo HTTP/1.1\r\nHost: gateway%00\r\n\r\n"),
    "a host beyond ascii": (400, b"GET /echo HTTP/1.1\r\nHost: g\xc3\xa4teway\r\n\r\n"),
    "a host with two ports": (400, b"GET /echo HTTP/1.1\r\nHost: gateway:80:81\r\n\r\n"),
    "a host with a word as port": (400, b"GET /echo HTTP/1.1\r\nHost: gateway:http\r\n\r\n"),
    # request line
    "an absolute target": (400, get(b"http://gateway/echo")),
    "an absolute target elsewhere": (400, get(b"http://evil/admin")),
    "an asterisk": (400, b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a relative target": (400, get(b"echo")),
    "an authority with connect": (501, b"CONNECT evil:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "trace": (501, b"TRACE /echo HTTP/1.1\r\n" + HOST + b"\r\n"),
    "propfind": (501, b"PROPFIND /echo HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an invented method": (400, b"STEAL /echo HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a method in small letters": (400, b"get /echo HTTP/1.1\r\n" + HOST + b"\r\n"),
    "http/1.0": (505, b"GET /echo HTTP/1.0\r\n" + HOST + b"\r\n"),
    "http/0.9": (505, b"GET /echo\r\n\r\n"),
    "http/2.0 in text": (505, b"GET /echo HTTP/2.0\r\n" + HOST + b"\r\n"),
    "http/1.2": (400, b"GET /echo HTTP/1.2\r\n" + HOST + b"\r\n"),
    "rtsp": (505, b"GET /echo RTSP/1.0\r\n" + HOST + b"\r\n"),
    "the preface of http/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a tls hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "a space in the target": (400, get(b"/echo evil")),
    "a control character in the target": (400, get(b"/echo\x01")),
    "raw utf-8 in the target": (400, get(b"/\xc3\xa9")),
    "a long target": (414, get(b"/" + b"a" * 8192)),
    "a long query": (414, get(b"/echo?" + b"a" * 8192)),
    # path
    "dot segments": (400, get(b"/a/../admin")),
    "a last dot segment": (400, get(b"/a/..")),
    "a single dot": (400, get(b"/./admin")),
    "dot segments before a query": (400, get(b"/a/..?x=1")),
    "encoded dot segments": (400, get(b"/a/%2e%2e/admin")),
    "half encoded dot segments": (400, get(b"/a/.%2E/admin")),
    "twice encoded dot segments": (400, get(b"/a/%252e%252e/admin")),
    "an encoded slash": (400, get(b"/a%2fadmin")),
    "a twice encoded slash": (400, get(b"/a%252Fadmin")),
    "an encoded backslash": (400, get(b"/a%5cadmin")),
    "a backslash": (400, get(b"/a\\admin")),
    "an encoded nul": (400, get(b"/a%00.json")),
    "an encoded line end": (400, get(b"/a%0d%0aX:y")),
    "a matrix parameter": (400, get(b"/echo;v=1/x")),
    "an encoded semicolon": (400, get(b"/echo%3bv=1")),
    "an empty segment": (400, get(b"//evil/echo")),
    "an inner empty segment": (400, get(b"/a//admin")),
    "a broken percent code": (400, get(b"/a%2")),
    "a percent code of letters": (400, get(b"/a%zz")),
    "invalid utf-8 in percent codes": (400, get(b"/a%ff%fe")),
    "overlong utf-8 in percent codes": (400, get(b"/a%c0%ae")),
    "a fragment": (400, get(b"/echo#admin")),
    "a fragment after the query": (400, get(b"/echo?a#b")),
    "quotes in the path": (400, get(b'/"admin"')),
    # header syntax
    "a bare lf": (400, b"GET /echo HTTP/1.1\nHost: gateway\n\n"),
    "one bare lf": (400, b"GET /echo HTTP/1.1\r\nHost: gateway\nX: y\r\n\r\n"),
    "a bare cr": (400, get(b"/echo", b"X: a\rb")),
    "an obsolete fold": (400, get(b"/echo", b"X: a", b" b")),
    "a space before the colon": (400, b"GET /echo HTTP/1.1\r\nHost : gateway\r\n\r\n"),
    "a space before the first name": (400, b"GET /echo HTTP/1.1\r\n Host: gateway\r\n\r\n"),
    "a nul in a value": (400, get(b"/echo", b"X: a\0b")),
    "a control character in a value": (400, get(b"/echo", b"X: a\x01b")),
    "a vertical tab before a value": (400, post(b"Transfer-Encoding: \x0bchunked")),
    "a name with parentheses": (400, get(b"/echo", b"X(y): z")),
    "an empty name": (400, get(b"/echo", b": z")),
    "no colon": (400, get(b"/echo", b"Xyz")),
    "an underscore in a name": (400, get(b"/echo", b"X_User: admin")),
    "an underscored twin": (400, get(b"/echo", b"A2A-Version: 1.0", b"A2A_Version: 0.3")),
    # header number and size
    "a header of 200 kB": (431, get(b"/echo", b"X: " + b"y" * 200_000)),
    "17 KiB of headers": (431, get(b"/echo", *[b"X%d: " % i + b"y" * 1024 for i in range(17)])),
    "17 KiB of one list": (431, get(b"/echo", *[b"Accept: " + b"y" * 1024 for i in range(17)])),
    "65 headers": (431, get(b"/echo", *[b"X%d: y" % i for i in range(64)])),
    "5 000 headers": (431, get(b"/echo", *[b"X%d: y" % i for i in range(5000)])),
    # repeated headers
    "two authorizations": (400, get(b"/echo", b"Authorization: Bearer a", b"Authorization: Bearer b")),
    "two authorizations in two cases": (400, get(b"/echo", b"Authorization: a", b"AUTHORIZATION: a")),
    "two a2a versions": (400, get(b"/echo", b"A2A-Version: 1.0", b"A2A-Version: 0.3")),
    "two mcp names": (400, get(b"/echo", b"Mcp-Name: a", b"Mcp-Name: b")),
    "two mcp parameters": (400, get(b"/echo", b"Mcp-Param-X: a", b"Mcp-Param-X: b")),
    "two origins": (400, get(b"/echo", b"Origin: http://a", b"Origin: http://b")),
    "two content types": (400, post(b"Content-Type: application/json", b"Content-Type: text/plain")),
    "two tokens for dpop": (400, get(b"/echo", b"DPoP: a", b"DPoP: b")),
    # framing of the body
    "two content lengths": (400, post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab")),
    "two equal content lengths": (400, post(b"Content-Length: 2", b"Content-Length: 2", body=b"ab")),
    "a list of content lengths": (400, post(b"Content-Length: 2, 2", body=b"ab")),
    "a signed content length": (400, post(b"Content-Length: +2", body=b"ab")),
    "a hexadecimal content length": (400, post(b"Content-Length: 0x2", body=b"ab")),
    "an empty content length": (400, post(b"Content-Length:", body=b"ab")),
    "an endless content length": (400, post(b"Content-Length: 99999999999999999999", body=b"ab")),
    "length and coding": (400, post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "coding and length": (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")),
    "gzip as transfer coding": (501, post(b"Transfer-Encoding: gzip", body=b"0\r\n\r\n")),
    "gzip before chunked": (501, post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "chunked before identity": (400, post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n")),
    "chunked twice": (
        400,
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    "an invented transfer coding": (501, post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    "a chunk size in 0x": (400, chunked(b"0x1\r\na\r\n0\r\n\r\n")),
    "a chunk size with a sign": (400, chunked(b"-1\r\na\r\n0\r\n\r\n")),
    "a chunk size ended by lf": (400, chunked(b"1\na\r\n0\r\n\r\n")),
    "a chunk longer than said": (400, chunked(b"1\r\nab\r\n0\r\n\r\n")),
    "an endless chunk size": (400, chunked(b"fffffffffffffffff\r\na")),
    "a trailer": (400, chunked(b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n")),
    "a declared body above the cap": (413, post(b"Content-Length: 1048577")),
    "a chunked body above the cap": (413, chunked(b"100000\r\n" + b"x" * 1048576 + b"\r\n1\r\nx\r\n0\r\n\r\n")),
    # codings and expectations
    "a gzipped body": (415, post(b"Content-Encoding: gzip", b"Content-Length: 2", body=b"ab")),
    "a twice coded body": (415, post(b"Content-Encoding: identity, br", b"Content-Length: 2", body=b"ab")),
    "another expectation": (417, post(b"Expect: 200-ok", b"Content-Length: 2", body=b"ab")),
    "an expected body above the cap": (413, post(b"Expect: 100-continue", b"Content-Length: 1048577")),
    "a websocket": (400, get(b"/echo", b"Connection: Upgrade", b"Upgrade: websocket")),
    "an upgrade without connection": (400, get(b"/echo", b"Upgrade: websocket")),
    "an upgrade of two kinds": (400, get(b"/echo", b"Connection: Upgrade", b"Upgrade: h2c, websocket")),
}


def test_the_corpus_is_large_enough() -> None:
    assert len(FORBIDDEN) >= 60


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_request_is_answered_closed_and_never_enters(server: Running, name: str) -> None:
    status, request = FORBIDDEN[name]
    server.app.entered.clear()
    server.refused.clear()
    check_refusal(server.exchange(request), status)
    assert server.app.entered == []
    assert server.refused == [status]


SHORT = [name for name, (_, request) in FORBIDDEN.items() if len(request) < 300]


@pytest.mark.parametrize("name", SHORT)
def test_byte_by_byte_the_verdict_is_the_same(server: Running, name: str) -> None:
    status, request = FORBIDDEN[name]
    server.app.entered.clear()
    check_refusal(server.exchange(request, drip=True), status)
    assert server.app.entered == []


@pytest.mark.parametrize("name", SHORT)
def test_behind_a_good_request_the_verdict_is_the_same_and_comes_second(server: Running, name: str) -> None:
    status, request = FORBIDDEN[name]
    server.app.entered.clear()
    assert statuses(server.exchange(get(b"/first") + request)) == [200, status]
    assert [scope["path"] for scope in server.app.entered] == ["/first"]


def test_what_follows_a_refused_request_is_never_read(server: Running) -> None:
    server.app.entered.clear()
    check_refusal(server.exchange(get(b"/a/../b") + get(b"/admin") + chunked(b"0\r\n\r\n")), 400)
    assert server.app.entered == []


def test_a_refused_head_request_gets_no_body(server: Running) -> None:
    head, _, body = server.exchange(b"HEAD /a/../b HTTP/1.1\r\n" + HOST + b"\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body == b""


def test_the_answer_to_an_oversized_body_arrives_while_the_body_is_still_being_sent(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post(b"Content-Length: 2000000") + b"x" * 1_500_000)
        check_refusal(read_to_end(connection), 413)


# --- what must pass


def echo(server: Running, request: bytes, *, drip: bool = False) -> dict[str, Any]:
    answer = server.exchange(request, drip=drip)
    assert answer.startswith(b"HTTP/1.1 200 ")
    seen: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return seen


@pytest.mark.parametrize("drip", [False, True])
@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/echo/", "/echo/"),
        (b"/.well-known/agent-card.json", "/.well-known/agent-card.json"),
        (b"/v1/message:send", "/v1/message:send"),
        (b"/tasks/a.b..c", "/tasks/a.b..c"),
        (b"/tasks/...", "/tasks/..."),
        (b"/na%C3%AFve%20name", "/naïve name"),
        (b"/~user/a,b=c@d!$&'()*+", "/~user/a,b=c@d!$&'()*+"),
    ],
)
def test_an_honest_path_arrives_unchanged(server: Running, target: bytes, path: str, drip: bool) -> None:
    seen = echo(server, get(target + b"?a=/../%2f;[x]{y}|", b"Connection: close"), drip=drip)
    assert (seen["path"], seen["query"]) == (path, "a=/../%2f;[x]{y}|")


@pytest.mark.parametrize(
    "host",
    ["gateway", "gateway:8000", "127.0.0.1:1", "[::1]", "[::1]:8000", "my_service", "a-b.example.", "LOCALHOST"],
)
def test_an_honest_host_passes(server: Running, host: str) -> None:
    seen = echo(server, f"GET / HTTP/1.1\r\nHost: \t{host} \t\r\n".encode() + CLOSE + b"\r\n")
    assert ["host", host] in seen["headers"]


def test_lists_may_come_on_several_lines_in_their_order(server: Running) -> None:
    seen = echo(server, get(b"/", b"Accept: a", b"X: 1", b"accept: b", b"Connection: close"))
    assert [value for name, value in seen["headers"] if name == "accept"] == ["a", "b"]


def test_sixty_four_headers_and_sixteen_kibibytes_pass(server: Running) -> None:
    fields = [b"X%d: %s" % (i, b"y" * 245) for i in range(62)]
    assert len(echo(server, get(b"/", *fields, b"Connection: close"))["headers"]) == 64


@pytest.mark.parametrize("drip", [False, True])
@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"Content-Length: 5 ", b"Connection: close", body=b"hello"),
        post(b"Transfer-Encoding: chunked ", b"Connection: close", body=b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"),
        post(b"Transfer-Encoding: CHUNKED", b"Connection: close", body=b"5\r\nhello\r\n0\r\n\r\n"),
        post(b"Content-Encoding: identity", b"Content-Length: 5", b"Connection: close", body=b"hello"),
    ],
)
def test_a_body_arrives_whole(server: Running, request_bytes: bytes, drip: bool) -> None:
    assert echo(server, request_bytes, drip=drip)["body"] == "hello"


def test_a_body_in_chunks_of_two_bytes_arrives_whole(server: Running) -> None:
    wire = b"".join(b"2\r\n%02d\r\n" % (number % 100) for number in range(400)) + b"0\r\n\r\n"
    request = post(b"Transfer-Encoding: chunked", b"Connection: close", body=wire)
    assert echo(server, request)["body"] == "".join(f"{number % 100:02d}" for number in range(400))


def test_a_body_of_exactly_the_cap_passes(server: Running) -> None:
    body = b"x" * 1048576
    seen = echo(server, post(b"Content-Length: 1048576", b"Connection: close", body=body))
    assert len(seen["body"]) == 1048576


def test_who_expects_a_continue_gets_it_before_the_body(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post(b"Expect: 100-continue", b"Content-Length: 5", b"Connection: close"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        answer = read_to_end(connection)
    assert statuses(answer) == [200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == "hello"


def test_an_offer_of_h2c_is_declined_and_the_body_is_not_lost(server: Running) -> None:
    """Java's HttpClient makes this offer; llhttp alone would hand the application an empty body."""
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    first = post(*offer, b"Content-Length: 5", body=b"hello")
    last = get(b"/last", b"Connection: close, Upgrade, HTTP2-Settings", *offer[1:])
    server.app.entered.clear()
    answer = server.exchange(first + last)
    assert statuses(answer) == [200, 200]
    assert b'"body": "hello"' in answer
    assert b"http2-settings" not in answer
    assert [scope["path"] for scope in server.app.entered] == ["/echo", "/last"]


def test_requests_in_one_packet_are_answered_in_order(server: Running) -> None:
    requests = [get(b"/%d" % i) for i in range(15)] + [get(b"/last", b"Connection: close")]
    server.app.entered.clear()
    assert statuses(server.exchange(b"".join(requests))) == [200] * 16
    assert [scope["path"] for scope in server.app.entered] == [f"/{i}" for i in range(15)] + ["/last"]


def test_a_seventeenth_request_in_waiting_is_refused_in_its_turn(server: Running) -> None:
    assert statuses(server.exchange(get(b"/") * 30)) == [200] * 16 + [400]


def test_one_connection_serves_many_requests(server: Running) -> None:
    with server.connect() as connection:
        for i in range(20):
            connection.sendall(get(b"/%d" % i))
            assert f'"path": "/{i}"'.encode() in read_until(connection, b"}")


def test_the_answer_names_no_server(server: Running) -> None:
    head = server.exchange(get(b"/", b"Connection: close")).partition(b"\r\n\r\n")[0].lower()
    assert b"server:" not in head
    assert b"uvicorn" not in head


# --- time (S3)

QUICK = EdgeLimits(head_deadline=0.2, keep_alive=0.2, body_deadline=0.5, body_grace=0.2, write_stall=0.3, linger=0.2)


@pytest.fixture(scope="module", params=LOOPS)
def quick(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(QUICK, request.param) as started:
        yield started


PATIENT = replace(QUICK, write_stall=1.0)  # much longer than a slow reader of ours pauses


@pytest.fixture(scope="module", params=LOOPS)
def patient(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(PATIENT, request.param) as started:
        yield started


def drip_until_answered(connection: socket.socket, piece: bytes) -> bytes:
    """Send a piece every 20 ms until the server says or does something; then all that it says."""
    until = time.monotonic() + BOUND
    while not select.select([connection], [], [], 0.02)[0]:
        assert time.monotonic() < until, "the server let the drip go on"
        connection.sendall(piece)
    return read_to_end(connection)


def test_a_silent_connection_is_closed_without_a_word(quick: Running) -> None:
    began, watch = time.monotonic(), Stopwatch()
    with quick.connect() as connection:
        assert read_to_end(connection) == b""
    assert time.monotonic() - began >= 0.2
    assert watch.seconds() < 1


def test_empty_lines_are_no_sign_of_life(quick: Running) -> None:
    with quick.connect() as connection:
        assert drip_until_answered(connection, b"\r\n") == b""


@pytest.mark.parametrize("start", [b"G", b"GET /", b"GET / HTTP/1.1\r\nHost: gateway\r\nX: "])
def test_a_head_that_drips_is_refused_at_its_deadline(quick: Running, start: bytes) -> None:
    quick.app.entered.clear()
    with quick.connect() as connection:
        connection.sendall(start)
        piece = b"" if start == b"G" else b"a"
        check_refusal(drip_until_answered(connection, piece), 408)
    assert quick.app.entered == []


def test_a_body_that_drips_is_refused_and_its_handler_never_entered(quick: Running) -> None:
    quick.app.entered.clear()
    with quick.connect() as connection:
        connection.sendall(post(b"Content-Length: 100000"))
        check_refusal(drip_until_answered(connection, b"x"), 408)
    assert quick.app.entered == []


def test_a_fast_body_that_never_ends_is_refused_at_its_deadline(quick: Running) -> None:
    began = time.monotonic()
    with quick.connect() as connection:
        connection.sendall(post(b"Transfer-Encoding: chunked"))
        check_refusal(drip_until_answered(connection, b"400\r\n" + b"x" * 1024 + b"\r\n"), 408)
    assert time.monotonic() - began >= 0.5


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(quick: Running) -> None:
    with quick.connect() as busy, quick.connect() as idle:
        busy.sendall(get(b"/wait"))
        idle.sendall(get(b"/"))
        assert statuses(read_to_end(idle)) == [200]  # ends when the server closes it
        quick.app.go.set()
        assert read_until(busy, b"}").startswith(b"HTTP/1.1 200 ")
        quick.app.go.clear()


def test_a_half_sent_second_request_has_its_deadline_too(quick: Running) -> None:
    with quick.connect() as connection:
        connection.sendall(get(b"/") + b"GET /late")
        assert statuses(read_to_end(connection)) == [200, 408]


def test_a_head_without_end_is_refused_when_it_is_too_large_not_when_it_is_too_late(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"X: ")
        check_refusal(drip_until_answered(connection, b"y" * 1500), 431)  # 408 is what comes too late


def test_after_a_refusal_a_client_that_stays_is_cut_off(quick: Running) -> None:
    with quick.connect() as connection:
        connection.sendall(get(b"/a/../b"))
        check_refusal(read_to_end(connection), 400)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for_ever(connection)


def send_for_ever(connection: socket.socket) -> None:
    until = time.monotonic() + BOUND
    while time.monotonic() < until:
        connection.sendall(b"x")
        select.select([], [], [], 0.02)


def test_a_reader_that_stops_reading_a_stream_is_cut_off(quick: Running) -> None:
    quick.app.left_stream.clear()
    with quick.connect(receive_buffer=4096) as connection:
        connection.sendall(get(b"/stream"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert quick.app.left_stream.wait(BOUND)


@pytest.mark.parametrize("piece", [8192, 262144])
def test_a_reader_that_keeps_reading_is_not_cut_off_however_slow(patient: Running, piece: int) -> None:
    patient.app.left_stream.clear()
    with patient.connect(receive_buffer=32768) as connection:
        connection.sendall(get(b"/stream"))
        until = time.monotonic() + 1.5 * PATIENT.write_stall
        while time.monotonic() < until:
            assert connection.recv(piece)
            assert not patient.app.left_stream.wait(0.02)
    assert patient.app.left_stream.wait(BOUND)  # and the handler learns that the client has gone


def test_a_stream_begins_before_it_has_anything_to_say(server: Running) -> None:
    server.app.go.clear()
    with server.connect() as connection:
        connection.sendall(get(b"/quiet", b"Connection: close"))
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        server.app.go.set()
        assert read_to_end(connection) == b"7\r\nat last\r\n0\r\n\r\n"


def test_readers_who_together_leave_too_much_unread_are_cut_off_the_slowest_first() -> None:
    with running(EdgeLimits(max_unsent=2 * LARGE)) as server, ExitStack() as stack:
        slow = [stack.enter_context(server.connect(receive_buffer=65536)) for _ in range(4)]
        for connection in slow:
            connection.sendall(get(b"/large", b"Connection: close"))
        wait_for(lambda: len(server.app.entered) == len(slow))
        wait_for(lambda: len(server.connections) == 2)
        whole = [len(read_to_end(connection)) > LARGE for connection in slow]
        assert sorted(whole) == [False, False, True, True]


def test_connections_beyond_the_limit_are_told_to_come_back() -> None:
    with running(EdgeLimits(max_connections=2)) as server, server.connect() as one, server.connect() as two:
        for connection in (one, two):  # answered, so the server has counted them
            connection.sendall(get(b"/"))
            assert read_until(connection, b"}").startswith(b"HTTP/1.1 200 ")
        with server.connect() as third:
            check_refusal(read_to_end(third), 503)
        one.sendall(get(b"/"))
        assert read_until(one, b"}").startswith(b"HTTP/1.1 200 ")


def test_stopping_the_server_closes_idle_connections_and_lets_the_busy_finish() -> None:
    with running(EdgeLimits()) as server:
        idle, busy = server.connect(), server.connect()
        idle.sendall(get(b"/"))
        assert read_until(idle, b"}").startswith(b"HTTP/1.1 200 ")
        busy.sendall(get(b"/wait"))
        wait_for(lambda: len(server.app.entered) == 2)
    with idle, busy:
        assert idle.recv(65536) == b""
        assert statuses(read_to_end(busy)) == [200]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


# --- the pure part


@pytest.mark.parametrize(
    "target", [b"/" * 8000, b"/a" * 4000 + b"#", b"/" + b"%2" * 4000, b"/%" + b"25" * 4000, b"/." * 4000]
)
def test_judging_a_hostile_target_takes_no_longer_than_reading_it(target: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(Refused):
        judge_target(target + b";")
    with suppress(Refused):  # what counts here is the time
        judge_target(target)
    assert time.thread_time() - began < 0.05
