"""The small parts of the client face, each by itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.mcp.message import Notification
from gateway.model.errors import GatewayError
from gateway.model.tool import Change, Era, Face
from gateway.upstream.mcp.clock import Clock
from gateway.upstream.mcp.duplex import GARBAGE, Duplex
from gateway.upstream.mcp.fanout import WAITING, Fanout
from gateway.upstream.mcp.limits import Limits
from gateway.upstream.mcp.pool import PAUSES, Backoff
from gateway.upstream.secret import Secret, settle
from tests.upstream.mcp_servers import FULL, INFO, PATIENCE, Recorder


def test_the_first_failure_is_free_and_the_pauses_grow_to_a_limit() -> None:
    backoff, waits = Backoff(), []
    for _ in range(len(PAUSES) + 2):
        backoff.failed(now=100.0, chance=1.0)
        waits.append(backoff.wait(100.0))
    assert waits == [*PAUSES, PAUSES[-1], PAUSES[-1]]
    assert backoff.wait(100.0 + PAUSES[-1]) == 0


def test_chance_shortens_a_pause_by_half_at_most() -> None:
    backoff = Backoff()
    for _ in range(2):
        backoff.failed(now=0.0, chance=0.0)
    assert backoff.wait(0.0) == PAUSES[1] / 2


async def test_a_clock_that_is_stopped_twice_runs_again_after_both() -> None:
    async def work() -> None:
        async with Clock(0.05, 0.05) as clock:
            with clock.stopped():
                with clock.stopped():
                    await asyncio.sleep(0.1)
                clock.heard()
                await asyncio.sleep(0.1)
            stopped.set()
            await asyncio.Event().wait()

    stopped = asyncio.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), PATIENCE)
    assert stopped.is_set()


async def test_signs_of_life_do_not_lengthen_the_whole() -> None:
    async def drip() -> None:
        async with Clock(0.2, 0.1) as clock:
            while True:
                await asyncio.sleep(0.01)
                clock.heard()

    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TimeoutError):
        await drip()
    assert 0.15 < loop.time() - started < PATIENCE


async def test_whoever_listens_too_slowly_is_told_that_something_was_missed() -> None:
    fanout = Fanout(lambda _: None)

    async def subscribe(uri: str, wanted: bool) -> None: ...

    stream = fanout.listen(frozenset(), Change("first", {}), subscribe)
    await anext(stream)
    for _ in range(WAITING + 5):
        fanout.publish(Notification("notifications/tools/list_changed", {}))
    for _ in range(WAITING):
        await anext(stream)
    with pytest.raises(GatewayError, match="faster than"):
        await anext(stream)
    assert not fanout.busy


@pytest.mark.security
def test_a_secret_is_read_whole_or_not_at_all(tmp_path: Any) -> None:
    file = tmp_path / "secret"
    for content in (b"", b" \n", b"x" * 70_000, b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(GatewayError, match="cannot be read"):
            settle(Secret(file=file), {})


# Whatever comes over a channel.

IDS: list[Any] = [0, 1, 2, 3, "1", "", None, True, 1.0, 10**18]
PARTS: list[dict[str, Any]] = [
    {"result": {}},
    {"result": 7},
    {"result": {"resultType": "elephant"}},
    {"error": {"code": 1, "message": "x"}},
    {"error": 7},
    {"method": "ping"},
    {"method": "roots/list", "params": {}},
    {"method": "roots/list", "params": []},
    {"method": "tools/call", "params": {"_meta": None}},
    {},
]
NOTICES: list[dict[str, Any]] = [
    {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 0.5}},
    {"method": "notifications/progress", "params": {"progressToken": [1]}},
    {"method": "notifications/message", "params": {"level": ["debug"], "data": 1}},
    {"method": "notifications/message", "params": {"level": "error"}},
    {"method": "notifications/cancelled", "params": {"requestId": {}}},
    {"method": "notifications/cancelled", "params": {"requestId": 1}},
    {"method": "notifications/tools/list_changed", "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": []}}},
    {"method": "notifications/resources/updated", "params": {"uri": 7}},
]
TREES = [{"id": id, **part} for id in IDS for part in PARTS] + NOTICES
LINES = [json.dumps({"jsonrpc": "2.0", **tree}).encode() for tree in TREES]
LINES += [b"[" + b",".join(LINES[:3]) + b"]", b"[]", b"null", b'{"jsonrpc":"2.0","id":1', b'"id":2', b"\xff"]


@pytest.mark.security
@given(lines=st.lists(st.sampled_from(LINES) | st.binary(max_size=20), max_size=12), modern=st.booleans())
def test_whatever_lines_come_calls_end_one_way_or_the_other(lines: list[bytes], modern: bool) -> None:
    async def go() -> None:
        sent: list[bytes] = []

        async def send(body: bytes) -> None:
            sent.append(body)

        async def close() -> None: ...

        duplex = Duplex(send, close, lambda: None, Limits(call_seconds=PATIENCE), INFO, lambda _: None)
        duplex.face = Face(Era.MODERN if modern else Era.LEGACY, "x", {}, {})
        caller = Recorder(capabilities=FULL, progress=True, log_level="debug", answers={"roots/list": {"roots": []}})
        calls = [asyncio.ensure_future(duplex.request("tools/call", {"name": "t"}, caller)) for _ in range(3)]
        await asyncio.sleep(0)
        for line in lines:
            duplex.receive(line)
        await asyncio.sleep(0)
        await duplex.aclose()
        for result in await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE):
            assert isinstance(result, GatewayError) or result == {"resultType": "complete"}
        assert not duplex.busy

    asyncio.run(go())


@pytest.mark.security
async def test_answers_to_nothing_are_borne_for_a_while_and_then_no_more() -> None:
    gave_up = []

    async def send(body: bytes) -> None: ...

    async def close() -> None: ...

    duplex = Duplex(send, close, lambda: gave_up.append(1), Limits(), INFO, lambda _: None)
    for _ in range(GARBAGE):
        duplex.receive(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert duplex.alive
    duplex.receive(b"hello")
    assert (duplex.alive, gave_up) == (False, [1])
