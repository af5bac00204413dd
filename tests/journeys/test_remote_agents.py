"""Somebody else's agent behind the gateway: on a2a-sdk, over both bindings, and a second gateway of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.remote import Sdk, agents, ended, ready, sdk
from tests.serving import BOUND, ECHO, Gateway, message, running

BINDINGS = ("JSONRPC", "HTTP+JSON")


@asynccontextmanager
async def behind(
    tmp_path: Path, binding: str = "JSONRPC", *, streaming: bool = True
) -> AsyncIterator[tuple[Gateway, Sdk]]:
    async with sdk(binding, streaming=streaming) as remote, running(tmp_path, agents(far=remote.url)) as gateway:
        await ready(gateway, "far")
        yield gateway, remote


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_remote_agents_answer_is_a_task_of_the_gateway(tmp_path: Path, binding: str) -> None:
    async with behind(tmp_path, binding) as (gateway, _):
        task = await gateway.task("hello", agent="far")
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert task["artifacts"][0]["parts"] == [{"text": "hello"}]
        assert await gateway.result("GetTask", {"id": task["id"]}, agent="far") == task
        assert (await gateway.result("ListTasks", agent="far"))["tasks"][0]["id"] == task["id"]


@pytest.mark.requirement("a2a.stream.live", "a2a.stream.order", "a2a.stream.starts-with-task")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_each_event_is_passed_on_before_the_agent_sends_the_next(tmp_path: Path, binding: str) -> None:
    async with behind(tmp_path, binding) as (gateway, remote):
        params = {"message": message("slow")}
        async with asyncio.timeout(BOUND), gateway.stream("SendStreamingMessage", params, agent="far") as events:
            seen = []
            async for event in events:
                seen.append(event)
                if "Began" in json.dumps(event):
                    remote.player.go.set()  # only now may the agent go on
        assert "task" in seen[0]
        assert "artifactUpdate" in seen[-2]
        assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        own = seen[0]["task"]
        for event in seen[1:]:
            (update,) = event.values()
            assert (update["taskId"], update["contextId"]) == (own["id"], own["contextId"])


@pytest.mark.parametrize("binding", BINDINGS)
async def test_the_agents_ids_are_not_visible_and_ours_do_not_reach_it(tmp_path: Path, binding: str) -> None:
    async with behind(tmp_path, binding) as (gateway, remote):
        before = await gateway.task("hello", agent="far")
        question = await gateway.task("ask", agent="far", contextId="my-context")
        answer = message("blue", taskId=question["id"], contextId="my-context", referenceTaskIds=[before["id"]])
        events = await gateway.events("SendStreamingMessage", {"message": answer}, agent="far")
        task = await gateway.result("GetTask", {"id": question["id"]}, agent="far")
        told = json.dumps([question, events, task])
        for heard in remote.player.heard:
            assert heard.task_id not in told
            assert heard.context_id not in told
            sent = str(heard)
            assert question["id"] not in sent
            assert before["id"] not in sent
            assert "my-context" not in sent
        assert {said["taskId"] for said in task["history"]} == {task["id"]}
        assert {said["contextId"] for said in task["history"]} == {"my-context"}


@pytest.mark.requirement("a2a.task.input-required-continues", "a2a.context.inferred-from-task")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_answer_goes_to_the_agents_own_task_in_its_own_context(tmp_path: Path, binding: str) -> None:
    async with behind(tmp_path, binding) as (gateway, remote):
        question = await gateway.task("ask", agent="far")
        assert question["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        answered = await gateway.task("blue", agent="far", taskId=question["id"])
        assert answered["status"]["message"]["parts"] == [{"text": "You said blue"}]
        said = [part["text"] for turn in answered["history"] for part in turn["parts"]]
        assert said == ["ask", "What?", "blue"]
        first, second = remote.player.heard
        # a2a-sdk fails on a follow-up that names its task alone, so both are always sent.
        assert (second.task_id, second.context_id) == (first.task_id, first.context_id)
        assert second.context_id


async def test_a_second_task_of_a_context_is_in_one_context_at_the_agent_too(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, remote):
        one = await gateway.task("one", agent="far", contextId="shared")
        two = await gateway.task("two", agent="far", contextId="shared")
        assert one["id"] != two["id"]
        assert remote.player.heard[0].context_id == remote.player.heard[1].context_id


async def test_equal_contexts_and_messages_of_two_principals_do_not_meet_at_the_agent(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, remote):
        alice, bob = await gateway.key("alice"), await gateway.key("bob")
        tasks = [
            await gateway.task("secret", agent="far", who=who, contextId="shared", messageId="1")
            for who in (alice, bob)
        ]
        assert tasks[0]["id"] != tasks[1]["id"]
        first, second = remote.player.heard
        assert first.context_id != second.context_id
        assert first.message_id != second.message_id
        assert {first.message_id[:2], second.message_id[:2]} == {"1-"}
        assert "alice" not in str(first)


@pytest.mark.requirement("a2a.cancel.stops-the-work", "a2a.cancel.returns-task")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_cancellation_reaches_the_agent(tmp_path: Path, binding: str) -> None:
    async with behind(tmp_path, binding) as (gateway, remote):
        task = await gateway.task("slow", agent="far", configuration={"returnImmediately": True})
        canceled = await gateway.result("CancelTask", {"id": task["id"]}, agent="far")
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
        assert len(remote.player.canceled) == 1
        assert remote.player.canceled[0] != task["id"]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_agent_without_streams_is_polled_and_its_caller_still_gets_a_stream(
    tmp_path: Path, binding: str
) -> None:
    async with behind(tmp_path, binding, streaming=False) as (gateway, remote):
        params = {"message": message("slow")}
        async with asyncio.timeout(BOUND), gateway.stream("SendStreamingMessage", params, agent="far") as events:
            states = []
            async for event in events:
                states.append(event)
                if "Began" in json.dumps(event):
                    remote.player.go.set()
        assert states[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert (await gateway.task("hello", agent="far"))["artifacts"][0]["parts"] == [{"text": "hello"}]


async def test_a_lost_reader_does_not_stop_a_remote_task(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, remote):
        params = {"message": message("slow")}
        async with gateway.stream("SendStreamingMessage", params, agent="far") as events:
            task = (await anext(events))["task"]
        remote.player.go.set()
        assert (await ended(gateway, task["id"], agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


# A second gateway.


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """A gateway in front of another one, which anybody on this machine may use."""
    async with (
        running(tmp_path / "far", ECHO, anonymous=True) as far,
        running(tmp_path / "near", agents(far=f"{far.url}/agents/echo/.well-known/agent-card.json")) as near,
    ):
        await ready(near, "far")
        yield near, far


def state(task: Any) -> str:
    return str(task["status"]["state"])


async def test_a_gateway_in_front_of_a_gateway_gives_the_same_answers(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, _):
        assert (await near.task("hi", agent="far"))["status"]["message"]["parts"] == [{"text": "hi"}]
        direct = await near.send("x", agent="far", messageId="tck-message-response-1")
        assert direct["message"]["parts"] == [{"text": "Direct message response"}]
        assert state(await near.task("fail", agent="far")) == "TASK_STATE_FAILED"
        assert state(await near.task("reject", agent="far")) == "TASK_STATE_REJECTED"
        events = await near.events("SendStreamingMessage", {"message": message("count 20")}, agent="far")
        chunks = [event["artifactUpdate"] for event in events if "artifactUpdate" in event]
        assert [chunk["artifact"]["parts"][0]["text"] for chunk in chunks] == [f"{n}\n" for n in range(1, 21)]
        assert [chunk.get("append", False) for chunk in chunks] == [False] + [True] * 19
        assert chunks[-1]["lastChunk"] is True


async def test_two_callers_with_one_message_id_get_two_tasks_of_the_gateway_behind(tmp_path: Path) -> None:
    """To the gateway behind both are one caller, and there one message id is one task."""
    async with two(tmp_path) as (near, _):
        alice, bob = await near.key("alice"), await near.key("bob")
        waiting = {"returnImmediately": True}
        one = await near.task("wait 2", agent="far", who=alice, messageId="1", configuration=waiting)
        two_ = await near.task("wait 2", agent="far", who=bob, messageId="1", configuration=waiting)
        await near.result("CancelTask", {"id": two_["id"]}, agent="far", who=bob)
        assert state(await ended(near, one["id"], agent="far", who=alice)) == "TASK_STATE_COMPLETED"


async def test_two_gateways_follow_one_conversation(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, _):
        asked = await near.task("ask", agent="far")
        assert state(asked) == "TASK_STATE_INPUT_REQUIRED"
        answered = await near.task("blue", agent="far", taskId=asked["id"])
        assert answered["status"]["message"]["parts"] == [{"text": "blue"}]


@pytest.mark.requirement("a2a.subscribe.everybody-hears", "a2a.subscribe.first-event-is-task")
async def test_late_subscribers_hear_the_end_of_a_remote_task(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, remote):
        task = await gateway.task("slow", agent="far", configuration={"returnImmediately": True})

        reading = asyncio.Barrier(4)

        async def follow() -> list[Any]:
            async with gateway.stream("SubscribeToTask", {"id": task["id"]}, agent="far") as events:
                first = await anext(events)
                await reading.wait()
                return [first, *[event async for event in events]]

        async with asyncio.timeout(BOUND):
            readers = [asyncio.create_task(follow()) for _ in range(3)]
            await reading.wait()
            remote.player.go.set()
            seen = await asyncio.gather(*readers)
        assert seen[0][-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert all(events[-2:] == seen[0][-2:] for events in seen)
