"""The accept of a message shares a commit with what follows, and finds out when the message had come before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.changes import Reserve, SaveReply
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.rows import Key, Reservation
from gateway.model.task import Event, Task, TaskState
from gateway.stores.memory import MemoryStore
from tests.core.engine import Bench, Work, bench, idle

BOUND = 30.0
KEY = Key("", "local:local", "agent", "m")


class Counting(MemoryStore):
    """How many commits there were, and the first one as an event."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        self.begun = asyncio.Event()

    async def commit(self, *changes: Any, records: Any = ()) -> Reservation | None:
        self.commits += 1
        holder = await super().commit(*changes, records=records)
        self.begun.set()
        return holder


def resumable(work: Work, store: MemoryStore | None = None, **entry: Any) -> Bench:
    on = bench(work, store=store, **entry)
    assert on.entry.agent is not None
    on.entry.agent.resumable = True
    return on


async def reply(context: Context, message: Message) -> str:
    return message.text


async def complete(context: Context, message: Message) -> AsyncIterator[Event]:
    yield context.completed(message.text)


@pytest.mark.parametrize("work", [reply, complete])
async def test_a_quick_answer_of_a_resumable_agent_is_one_commit(work: Work) -> None:
    store = Counting()
    on = resumable(work, store)
    assert not isinstance(await on.ended("hi", id="m"), GatewayError)
    assert store.commits == 1
    assert [phase for phase, _ in await on.outcomes()] == ["intent", "outcome"]


@pytest.mark.parametrize("work", [reply, complete])
async def test_another_agent_starts_only_when_its_message_is_accepted(work: Work) -> None:
    store = Counting()
    assert not isinstance(await bench(work, store=store).ended("hi"), GatewayError)
    assert store.commits == 2


async def test_a_slow_agents_message_is_accepted_before_it_says_anything() -> None:
    async def thinks(context: Context, message: Message) -> str:
        await asyncio.Event().wait()
        return ""

    store = Counting()
    on = resumable(thinks, store)
    await on.send("hi", id="m")
    await asyncio.wait_for(store.begun.wait(), BOUND)
    assert await store.reservation("", "local:local", "m")
    assert await on.outcomes() == [("intent", "begun")]
    await on.engine.aclose()


async def test_a_question_to_another_agent_waits_for_the_accept() -> None:
    async def asks(context: Context, message: Message) -> AsyncIterator[Event]:
        with pytest.raises(AssertionError, match="nobody is asked"):
            await context.ask("other", "are you there?")
        assert await on.store.reservation("", "local:local", "m")
        yield context.completed()

    on = resumable(asks)
    task = await on.ended("hi", id="m")
    assert isinstance(task, Task)
    assert task.status.state is TaskState.COMPLETED


async def held(reply: Message | None) -> MemoryStore:
    """A store in which the message "hi" has been answered before."""
    store = MemoryStore()
    await store.commit(Reserve(Reservation(KEY, b"hi", "t-1", 1)))
    if reply is not None:
        await store.commit(SaveReply(KEY, reply))
    return store


@pytest.mark.parametrize("work", [reply, complete])
async def test_a_message_that_came_before_gets_what_came_of_it_then(work: Work) -> None:
    first = await bench(reply).ended("first")
    assert isinstance(first, Message)
    on = resumable(work, await held(first))
    assert await on.ended("hi", id="m") == first
    assert ("outcome", "repeated") in await on.outcomes()
    assert await on.stored("life-1-2") is None


async def test_a_slow_run_of_a_message_that_came_before_is_stopped() -> None:
    stopped = asyncio.Event()

    async def thinks(context: Context, message: Message) -> AsyncIterator[Event]:
        try:
            await asyncio.Event().wait()
            yield context.completed()
        finally:
            stopped.set()

    first = await bench(reply).ended("first")
    assert isinstance(first, Message)
    on = resumable(thinks, await held(first))
    turn = await on.send("hi", id="m")
    assert isinstance(turn, Turn)
    assert await asyncio.wait_for(turn.done, BOUND) == first
    await asyncio.wait_for(stopped.wait(), BOUND)


async def test_another_message_under_a_used_id_is_refused_though_the_agent_has_begun() -> None:
    first = await bench(reply).ended("first")
    assert isinstance(first, Message)
    answer = await resumable(reply, await held(first)).ended("something else", id="m")
    assert isinstance(answer, GatewayError)
    assert answer.violations[0].field == "message.messageId"


async def test_an_accept_that_cannot_be_written_is_the_callers_error() -> None:
    class Full(MemoryStore):
        async def commit(self, *changes: Any, records: Any = ()) -> Reservation | None:
            raise GatewayError(Reason.UNAVAILABLE, "The disk is full")

    async def thinks(context: Context, message: Message) -> str:
        await asyncio.Event().wait()
        return ""

    for work in (reply, complete, thinks):
        answer = await asyncio.wait_for(resumable(work, Full()).ended(), BOUND)
        assert isinstance(answer, GatewayError)
        assert answer.reason is Reason.UNAVAILABLE


async def test_a_refusal_of_a_resumable_agent_leaves_no_key() -> None:
    async def refuses(context: Context, message: Message) -> AsyncIterator[Event]:
        if message.text:
            raise GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, "no")
        yield context.completed()

    on = resumable(refuses)
    answer = await on.ended("hi", id="m")
    assert isinstance(answer, GatewayError)
    assert answer.reason is Reason.CONTENT_TYPE_NOT_SUPPORTED
    assert await on.store.reservation("", "local:local", "m") == []


class Sick(MemoryStore):
    """Takes accepts, and nothing that settles them until it is well again."""

    def __init__(self) -> None:
        super().__init__(node="life-1")
        self.well = False

    async def commit(self, *changes: Any, records: Any = ()) -> Reservation | None:
        if not self.well and [entry.phase for entry in records] != ["intent"]:
            raise GatewayError(Reason.UNAVAILABLE, "The disk is full")
        return await super().commit(*changes, records=records)


async def refuse(context: Context, message: Message) -> str:
    raise GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, "no")


@pytest.mark.parametrize("work", [reply, complete, refuse])
async def test_what_was_accepted_is_settled_when_the_store_is_well_again(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.turn.STORE_RETRY_SECONDS", 0.01)
    store = Sick()
    on = bench(work, store=store)
    first = await asyncio.wait_for(on.ended("hi", id="m"), BOUND)
    assert isinstance(first, GatewayError)
    assert first.reason is Reason.UNAVAILABLE
    repeated = await asyncio.wait_for(on.ended("hi", id="m"), BOUND)
    assert isinstance(repeated, GatewayError)
    assert repeated.reason is Reason.UNAVAILABLE
    store.well = True
    await idle(on)
    (kept,) = await store.reservation("", "local:local", "m") or (None,)
    if work is refuse:
        assert kept is None
    else:
        assert kept is not None
        answer = await on.ended("hi", id="m")
        assert answer == (kept.reply or await on.stored(kept.task_id))
    assert [phase for phase, _ in await on.outcomes()][:2] == ["intent", "outcome"]
