"""A task that its owner shares, at the doors that are not A2A's: over ACP and MCP its reader looks and no more; the
older messages know their callers' own ids alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.acp import UUID, Acp, words
from tests.journeys.test_ownership import MISSING, told
from tests.journeys.test_sharing import House, house
from tests.mcp import Door
from tests.serving import BOUND

pytestmark = [pytest.mark.asyncio, pytest.mark.security]

LOOK = {"accept": "text/event-stream"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.joinpath("data").mkdir()
    return tmp_path


def dashed(id: str) -> str:
    found = "-".join((id[:8], id[8:12], id[12:16], id[16:20], id[20:]))
    assert UUID.fullmatch(found)
    return found


def acp(here: House, who: str) -> Acp:
    return Acp(here.gateway, "actor", who)


READS = ("/runs/{}", "/runs/{}/events", "/resources/{}.0")


async def test_whom_a_task_is_shared_with_reads_its_run_as_its_owner_does(folder: Path) -> None:
    async with house(folder) as here:
        ann, bob = acp(here, here.ann), acp(here, here.bob)
        for path in READS:
            await bob.refused(404, "not_found", "GET", path.format(dashed(here.task)))
        await here.share(here.ann)
        for path in READS:
            assert await bob.get(path.format(dashed(here.task))) == await ann.get(path.format(dashed(here.task)))
        read = [entry for entry in await here.entries("GetTask") if entry.principal == "key:bob"][-1]
        assert (read.outcome, read.task_id) == ("ok", here.task)
        assert read.reason == "a task of key:ann that is shared with the caller"


async def test_they_follow_its_events_too(folder: Path) -> None:
    async with house(folder) as here:
        await here.share(here.ann)
        path = f"/runs/{dashed(here.task)}/events"
        async with (
            asyncio.timeout(BOUND),
            acp(here, here.ann).stream("GET", path, **LOOK) as own,
            acp(here, here.bob).stream("GET", path, **LOOK) as lent,
        ):
            first = [await anext(events) for events in (own, lent)]
            here.cue.say("a word")
            here.cue.done()
            heard = [[event async for event in events] for events in (own, lent)]
        assert first[0] == first[1]
        assert heard[0] == heard[1]
        assert "a word" in str(heard[1])
        assert heard[1][-1][1]["type"] == "run.completed"
        followed = {entry.principal: entry for entry in await here.entries("SubscribeToTask")}
        assert followed["key:ann"].reason != followed["key:bob"].reason
        assert followed["key:bob"].task_id == here.task


@pytest.mark.parametrize("end", ["unshared", "reader frozen", "owner frozen"])
async def test_a_stream_of_its_events_ends_with_what_lets_its_reader_in(folder: Path, end: str) -> None:
    async with house(folder) as here:
        here.gateway.app.services.live.heartbeat = 10 * BOUND
        await here.share(here.ann)
        async with acp(here, here.bob).stream("GET", f"/runs/{dashed(here.task)}/events", **LOOK) as events:
            await asyncio.wait_for(anext(events), BOUND)
            match end:
                case "unshared":
                    await here.unshare(here.ann)
                case "reader frozen":
                    await here.freeze("bob")
                case "owner frozen":
                    await here.freeze("ann")
            here.cue.say("a secret")
            async with asyncio.timeout(BOUND):
                assert "a secret" not in str([event async for event in events])


async def test_nobody_else_sees_the_run_and_its_reader_does_nothing_with_it(folder: Path) -> None:
    async with house(folder) as here:
        await here.share(here.ann)
        session = (await acp(here, here.ann).get(f"/runs/{dashed(here.task)}"))["session_id"]
        resume = acp(here, here.bob).answer("x")
        for who in (here.bob, await here.gateway.key("eve")):
            reads: list[tuple[str, str, Any]] = [] if who == here.bob else [("GET", path, None) for path in READS]
            does = [("POST", "/runs/{}", resume), ("POST", "/runs/{}/cancel", None)]
            for verb, path, body in (*reads, *does):
                ids = dashed(here.task), dashed(MISSING)
                foreign, missing = [await acp(here, who).ask(verb, path.format(id), body=body) for id in ids]
                assert foreign.status_code == 404, path
                assert told(foreign, here.task, ids[0]) == told(missing, MISSING, ids[1])
            await acp(here, who).refused(404, "not_found", "GET", f"/session/{session}")
        assert not here.cue.stopped.is_set()


async def test_a_run_of_an_agent_that_its_reader_may_not_use_is_missing(folder: Path) -> None:
    async with house(folder) as here:
        ann, eve = Acp(here.gateway, "shut", here.ann), Acp(here.gateway, "shut", await here.gateway.key("eve"))
        run = await ann.run("hi")
        for reader, status in (("eve", 404), ("bob", 200)):
            path = f"{run['run_id'].replace('-', '')}:share"
            answer = await here.asks("POST", path, here.ann, reader=reader)
            assert answer.status_code == 200, answer.text
            who = eve if reader == "eve" else Acp(here.gateway, "shut", here.bob)
            seen = await who.ask("GET", f"/runs/{run['run_id']}")
            assert seen.status_code == status, seen.text
            if status == 200:
                assert words(seen.json()["output"]) == "hi"


async def test_it_goes_on_with_no_conversation_of_its_owners(folder: Path) -> None:
    """A session is the caller's own, whatever its name."""
    async with house(folder) as here:
        await here.share(here.ann)
        session = (await acp(here, here.ann).get(f"/runs/{dashed(here.task)}"))["session_id"]
        bob = Acp(here.gateway, "echo", here.bob)
        run = await bob.run("mine", session_id=session)
        history = (await bob.get(f"/session/{session}"))["history"]
        assert history
        assert all(run["run_id"] in each for each in history)


async def test_over_mcp_its_reader_looks_at_it_by_the_tool_of_its_agent(folder: Path) -> None:
    async with house(folder) as here:
        ann, bob = Door(here.gateway, "", here.ann), Door(here.gateway, "", here.bob)
        eve = Door(here.gateway, "", await here.gateway.key("eve"))
        before = await bob.ask("tools/call", {"name": "agents__actor", "arguments": {"taskId": here.task}})
        await here.share(here.ann)
        seen = await bob.call("agents__actor", taskId=here.task)
        assert seen["structuredContent"]["taskId"] == here.task
        foreign = await eve.ask("tools/call", {"name": "agents__actor", "arguments": {"taskId": here.task}})
        missing = await eve.ask("tools/call", {"name": "agents__actor", "arguments": {"taskId": MISSING}})
        assert _told(before, here.task) == _told(foreign, here.task) == _told(missing, MISSING)
        other = await bob.ask("tools/call", {"name": "agents__echo", "arguments": {"taskId": here.task}})
        assert _told(other, here.task) == _told(missing, MISSING)
        more = {"taskId": here.task, "message": "more"}
        spoken = await bob.ask("tools/call", {"name": "agents__actor", "arguments": more})
        assert spoken.get("error") or spoken["result"]["isError"]
        here.cue.done()
        done = await ann.call("agents__actor", taskId=here.task)
        assert (await bob.call("agents__actor", taskId=here.task)) == done
        read = [entry for entry in await here.entries("GetTask") if entry.principal == "key:bob"][-1]
        assert read.reason == "a task of key:ann that is shared with the caller"


async def test_the_older_messages_have_nothing_but_their_callers_own_ids(folder: Path) -> None:
    """A task that came by them is shared under its id of A2A, and read by that."""
    async with house(folder) as here:
        task = {"agent_id": "echo", "task": {"id": "mine", "description": "hi"}}
        await here.gateway.result("agents/tasks/create", task, agent="", who=here.ann)
        listed = await here.caller("http", here.ann).to("echo").call("ListTasks")
        (id,) = [each["id"] for each in listed["tasks"]]
        answer = await here.asks("POST", f"{id}:share", here.ann, reader="bob")
        assert answer.status_code == 200, answer.text
        for name in ("mine", id):
            answer = await here.gateway.rpc("agents/tasks/result", {"task_id": name}, agent="", who=here.bob)
            assert answer["error"]["code"] == -32001, answer
        assert (await here.caller("http", here.bob).to("echo").get(id))["id"] == id


def _told(answer: Any, id: str) -> str:
    answer = {name: each for name, each in answer.items() if name != "id"}
    return str(answer).replace(id, "ID")
