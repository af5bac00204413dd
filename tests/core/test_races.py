"""Two things at once on one task: whoever comes second gets a clear answer, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.audit import Ticket
from gateway.core.policy import DENIED
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.principal import LOCAL
from gateway.model.task import Event, Task, TaskState
from gateway.stores.memory import MemoryStore
from tests.core.engine import Bench, bench, idle, turns
from tests.late import Late

BOUND = 30.0
LAGS = range(8)  # turns of the event loop by which the second comes later: every await window is hit


class Stepping(MemoryStore):
    """Each read and write takes a few turns of the event loop, as a disk would."""

    async def task(self, *arguments: Any, **more: Any) -> Any:
        await turns(2)
        return await super().task(*arguments, **more)

    async def reservation(self, *arguments: Any, **more: Any) -> Any:
        await turns(2)
        return await super().reservation(*arguments, **more)

    async def commit(self, *changes: Any, records: Any = ()) -> Any:
        await turns(2)
        return await super().commit(*changes, records=records)


async def asks(context: Context, message: Message) -> AsyncIterator[Event]:
    if context.task is None:
        yield context.need_input("which?")
        return
    yield context.working()
    await turns(5)
    yield context.completed(message.text)


async def later(lag: int, on: Bench, **more: Any) -> Any:
    await turns(lag)
    try:
        return await on.ended("answer", **more)
    except GatewayError as error:
        return error


def cancel(on: Bench, turn_or_row: Any) -> Any:
    return on.engine.canceling.cancel(turn_or_row, on.entry, Ticket(LOCAL, "CancelTask", "agent", DENIED, "r"))


@pytest.mark.parametrize("lag", LAGS)
async def test_of_two_answers_one_is_taken_and_the_other_refused(lag: int) -> None:
    on = bench(asks, store=Stepping(node="life-1"))
    task = await on.ended("q")
    assert isinstance(task, Task)
    async with asyncio.timeout(BOUND):
        one, two = await asyncio.gather(later(0, on, task_id=task.id), later(lag, on, task_id=task.id))
    ends = [answer for answer in (one, two) if isinstance(answer, Task)]
    refusals = [answer for answer in (one, two) if isinstance(answer, GatewayError)]
    assert [end.status.state for end in ends] == [TaskState.COMPLETED]
    assert [refusal.reason for refusal in refusals] == [Reason.UNSUPPORTED_OPERATION]
    await idle(on)


@pytest.mark.parametrize("lag", LAGS)
async def test_the_same_answer_twice_gives_the_same_end(lag: int) -> None:
    on = bench(asks, store=Stepping(node="life-1"))
    task = await on.ended("q")
    assert isinstance(task, Task)
    async with asyncio.timeout(BOUND):
        one, two = await asyncio.gather(later(0, on, task_id=task.id, id="a"), later(lag, on, task_id=task.id, id="a"))
    assert isinstance(one, Task)
    assert one.status.state is TaskState.COMPLETED
    assert isinstance(two, Task)
    assert two.id == one.id
    await idle(on)


@pytest.mark.parametrize("lag", range(14))
async def test_a_cancelation_beside_an_answer_ends_the_task_one_way(lag: int) -> None:
    on = bench(asks, store=Stepping(node="life-1"))
    task = await on.ended("q")
    assert isinstance(task, Task)
    row = await on.store.task("", task.id)

    async def canceled() -> Any:
        await turns(lag)
        try:
            return await cancel(on, row)
        except GatewayError as error:
            return error

    async with asyncio.timeout(BOUND):
        await asyncio.gather(later(0, on, task_id=task.id), canceled())
    await idle(on)
    stored = await on.stored(task.id)
    assert stored is not None
    assert stored.status.state in (TaskState.CANCELED, TaskState.COMPLETED)


async def test_an_agent_that_trips_over_a_cancelation_of_its_own_fails() -> None:
    async def trips(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        child = asyncio.create_task(asyncio.sleep(60))
        child.cancel()
        await child

    on = bench(trips)
    task = await asyncio.wait_for(on.ended(), BOUND)
    assert isinstance(task, Task)
    assert task.status.state is TaskState.FAILED
    await idle(on)


async def test_an_agent_that_cannot_even_begin_fails() -> None:
    def raises(context: Context, message: Message) -> AsyncIterator[Event]:
        raise TypeError("run() takes no arguments")

    on = bench(raises)
    task = await asyncio.wait_for(on.ended(id="m"), BOUND)
    assert isinstance(task, Task)
    assert task.status.state is TaskState.FAILED
    assert await on.ended(id="m") == task
    await idle(on)


async def test_a_deadline_holds_for_an_agent_that_does_not_listen() -> None:
    let_go = asyncio.Event()

    async def deaf(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        yield context.completed("late")

    on = bench(deaf, deadline=0.05)
    task = await asyncio.wait_for(on.ended(), BOUND)
    assert isinstance(task, Task)
    assert task.status.state is TaskState.FAILED
    let_go.set()
    await idle(on)
    assert await on.stored(task.id) == task


@pytest.mark.parametrize("lag", LAGS)
async def test_an_agent_that_goes_on_by_itself_is_not_stopped_by_an_answer_that_comes_too_late(lag: int) -> None:
    authorized = asyncio.Event()

    async def waits(context: Context, message: Message) -> AsyncIterator[Event]:
        if context.task is not None:
            yield context.completed("by the answer")
            return
        yield context.need_auth("log in")
        await authorized.wait()
        yield context.working()
        await turns(4)
        yield context.completed("by itself")

    on = bench(waits, store=Stepping(node="life-1"))
    task = await on.ended("q")
    assert isinstance(task, Task)
    async with asyncio.timeout(BOUND):
        answering = asyncio.create_task(later(0, on, task_id=task.id))
        await turns(lag)
        authorized.set()
        await answering
    await idle(on)
    stored = await on.stored(task.id)
    assert stored is not None
    assert stored.status.state is TaskState.COMPLETED


async def test_a_message_that_comes_during_the_shutdown_is_told_so() -> None:
    async def never(context: Context, message: Message) -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield context.completed()

    on = bench(never, store=Stepping(node="life-1"))
    sending = asyncio.create_task(on.send("hi"))
    await turns(2)
    await on.engine.aclose()
    turn = await asyncio.wait_for(sending, BOUND)
    assert isinstance(turn, Turn)
    answer = await asyncio.wait_for(turn.done, BOUND)
    assert isinstance(answer, GatewayError)
    assert answer.reason is Reason.UNAVAILABLE
    assert on.entry.gate.inside == 0


async def test_readers_see_what_was_written_though_its_writer_was_canceled() -> None:
    cue = asyncio.Event()

    async def waits(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        await cue.wait()
        yield context.completed()

    store = Late()
    on = bench(waits, store=store)
    turn = await on.send("hi")
    assert isinstance(turn, Turn)
    await asyncio.wait_for(turn.created, BOUND)
    store.hear.clear()
    store.committed.clear()
    canceling = asyncio.create_task(cancel(on, turn.row))
    await asyncio.wait_for(store.committed.wait(), BOUND)
    canceling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await canceling
    reader = on.services.live.subscribe(turn.topic)
    store.hear.set()
    records = await asyncio.wait_for(reader.next(), BOUND)
    assert records is not None
    assert [record.seq for record in records] == [3]
    task = await asyncio.wait_for(turn.done, BOUND)
    assert isinstance(task, Task)
    assert task.status.state is TaskState.CANCELED
    cue.set()
    await idle(on)


async def test_an_agent_whose_question_is_turned_away_by_the_shutdown_stops_and_does_not_fail() -> None:
    asked = asyncio.Event()

    async def asks_another(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        asked.set()
        await context.ask("other", "well?")
        yield context.completed()

    async def stops(agent: str, message: Message) -> Task | Message:
        on.engine.refuse()
        raise GatewayError(Reason.UNAVAILABLE, "The gateway is shutting down")

    on = bench(asks_another)
    turn = await on.send("hi", ask=stops)
    assert isinstance(turn, Turn)
    await asyncio.wait_for(asked.wait(), BOUND)
    await turns(10)
    await asyncio.wait_for(on.engine.aclose(), BOUND)
    stored = await on.stored(turn.task_id)
    assert stored is not None
    assert stored.status.state is TaskState.WORKING
