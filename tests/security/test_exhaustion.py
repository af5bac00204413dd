"""Advisories about one request that takes the service away from everybody: it ends the process, holds up its one
thread, or fills its memory.

Time is the processor's, so that a busy machine changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from gateway.checks import schemas
from gateway.checks.patterns import Patterns
from gateway.core.tools.naming import Mount
from gateway.model.errors import GatewayError
from gateway.server import grpc as rpc
from gateway.server.auth import Authenticator
from gateway.server.cycle import Cycle
from gateway.server.edge import EdgeProtocol
from gateway.server.oauth.endpoints import Endpoints
from gateway.upstream.answer import ANSWER_LIMIT, StreamAnswer
from gateway.upstream.inflate import Inflate
from gateway.upstream.oauth import challenge
from tests.mcp import MODERN, Door, configured, request, soon, tool
from tests.mcp import Scripted as Server
from tests.mcp import scripted as served
from tests.remote import Asked, agents, ready, scripted
from tests.remote import Scripted as Agent
from tests.security.twins import Attacks, Attempt, broken_by, by_itself, each_of
from tests.serving import BOUND, ECHO, Gateway, message, running
from tests.tokenclient import client
from tests.upstream import loopback

pytestmark = [pytest.mark.security, pytest.mark.asyncio(loop_scope="module")]

SLOW = 0.1  # seconds of the processor; an honest request takes some thousandths
EVIL = "^(a+)+$"
PROFILE = f"""
rules:
  - {{rule: honest, declared: true, places: [arguments], action: block}}
  - {{rule: words, pattern: "{EVIL}", agents: [far], places: [message], action: flag}}
"""


@dataclass(frozen=True)
class House:
    gateway: Gateway
    agent: Agent
    server: Server

    @property
    def port(self) -> int:
        port = self.gateway.client.base_url.port
        assert port is not None
        return port

    async def alive(self) -> bool:
        """Whether somebody else is still served, who has asked before."""
        try:
            answer = await self.gateway.client.get("/agents", headers=self.gateway.bearer(None))
            return answer.status_code == 200 and "docs__find" in await Door(self.gateway).names()
        except (httpx2.HTTPError, AssertionError):
            return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("exhaustion")
    (folder / "compliance.yaml").write_text(PROFILE)
    word = {"type": "object", "properties": {"word": {"type": "string", "pattern": EVIL}}}
    async with scripted() as agent, served(tool("find", inputSchema=word), tool("hang")) as server:
        config = f"""
server: {{public_url: 'https://gateway.example'}}
auth: {{authorization_server: {{users: true}}}}
compliance: {{file: {folder}/compliance.yaml}}
{agents(far=agent.url)}{configured(docs=server)}"""
        async with running(folder / "data", config) as gateway:
            await ready(gateway, "far")
            await soon(Door(gateway).names)
            yield House(gateway, agent, server)


# One request that goes wrong.


async def malformed(house: House) -> None:
    bodies: tuple[Any, ...] = (
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 7, "capabilities": []}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": {}, "progress": "x"}},
        {"jsonrpc": "2.0", "id": {"a": 1}, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 1, "result": None, "error": None},
        [[]],
        b"\xff{",
    )
    for body in bodies:
        with contextlib.suppress(httpx2.HTTPError):
            await Door(house.gateway).raw(body, {"MCP-Protocol-Version": MODERN})


async def malformed_in_a_session(house: House) -> None:
    session = await Door(house.gateway).session()
    wrong: list[dict[str, Any]] = [{"name": 7}, {"name": "docs__find", "arguments": []}, {"name": None, "_meta": []}]
    for params in wrong:
        with contextlib.suppress(httpx2.HTTPError):
            await session.raw(request("tools/call", params))


async def left_early(house: House) -> None:
    """The client is gone while its call is with a server that does not answer."""
    called = asyncio.Event()

    async def never(params: Any) -> Any:
        called.set()
        await asyncio.Event().wait()

    house.server.answers["hang"] = never
    house.server.canceled.clear()
    calling = asyncio.ensure_future(Door(house.gateway).call("docs__hang"))
    await asyncio.wait_for(called.wait(), BOUND)
    calling.cancel()
    await asyncio.wait([calling])
    await asyncio.wait_for(house.server.canceled.wait(), BOUND)


WRONG: dict[str, Callable[[House], Awaitable[None]]] = {
    "malformed": malformed,
    "malformed-in-a-session": malformed_in_a_session,
    "left-early": left_early,
}


def ends_with_the_first_that_fails(patch: pytest.MonkeyPatch) -> None:
    """All requests in one group, and nobody there for what one of them raises."""
    ended: list[object] = []
    disconnect = Cycle.disconnect

    async def run(self: Cycle, app: Any) -> None:
        try:
            if not ended:
                await app(self.scope, self.receive, self.send)
        except GatewayRaised as error:
            ended.append(error)
        if ended:
            self._transport.abort()

    def left(self: Cycle) -> None:
        disconnect(self)
        if self.disconnected:
            ended.append(self)

    def known(error: BaseException) -> Any:
        raise GatewayRaised from error

    patch.setattr(Cycle, "run", run)
    patch.setattr(Cycle, "disconnect", left)
    for module in ("door", "modern", "legacy"):
        patch.setattr(f"gateway.server.mcp.{module}.known", known)


class GatewayRaised(Exception):
    pass


@by_itself
@pytest.mark.parametrize("name", WRONG)
async def test_a_request_that_goes_wrong_ends_alone_and_takes_all_with_its_broken_twin(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str, broken: bool
) -> None:
    assert await house.alive()
    if broken:
        ends_with_the_first_that_fails(monkeypatch)
    await WRONG[name](house)
    assert await house.alive() is not broken


# The attacks: each says of all its forms whether they got what they must not get.


async def spent(what: Awaitable[Any]) -> float:
    """Seconds of the processor, without those of a garbage collection that happens to be due."""
    gc.disable()
    before = time.process_time()
    try:
        await what
        return time.process_time() - before
    finally:
        gc.enable()


async def evil_words(house: House) -> list[bool]:
    """Against a pattern in the schema of a server's tool, and one of the operator's."""
    word = "a" * 23 + "!"
    house.agent.plays["SendMessage"] = say_nothing
    called = Door(house.gateway).ask("tools/call", {"name": "docs__find", "arguments": {"word": word}})
    sent = house.gateway.send(word, agent="far")
    return [await spent(called) > SLOW, await spent(sent) > SLOW]


async def say_nothing(asked: Asked) -> None:
    asked.answer({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": ""}]}})


async def an_evil_address(house: House) -> list[bool]:
    """Of a resource, where a server has a template that would have to be tried."""

    async def none(params: Any) -> Any:
        return {"error": {"code": -32602, "message": "Resource not found"}}

    house.server.answers["resources/read"] = none
    door = Door(house.gateway)
    return [await spent(door.ask("resources/read", {"uri": "docs+x:/" + "," * 34 + "/"})) > SLOW]


FORM = b"a=1&" * 40 + b"a=1"
PARTS = b"--x\r\n" + b'Content-Disposition: form-data; name="a"; filename="b"\r\n\r\n1\r\n--x\r\n' * 40
TYPES = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x")


async def forms(house: House) -> list[bool]:
    """At every route that takes something: whether Starlette's parsers of forms see it, whatever they then do."""
    seen: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FormParser", "MultiPartParser"):
            patch.setattr(f"starlette.requests.{name}", parser(seen))
        routes = house.gateway.app.asgi._inside._rest.routes  # type: ignore[attr-defined]
        paths = {route.path for route in routes if "POST" in (route.methods or ())}
        paths = {re.sub(r"\{[^}]+\}", "7", path) for path in paths} | {"/", "/mcp", "/agents/far", "/acp/runs"}
        assert len(paths) > 40
        for path in paths:
            for type, body in zip(TYPES, (FORM, PARTS + b"--x--"), strict=True):
                who = {} if path.startswith("/oauth") else house.gateway.bearer(None)
                await house.gateway.client.post(path, content=body, headers={**who, "Content-Type": type})
    return [bool(seen)]


def parser(seen: list[object]) -> Any:
    class Parser:
        def __init__(self, *given: Any, **more: Any) -> None:
            seen.append(given)
            raise MultiPartException("seen")

    return Parser


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)


async def http2(house: House) -> list[bool]:
    """To the HTTP port; what answers in frames has a table that headers can be multiplied with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        writer.write(PREFACE + SETTINGS)
        answer = await asyncio.wait_for(reader.read(9), BOUND)
        return [not answer.startswith(b"HTTP/1.1")]
    finally:
        writer.close()


async def a_packed_answer(house: House) -> list[bool]:
    """32 MiB in some kilobytes, from an agent: how much of it is there at one time?"""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = squeeze.compress(bytes(32 << 20)) + squeeze.flush()

    async def explode(asked: Asked) -> None:
        asked.whole(bomb, content_encoding="gzip")

    house.agent.plays["SendMessage"] = explode
    largest = 0
    plain = StreamAnswer._plain

    async def watched(self: StreamAnswer, inflate: Inflate) -> bytes:
        nonlocal largest
        piece = await plain(self, inflate)
        largest = max(largest, len(piece))
        return piece

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamAnswer, "_plain", watched)
        await house.gateway.rpc("SendMessage", {"message": message("hi")}, agent="far")
    return [largest > ANSWER_LIMIT]


# The twins: what stands in the place of one defence.


def runs_patterns_with_python(patch: pytest.MonkeyPatch) -> None:
    find, broken = Patterns._in, schemas._broken

    def found(self: Patterns, where: str, text: str) -> Any:
        re.search(EVIL, text)
        return find(self, where, text)

    def judged(validator: Any, where: str, data: Any) -> Any:
        re.search(EVIL, data["word"])
        return broken(validator, where, data)

    patch.setattr(Patterns, "_in", found)
    patch.setattr(schemas, "_broken", judged)


def tries_templates(patch: pytest.MonkeyPatch) -> None:
    """As the TypeScript SDK made an expression of `x:/{id*}`."""
    locate = Mount.locate

    def tried(self: Mount, uri: str) -> tuple[str, str] | None:
        re.fullmatch(r"docs\+x:/([^/]+(?:,[^/]+)*)", uri)
        return locate(self, uri)

    patch.setattr(Mount, "locate", tried)


def reads_forms_with_starlette(patch: pytest.MonkeyPatch) -> None:
    answer = Endpoints._answer

    async def read(self: Endpoints, request: Request, *asked: Any) -> Any:
        with contextlib.suppress(HTTPException):
            await request.form()
        return await answer(self, request, *asked)

    patch.setattr(Endpoints, "_answer", read)


def speaks_http2(patch: pytest.MonkeyPatch) -> None:
    received = EdgeProtocol.data_received

    def taken(self: EdgeProtocol, data: bytes) -> None:
        if data.startswith(PREFACE):
            self.transport.write(SETTINGS)
        else:
            received(self, data)

    patch.setattr(EdgeProtocol, "data_received", taken)


def inflates_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inflate, "feed", lambda self, data: iter([self._stream.decompress(data)]))


ATTACKS: Attacks[House] = {
    "pattern": (evil_words, runs_patterns_with_python),
    "template": (an_evil_address, tries_templates),
    "form": (forms, reads_forms_with_starlette),
    "http2": (http2, speaks_http2),
    "packed": (a_packed_answer, inflates_at_once),
}


@each_of(ATTACKS)
async def test_a_request_takes_no_more_than_its_share_and_does_with_its_broken_twin(
    house: House, attempt: Attempt[House]
) -> None:
    await attempt(house)


# A server that asks for a token, in a header that takes long to read.


def tries_blanks_in_every_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(challenge, "_PART", re.compile(challenge._PART.pattern.replace(r"\s*+,?\s*+", r"\s*,?\s*")))


@broken_by(tries_blanks_in_every_way)
async def test_a_challenge_is_read_in_no_time_but_by_the_broken_twin(tmp_path: Path, broken: bool) -> None:
    """Six thousand blanks, which belong in front of a comma or behind it, or would if there was one."""
    evil = loopback.answer(b"", "401 Unauthorized", www_authenticate="Bearer" + " " * 6000 + '"')
    async with loopback.serve(loopback.always(evil)) as server, client(server.url, tmp_path) as one:

        async def called() -> None:
            with pytest.raises(GatewayError):
                await one.call()

        took = await spent(called())
        assert server.requests
        assert (took > SLOW) is broken


# The gRPC port, which speaks HTTP/2: headers that are multiplied.


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """RFC 7541 §6.2.1: a field that goes into the table; lengths beyond 126 in more bytes (§5.1)."""
    return b"\x40" + bytes([len(name)]) + name + sized(value)


def sized(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, made = len(value) - 127, b"\x7f"
    while rest > 127:
        made, rest = made + bytes([rest % 128 + 128]), rest // 128
    return made + bytes([rest]) + value


def bomb(path: bytes) -> bytes:
    """One field of 3 500 bytes, named five hundred times more by a byte each."""
    fields = b"\x83\x86" + b"\x44" + sized(path) + b"\x41" + sized(b"127.0.0.1")
    fields += b"\x5f" + sized(b"application/grpc") + literal(b"te", b"trailers")
    fields += literal(b"x-bomb", b"y" * 3500) + b"\xbe" * 500
    return PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, fields) + frame(0, 1, 1, bytes(5))


def takes_any_metadata(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.server.a2a_grpc.MAX_METADATA", 1 << 30)
    # The core refuses some of those beyond its softer limit, by chance, even before that is acknowledged.
    patch.setattr(rpc, "OPTIONS", (("grpc.max_metadata_size", 1 << 30),))


@broken_by(takes_any_metadata)
async def test_headers_that_multiply_never_reach_the_door_but_of_its_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """A few bytes name one long field again and again, before the limits of gRPC's core hold: they do once its settings
    are acknowledged, which nobody does here."""
    asked: list[int] = []
    principal = Authenticator.principal

    async def counted(self: Authenticator, headers: dict[bytes, bytes], *more: Any, **named: Any) -> Any:
        asked.append(sum(map(len, headers.values())))
        return await principal(self, headers, *more, **named)

    monkeypatch.setattr(Authenticator, "principal", counted)
    async with running(tmp_path, ECHO, grpc_port=0) as gateway:
        assert gateway.app.grpc is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.app.grpc.port)
        writer.write(bomb(b"/lf.a2a.v1.A2AService/GetTask"))
        async with asyncio.timeout(BOUND):
            kinds: set[int] = set()
            while kinds.isdisjoint({1, 3, 7}):  # HEADERS, RST_STREAM, GOAWAY: its answer
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                kinds.add(head[3])
        writer.close()
    assert bool(asked) is broken
