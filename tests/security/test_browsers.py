"""Advisories about browsers: a page that somebody looks at asks the gateway on the same machine or network, by a name
that leads there after all (DNS rebinding), or from another site with a request that needs no leave.

What others overlooked was mostly the second door, after the first had been closed. So every route of every listener is
asked, and a twin in which only one of them is open has to show.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.cli import redirect
from gateway.listening import listen
from gateway.server.edge import server_config
from gateway.server.front import Front
from gateway.server.head import EdgeLimits
from gateway.server.request import Request
from tests.access_matrix import BODIES, Row, Town, rows, town
from tests.journeys.test_admin_listener import routes as admin_routes
from tests.security.twins import Attacks, Twin, by_itself
from tests.serving import BOUND, ECHO, Gateway, message, running
from tests.test_house import imports

pytestmark = [pytest.mark.security, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class Listener:
    """One of the gateway's, and everything that can be asked there."""

    client: httpx2.AsyncClient
    authority: str
    asked: tuple[Row, ...]

    async def lets_in(self, row: Row, sent: dict[str, str]) -> bool:
        """Whether a request with these headers came past the front, whatever was answered there."""
        headers = {**(row.headers or {}), **sent}
        async with self.client.stream(row.verb, row.path, headers=headers, json=row.body) as answer:
            if answer.status_code not in (421, 403):
                return True
            content = await answer.aread()
        if row.verb == "HEAD":  # which has no sentence
            return False
        return not re.search(rb"not known by that Host|This Origin may not call", content)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Listener]:
    """The gateway with everything on it, on loopback and for anybody: what a developer has running."""
    async with town(tmp_path_factory.mktemp("town")) as there:
        yield Listener(there.gateway.client, there.gateway.client.base_url.netloc.decode(), tuple(_asked(there)))


def _asked(there: Town) -> Iterable[Row]:
    """Each verb of each path once: the front sees no more of a request. Then what older servers had, and nothing."""
    yield from {(row.verb, row.path): row for row in rows(there)}.values()
    for verb, path in (("GET", "/sse"), ("POST", "/messages"), ("GET", "/mcp/nosuch"), ("GET", "/nosuch")):
        yield Row(f"{verb} {path}", verb, path, {} if verb == "POST" else None, {"Accept": "text/event-stream"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Listener]:
    """/admin on a listener of its own."""
    socket = listen("127.0.0.1", 0)
    authority = f"127.0.0.1:{socket.getsockname()[1]}"
    config = ECHO + f"server: {{admin: '{authority}'}}\n"
    async with running(tmp_path_factory.mktemp("admin"), config) as gateway:
        assert gateway.app.admin_asgi is not None
        async with (
            served(gateway.app.admin_asgi, socket),
            httpx2.AsyncClient(base_url=f"http://{authority}", timeout=BOUND, trust_env=False) as client,
        ):
            paths = [*admin_routes(), ("GET", "/livez"), ("GET", "/readyz")]
            yield Listener(client, authority, tuple(_row(*each) for each in paths))


def _row(verb: str, path: str) -> Row:
    there = re.sub(r"\{\w+\}", "nosuch", path)
    return Row(f"{verb} {path}", verb, there, BODIES.get(path, {}) if verb in ("POST", "PATCH") else None)


@asynccontextmanager
async def served(app: ASGIApp, socket: Any) -> AsyncIterator[None]:
    config = server_config(app, "127.0.0.1", 0, EdgeLimits(), graceful_shutdown=1, lifespan="off", tls=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
    serving = asyncio.ensure_future(server.serve([socket]))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND)


@pytest.fixture(params=["open_door", "admin_door"])
def listener(request: pytest.FixtureRequest) -> Listener:
    found: Listener = request.getfixturevalue(request.param)
    return found


# The attacks: each says of every route, with one of its forms after the other, whether it came past the front.


async def by_another_name(listener: Listener) -> list[bool]:
    """The page's own name leads here by now. To the browser this is the page's own site: no Origin, no preflight."""
    port = listener.authority.rpartition(":")[2]
    names = itertools.cycle(
        ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "127.0.0.1:1", f"127.0.0.1.:{port}")
    )
    return [await listener.lets_in(row, {"Host": next(names)}) for row in listener.asked]


async def from_another_site(listener: Listener) -> list[bool]:
    sites = itertools.cycle(
        ("https://evil.example", "null", "http://127.0.0.1:1", f"https://{listener.authority}", "http://localhost")
    )
    return [await listener.lets_in(row, {"Origin": next(sites)}) for row in listener.asked]


# The twins: what stands in the place of one defence.


sound = Front._stranger


def goes_by_any_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Front, "_stranger", lambda self, headers: sound(self, {**headers, b"host": next(iter(self._hosts))}))


def hears_any_site(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Front, "_stranger", lambda self, headers: sound(self, _without(headers, b"origin")))


def _without(headers: dict[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    return {each: value for each, value in headers.items() if each != name}


ATTACKS: Attacks[Listener] = {
    "rebinding": (by_another_name, goes_by_any_name),
    "another-site": (from_another_site, hears_any_site),
}


@by_itself
@pytest.mark.parametrize("name", ATTACKS)
async def test_no_page_comes_in_at_any_route_and_at_every_one_of_the_broken_twin(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, name: str, broken: bool
) -> None:
    attack, twin = ATTACKS[name]
    if broken:
        twin(monkeypatch)
    got = await attack(listener)
    assert len(got) == len(listener.asked) > 80
    let_in = {row.name for row, each in zip(listener.asked, got, strict=True) if each}
    assert let_in == ({row.name for row in listener.asked} if broken else set())


@pytest.mark.parametrize("forgotten", [("GET", "/mcp"), ("GET", "/livez"), ("POST", "/agents/echo")], ids=str)
async def test_one_broken_route_beside_all_the_closed_ones_is_found(
    open_door: Listener, monkeypatch: pytest.MonkeyPatch, forgotten: tuple[str, str]
) -> None:
    """As it was in the Go SDK: the newer transport looked at Host, the stream of the older one did not."""
    call = Front.__call__

    def twin(self: Front, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        open_by_mistake = (scope.get("method"), scope.get("path")) == forgotten
        return self._inside(scope, receive, send) if open_by_mistake else call(self, scope, receive, send)

    monkeypatch.setattr(Front, "__call__", twin)
    got = await by_another_name(open_door)
    let_in = [(row.verb, row.path) for row, each in zip(open_door.asked, got, strict=True) if each]
    assert let_in == [forgotten]


# A request that a browser sends to another site without asking first: a form's media type, and no header of its own.

SIMPLE: tuple[dict[str, str], ...] = (
    {"Content-Type": "text/plain"},
    {"Content-Type": "text/plain;charset=UTF-8"},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {},
)
_numbers = itertools.count(1)


def _simple_bodies() -> dict[str, Any]:
    """By path: what needs neither a header of its own nor a credential."""
    said = {"role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    acp = [{"role": "user", "parts": [{"content_type": "text/plain", "content": "hi"}]}]
    older = {"agent_id": "echo", "task": {"id": f"t{next(_numbers)}", "description": "hi"}, "wait": 0}
    offer = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "page", "version": "1"}}
    return {
        "/agents/echo": _rpc("message/send", {"message": {**said, "kind": "message", "messageId": _id()}}),
        "/": _rpc("agents/tasks/create", older),
        "/agents/echo/v1/message:send": {
            "message": {"messageId": _id(), "role": "ROLE_USER", "content": [{"text": "hi"}]}
        },
        "/acp/runs": {"agent_name": "echo", "input": acp, "mode": "sync"},
        "/mcp": _rpc("initialize", offer),
    }


def _id() -> str:
    return str(message("x")["messageId"])


def _rpc(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def takes_any_type(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Request, "media_type", property(lambda self: "application/json"))


# ACP's own client names no type, so there the look at the site has to do alone.
UNTYPED = ("/acp/runs", None)
BLIND: dict[str, tuple[Twin, ...]] = {
    "sound": (),
    "any site": (hears_any_site,),
    "any type": (takes_any_type,),
    "twin": (hears_any_site, takes_any_type),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anonymous(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("anonymous"), ECHO, anonymous=True) as gateway:
        yield gateway


@pytest.mark.parametrize("name", BLIND)
async def test_a_form_of_another_site_runs_nothing_but_in_the_broken_twin(
    anonymous: Gateway, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Two looks, at the site and at the media type, of which each is enough; the broken twin has neither."""
    for blinded in BLIND[name]:
        blinded(monkeypatch)
    ran = {}
    for simple in SIMPLE:
        for path, body in _simple_bodies().items():
            content = httpx2.Request("POST", "http://x", json=body).content
            sent = {"Origin": "https://evil.example", "Accept": "*/*", **simple}
            answer = await anonymous.client.post(path, content=content, headers=sent)
            ran[path, simple.get("Content-Type")] = answer.status_code < 300 and b'"error":{' not in answer.content
    got_in = {form for form, came in ran.items() if came}
    assert got_in == {"sound": set(), "any site": {UNTYPED}, "any type": set(), "twin": set(ran)}[name]


# WebSockets, which browsers open to any site: there are none.


async def test_nothing_opens_a_websocket(listener: Listener) -> None:
    handshake = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "mcp",
    }  # fmt: skip
    paths = {*[row.path for row in listener.asked][::4], "/", "/mcp", "/agents/echo", "/ws", "/mcp/ws"}
    answers = {path: (await listener.client.get(path, headers=handshake)).status_code for path in paths}
    assert answers == dict.fromkeys(answers, 400)
    assert not [str(each) for each in imports() if "websocket" in f"{each.target}.{each.name}".lower()]


# The other listeners: the port for gRPC, and where a command waits for a person who logs in elsewhere.


async def test_a_page_cannot_speak_to_the_port_for_grpc(tmp_path: Path) -> None:
    """A page speaks HTTP/1.1 where there is no TLS; what comes back is no answer to that."""
    async with running(tmp_path, ECHO, anonymous=True, grpc_port=0) as gateway:
        assert gateway.app.grpc is not None
        asks = b"POST /lf.a2a.v1.A2AService/SendMessage HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.app.grpc.port)
        writer.write(asks)
        said = await asyncio.wait_for(reader.read(), BOUND)
        writer.close()
    assert not said.startswith(b"HTTP/")


@by_itself
async def test_where_a_login_ends_no_page_is_believed_but_by_the_broken_twin(
    monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Any page can find the port; what it does not know is the state. The broken twin does not look at it."""
    if broken:
        monkeypatch.setattr(redirect, "parse_qs", lambda query: {"state": ["ours"]})
    with redirect.Redirect(BOUND) as place:
        waiting = asyncio.ensure_future(asyncio.to_thread(place.answer, "ours"))
        async with httpx2.AsyncClient(trust_env=False, timeout=BOUND) as browser:
            await browser.get(f"{place.uri}?code=mine&state=guess", headers={"Host": "evil.example"})
            if not broken:  # which has heard enough
                await browser.get(f"{place.uri}?code=mine")
                await browser.get(f"{place.uri}?code=theirs&state=ours")
        answer = await asyncio.wait_for(waiting, BOUND)
    assert answer is not None
    assert ("code=mine" in answer) is broken
