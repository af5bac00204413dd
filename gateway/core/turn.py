"""One turn of an agent on a task: it emits, the turn folds, writes, publishes and answers.

Every event goes through `emit`. Whatever has gathered by the time the event loop comes round is one group: one
fold of the task, one row in its log, one commit, one publication. What is published is already durable.

No asyncio task writes: a commit is a future, and what has to follow it is its callback. So nobody's cancellation
can come between a row that is written and the readers who are to see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any

from gateway.core.accept import Accept, Held, problem
from gateway.core.answers import Answer, taken_over, unwritten
from gateway.core.audit import Ticket
from gateway.core.latch import Latch
from gateway.core.live import Topic
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.timers import Timer
from gateway.model.agent import Context, Upstream
from gateway.model.approval import waits
from gateway.model.audit import AuditEntry, Verdict
from gateway.model.base import milliseconds, timestamp
from gateway.model.changes import AdvanceTask, Change, CreateTask, DropPushConfig, PutUpstreamContext
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.ports import Fenced
from gateway.model.principal import Principal
from gateway.model.push import PushConfig
from gateway.model.rows import Key, Record, Reservation, TaskRow
from gateway.model.task import (
    TERMINAL,
    Event,
    IllegalMove,
    StatusUpdate,
    Step,
    Task,
    TaskState,
    TaskStatus,
    envelope,
    moved,
    parts_of,
)
from gateway.model.trail import Trail, asked

log = logging.getLogger(__name__)

# An agent that produces faster than the disk takes waits after this many events, so memory stays bounded.
MAX_PENDING = 64
# A task's events are bounded in all (a runaway agent must not fill the disk): 50 000 chunks is a long book.
MAX_EVENTS = 50_000
MAX_BYTES = 64 * 1024 * 1024  # and so is what they weigh: the task is held in memory while it runs
PART_BYTES = 1024  # what a part weighs in memory, however little it says
FLAGGED = "flaggedBy"  # in the metadata of a task or reply: the rule that wants it marked
STORE_RETRY_SECONDS = 1.0  # a full disk is emptied by people, not in milliseconds


@dataclass(slots=True)
class _Write:
    """A commit on its way, and what follows once it is durable."""

    changes: tuple[Change, ...]
    records: tuple[AuditEntry, ...]
    then: Callable[[], None]


@dataclass(slots=True, eq=False)
class Turn:
    """The work that one message set going. `created` resolves when the task (or reply) exists durably, `done`
    when the task is terminal or interrupted; both with an Answer, never with an exception."""

    services: Services
    entry: Registered
    ticket: Ticket | None
    message: Message
    _: KW_ONLY
    owner: str
    tenant: str
    task_id: str
    context_id: str
    deadline: int
    start: int = 0  # when its task begins, where that is new
    digest: bytes = b""
    key: Key | None = None
    webhook: PushConfig | None = None  # that came with the message
    came: Trail | None = None  # from where, if an agent asked
    caller: Principal | None = None  # who was at the door, where the owner does not say all about it
    push: bool = False  # somebody is to be told of its events

    created: Latch[Answer] = field(default_factory=Latch)
    done: Latch[Answer] = field(default_factory=Latch)
    began: Latch[bool] = field(default_factory=Latch)  # its run has been started, or it never will
    row: TaskRow | None = None  # as last written
    asked: Task | None = None  # the task as it was when this turn took it up
    context: Context | None = None
    known_context: tuple[str, str] | None = None  # interface and context id upstream, where they are stored
    accept: Accept | None = None  # still owed, or on its way
    placed: bool = False  # it has a place in its agent's gate
    run: asyncio.Task[None] | None = None
    alarm: asyncio.TimerHandle | Timer | None = None
    working: bool = False  # the agent has the turn
    heard: bool = False  # the agent has said all it had to say
    went_out: bool = False  # it has asked an agent or used a tool: to run it again would do that again
    pauses: int = 0  # calls of the agent's that wait for somebody
    canceled: bool = False
    lost: bool = False  # its task is ended because nobody knows how the call did
    broken: Exception | None = None  # what kept an event from being written
    settled: bool = False  # answered without a task; none may be opened any more
    ended: bool = False  # its run is over

    topic: Topic = field(init=False)
    _task: Task | None = None
    _state: TaskState = TaskState.SUBMITTED  # after what is not folded yet
    _unfolded: list[Step] = field(default_factory=list)
    _seq: int = 0
    _size: int = 0
    _pending: list[Record] = field(default_factory=list)
    _wake_up: asyncio.Handle | None = None
    _write: _Write | None = None
    _again: asyncio.TimerHandle | None = None  # the next try of a write that the store could not take
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)  # for everything to be written
    _recorded: bool = False  # how the call ended is in the audit

    def __post_init__(self) -> None:
        self.topic = (self.tenant, self.task_id)

    @classmethod
    def of(cls, services: Services, entry: Registered, ticket: Ticket | None, row: TaskRow, message: Message) -> Turn:
        """A turn on a task that exists: continued, resumed or canceled."""
        turn = cls(
            services,
            entry,
            ticket,
            message,
            owner=row.owner,
            tenant=row.tenant,
            task_id=row.id,
            context_id=row.task.context_id,
            deadline=row.deadline,
            came=row.trail,
            caller=row.caller,
            known_context=_context_of(row.upstream),
        )
        turn.take(row)
        return turn

    def take(self, row: TaskRow) -> None:
        """The task as it stands now that nobody else can begin on it."""
        self.row, self._task, self._seq = row, row.task, row.seq
        self._state = row.task.status.state

    async def look_for_webhooks(self) -> None:
        """Whether somebody is to be told, as the store has it now."""
        self.push = bool(await self.services.store.push_configs(self.tenant, self.task_id, limit=1))

    @property
    def task(self) -> Task | None:
        """The task with all that was emitted, written or not."""
        if self._unfolded:
            assert self._task is not None
            self._task, self._unfolded = self._task.apply(*self._unfolded), []
        return self._task

    @property
    def flag(self) -> str | None:
        """The rule that let the message through and wants it marked."""
        decision = None if self.ticket is None else self.ticket.decision
        return decision.rule if decision is not None and decision.verdict is Verdict.FLAG else None

    @property
    def tree(self) -> Topic:
        """The task of the outermost caller."""
        return self.tenant, self.task_id if self.came is None else self.came.root

    @property
    def trail(self) -> Trail:
        """Where what this turn's agent asks comes from."""
        here = asked(self.entry.id, self.message)
        if self.came is None:
            return Trail(self.task_id, self.context_id, self.task_id, (here,))
        return Trail(self.came.root, self.came.conversation, self.task_id, (*self.came.asked, here))

    @property
    def full(self) -> bool:
        """So much is waiting for the disk that the agent has to wait too."""
        return len(self._pending) >= MAX_PENDING

    @property
    def exhausted(self) -> bool:
        return self._seq >= MAX_EVENTS or self._size >= MAX_BYTES

    @property
    def over(self) -> bool:
        return self._task is not None and self._state in TERMINAL

    # Emitting.

    def emit(self, event: Event) -> None:
        """Take one event. What the state machine forbids is dropped and logged: terminal stays terminal.

        Raises what broke the writing of an earlier event: the agent need not go on then.
        """
        if self.broken is not None:
            raise self.broken
        if self._task is None:
            self._open(event)
            return
        for step in self._steps(event):
            if _says_nothing(self._state, step):
                continue
            if self.entry.kind == "remote" and isinstance(step, StatusUpdate):
                step = self._stamped(step)
            try:
                self._state = moved(self._state, step)
            except IllegalMove as error:
                log.warning("task %s: dropped an event of %s: %s", self.task_id, self.entry.id, error)
                return
            self._unfolded.append(step)
            self._record(step)

    def renew(self, request_id: str) -> None:
        """What follows is recorded under an id of its own, and so is how it ends."""
        assert self.ticket is not None
        self.ticket, self._recorded = replace(self.ticket, request_id=request_id), False

    def _steps(self, event: Event) -> Sequence[Step]:
        """What has to be applied: the event itself, or the differences to a whole that an upstream shows."""
        if not isinstance(event, Task):
            return (event,)
        task = self.task
        assert task is not None
        return tuple(task.differences(event))

    def _stamped(self, update: StatusUpdate) -> StatusUpdate:
        """The task is the gateway's, and so is its clock: another machine's would disorder listings (§3.1.4)."""
        status = update.status.model_copy(update={"timestamp": timestamp(self.services.now())})
        return update.model_copy(update={"status": status})

    def open(self) -> None:
        """Make the task exist, if nothing has been emitted yet: a caller waits to see it."""
        if self._task is None and not self.settled:
            self._open(None)

    def status(self, state: TaskState, text: str | None = None, **metadata: Any) -> None:
        """A status of the gateway's own, with its reason in the message's metadata."""
        context = self.context or Context(
            self.entry.id, self.task_id, self.context_id, self.services.now, self.services.new_id
        )
        self.open()
        self.emit(context.status(state, text, **metadata))

    def _open(self, event: Event | None) -> None:
        mine = self.message.model_copy(update={"task_id": self.task_id, "context_id": self.context_id})
        status = TaskStatus.of(state=TaskState.SUBMITTED, timestamp=timestamp(self.services.now()))
        marks = {} if self.flag is None else {"metadata": {FLAGGED: self.flag}}
        task = Task.of(id=self.task_id, context_id=self.context_id, status=status, history=(mine,), **marks)
        self._task, self._state = task, TaskState.SUBMITTED
        self._record(task)
        if event is not None:
            self.emit(event)

    def _record(self, event: Event) -> None:
        body = envelope(event)
        self._seq += 1
        self._size += len(body) + PART_BYTES * parts_of(event)
        self._pending.append(Record(self._seq, event, body))
        if self._wake_up is None and self._write is None:
            self._wake_up = asyncio.get_running_loop().call_soon(self.begin_write)

    # Writing.

    def begin_write(self) -> None:
        """Write what is pending, if nothing is on its way."""
        self._wake_up = None
        if not self._pending or self._write is not None:
            return
        records, self._pending = tuple(self._pending), []
        before, row = self.row, self._project()
        change: Change
        if before is None:
            push = () if self.webhook is None else (self.webhook,)
            change = CreateTask(row, self.services.node, records, self.key, push)
        else:
            change = AdvanceTask(row, records, self.push)
        audit: tuple[AuditEntry, ...] = ()
        if self.ticket is not None and not self._recorded and row.task.at_rest and not waits(row.task):
            self._recorded = True
            outcome = "unknown" if self.lost else row.task.status.state.name
            audit = (self.ticket.outcome(row.updated, outcome, self.task_id),)
        self._submit(_Write((change, *self._learned()), audit, partial(self._written, row, records)))

    def settle(self, change: Change | None, outcome: str, answer: Message | GatewayError) -> None:
        """End without a task, with `answer`; `change` says what becomes of the key."""
        self.settled = self._recorded = True
        changes: tuple[Change, ...] = () if change is None else (change,)
        if self.webhook is not None and self.webhook.id is not None:  # it came with the accept, and there is no task
            changes += (DropPushConfig(self.tenant, self.task_id, self.webhook.id),)
        records = () if self.ticket is None else (self.ticket.outcome(self.services.now(), outcome),)
        self._submit(_Write((*changes, *self._learned()), records, partial(self.answer, answer)))

    async def flush(self) -> None:
        """Returns when everything emitted so far is durable and published. Raises what kept it from being written
        (GatewayError, Fenced, Held, or a fault of the store); callers have been answered then."""
        await self.drained()
        if self.broken is not None:
            raise self.broken

    async def drained(self) -> None:
        """Returns when nothing waits to be written any more, for whatever reason."""
        self.begin_write()
        while self._write is not None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def _submit(self, write: _Write) -> None:
        self._write = write
        self._try(write)

    def _try(self, write: _Write) -> None:
        self._again = None
        commit = self.services.store.commit if self.accept is None else self.accept.commit
        # A future stays itself; only the stores of tests are coroutines.
        asyncio.ensure_future(commit(*write.changes, records=write.records)).add_done_callback(self._tried)

    def _tried(self, commit: asyncio.Future[Reservation | None]) -> None:
        write = self._write
        if write is None or commit.cancelled():
            return  # the loop is being closed
        error = problem(commit)
        if error is None:
            self._write = None
            self._go_on(write)
        elif self._accepted and isinstance(error, GatewayError) and error.reason is Reason.UNAVAILABLE:
            # What was accepted is settled however long the store needs; who waits for a first sign of it is told.
            log.error("task %s: the store is unavailable, trying again: %s", self.task_id, error.message)
            if self.row is None:
                self._put(error)
            self._again = asyncio.get_running_loop().call_later(STORE_RETRY_SECONDS, self._try, write)
        else:
            self._write = None
            self._wake()
            self.give_up(error)

    def _go_on(self, write: _Write) -> None:
        if self._pending:
            write.then()
            self.begin_write()
        else:
            # The run first: it lets go of the message's key before a caller who has the answer can come again.
            self._wake()
            write.then()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def _accepted(self) -> bool:
        """Something of this turn is durable already."""
        return self.row is not None or (self.accept is not None and self.accept.durable)

    def give_up(self, error: Exception) -> None:
        """Whatever it was that could not be written, nothing more may be written on top of a gap."""
        self.broken = error
        self._pending.clear()
        if not isinstance(error, Held):  # then the answer is what came of the message the first time
            self.answer(unwritten(error))
        self.stop()

    def stop(self) -> None:
        """The agent works for nothing now. (Once it has handed the turn back, what went wrong is met by the run.)"""
        if self.working and self.run is not None and self.run is not asyncio.current_task():
            self.canceled = True
            self.run.cancel()

    async def go_on(
        self, *events: StatusUpdate | Message, changes: tuple[Change, ...], audit: tuple[AuditEntry, ...]
    ) -> None:
        """Begin a turn on a task that exists: its events, what else changes (the message's key first) and the audit
        entries in one commit. Raises UNAVAILABLE when somebody else has the task, or the key."""
        assert self._task is not None
        assert self.row is not None
        self._task = self._task.apply(*events)
        self._state = self._task.status.state
        records = []
        for event in events:
            self._seq += 1
            records.append(Record(self._seq, event, envelope(event)))
        row = self._project()
        advance = AdvanceTask(row, tuple(records), self.push)
        try:
            held = await self.services.store.commit(*changes, advance, records=audit)
        except Fenced as error:
            raise taken_over() from error
        if held is not None:
            raise taken_over()
        self.row = row
        self._publish(row, tuple(records))

    def _written(self, row: TaskRow, records: tuple[Record, ...]) -> None:
        self.row = row
        self._publish(row, records)

    def _project(self) -> TaskRow:
        """The task's row as it is to be, after all that has been emitted."""
        task, row, context = self.task, self.row, self.context
        assert task is not None
        upstream = context.upstream if context is not None else row.upstream if row is not None else None
        told = task.status.timestamp
        return TaskRow(
            tenant=self.tenant,
            id=self.task_id,
            owner=self.owner,
            agent=self.entry.id if row is None else row.agent,
            task=task,
            seq=self._seq,
            fence=1 if row is None else row.fence,
            created=self.start if row is None else row.created,
            updated=(milliseconds(told) if told else None) or self.services.now(),
            deadline=self.deadline,
            message_id=self.message.message_id if row is None else row.message_id,
            upstream=upstream,
            trail=self.came,
            caller=self.caller,
        )

    def _learned(self) -> tuple[Change, ...]:
        """The upstream's name for this context, once, as soon as it is known."""
        found = _context_of(self.context.upstream if self.context is not None else None)
        if found is None or found == self.known_context:
            return ()
        self.known_context = url, theirs = found
        return (PutUpstreamContext(self.tenant, self.owner, self.entry.id, self.context_id, theirs, url),)

    def _publish(self, row: TaskRow, records: tuple[Record, ...]) -> None:
        self.services.live.publish(self.topic, records)
        if self.push:
            self.services.pushed()
        self.created.put(row.task)
        if row.task.at_rest and not (self.came is not None and waits(row.task)):  # who asks waits with it
            self.done.put(row.task)

    def release(self) -> None:
        """The run is over. What refers back to the turn lets go of it: it is freed now, not by the collector later."""
        for timer in (self.alarm, self._again):
            if timer is not None:
                timer.cancel()
        self.alarm = self._again = self.context = self.run = None

    # Answering without a task.

    def answer(self, answer: Answer) -> None:
        self.settled = True
        self._put(answer)

    def _put(self, answer: Answer) -> None:
        self.created.put(answer)
        self.done.put(answer)


def _says_nothing(state: TaskState, event: Step) -> bool:
    """The present state once more, without a word: no news for anybody."""
    return (
        isinstance(event, StatusUpdate)
        and event.status.state is state
        and event.status.message is None
        and not event.metadata
    )


def _context_of(upstream: Upstream | None) -> tuple[str, str] | None:
    return None if upstream is None or upstream.context_id is None else (upstream.url, upstream.context_id)
