"""How a message becomes a task or a reply, once, and comes to an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.core import runner as runner_module
from gateway.core.audit import Ticket
from gateway.core.gate import Gate
from gateway.core.policy import DENIED
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.changes import AdvanceTask, CreateTask
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.principal import LOCAL, Kind, Principal
from gateway.model.task import Event, Task, TaskState
from gateway.stores.memory import MemoryStore
from tests.core.engine import bench

BOUND = 30.0


async def complete(context: Context, message: Message) -> AsyncIterator[Event]:
    yield context.completed(message.text)


async def reply(context: Context, message: Message) -> str:
    return message.text


async def never(context: Context, message: Message) -> AsyncIterator[Event]:
    yield context.working("waiting")
    await asyncio.Event().wait()


async def asks(context: Context, message: Message) -> AsyncIterator[Event]:
    if context.resume is None:
        yield context.need_input("which?", resume={"asked": message.text})
    else:
        yield context.completed(f"{context.resume['asked']}: {message.text}")


def state(answer: object) -> TaskState:
    assert isinstance(answer, Task), answer
    return answer.status.state


async def test_an_event_makes_a_task_that_is_stored_before_it_is_answered() -> None:
    on = bench(complete)
    task = await on.ended("hi")
    assert state(task) is TaskState.COMPLETED
    assert isinstance(task, Task)
    assert await on.stored(task.id) == task


async def test_a_reply_leaves_no_task_and_is_given_again() -> None:
    on = bench(reply)
    first = await on.ended("hi", id="m")
    assert isinstance(first, Message)
    assert await on.ended("hi", id="m") == first
    assert on.store is not None
    assert (await on.store.reservation("", "local:local", "m"))[0].reply == first


async def test_the_same_message_while_it_is_worked_on_joins_the_same_turn() -> None:
    on = bench(never)
    first, second = await asyncio.gather(on.send("hi", id="m"), on.send("hi", id="m"))
    assert isinstance(first, Turn)
    assert second is first
    await on.engine.aclose()


async def test_another_message_under_a_used_id_is_refused_also_while_the_first_is_worked_on() -> None:
    on = bench(never)
    await on.send("hi", id="m")
    with pytest.raises(GatewayError) as refused:
        await on.send("ho", id="m")
    assert refused.value.violations[0].field == "message.messageId"
    await on.engine.aclose()


async def test_another_principal_may_use_the_same_message_id() -> None:
    on = bench(complete)
    one = await on.ended("hi", id="m")
    two = await on.ended("ho", id="m", who=Principal(Kind.KEY, "bob"))
    assert isinstance(one, Task)
    assert isinstance(two, Task)
    assert one.id != two.id


async def test_an_agent_that_returns_without_an_end_has_completed() -> None:
    async def works(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()

    assert state(await bench(works).ended()) is TaskState.COMPLETED


async def test_an_agent_that_raises_fails_with_an_incident_and_not_with_its_text() -> None:
    async def breaks(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        raise RuntimeError("password=hunter2")

    task = await bench(breaks).ended()
    assert state(task) is TaskState.FAILED
    assert isinstance(task, Task)
    assert b"hunter2" not in task.wire()
    assert b"incident" in task.wire()


async def test_a_refusal_before_any_event_is_the_callers_error_and_frees_the_message_id() -> None:
    refusals = iter([GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, "no"), None])

    async def picky(context: Context, message: Message) -> AsyncIterator[Event]:
        if (refusal := next(refusals)) is not None:
            raise refusal
        yield context.completed()

    on = bench(picky)
    first = await on.ended("hi", id="m")
    assert isinstance(first, GatewayError)
    assert first.reason is Reason.CONTENT_TYPE_NOT_SUPPORTED
    assert state(await on.ended("hi", id="m")) is TaskState.COMPLETED


async def test_events_after_the_end_are_dropped() -> None:
    async def chatters(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.completed("done")
        yield context.failed("or not")
        yield context.artifact("late")

    task = await bench(chatters).ended()
    assert state(task) is TaskState.COMPLETED
    assert isinstance(task, Task)
    assert task.artifacts is None


async def test_a_silent_agent_gets_its_task_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "PATIENCE_SECONDS", 0.01)

    async def silent(context: Context, message: Message) -> str:
        await asyncio.Event().wait()
        return ""

    on = bench(silent)
    turn = await on.send()
    assert isinstance(turn, Turn)
    assert state(await asyncio.wait_for(turn.created, BOUND)) is TaskState.SUBMITTED
    await on.engine.aclose()


async def test_a_reply_that_comes_after_the_task_was_made_completes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "PATIENCE_SECONDS", 0.01)
    seen = asyncio.Event()

    async def slow(context: Context, message: Message) -> str:
        await seen.wait()
        return "late"

    on = bench(slow)
    turn = await on.send()
    assert isinstance(turn, Turn)
    await asyncio.wait_for(turn.created, BOUND)
    seen.set()
    task = await asyncio.wait_for(turn.done, BOUND)
    assert state(task) is TaskState.COMPLETED
    assert isinstance(task, Task)
    assert task.status.message is not None
    assert task.status.message.text == "late"


async def test_a_run_past_its_deadline_fails_and_says_so() -> None:
    on = bench(never, deadline=0.05)
    task = await asyncio.wait_for(on.ended(), BOUND)
    assert state(task) is TaskState.FAILED
    assert isinstance(task, Task)
    assert task.status.message is not None
    assert task.status.message.metadata == {"reason": "deadline"}


async def test_canceling_stops_the_agent_and_is_recorded_first() -> None:
    stopped = asyncio.Event()

    async def works(context: Context, message: Message) -> AsyncIterator[Event]:
        try:
            yield context.working()
            await asyncio.Event().wait()
        finally:
            stopped.set()

    on = bench(works)
    turn = await on.send()
    assert isinstance(turn, Turn)
    await turn.created
    assert turn.row is not None
    task = await on.engine.canceling.cancel(turn.row, on.entry, Ticket(LOCAL, "CancelTask", "agent", DENIED, "r"))
    assert state(task) is TaskState.CANCELED
    await asyncio.wait_for(stopped.wait(), BOUND)
    assert await on.stored(task.id) == task


async def test_an_agent_that_ignores_its_cancellation_changes_nothing_any_more() -> None:
    let_go = asyncio.Event()

    async def stubborn(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            let_go.set()
        yield context.completed("never mind")

    on = bench(stubborn)
    turn = await on.send()
    assert isinstance(turn, Turn)
    await turn.created
    assert turn.row is not None
    task = await on.engine.canceling.cancel(turn.row, on.entry, Ticket(LOCAL, "CancelTask", "agent", DENIED, "r"))
    await asyncio.wait_for(let_go.wait(), BOUND)
    stored = await on.stored(task.id)
    assert stored is not None
    assert stored.status.state is TaskState.CANCELED


async def test_an_answer_goes_on_with_the_task_and_the_agent_gets_back_what_it_put_aside() -> None:
    on = bench(asks)
    first = await on.ended("cake")
    assert state(first) is TaskState.INPUT_REQUIRED
    assert isinstance(first, Task)
    second = await on.ended("apple", task_id=first.id)
    assert isinstance(second, Task)
    assert second.id == first.id
    assert second.status.message is not None
    assert second.status.message.text == "cake: apple"
    assert [m.text for m in second.history or ()] == ["cake", "which?", "apple"]


async def test_the_answer_sent_twice_is_taken_once() -> None:
    on = bench(asks)
    first = await on.ended("cake")
    assert isinstance(first, Task)
    second = await on.ended("apple", id="answer", task_id=first.id)
    assert await on.ended("apple", id="answer", task_id=first.id) == second


async def test_a_task_at_work_takes_no_message_and_an_ended_one_neither() -> None:
    on = bench(never)
    turn = await on.send()
    assert isinstance(turn, Turn)
    task = await turn.created
    assert isinstance(task, Task)
    with pytest.raises(GatewayError, match="at work"):
        await on.send("more", task_id=task.id)
    await on.engine.aclose()

    on = bench(complete)
    ended = await on.ended()
    assert isinstance(ended, Task)
    with pytest.raises(GatewayError, match="has ended"):
        await on.send("more", task_id=ended.id)


async def test_a_full_queue_refuses_before_anything_is_accepted() -> None:
    on = bench(never, gate=Gate(1, 1))
    await on.send("runs")
    await on.send("waits")
    with pytest.raises(GatewayError) as refused:
        await on.send("too many", id="m")
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.retry_after is not None
    assert await on.store.reservation("", "local:local", "m") == []
    await on.engine.aclose()


async def test_many_events_at_once_are_few_writes_and_all_are_in_the_log() -> None:
    class Counting(MemoryStore):
        writes = 0

        async def commit(self, *changes, records=()):  # type: ignore[no-untyped-def]
            self.writes += any(isinstance(change, CreateTask | AdvanceTask) for change in changes)
            return await super().commit(*changes, records=records)

    async def counts(context: Context, message: Message) -> AsyncIterator[Event]:
        for index in range(200):
            yield context.artifact(str(index), id="a", append=index > 0)

    store = Counting(node="life-1")
    on = bench(counts, store=store)
    task = await on.ended()
    assert isinstance(task, Task)
    records = await store.events("", task.id, 0)
    assert [record.seq for record in records] == list(range(1, 203))  # the task, 200 chunks, the end
    assert store.writes <= 5


async def test_each_call_has_one_intent_and_one_outcome() -> None:
    on = bench(complete)
    await on.ended()
    assert await on.outcomes() == [("intent", "begun"), ("outcome", "COMPLETED")]


async def test_an_event_that_cannot_be_stored_ends_the_task_and_tells_its_callers() -> None:
    class Full(MemoryStore):
        async def commit(self, *changes, records=()):  # type: ignore[no-untyped-def]
            for change in changes:
                if isinstance(change, AdvanceTask) and b"poison" in b"".join(r.body for r in change.records):
                    raise RuntimeError("a fault of the store")
            return await super().commit(*changes, records=records)

    async def works(context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working("well")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        yield context.working("poison")
        await asyncio.Event().wait()

    store = Full(node="life-1")
    on = bench(works, store=store)
    turn = await on.send()
    assert isinstance(turn, Turn)
    task = await turn.created
    run = turn.run
    assert run is not None
    answer = await asyncio.wait_for(turn.done, BOUND)
    assert isinstance(answer, GatewayError)
    assert answer.reason is Reason.UNAVAILABLE
    await asyncio.wait_for(asyncio.wait({run}), BOUND)
    assert isinstance(task, Task)
    stored = await on.stored(task.id)
    assert stored is not None
    assert stored.status.state is TaskState.FAILED
    assert stored.status.message is not None
    assert stored.status.message.metadata == {"reason": "not-stored"}


async def test_a_shutdown_writes_nothing_about_running_tasks_and_tells_those_who_wait() -> None:
    on = bench(never)
    turn = await on.send()
    assert isinstance(turn, Turn)
    task = await turn.created
    await on.engine.aclose()
    answer = turn.done.value
    assert isinstance(answer, GatewayError)
    assert answer.metadata["taskId"] == turn.task_id
    assert isinstance(task, Task)
    assert await on.stored(task.id) == task
    with pytest.raises(GatewayError):
        await on.send()


async def test_an_agent_without_deduplication_takes_the_same_message_as_a_new_one() -> None:
    on = bench(complete, deduplicate=False)
    one, two = await on.ended("hi", id="m"), await on.ended("hi", id="m")
    assert isinstance(one, Task)
    assert isinstance(two, Task)
    assert one.id != two.id


async def test_a_fault_of_the_store_in_the_accept_frees_the_place_and_the_id() -> None:
    class Faulty(MemoryStore):
        faults = 1

        async def commit(self, *changes, records=()):  # type: ignore[no-untyped-def]
            if self.faults:
                self.faults -= 1
                raise RuntimeError("a fault of the store")
            return await super().commit(*changes, records=records)

    on = bench(complete, store=Faulty(node="life-1"))
    with pytest.raises(RuntimeError):
        await on.send("hi", id="m")
    assert on.entry.gate.inside == 0
    assert state(await on.ended("hi", id="m")) is TaskState.COMPLETED
