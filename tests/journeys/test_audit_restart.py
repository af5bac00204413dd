"""What the audit log says of calls in whose middle the gateway was killed. Real processes throughout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from gateway.dialects.mcp import headers
from tests import mcp, remote
from tests.journeys.test_restart import CODE, FRAGILE, start
from tests.mcp import MODERN, configured, modern, request, tool
from tests.remote import Asked, Process, agents, command, process
from tests.serving import BOUND, ECHO, message

Tree = dict[str, Any]
BEGUN, UNKNOWN = ("intent", "begun"), ("outcome", "unknown")
CUT = {"far": "SendMessage", "docs/slow": "tools/call"}


@asynccontextmanager
async def life(data: Path, config: str) -> AsyncIterator[Process]:
    """A gateway process that calls servers of this very loop."""
    made = process(data, config)
    gateway = await asyncio.to_thread(made.__enter__)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


def recorded(gateway: Process, **query: Any) -> list[Tree]:
    """Entries, the oldest first."""
    entries: list[Tree] = gateway.call("GET", "/admin/audit", params={"limit": 500, **query}).json()["entries"]
    return entries[::-1]


def steps(gateway: Process, **query: Any) -> list[tuple[str, str]]:
    return [(each["phase"], each["outcome"]) for each in recorded(gateway, **query)]


def call_tool(gateway: Process, name: str) -> Tree:
    params = modern({"name": name, "arguments": {}})
    sent = {"Accept": "application/json, text/event-stream", **headers.make("tools/call", params, MODERN)}
    answer: Tree = gateway.call("POST", "/mcp", json=request("tools/call", params), headers=sent).json()
    return answer


async def test_calls_that_a_kill_cut_off_end_as_unknown_and_no_others(tmp_path: Path) -> None:
    """Whether a checkpoint lies between their beginning and the kill or not."""
    reached: asyncio.Queue[str] = asyncio.Queue()

    async def hang(_: Any) -> Any:
        await reached.put("tool")
        await asyncio.Event().wait()

    async def hangs(_: Asked) -> None:
        await reached.put("agent")
        await asyncio.Event().wait()

    async with mcp.scripted(tool("slow"), tool("quick"), answers={"slow": hang}) as docs, remote.scripted() as far:
        far.plays["SendMessage"] = hangs
        config = agents(far=far.url) + configured(docs=docs)
        async with life(tmp_path, config) as gateway:
            card = partial(gateway.call, "GET", "/agents/far/.well-known/agent-card.json")
            await asyncio.to_thread(gateway.until, lambda: card().status_code == 200)
            assert "result" in await asyncio.to_thread(call_tool, gateway, "docs__quick")
            said = {"message": message("hi")}
            cut = [asyncio.create_task(asyncio.to_thread(gateway.rpc, "SendMessage", said, agent="far"))]
            assert await asyncio.wait_for(reached.get(), BOUND) == "agent"
            signed = await asyncio.to_thread(gateway.call, "POST", "/admin/audit:rotate-key")
            assert signed.status_code == 200
            cut.append(asyncio.create_task(asyncio.to_thread(call_tool, gateway, "docs__slow")))
            assert await asyncio.wait_for(reached.get(), BOUND) == "tool"
            for target, action in CUT.items():
                going_on = await asyncio.to_thread(steps, gateway, object=target, action=action)
                assert going_on == [BEGUN]
            await asyncio.to_thread(gateway.kill)
            for each in cut:
                with suppress(httpx2.HTTPError):
                    await asyncio.wait_for(each, BOUND)
        async with life(tmp_path, config) as gateway:
            await asyncio.to_thread(_told_everywhere, gateway)
            await asyncio.to_thread(gateway.kill)
        async with life(tmp_path, config) as gateway:  # which has nothing to add
            await asyncio.to_thread(_told, gateway)


def _told(gateway: Process) -> None:
    for target, action in CUT.items():
        assert steps(gateway, object=target, action=action) == [BEGUN, UNKNOWN]
        before, after = recorded(gateway, object=target, action=action)
        same = ("request", "action", "actor", "object", "effect", "digest", "task", "correlation")
        assert [before.get(name) for name in same] == [after.get(name) for name in same]
        assert before["replica"] != after["replica"]
    assert steps(gateway, object="docs/quick") == [BEGUN, ("outcome", "ok")]


def _told_everywhere(gateway: Process) -> None:
    _told(gateway)
    lost = recorded(gateway, outcome="unknown")[0]
    assert [each["outcome"] for each in _read(gateway, "show", lost["request"])] == ["begun", "unknown"]
    assert sorted(each["object"] for each in _read(gateway, "search", "--outcome", "unknown")) == sorted(CUT)
    tail = [each["object"] for each in _read(gateway, "tail", "-n", "200") if each["outcome"] == "unknown"]
    assert sorted(tail) == sorted(CUT)
    verified = command(gateway.data, "audit", "verify", url=gateway.url)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "have begun and no end" not in verified.stdout + verified.stderr


def _read(gateway: Process, *words: str) -> list[Tree]:
    done = command(gateway.data, "audit", *words, "--json", url=gateway.url)
    assert done.returncode == 0, done.stderr
    entries: list[Tree] = json.loads(done.stdout)["entries"]
    return entries


def test_a_call_goes_on_as_begun_where_its_task_does_and_ends_as_the_task(tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "fragile.py").write_text(CODE)
    with process(tmp_path / "far", ECHO, "--anonymous") as far:
        config = agents(far=far.url) + FRAGILE
        with process(tmp_path / "near", config) as near:
            near.until(lambda: near.call("GET", "/agents/far/.well-known/agent-card.json").status_code == 200)
            followed = start(near, "wait 3", agent="far")
            lost = start(near, "x", agent="fragile")
            near.kill()
        with process(tmp_path / "near", config) as near:
            going_on = steps(near, task=followed["id"], action="SendMessage")
            state = near.task(followed["id"], agent="far")["status"]["state"]
            assert going_on == [BEGUN] or state == "TASK_STATE_COMPLETED"
            near.ended(followed["id"], agent="far")
            begun, ended = recorded(near, task=followed["id"], action="SendMessage")
            assert (begun["outcome"], ended["outcome"]) == ("begun", "COMPLETED")
            assert begun["request"] == ended["request"]
            (call,) = recorded(near, task=lost["id"], outcome="begun")
            assert steps(near, request=call["request"]) == [BEGUN, UNKNOWN]
            assert near.task(lost["id"], agent="fragile")["status"]["state"] == "TASK_STATE_FAILED"
