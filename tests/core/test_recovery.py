"""What a second life makes of what the first one left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.recovery import Recovery
from gateway.core.registry import Registry
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.changes import Reserve
from gateway.model.message import Message
from gateway.model.rows import Key, Reservation
from gateway.model.task import Event, Task, TaskState
from gateway.stores.memory import MemoryStore
from tests.core.engine import Bench, Work, bench

BOUND = 30.0


class _NoDirectory:
    """These tests have no remote agents."""

    async def fetch(self, url: str, *, etag: str | None, trusted: bool, keys: Any = None, agent: Any = None) -> Any:
        raise AssertionError

    def balance(self, agents: Any, how: Any) -> Any:
        raise AssertionError

    def connect(self, id: str, card: Any, *, card_url: str, trusted: bool) -> Any:
        raise AssertionError


async def second_life(store: MemoryStore, work: Work, *, registered: bool = True) -> Bench:
    on = bench(work, store=store, node="life-2")
    registry = Registry(store, _NoDirectory(), on.services.now, on.services.new_id)
    if registered:
        registry.put(on.entry)
    await Recovery(on.services, registry, on.engine).start()
    return on


async def ended(on: Bench, task_id: str) -> Task:
    async with asyncio.timeout(BOUND):
        turn = on.engine.turn("", task_id)
        if turn is not None:
            await turn.done
        task = await on.stored(task_id)
        assert task is not None
        return task


async def hangs(context: Context, message: Message) -> AsyncIterator[Event]:
    yield context.working("half way")
    await asyncio.Event().wait()


async def finishes(context: Context, message: Message) -> AsyncIterator[Event]:
    yield context.completed(message.text)


async def interrupted_task(work: Work = hangs, text: str = "hi") -> tuple[MemoryStore, Task]:
    store = MemoryStore()
    on = bench(work, store=store)
    turn = await on.send(text)
    assert isinstance(turn, Turn)
    task = await turn.created
    assert isinstance(task, Task)
    await on.engine.aclose()
    return store, task


async def test_a_resumable_agent_runs_again_from_the_callers_message() -> None:
    store, task = await interrupted_task(text="forty-two")
    finishes.resumable = True  # type: ignore[attr-defined]
    try:
        on = await second_life(store, finishes)
    finally:
        del finishes.resumable  # type: ignore[attr-defined]
    after = await ended(on, task.id)
    assert after.status.state is TaskState.COMPLETED
    assert after.status.message is not None
    assert after.status.message.text == "forty-two"
    assert await on.outcomes() == [("intent", "begun"), ("outcome", "COMPLETED")]


@pytest.mark.parametrize(
    ("registered", "reason"), [(True, "unknown-outcome"), (False, "agent-removed")], ids=["not resumable", "gone"]
)
async def test_what_cannot_go_on_fails_and_says_what_is_not_known(registered: bool, reason: str) -> None:
    store, task = await interrupted_task()
    on = await second_life(store, finishes, registered=registered)
    after = await ended(on, task.id)
    assert after.status.state is TaskState.FAILED
    assert after.status.message is not None
    assert after.status.message.metadata == {"reason": reason}


async def test_a_task_that_waits_for_input_stays_as_it_is() -> None:
    async def asks(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.need_input("which?")

    store = MemoryStore()
    task = await bench(asks, store=store).ended()
    assert isinstance(task, Task)
    on = await second_life(store, finishes)
    assert await on.stored(task.id) == task
    assert on.engine.active == 0


async def reserved(store: MemoryStore) -> Key:
    key = Key("", "local:local", "agent", "m")
    await store.commit(Reserve(Reservation(key, b"hi", "t-1", 1)))
    return key


async def test_a_message_that_left_nothing_may_be_sent_again_where_repeating_does_no_harm() -> None:
    store = MemoryStore()
    await reserved(store)
    finishes.resumable = True  # type: ignore[attr-defined]
    try:
        on = await second_life(store, finishes)
        answer = await on.ended("hi", id="m")
    finally:
        del finishes.resumable  # type: ignore[attr-defined]
    assert isinstance(answer, Task)
    assert answer.status.state is TaskState.COMPLETED


async def test_a_message_whose_fate_is_unknown_becomes_a_failed_task_that_says_so() -> None:
    store = MemoryStore()
    await reserved(store)
    on = await second_life(store, finishes)
    answer = await on.ended("hi", id="m")
    assert isinstance(answer, Task)
    assert answer.id == "t-1"
    assert ("outcome", "unknown") in await on.outcomes()
    assert answer.status.state is TaskState.FAILED
    assert answer.status.message is not None
    assert answer.status.message.metadata == {"reason": "unknown-outcome"}
