"""MCP over stdio: whose process it is, when it is replaced, and what a broken one can do to others."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import ACKNOWLEDGED, Era, PeerError, Tree
from gateway.upstream.mcp.limits import Limits
from gateway.upstream.mcp.server import StdioServer
from gateway.upstream.process import Command, bubblewrap
from tests.serving import ROOT
from tests.upstream.mcp_servers import FULL, INFO, PATIENCE, Recorder, chance, run, texts

BWRAP = Path("/usr/bin/bwrap")
SERVER = str(Path(__file__).with_name("stdio_raw.py"))
ERAS = ["modern", "legacy"]


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to say how a command ended."""
    monkeypatch.setattr("gateway.upstream.process.MUTE_SECONDS", PATIENCE)


@asynccontextmanager
async def started(*words: str, limits: Limits | None = None, shared: bool = False) -> AsyncIterator[StdioServer]:
    async with run("-I", "-S", SERVER, *words, limits=limits, shared=shared) as server:
        yield server


async def call(server: StdioServer, tool: str, caller: Recorder | None = None) -> Tree:
    params = {"name": tool, "arguments": {}}
    return await asyncio.wait_for(server.request("tools/call", params, caller or Recorder()), PATIENCE)


async def said(server: StdioServer, tool: str, caller: Recorder | None = None) -> str:
    return texts(await call(server, tool, caller))[0]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not gone(pid):  # noqa: ASYNC110  # nobody tells that another process has ended
            await asyncio.sleep(0.01)


# Which era, and whose process.


@pytest.mark.requirement("mcp.client.era-probing")
@pytest.mark.parametrize("quirk", ["old-error", "silent", "dies", "garbage"])
async def test_whatever_an_older_server_makes_of_the_first_question_it_is_spoken_to_in_its_own_way(quirk: str) -> None:
    async with started("legacy", quirk, limits=Limits(probe_seconds=0.5) if quirk == "silent" else None) as server:
        assert (await server.face()).era is Era.LEGACY
        assert await said(server, "ok") == "ok"


@pytest.mark.security
@pytest.mark.requirement("mcp.client.sessions-are-not-shared")
@pytest.mark.parametrize(
    ("words", "shared", "processes"), [(["modern"], False, 1), (["legacy"], False, 3), (["legacy"], True, 1)]
)
async def test_a_process_serves_everybody_only_if_it_keeps_nothing_of_anybody(
    words: list[str], shared: bool, processes: int
) -> None:
    async with started(*words, shared=shared) as server:
        callers = [Recorder("alice"), Recorder("bob"), Recorder("alice", FULL), Recorder("alice")]
        pids = [int(await said(server, "pid", caller)) for caller in callers]
        assert len(set(pids)) == processes
        assert pids[0] == pids[3]
        await server.aclose()
        assert all(map(gone, pids))


@pytest.mark.skipif(not BWRAP.exists(), reason="bubblewrap is not installed")
async def test_a_server_in_a_sandbox_is_a_server_like_any_other() -> None:
    inside = bubblewrap(str(BWRAP), readable=("/", str(ROOT)))  # wherever the checkout is, even in /tmp
    probe = await asyncio.create_subprocess_exec(*inside, "/bin/true", stderr=asyncio.subprocess.DEVNULL)
    if await probe.wait():
        pytest.skip("namespaces are not available here")
    command = Command((sys.executable, "-I", "-S", SERVER, "modern"), sandbox=inside)
    server = StdioServer("it", command, info=INFO, ours={}, chance=chance)
    pid = int(await said(server, "pid"))
    assert pid < 10  # in a world of its own
    await server.aclose()


async def test_there_are_only_so_many_processes() -> None:
    async with started("legacy", limits=Limits(processes=2)) as server:
        first = int(await said(server, "pid", Recorder("a")))
        waiting = asyncio.ensure_future(call(server, "wait", Recorder("b", progress=True)))
        await asyncio.sleep(0)
        second = Recorder("b", progress=True)
        await call(server, "progress", second)  # b's process is there, and a's had to go for it
        await until_gone(first)
        with pytest.raises(GatewayError) as caught:
            await call(server, "ok", Recorder("c"))
        assert caught.value.reason is Reason.OVERLOADED
        waiting.cancel()


@pytest.mark.parametrize("limits", [Limits(idle_session_seconds=0.1), Limits(lifetime_seconds=0.1)])
async def test_a_process_that_is_idle_or_old_is_let_go_and_started_anew_when_it_is_wanted(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.mcp.pool.LOOK_SECONDS", 0.05)
    async with started("modern", limits=limits) as server:
        first = int(await said(server, "pid"))
        await until_gone(first)
        assert int(await said(server, "pid")) != first


# Calls.


@pytest.mark.parametrize("era", ERAS)
async def test_progress_and_answers_find_their_call(era: str) -> None:
    async with started(era) as server:
        callers = [Recorder("alice", progress=True) for _ in range(20)]
        results = await asyncio.gather(*(said(server, "progress", caller) for caller in callers))
        assert results == ["ok"] * 20
        assert [len(caller.all) for caller in callers] == [1] * 20


@pytest.mark.requirement("mcp.client.cancel")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("how", ["the caller gives up", "it takes too long"])
async def test_a_call_that_is_given_up_is_canceled_there(era: str, how: str) -> None:
    limits = Limits(call_seconds=2.0 if how.startswith("it") else 60.0)  # two more calls have to be done in it
    async with started(era, limits=limits) as server:
        caller = Recorder(progress=True)
        await said(server, "ok", caller)
        task = asyncio.ensure_future(call(server, "wait", caller))
        _, params = await caller.next()
        if how.startswith("the"):
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert json.loads(await said(server, "canceled", caller)) == [params["progressToken"]]


@pytest.mark.requirement("mcp.client.live-requests")
async def test_a_question_reaches_the_caller_whose_process_it_is() -> None:
    alice = Recorder("alice", FULL, answers={"elicitation/create": {"action": "accept", "content": {"x": 1}}})
    bob = Recorder("bob", FULL, answers={"elicitation/create": PeerError(-1, "no")})
    async with started("legacy") as server:
        answers = await asyncio.gather(said(server, "ask", alice), said(server, "ask", bob))
        assert json.loads(answers[0]) == {"action": "accept", "content": {"x": 1}}
        assert json.loads(answers[1])["code"] == -1
        assert json.loads(await said(server, "ask", Recorder("carol")))["code"] == -32601
        assert await said(server, "ping") == "{}"


@pytest.mark.security
async def test_of_a_shared_process_nobody_hears_what_may_be_meant_for_another() -> None:
    async with started("modern") as server:
        alone = Recorder("alice", log_level="debug")
        await call(server, "noise", alone)
        assert len(alone.all) == 1
        waiting = Recorder("bob", log_level="debug", progress=True)
        task = asyncio.ensure_future(call(server, "wait", waiting))
        await waiting.next()
        await call(server, "noise", alone)
        assert alone.all == waiting.all == []
        task.cancel()


async def test_changes_of_a_session_arrive_from_the_gateways_own_process() -> None:
    async with started("legacy", shared=True) as server:
        stream = server.changes(frozenset())
        assert (await asyncio.wait_for(anext(stream), PATIENCE)).method == ACKNOWLEDGED
        await call(server, "change")
        assert (await asyncio.wait_for(anext(stream), PATIENCE)).method == "notifications/tools/list_changed"
        with pytest.raises(GatewayError, match="ended with code 3: out of memory"):
            await call(server, "die")
        with pytest.raises(GatewayError, match="ended with code 3"):
            await asyncio.wait_for(anext(stream), PATIENCE)


# Harm.

HARM: dict[str, tuple[Reason | None, str]] = {
    "huge": (Reason.UPSTREAM_TOO_LARGE, "more than"),
    "half": (Reason.PARSE_ERROR, "JSON"),
    "no-object": (Reason.UPSTREAM_FAILED, "no message"),
    "wrong-type": (Reason.UPSTREAM_FAILED, "elephant|^$"),
    "huge-without-id": (None, ""),
    "garbage": (None, ""),
    "twice": (None, ""),
}


@pytest.mark.security
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tool", HARM)
async def test_a_wrong_line_harms_at_most_the_call_it_belongs_to(era: str, tool: str) -> None:
    reason, sentence = HARM[tool]
    async with started(era) as server:
        pid = await said(server, "pid")
        waiting = asyncio.ensure_future(call(server, "wait"))
        harmed: Any = await asyncio.gather(call(server, tool), return_exceptions=True)
        if reason is None or (tool == "wrong-type" and era == "legacy"):
            assert harmed[0]["resultType"] == "complete"
        else:
            assert isinstance(harmed[0], GatewayError)
            assert sentence.partition("|")[0] in harmed[0].message
            assert harmed[0].reason in (reason, Reason.UPSTREAM_FAILED)
        assert not waiting.done()
        assert await said(server, "pid") == pid
        waiting.cancel()


@pytest.mark.security
@pytest.mark.parametrize(
    ("tool", "sentence"),
    [("die", "ended with code 3: out of memory"), ("close", "closed its output"), ("flood", "no answer to anything")],
)
async def test_a_process_that_is_lost_fails_what_was_in_flight_and_is_started_again(tool: str, sentence: str) -> None:
    async with started("modern") as server:
        pid = int(await said(server, "pid"))
        waiting = asyncio.ensure_future(call(server, "wait"))
        lost = await asyncio.gather(call(server, tool), waiting, return_exceptions=True)
        for error in lost:
            assert isinstance(error, GatewayError)
            assert (error.reason, error.metadata["delivered"]) == (Reason.UPSTREAM_FAILED, "unknown")
            assert sentence in error.message
        assert await said(server, "pid") != str(pid)
        await until_gone(pid)


@pytest.mark.security
async def test_a_process_that_is_lost_again_and_again_is_started_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.mcp.pool.PAUSES", (0.0, 3.0))
    async with started("modern") as server:
        for _ in range(2):
            with pytest.raises(GatewayError, match="out of memory"):
                await call(server, "die")
        with pytest.raises(GatewayError) as caught:
            await call(server, "ok")
        assert caught.value.reason is Reason.UNAVAILABLE
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 3
        await asyncio.sleep(caught.value.retry_after)
        assert await said(server, "ok") == "ok"


@pytest.mark.security
async def test_a_process_that_stops_reading_keeps_nobody_waiting_for_ever() -> None:
    async with started("modern", limits=Limits(call_seconds=0.3)) as server:
        with pytest.raises(GatewayError) as caught:
            await call(server, "stop-reading")
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
        with pytest.raises(GatewayError) as caught:
            await call(server, "ok")
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_command_that_cannot_be_started_says_why() -> None:
    server = StdioServer("it", Command(("/no/such/program",)), info=INFO, ours={}, chance=chance)
    with pytest.raises(GatewayError, match="is not a program that can be run") as caught:
        await server.face()
    assert caught.value.reason is Reason.UNAVAILABLE
    await server.aclose()


async def test_a_command_that_ends_at_once_says_what_it_said() -> None:
    async with run("-c", "import sys; sys.exit('no licence')") as server:
        with pytest.raises(GatewayError, match="ended with code 1: no licence"):
            await server.face()


async def test_a_command_that_never_answers_is_given_up_and_ended() -> None:
    limits = Limits(probe_seconds=0.2, handshake_seconds=0.3)
    async with run("-c", "import time; time.sleep(1000)", limits=limits) as server:
        with pytest.raises(GatewayError) as caught:
            await asyncio.wait_for(server.face(), PATIENCE)
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
