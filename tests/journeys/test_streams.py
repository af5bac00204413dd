"""SendStreamingMessage and SubscribeToTask (A2A §3.1.2, §3.1.6, §3.5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.actors import Cue
from tests.bindings import BINDINGS, Caller, state
from tests.serving import A2A, BOUND, Gateway, message

pytestmark = pytest.mark.asyncio(loop_scope="module")

# SubscribeToTask has two verbs in HTTP+JSON (§5.3 says POST, the proto GET).
WAYS = (*BINDINGS, "http by GET")


@pytest.fixture(params=WAYS)
def subscriber(gateway: Gateway, request: pytest.FixtureRequest) -> Caller:
    return subscribing(gateway, request.param)


def subscribing(gateway: Gateway, way: str) -> Caller:
    binding, _, verb = way.partition(" by ")
    return Caller(gateway, binding, get_subscribe=verb == "GET")


def kinds(events: list[Any]) -> list[str]:
    return [next(iter(event)) for event in events]


def said(event: Any) -> Any:
    """What an event tells: the text of its status or artifact, or the state."""
    if "artifactUpdate" in event:
        return event["artifactUpdate"]["artifact"]["parts"][0]["text"]
    status = event.get("statusUpdate", event.get("task"))["status"]
    return status["message"]["parts"][0]["text"] if "message" in status else state({"status": status})


async def rest(events: AsyncIterator[Any]) -> list[Any]:
    async with asyncio.timeout(BOUND):
        return [event async for event in events]


async def following(events: AsyncIterator[Any]) -> Any:
    return await asyncio.wait_for(anext(events), BOUND)


# The stream of a message.


@pytest.mark.requirement(
    "a2a.stream.starts-with-task", "a2a.stream.ends-with-task", "a2a.stream.order", "a2a.stream.chunks-append",
    "a2a.stream.events-name-task-and-context", "a2a.jsonrpc.stream", "a2a.http.stream", "a2a.grpc.streams",
)  # fmt: skip
async def test_a_stream_begins_with_the_task_and_ends_with_it(caller: Caller) -> None:
    events = await caller.events("SendStreamingMessage", message=message("count 5"))
    assert kinds(events) == ["task", "statusUpdate", *["artifactUpdate"] * 5, "statusUpdate"]
    task = events[0]["task"]
    for event in events[1:]:
        (body,) = event.values()
        assert (body["taskId"], body["contextId"]) == (task["id"], task["contextId"])
    pieces = [event["artifactUpdate"] for event in events[2:-1]]
    assert [said(event) for event in events[2:-1]] == ["1\n", "2\n", "3\n", "4\n", "5\n"]
    # ProtoJSON of gRPC's messages leaves out what is false.
    assert [piece.get("append", False) for piece in pieces] == [False, True, True, True, True]
    assert [piece.get("lastChunk", False) for piece in pieces] == [False, False, False, False, True]
    assert state(events[-1]["statusUpdate"]) == "COMPLETED"
    assert "final" not in events[-1]["statusUpdate"]
    whole = await caller.get(task["id"])
    assert [part["text"] for part in whole["artifacts"][0]["parts"]] == ["1\n", "2\n", "3\n", "4\n", "5\n"]


@pytest.mark.requirement("a2a.stream.message-only")
async def test_a_stream_of_a_message_is_that_message_alone(caller: Caller) -> None:
    sent = message("hi", messageId=f"tck-message-response-stream-{caller.binding}")
    (event,) = await caller.events("SendStreamingMessage", message=sent)
    assert event["message"]["parts"] == [{"text": "Direct message response"}]
    assert event["message"]["contextId"]


@pytest.mark.requirement("a2a.stream.live")
async def test_events_leave_when_they_happen(caller: Caller) -> None:
    cue = Cue()
    async with caller.to("actor").stream("SendStreamingMessage", message=message(cue.text)) as events:
        cue.say("one")
        assert kinds([await following(events)]) == ["task"]
        assert said(await following(events)) == "one"
        cue.say("two")
        assert said(await following(events)) == "two"
        cue.done()
        assert [said(event) for event in await rest(events)] == ["Done"]


async def test_streams_are_not_kept_or_gathered_on_the_way(http_caller: Caller) -> None:
    answer = await http_caller.ask("SendStreamingMessage", message=message("hi"))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"


async def test_a_stream_ends_when_its_turn_asks_for_input(caller: Caller) -> None:
    events = await caller.events("SendStreamingMessage", message=message("ask"))
    assert said(events[-1]) == "What shall I echo?"
    events = await caller.events("SendStreamingMessage", message=message("so", taskId=events[0]["task"]["id"]))
    assert kinds(events)[0] == "task"
    assert said(events[-1]) == "so"


@pytest.mark.requirement("a2a.stream.refusal-is-no-stream")
async def test_a_stream_that_is_refused_is_an_ordinary_error(caller: Caller) -> None:
    task = await caller.task()
    for reason, params in (
        ("INVALID_PARAMS", {}),
        ("INVALID_PARAMS", {"message": {**message("hi"), "parts": []}}),
        ("TASK_NOT_FOUND", {"message": message("hi", taskId="tck-nonexistent")}),
        ("UNSUPPORTED_OPERATION", {"message": message("hi", taskId=task["id"])}),
    ):
        await caller.refused(reason, "SendStreamingMessage", **params)
    await caller.having(A2A_Version="0.9").refused(
        "VERSION_NOT_SUPPORTED", "SendStreamingMessage", message=message("x")
    )
    await caller.to("nobody").refused("NOT_FOUND", "SendStreamingMessage", message=message("x"))


@pytest.mark.requirement("a2a.stream.undeclared", "a2a.card.capabilities-are-true")
async def test_an_agent_that_declares_no_streams_has_none(caller: Caller) -> None:
    plain = caller.to("plain")
    task = await plain.task("ask")
    await plain.refused("UNSUPPORTED_OPERATION", "SendStreamingMessage", message=message("hi"))
    await plain.refused("UNSUPPORTED_OPERATION", "SubscribeToTask", id=task["id"])


@pytest.mark.requirement("a2a.stream.outlives-its-reader")
async def test_a_reader_that_leaves_stops_nothing(caller: Caller) -> None:
    cue, actor = Cue(), caller.to("actor")
    cue.say("one")
    async with actor.stream("SendStreamingMessage", message=message(cue.text)) as events:
        id = (await following(events))["task"]["id"]
    cue.say("two")
    cue.done()
    assert state(await actor.ended(id)) == "COMPLETED"
    assert not cue.stopped.is_set()


async def test_the_same_message_again_shows_what_came_of_it(caller: Caller) -> None:
    sent = message("hi")
    first = await caller.events("SendStreamingMessage", message=sent)
    (again,) = await caller.events("SendStreamingMessage", message=sent)
    assert again["task"] == await caller.get(first[0]["task"]["id"])


@pytest.mark.requirement("a2a.stream.long-silence")
async def test_a_silent_stream_shows_that_it_is_alive(caller: Caller) -> None:
    cue, actor, live = Cue(), caller.to("actor"), caller.gateway.app.services.live
    task = await actor.started(cue.text)
    usual, live.heartbeat = live.heartbeat, 0.02
    try:
        async with asyncio.timeout(BOUND), actor.streaming("SubscribeToTask", id=task["id"]) as answer:
            raw = b""
            async for chunk in answer.aiter_raw():
                raw += chunk
                if raw.count(b": keep-alive\n\n") >= 2:
                    break
    finally:
        live.heartbeat = usual
    first, *comments = raw.strip().split(b"\n\n")
    assert first.startswith(b"data:")
    assert set(comments) == {b": keep-alive"}  # comments, which clients pass over
    cue.done()
    await actor.ended(task["id"])


# Subscribing.


@pytest.mark.requirement(
    "a2a.subscribe.first-event-is-task", "a2a.subscribe.ends-with-task", "a2a.subscribe.nothing-lost-between",
    "a2a.http.subscribe-both-verbs",
)  # fmt: skip
async def test_a_subscription_begins_with_the_task_as_it_is_and_ends_with_it(subscriber: Caller) -> None:
    cue, actor = Cue(), subscriber.to("actor")
    task = await actor.started(cue.text)
    async with actor.stream("SubscribeToTask", id=task["id"]) as events:
        first = (await following(events))["task"]
        assert first["id"] == task["id"]
        cue.say("one")
        assert said(await following(events)) == "one"
        async with actor.stream("SubscribeToTask", id=task["id"]) as later:
            # Who comes later sees where it stands, and from there on the same.
            assert said(await following(later)) == "one"
            cue.say("two")
            cue.done()
            assert [said(event) for event in await rest(later)] == ["two", "Done"]
        assert [said(event) for event in await rest(events)] == ["two", "Done"]


@pytest.mark.requirement("a2a.subscribe.ended-task-refused")
@pytest.mark.parametrize("text", ["hi", "fail", "reject"])
async def test_an_ended_task_has_no_subscribers(subscriber: Caller, text: str) -> None:
    task = await subscriber.task(text)
    await subscriber.refused("UNSUPPORTED_OPERATION", "SubscribeToTask", id=task["id"])


@pytest.mark.requirement("a2a.subscribe.unknown-task")
async def test_an_unknown_task_has_no_subscribers(subscriber: Caller) -> None:
    await subscriber.refused("TASK_NOT_FOUND", "SubscribeToTask", id="tck-nonexistent")


@pytest.mark.requirement("a2a.http.empty-body")
@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
async def test_a_subscription_needs_no_body(gateway: Gateway, headers: dict[str, str]) -> None:
    task = await Caller(gateway, "http").task("ask")
    path = f"{gateway.url}/agents/echo/tasks/{task['id']}:subscribe"
    sent = {**A2A, **gateway.bearer(None), **headers}
    async with asyncio.timeout(BOUND), gateway.client.stream("POST", path, headers=sent) as answer:
        assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.requirement("a2a.subscribe.interrupted-stays-open", "a2a.subscribe.everybody-hears")
async def test_a_subscription_stays_open_while_the_task_asks(subscriber: Caller) -> None:
    cue, actor = Cue(), subscriber.to("actor")
    cue.ask()
    task = await actor.task(cue.text)
    assert state(task) == "INPUT_REQUIRED"
    async with actor.stream("SubscribeToTask", id=task["id"]) as events:
        assert (await following(events))["task"] == task
        cue.ask()
        await actor.task(cue.text, taskId=task["id"])
        cue.done()
        await actor.task(cue.text, taskId=task["id"])
        seen = [state(event["statusUpdate"]) for event in await rest(events)]
    assert seen == ["WORKING", "INPUT_REQUIRED", "WORKING", "COMPLETED"]


@pytest.mark.requirement("a2a.subscribe.ends-with-task")
async def test_a_subscription_hears_of_the_cancellation(subscriber: Caller) -> None:
    task = await subscriber.task("ask")
    async with subscriber.stream("SubscribeToTask", id=task["id"]) as events:
        await following(events)
        await subscriber.call("CancelTask", id=task["id"])
        assert [state(event["statusUpdate"]) for event in await rest(events)] == ["CANCELED"]


@pytest.mark.requirement("a2a.subscribe.everybody-hears", "a2a.subscribe.closing-one", "a2a.stream.order")
async def test_everybody_hears_the_same_in_the_same_order_whoever_leaves(gateway: Gateway) -> None:
    cue = Cue()
    callers = [subscribing(gateway, way).to("actor") for way in WAYS * 2]
    task = await callers[0].started(cue.text)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(caller.stream("SubscribeToTask", id=task["id"])) for caller in callers
        ]
        async with callers[0].stream("SubscribeToTask", id=task["id"]) as leaving:
            for events in (*streams, leaving):
                assert (await following(events))["task"]["id"] == task["id"]
            cue.say("0")
            assert said(await following(leaving)) == "0"
        for number in range(1, 20):
            cue.say(str(number))
        cue.done()
        heard = [await rest(events) for events in streams]
    assert [said(event) for event in heard[0]] == [*map(str, range(20)), "Done"]
    assert all(events == heard[0] for events in heard)
    assert state(await callers[0].get(task["id"])) == "COMPLETED"
