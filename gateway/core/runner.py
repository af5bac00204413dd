"""Running turns: from the agent's first event to the last, its deadline, its cancellation or the shutdown.

Turns live as long as the application, not as long as the request: a lost client loses nothing. When the application
stops, turns stop where they are and nothing is written about it; the next start takes them up (`core/recovery.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from types import AsyncGeneratorType
from typing import Any, TypeAlias

from gateway.core.accept import Held
from gateway.core.answers import shutting_down, unwritten
from gateway.core.latch import Latch
from gateway.core.live import Topic
from gateway.core.registry import Registered
from gateway.core.repeat import known
from gateway.core.services import Services
from gateway.core.timers import Timers
from gateway.core.turn import FLAGGED, Turn
from gateway.model.agent import Context
from gateway.model.base import timestamp
from gateway.model.changes import Release, SaveReply
from gateway.model.compliance import Place
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import LoginNeeded
from gateway.model.message import Message, Role
from gateway.model.ports import Fenced
from gateway.model.rows import Key, TaskRow
from gateway.model.task import Event, StatusUpdate, TaskState, TaskStatus

log = logging.getLogger(__name__)

# How long a new message may go without an event before its task is made anyway, so that it can be seen, watched
# and canceled. Long enough for agents that answer with a Message over a network.
PATIENCE_SECONDS = 0.5
# What an agent may take to clean up after its run; longer is not waited for.
CLEANUP_SECONDS = 10.0

# How long an agent that cannot be reached is tried to be told that its work is called off.
TELLING_SECONDS = 60.0

# The reason of tasks that the operator or a rule has stopped.
STOPPED = "stopped"

# The usual one first: asking an abstract class takes a microsecond.
_GENERATORS = (AsyncGeneratorType, AsyncGenerator)

Work: TypeAlias = Callable[[], AsyncIterator[Event]]


async def _nobody(turn: Turn, error: LoginNeeded) -> None:
    """Nobody can be asked: that is the answer."""
    raise error


class Runner:
    """All turns of this process: by task, by the key of their message, and the asyncio tasks that run them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._turns: dict[Topic, Turn] = {}
        self._keys: dict[Key, Turn] = {}
        self._tasks: dict[Turn, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()  # agents that nobody waits for any more
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self.barred: Callable[[Turn], str | None] = lambda turn: None  # why a run may not begin, if it may not
        # Returns once whoever a turn works for has authorized what it needs (core/resting.py).
        self.log_in: Callable[[Turn, LoginNeeded], Awaitable[None]] = _nobody
        self._patience = Timers(PATIENCE_SECONDS)
        self._cleanups = Timers(CLEANUP_SECONDS)

    @property
    def active(self) -> int:
        return len(self._tasks)

    def turn(self, tenant: str, task_id: str) -> Turn | None:
        return self._turns.get((tenant, task_id))

    def runs(self, chosen: Callable[[Turn], bool]) -> set[asyncio.Task[Any]]:
        return {run for turn, run in self._tasks.items() if chosen(turn)}

    def of_key(self, key: Key) -> Turn | None:
        """The turn that works on the message with this key."""
        return self._keys.get(key)

    def hold(self, turn: Turn, *, task: bool = False) -> None:
        """Let the turn be found before it runs: by its message's key, and with `task` by its task."""
        if turn.key is not None:
            self._keys[turn.key] = turn
        if task:
            self._turns[turn.topic] = turn

    def drop(self, turn: Turn) -> None:
        if self._turns.get(turn.topic) is turn:
            del self._turns[turn.topic]
        if turn.key is not None and self._keys.get(turn.key) is turn:
            del self._keys[turn.key]
        self._tasks.pop(turn, None)
        _leave(turn)
        turn.began.put(True)  # or never will; who waited for it looks again

    async def aclose(self) -> None:
        self._closing = True
        turns = dict(self._tasks)
        for task in turns.values():
            task.cancel()
        if turns:
            await asyncio.wait(turns.values())
        for turn in turns:
            turn.answer(shutting_down(turn.row))
        for telling in self._telling:
            telling.cancel()
        if self._telling:
            await asyncio.wait(self._telling)
        self._patience.close()
        self._cleanups.close()

    def start(self, turn: Turn, work: Work) -> None:
        """Run a turn that has entered its agent's gate. `work` begins the agent's run."""
        if self._closing:
            self._over(turn)
            turn.answer(shutting_down(turn.row))
            return
        self._turns[turn.topic] = turn
        if (why := self.barred(turn)) is not None:
            turn.status(TaskState.CANCELED, why, reason=STOPPED)
            if turn.row is not None and turn.row.upstream is not None:  # a remote agent is at it already
                self._tell(turn)
        turn.run = self._tasks[turn] = self._loop.create_task(self._drive(turn, work))
        turn.began.put(True)
        # Besides the run's own `finally`: a run that is canceled before its first step has none.
        turn.run.add_done_callback(partial(self._ended, turn))

    def _ended(self, turn: Turn, run: asyncio.Task[None]) -> None:
        self._over(turn)
        if self._closing or turn.done.value is not None:
            return
        # It stopped without a word, for whatever reason: nobody is to wait for ever, nor the task to stay at work.
        log.error("the run of task %s ended without an end of the task", turn.task_id)
        turn.answer(unwritten())
        if turn.row is not None and not turn.row.task.at_rest:
            self.keep(self._give_up(turn, turn.row))

    def _over(self, turn: Turn) -> None:
        """Once, whoever notices first."""
        if turn.ended:
            return
        turn.ended = True
        self.drop(turn)
        turn.release()

    async def stop(self, turn: Turn) -> bool:
        """Stop a turn that rests (it waits for authorization), without a word about it in the task. False when it has
        gone on by itself meanwhile; then it is left alone."""
        await turn.flush()
        if turn.task is None or not turn.task.at_rest:
            return False
        if turn.run is not None and not turn.run.done():
            turn.canceled = True
            turn.run.cancel()
            await asyncio.wait({turn.run})
        return True

    async def _drive(self, turn: Turn, work: Work) -> None:
        self._arm(turn)
        try:
            reply = await self._work(turn, work)
            if reply is not None:
                if turn.flag is not None:
                    reply = reply.model_copy(update={"metadata": {**(reply.metadata or {}), FLAGGED: turn.flag}})
                turn.settle(None if turn.key is None else SaveReply(turn.key, reply), "reply", reply)
            await turn.flush()
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except Held as held:
            turn.answer(await known(self._services.store, held.holder, turn.digest))
            assert turn.ticket is not None
            self._services.store.later(records=(turn.ticket.outcome(self._services.now(), "repeated"),))
        except Exception as error:
            log.exception("task %s of agent %s could not be written", turn.task_id, turn.entry.id)
            turn.answer(unwritten(error))
            if turn.row is not None and not isinstance(error, Fenced):
                await self._give_up(turn, turn.row)
        finally:
            self._over(turn)

    def _arm(self, turn: Turn) -> None:
        """One timer for both: first for patience, then for the deadline. (Nearly every turn is over before either.)"""
        remaining = (turn.deadline - self._services.now()) / 1000
        if turn.task is not None or remaining <= PATIENCE_SECONDS:
            turn.alarm = self._loop.call_later(remaining, self._expire, turn)
        else:
            turn.alarm = self._patience.start(partial(self._show, turn))

    def _show(self, turn: Turn) -> None:
        """Patience is over: the task is made, so that it can be seen, watched and canceled."""
        turn.open()
        remaining = (turn.deadline - self._services.now()) / 1000
        turn.alarm = self._loop.call_later(remaining, self._expire, turn)

    @asynccontextmanager
    async def pause(self, turn: Turn, state: TaskState, text: str, **metadata: Any) -> AsyncIterator[None]:
        """What the agent is doing waits for somebody: its task says so, its place in the gate is others' meanwhile, and
        the time does not count. A message to the task ends the run, and so does the shutdown, without a word."""
        began = self._services.now()
        turn.pauses += 1
        turn.status(state, text, **metadata)
        try:
            async with turn.entry.gate.outside() if turn.placed and turn.pauses == 1 else nullcontext():
                yield
        finally:
            turn.pauses -= 1
        if not turn.pauses and not turn.over:
            turn.deadline += self._services.now() - began
            self._go_on(turn)

    def _go_on(self, turn: Turn) -> None:
        if not turn.placed:
            turn.entry.gate.enter(force=True)
            turn.placed = True
        if turn.context is not None:
            turn.context.deadline_ms = turn.deadline
        if turn.alarm is not None:
            turn.alarm.cancel()
        if turn.done.value is not None:
            turn.done = Latch()  # who asks from now on waits for how it ends
        turn.status(TaskState.WORKING)
        self._arm(turn)

    def _expire(self, turn: Turn) -> None:
        if turn.working and not turn.pauses:
            self._break_off(turn, TaskState.FAILED, "The task did not end within its deadline", "deadline")

    def put_out(self, chosen: Callable[[Turn], bool], why: str) -> None:
        """Stop these turns now; `why` is the last word of their tasks."""
        for turn in [turn for turn in self._tasks if chosen(turn)]:
            self._break_off(turn, TaskState.CANCELED, why, STOPPED)

    async def lay_down(self, turn: Turn, why: str) -> None:
        """The last word of a task that nobody is at."""
        turn.status(TaskState.CANCELED, why, reason=STOPPED)
        await turn.flush()
        self._tell(turn)

    def _break_off(self, turn: Turn, state: TaskState, text: str, reason: str) -> None:
        # The word first: whatever the agent makes of its cancellation comes too late then.
        if not turn.over and not turn.settled:
            turn.status(state, text, reason=reason)
        if (turn.working or turn.pauses) and turn.run is not None:
            turn.canceled = True
            turn.run.cancel()
            self._tell(turn)

    def _tell(self, turn: Turn) -> None:
        if turn.context is not None and (turn.entry.agent is not None or turn.entry.kind == "remote"):
            telling = self._loop.create_task(self._call_off(turn.entry, turn.context))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _call_off(self, entry: Registered, context: Context) -> None:
        """Tell the agent that nobody waits for its work any more. What it makes of that changes nothing here."""
        try:
            if entry.agent is None:  # after a restart its card may be on its way yet
                await asyncio.wait_for(entry.reachable.wait(), TELLING_SECONDS)
            await entry.ready().cancel(context)
        except (GatewayError, TimeoutError) as error:
            log.info("agent %s was not told of the end of task %s: %s", context.agent, context.task_id, error)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background; the loop alone would not keep it."""
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _work(self, turn: Turn, work: Work) -> Message | None:
        """Let the agent run to its end, its deadline or its cancellation. Returns a direct reply, if it is one."""
        try:
            while not turn.over:
                try:
                    return await self._listen(turn, work)
                except LoginNeeded as needed:
                    await self.log_in(turn, needed)
                    if needed.following:
                        assert turn.context is not None
                        work = partial(turn.entry.ready().follow, turn.context)
        except asyncio.CancelledError as error:
            if self._closing:
                raise
            if not turn.canceled:  # the agent's own doing: it awaited something that was canceled
                self._failed(turn, error)
        except GatewayError as error:
            self._refused(turn, error)
        except Exception as error:
            self._failed(turn, error)
        return None

    def _failed(self, turn: Turn, error: BaseException) -> None:
        incident = self._services.new_id()
        log.error("incident %s: agent %s failed on task %s", incident, turn.entry.id, turn.task_id, exc_info=error)
        text = f"The agent failed; incident {incident}"
        turn.status(TaskState.FAILED, text, reason="agent-error", incident=incident)

    async def _listen(self, turn: Turn, work: Work) -> Message | None:
        turn.working = True
        events: AsyncIterator[Event] | None = None
        try:
            async with turn.entry.gate:
                events = self._examined(turn, work())
                return await self._consume(turn, events)
        finally:
            # Before anything is written about how it ended: a commit is not to be canceled.
            turn.working = False
            # Its place is free before anybody can see that the task has ended: who sees that may send the next message.
            _leave(turn)
            if not turn.heard and isinstance(events, _GENERATORS):
                await self._close(events)
            if self._closing and (run := asyncio.current_task()) is not None and run.cancelling():
                # The gateway stops: what an agent made of its cancellation is not how its task ended.
                raise asyncio.CancelledError

    def _examined(self, turn: Turn, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        compliance = self._services.compliance
        if turn.ticket is None or not compliance.covers(Place.ANSWER, turn.entry.id):
            return events
        return compliance.answers(events, turn.ticket)

    async def _close(self, events: AsyncGenerator[Event, None]) -> None:
        """Let the agent clean up, within bounds."""
        run = asyncio.current_task()
        assert run is not None
        bound = self._cleanups.start(run.cancel)
        try:
            await events.aclose()
        except asyncio.CancelledError:
            if not bound.expired or run.uncancel():
                raise
        finally:
            bound.cancel()

    async def _consume(self, turn: Turn, events: AsyncIterator[Event]) -> Message | None:
        async for event in events:
            if isinstance(event, Message):
                if turn.task is None:
                    turn.settled = True
                    return event
                # Too late for a direct reply, the task is there already: the agent's word completes it.
                turn.emit(_completed(turn, event, self._services.now()))
                return None
            turn.emit(event)
            if turn.full:
                await turn.drained()
            if turn.exhausted:
                raise GatewayError(Reason.UPSTREAM_TOO_LARGE, "The agent sent more events than one task may have")
        turn.heard = True
        if turn.task is None or not turn.task.at_rest:
            turn.status(TaskState.COMPLETED)
        return None

    async def _give_up(self, turn: Turn, row: TaskRow) -> None:
        """End a task from where it was last written, so that it is not left at work for ever."""
        last = Turn.of(self._services, turn.entry, turn.ticket, row, turn.message)
        last.push = turn.push
        try:
            last.status(TaskState.FAILED, "An event of this task could not be stored", reason="not-stored")
            await last.flush()
        except Exception:
            log.exception("task %s is left as it is; the next start takes it up", row.id)

    def _refused(self, turn: Turn, error: GatewayError) -> None:
        """A refusal before anything was visible goes to the caller as it is and frees the key for another try;
        later it is how the task ends."""
        if turn.over:
            return
        if turn.task is not None:
            turn.status(TaskState.FAILED, error.message, reason=error.reason)
            return
        turn.settle(None if turn.key is None else Release(turn.key), error.reason, error)


def last_asked(row: TaskRow) -> Message:
    """The caller's newest message on a task: what the agent is, or would again be, working on."""
    for message in reversed(row.task.history or ()):
        if message.role is Role.USER:
            return message
    return Message(message_id=row.message_id, role=Role.USER, parts=())


def _leave(turn: Turn) -> None:
    if turn.placed:
        turn.placed = False
        turn.entry.gate.leave()
        if turn.ticket is not None:
            turn.ticket.close()


def _completed(turn: Turn, message: Message, now: int) -> StatusUpdate:
    last = message.model_copy(update={"task_id": turn.task_id, "context_id": turn.context_id})
    return StatusUpdate.of(
        task_id=turn.task_id,
        context_id=turn.context_id,
        status=TaskStatus.of(state=TaskState.COMPLETED, message=last, timestamp=timestamp(now)),
    )
