"""Streams of sessions that break: what a client that comes back is given, and what happens when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from gateway.core.tools.news import News
from gateway.dialects.strict_json import read
from gateway.model.tool import Kind
from gateway.server.mcp import exchange
from gateway.server.mcp.track import MAX_EVENTS, Memory, Track
from tests.mcp import Door, Session, configured, request
from tests.serving import BOUND, Gateway, running
from tests.upstream.mcp_raw import ACCEPTED, CALL, OK, Call, Raw, legacy, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS: dict[str, Any] = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
NAMED = {**CALL, "name": "slow__t", "_meta": {"progressToken": "p"}}


class Slow:
    """A tool that says how far it is, and ends when a test says so."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.left = asyncio.Event()
        self.over = asyncio.Event()

    async def call(self, call: Call) -> None:
        call.open()
        self.calls.put_nowait(call)
        over = asyncio.ensure_future(self.over.wait())
        leaving = asyncio.ensure_future(call.reader.read())
        await asyncio.wait((over, leaving), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if leaving.done():
            self.left.set()
        leaving.cancel()

    async def next(self) -> Call:
        self.left.clear()
        self.over.clear()
        return await asyncio.wait_for(self.calls.get(), BOUND)

    def says(self, call: Call, step: int) -> None:
        call.notice("notifications/progress", progressToken=call.params["_meta"]["progressToken"], progress=step)

    def ends(self, call: Call) -> None:
        call.done(OK)
        self.over.set()


@pytest.fixture(scope="module")
def slow() -> Slow:
    return Slow()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(slow: Slow) -> AsyncIterator[Raw]:
    handlers = legacy(tools_list=lambda call: call.result(TOOLS), tools_call=slow.call)
    async with raw(**{**handlers, "notifications_cancelled": lambda call: ACCEPTED}) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, server: Raw) -> AsyncIterator[Gateway]:
    config = configured("mounts: {other: {}}", slow=server.url)
    async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
        yield gateway


def steps(events: list[Any]) -> list[int]:
    trees: list[Any] = [read(each.data) for each in events]
    return [tree["params"]["progress"] for tree in trees]


async def some(events: AsyncIterator[Any], count: int) -> list[Any]:
    return [await asyncio.wait_for(anext(events), BOUND) for _ in range(count)]


@asynccontextmanager
async def begun(session: Session, slow: Slow, id: str) -> AsyncIterator[tuple[Call, AsyncIterator[Any]]]:
    """A call that has said one thing, and its stream after the first two events."""
    body = request("tools/call", NAMED, id=id)
    opening = asyncio.ensure_future(_opened(session, body))
    call = await slow.next()
    slow.says(call, 1)
    manager, events = await asyncio.wait_for(opening, BOUND)
    try:
        yield call, events
    finally:
        await manager.__aexit__(None, None, None)


async def _opened(session: Session, body: Any) -> tuple[Any, AsyncIterator[Any]]:
    manager = session.events(body)
    return manager, await manager.__aenter__()


@pytest.mark.requirement("mcp.session.stream-ids")
async def test_a_stream_begins_with_an_id_to_come_back_with_where_clients_know_such_a_thing(
    gateway: Gateway, slow: Slow
) -> None:
    session = await Door(gateway).session()
    async with begun(session, slow, "new") as (call, events):
        first, second = await some(events, 2)
        assert (first.data, first.id) == (b"", "1-0")
        assert (steps([second]), second.id) == ([1], "1-1")
        slow.ends(call)
        (last,) = await some(events, 1)
        assert (read(last.data)["id"], last.id) == ("new", "1-2")  # type: ignore[index,call-overload]
    older = await Door(gateway).session(version="2025-06-18")
    async with begun(older, slow, "old") as (call, events):
        (first,) = await some(events, 1)
        assert (steps([first]), first.id) == ([1], "1-1")
        slow.ends(call)


@pytest.mark.requirement("mcp.session.resume")
async def test_a_client_that_lost_its_stream_gets_the_rest_of_it_and_nothing_twice(
    gateway: Gateway, slow: Slow, server: Raw
) -> None:
    session = await Door(gateway).session()
    before = len(server.seen("tools/call"))
    async with begun(session, slow, "a") as (call, events):
        assert [each.id for each in await some(events, 2)] == ["1-0", "1-1"]
    slow.says(call, 2)  # nobody is there to hear it
    slow.says(call, 3)
    assert not slow.left.is_set()
    async with session.events(None, "1-1") as events:
        assert steps(await some(events, 2)) == [2, 3]
        async with begun(session, slow, "b") as (other, others):
            slow.says(other, 7)
            assert [each.id for each in await some(others, 3)] == ["2-0", "2-1", "2-2"]
            slow.ends(other)
        slow.ends(call)
        (last,) = await some(events, 1)
        assert (read(last.data)["id"], last.id) == ("a", "1-4")  # type: ignore[index,call-overload]
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(events), BOUND)
    assert len(server.seen("tools/call")) == before + 2, "nothing was done twice"
    # The answer may have been lost with its connection: it is still there.
    for after, left in (("1-0", 4), ("1-3", 1), ("1-4", 0)):
        async with session.events(None, after) as events:
            assert len([each async for each in events]) == left


@pytest.mark.requirement("mcp.session.resume")
async def test_who_comes_back_while_the_old_connection_only_seems_alive_takes_its_place(
    gateway: Gateway, slow: Slow
) -> None:
    session = await Door(gateway).session()
    async with begun(session, slow, "a") as (call, events):
        await some(events, 2)
        async with session.events(None, "1-0") as newer:
            assert steps(await some(newer, 1)) == [1]
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(events), BOUND)
            slow.says(call, 2)
            assert steps(await some(newer, 1)) == [2]
            slow.ends(call)
            await some(newer, 1)


@pytest.mark.security
@pytest.mark.requirement("mcp.session.resume")
async def test_what_is_not_kept_or_not_ones_own_is_refused_and_told_apart_from_a_lost_session(
    gateway: Gateway, slow: Slow
) -> None:
    session = await Door(gateway).session()
    async with begun(session, slow, "a") as (call, events):
        await some(events, 2)
        mine = await Door(gateway).session()
        for wrong in ("1-2", "1-99", "9-1", "x", "1", "", "1-1-1", "-1-1"):
            answer = await session.door.raw(None, {**session.headers, "Last-Event-ID": wrong}, method="GET")
            assert answer.status_code == 400, wrong
            assert "make the request anew" in answer.json()["error"]["message"]
        answer = await mine.door.raw(None, {**mine.headers, "Last-Event-ID": "1-0"}, method="GET")
        assert answer.status_code == 400
        elsewhere = Door(gateway, who=await gateway.key("eve"))
        answer = await elsewhere.raw(None, {**session.headers, "Last-Event-ID": "1-0"}, method="GET")
        assert answer.status_code == 404
        slow.ends(call)
        await some(events, 1)


@pytest.mark.requirement("mcp.session.lost-client-cancels")
async def test_a_client_that_does_not_come_back_takes_its_request_with_it(
    gateway: Gateway, slow: Slow, server: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "RETURN_SECONDS", 0.05)
    session = await Door(gateway).session()
    async with begun(session, slow, "a") as (_, events):
        await some(events, 2)
    await asyncio.wait_for(slow.left.wait(), BOUND)
    # Whoever never got an id cannot come back, so nobody waits for it.
    monkeypatch.setattr(exchange, "RETURN_SECONDS", 600)
    calling = asyncio.ensure_future(session.raw(request("tools/call", NAMED)))
    await slow.next()
    calling.cancel()
    await asyncio.wait_for(slow.left.wait(), BOUND)


async def test_a_request_whose_client_is_away_can_still_be_canceled(gateway: Gateway, slow: Slow) -> None:
    session = await Door(gateway).session()
    async with begun(session, slow, "a") as (_, events):
        await some(events, 2)
    assert not slow.left.is_set()
    await session.tell("notifications/cancelled", {"requestId": "a"})
    await asyncio.wait_for(slow.left.wait(), BOUND)
    async with session.events(None, "1-1") as events:
        assert [each async for each in events] == []


@pytest.mark.requirement("mcp.session.resume")
async def test_the_sessions_own_stream_goes_on_where_it_was(gateway: Gateway) -> None:
    async def told(events: AsyncIterator[Any]) -> str:
        gateway.app.tools.servers.board.publish([News("slow", Kind.TOOL, said=True)])
        (event,) = await some(events, 1)
        assert read(event.data)["method"] == "notifications/tools/list_changed"  # type: ignore[index,call-overload]
        return str(event.id)

    session = await Door(gateway).session()
    async with session.events(None) as events:
        (first,) = await some(events, 1)
        assert (first.data, first.id) == (b"", "1-0")
        assert [await told(events) for _ in range(3)] == ["1-1", "1-2", "1-3"]
    async with session.events(None, "1-1") as events:
        assert [each.id for each in await some(events, 2)] == ["1-2", "1-3"]
        assert await told(events) == "1-4"
    async with session.events(None) as events:  # a new stream has nothing of the old one
        (first,) = await some(events, 1)
        assert first.id == "2-0"
    answer = await session.door.raw(None, {**session.headers, "Last-Event-ID": "1-4"}, method="GET")
    assert answer.status_code == 400


# How much is kept.


async def test_a_stream_keeps_its_last_events_and_all_that_nobody_has_read() -> None:
    track = Track(7, Memory(), primes=False)
    for number in range(MAX_EVENTS + 10):
        track.put(b"%d" % number)
    assert len(track) == MAX_EVENTS + 10
    track.take()
    assert not track.rewind(9)
    assert track.rewind(10)
    assert len(track) == MAX_EVENTS


async def test_all_streams_together_keep_no_more_than_they_may_and_the_oldest_forgets_first() -> None:
    memory = Memory(1000)
    tracks = [Track(number, memory, primes=False) for number in range(5)]
    for track in tracks:
        track.put(b"x" * 300)
        track.take()
    assert [track.rewind(0) for track in tracks] == [False, False, True, True, True]
    for track in tracks:
        track.close()
    assert memory._size == 0


# Somebody else's client.


class Relay:
    """Stands between a client and the gateway, and lets connections break."""

    def __init__(self, gateway: Gateway) -> None:
        self._there = gateway.client.base_url
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._there.host, self._there.port)
        self._writers |= {writer, back}
        await asyncio.gather(_copied(reader, back), _copied(there, writer))
        self._writers -= {writer, back}


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.requirement("mcp.session.resume")
async def test_the_official_client_finishes_a_call_whose_connection_broke(
    gateway: Gateway, slow: Slow, server: Raw
) -> None:
    relay = Relay(gateway)
    heard: asyncio.Queue[float] = asyncio.Queue()

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.put_nowait(progress)

    host = f"{gateway.client.base_url.host}:{gateway.client.base_url.port}"
    sent = {**gateway.bearer(None), "Host": host}
    before = len(server.seen("tools/call"))
    async with (
        relay.running() as port,
        httpx2.AsyncClient(headers=sent, timeout=BOUND, trust_env=False) as http,
        Client(
            streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http),
            mode="legacy",
            read_timeout_seconds=BOUND,
        ) as client,
    ):
        calling = asyncio.ensure_future(client.call_tool("slow__t", {}, progress_callback=progressed))
        call = await slow.next()
        slow.says(call, 1)
        assert await asyncio.wait_for(heard.get(), BOUND) == 1
        relay.cut()
        slow.says(call, 2)
        assert await asyncio.wait_for(heard.get(), BOUND) == 2
        slow.ends(call)
        assert (await asyncio.wait_for(calling, BOUND)).content[0].text == "ok"  # type: ignore[union-attr]
    assert len(server.seen("tools/call")) == before + 1
