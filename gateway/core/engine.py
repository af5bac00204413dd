"""The task engine: accept a message once, continue a task. What is accepted runs in `core/runner.py`.

A message is accepted by one commit (its idempotency key and the audit intent) before the agent starts. What the
agent does first decides what it was: a Message leaves no task, anything else makes one. If the agent keeps still
for PATIENCE_SECONDS, or the caller wants to watch, the task is made without waiting for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from gateway.core.accept import Accept, Held, problem
from gateway.core.answers import Answer, at_work, shutting_down, unwritten, used_otherwise
from gateway.core.audit import Ticket
from gateway.core.canceling import Canceling
from gateway.core.contexts import Contexts
from gateway.core.registry import Registered
from gateway.core.repeat import known
from gateway.core.resting import Resting
from gateway.core.runner import Runner, Work, last_asked
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.base import timestamp
from gateway.model.call import SendMessage
from gateway.model.changes import Change, PutPushConfig, Reserve
from gateway.model.errors import GatewayError, Reason, invalid, task_not_found
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.rows import Key, Reservation, TaskRow
from gateway.model.task import StatusUpdate, TaskState, TaskStatus

log = logging.getLogger(__name__)

# References of one message that are looked up; each costs a read.
MAX_REFERENCES = 32


class Engine:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._runner = Runner(services)
        self._loop = asyncio.get_running_loop()
        self._paying: set[asyncio.Task[Any]] = set()  # accepts on their way; the loop alone would not keep them
        self.resting = Resting(services, self._runner, self)
        self.contexts = Contexts(services, self.resting.connect)
        self.canceling = Canceling(services, self._runner, self.contexts)

    def turn(self, tenant: str, task_id: str) -> Turn | None:
        """The turn that is at work on this task here, if one is."""
        return self._runner.turn(tenant, task_id)

    @property
    def active(self) -> int:
        return self._runner.active

    def bar(self, barred: Callable[[Turn], str | None]) -> None:
        """Whose runs may not begin from now on: `barred` says why not."""
        self._runner.barred = barred

    def put_out(self, chosen: Callable[[Turn], bool], why: str) -> None:
        """Stop these turns now; `why` is the last word of their tasks."""
        self._runner.put_out(chosen, why)

    def runs(self, chosen: Callable[[Turn], bool]) -> set[asyncio.Task[Any]]:
        """Of these turns."""
        return self._runner.runs(chosen)

    def accepting(self) -> set[asyncio.Task[Any]]:
        """Messages of agents that are on their way to a turn."""
        return set(self._paying)

    def refuse(self) -> None:
        """Take no more messages: the gateway is shutting down."""
        self.contexts.stopping = True

    async def aclose(self) -> None:
        """Stops all turns where they are; their tasks stay as written and the next start takes them up."""
        self.contexts.stopping = True
        await self._runner.aclose()

    # Accepting.

    def check_open(self) -> None:
        """Raises UNAVAILABLE once no more messages are taken."""
        if self.contexts.stopping:
            raise shutting_down(None)

    async def send(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Turn | Answer:
        """Accept a message. A Turn when there is work in hand, an Answer when this message was answered before."""
        self.check_open()
        accept = self._continue if call.message.task_id else self._begin
        if not ticket.principal.hops:
            return await accept(call, ticket, entry)
        if entry.agent is None and call.trail is not None:
            # Who was taken up after a restart may ask before the cards have been looked for; a caller can come again.
            await entry.looked.wait()
        # An agent that asks may be canceled while it does; what it has begun must not be torn.
        accepting = self._loop.create_task(accept(call, ticket, entry))
        self._paying.add(accepting)
        accepting.add_done_callback(self._paying.discard)
        return await asyncio.shield(accepting)

    async def _begin(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Turn | Answer:
        services, who = self._services, ticket.principal
        key = self._key(call, who, entry)
        if key is not None and (running := self._runner.of_key(key)) is not None:
            return await self._join(running, call)
        agent = entry.ready()
        entry.gate.enter()
        now = services.now()
        turn = Turn(
            services,
            entry,
            ticket,
            call.message,
            owner=who.owner,
            tenant=who.tenant,
            task_id=services.new_id(),
            context_id=call.message.context_id or services.new_id(),
            deadline=now + int(entry.deadline * 1000),
            digest=call.digest,
            key=key,
            webhook=call.push,
            push=call.push is not None,
            start=now,
            placed=True,
            came=call.trail,
            caller=who.kept,
        )
        self._runner.hold(turn)
        reserve = None if key is None else Reserve(Reservation(key, call.digest, turn.task_id, now))
        push = None
        if call.push is not None and reserve is not None:  # who finds the key after a crash finds the webhook too
            push = PutPushConfig(who.tenant, call.push.model_copy(update={"task_id": turn.task_id}))
        turn.accept = Accept(services.store, reserve, ticket.intent(now, turn.task_id), push, ticket.spends)
        try:
            turn.context = self.contexts.of_call(turn, call)
            if call.message.context_id and entry.kind == "remote":
                await self._recall_context(turn)
            delivered = call.message
            if delivered.reference_task_ids:
                delivered = await self._delivered(delivered, turn)
            if not (agent.resumable and entry.kind == "local"):
                await turn.accept.made()
        except Held as held:
            self._runner.drop(turn)
            return await self._replay(held.holder, call, turn)
        except BaseException as error:
            self._abandon(turn, error)
            raise
        if call.as_task:
            turn.open()
        self._runner.start(turn, partial(agent.run, turn.context, delivered))
        if turn.accept.owed:
            # Running such an agent twice is harmless by its own word, so it starts at once and the accept is written
            # with the first thing it says, or alone when the loop comes round (docs/adr/0007).
            self._loop.call_soon(_pay, turn, turn.accept)
        return turn

    async def _delivered(self, message: Message, turn: Turn) -> Message:
        """The message as the agent gets it: its references are the caller's own tasks there, under the ids that the
        agent knows them by. Other people's and unknown ids do not reach it."""
        if not message.reference_task_ids:
            return message
        known = []
        for id in message.reference_task_ids[:MAX_REFERENCES]:
            row = await self._services.store.task(turn.tenant, id, owner=turn.owner, agent=turn.entry.id)
            if row is not None:
                theirs = row.upstream.task_id if row.upstream is not None else None
                known.append(theirs if turn.entry.kind == "remote" else row.id)
        return message.model_copy(update={"reference_task_ids": tuple(id for id in known if id)})

    async def _recall_context(self, turn: Turn) -> None:
        """What the remote agent calls this context, if it has been there before."""
        assert turn.context is not None
        known = await self._services.store.upstream_context(turn.tenant, turn.owner, turn.entry.id, turn.context_id)
        if known is not None and known.context_id is not None:
            turn.context.upstream, turn.known_context = known, (known.url, known.context_id)

    async def _continue(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Turn | Answer:
        turn = await self.seize(call, ticket, entry)
        if not isinstance(turn, Turn) or turn.ticket is not ticket:
            return turn
        try:
            agent = entry.ready()
            entry.gate.enter()
            turn.placed = True
            delivered = await self._delivered(turn.message, turn)
            await self._accept_answer(turn, ticket)
        except BaseException as error:
            self._abandon(turn, error)
            raise
        turn.context = self.contexts.of_call(turn, call)
        turn.context.task = turn.asked
        self._runner.start(turn, partial(agent.run, turn.context, delivered))
        return turn

    async def seize(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Turn | Answer:
        """The task that a message continues, so that nobody else begins on it: a turn of this ticket, which has to be
        run or let go. Another turn or an answer if the message had come before. Raises unless the task waits."""
        services, who, task_id = self._services, ticket.principal, call.message.task_id
        assert task_id is not None
        row = await services.store.task(who.tenant, task_id, owner=who.owner, agent=entry.id)
        if row is None:
            raise task_not_found(task_id)
        if call.message.context_id and call.message.context_id != row.task.context_id:
            raise invalid("message.contextId", "is not the context of this task; leave it out or send the task's own")
        key = self._key(call, who, entry)
        if key is not None:
            for held in await services.store.reservation(who.tenant, who.owner, key.message_id, agent=entry.id):
                return await self._replay(held, call, None)
            if (same := self._runner.of_key(key)) is not None:
                return await self._join(same, call)
        running = self.turn(who.tenant, task_id)
        # It may wait for authorization and go on by itself (§7.6.1); while it rests, the caller's word comes first.
        if running is not None and not (
            running.task is not None and running.task.at_rest and await self._runner.stop(running)
        ):
            raise at_work(row)
        mine = call.message.model_copy(update={"context_id": row.task.context_id})
        turn = Turn.of(services, entry, ticket, row, mine)
        turn.came, turn.caller = call.trail, who.kept
        turn.deadline, turn.key, turn.digest = services.now() + int(entry.deadline * 1000), key, call.digest
        return await self._held(turn)

    async def _held(self, turn: Turn) -> Turn:
        if (other := self.turn(turn.tenant, turn.task_id)) is not None:
            raise at_work(other.row or turn.row)
        self._runner.hold(turn, task=True)
        try:
            turn.asked = (await self._still_waiting(turn)).task
            await turn.look_for_webhooks()
        except BaseException as error:
            self._abandon(turn, error)
            raise
        return turn

    def let_go(self, turn: Turn) -> None:
        """A turn of `seize` or `resume` that is not run."""
        self._runner.drop(turn)

    def pause(self, turn: Turn, state: TaskState, text: str, **metadata: Any) -> AbstractAsyncContextManager[None]:
        """What its agent is doing waits for somebody."""
        return self._runner.pause(turn, state, text, **metadata)

    # Messages that had to wait for somebody (core/approvals).

    async def resume(self, row: TaskRow, message: Message, ticket: Ticket, entry: Registered) -> Turn:
        """The task of a message that waits, so that nobody else begins on it. Raises unless it still does."""
        while (other := self.turn(row.tenant, row.id)) is not None and other.run is None:
            await other.began  # it is being canceled in this moment
        turn = Turn.of(self._services, entry, ticket, row, message)
        turn.deadline = self._services.now() + int(entry.deadline * 1000)
        return await self._held(turn)

    async def go_on(self, turn: Turn, call: SendMessage, *said: Message, first: bool) -> None:
        """Give the message to the agent: `said` is what joins the history, `first` that the agent knows nothing of the
        task. What the ticket spends and the audit's intent are in the commit by which it goes on."""
        assert turn.ticket is not None
        asked = None if first else turn.asked
        try:
            agent = turn.entry.ready()
            turn.entry.gate.enter(force=True)
            turn.placed = True
            await self._work_on(turn, *said, changes=turn.ticket.spends)
            delivered = await self._delivered(call.message, turn)
        except BaseException as error:
            self._abandon(turn, error)
            raise
        turn.context = self.contexts.of_call(turn, call)
        turn.context.task = asked
        self._runner.start(turn, partial(agent.run, turn.context, delivered))

    async def revive(self, row: TaskRow, entry: Registered, ticket: Ticket, *, follow: bool = False) -> None:
        """Go on with a task that rests in AUTH_REQUIRED and has no run any more, as nobody says anything new: the agent
        gets the newest message once more, or with `follow` what it does already is followed. Raises GatewayError."""
        agent = entry.ready()
        if self.contexts.stopping or self.turn(row.tenant, row.id) is not None:
            raise at_work(row)
        entry.gate.enter(force=True)
        now = self._services.now()
        turn = Turn.of(self._services, entry, ticket, row, last_asked(row))
        turn.deadline = now + int(entry.deadline * 1000)
        turn.placed = True
        self._runner.hold(turn, task=True)
        try:
            row = await self._still_waiting(turn)
            await turn.look_for_webhooks()
            delivered = await self._delivered(turn.message, turn)
            await self._work_on(turn, changes=())
        except BaseException as error:
            self._abandon(turn, error)
            raise
        turn.context = self.contexts.of(turn)
        turn.context.task = row.task  # as it was when it came to rest
        turn.context.stream = entry.streaming
        work = partial(agent.follow, turn.context) if follow else partial(agent.run, turn.context, delivered)
        self._runner.start(turn, work)

    async def _still_waiting(self, turn: Turn) -> TaskRow:
        """The task as it stands while this turn holds it. Raises unless it waits for somebody."""
        row = await self._services.store.task(turn.tenant, turn.task_id, owner=turn.owner)
        if row is None:
            raise task_not_found(turn.task_id)
        state = row.task.status.state
        if state.terminal:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION,
                f"The task has ended ({state.name}); send a new message in its context to go on",
                metadata={"taskId": turn.task_id, "state": state},
            )
        if not state.interrupted:
            raise at_work(row)
        turn.take(row)
        return row

    async def _accept_answer(self, turn: Turn, ticket: Ticket) -> None:
        """The answer to a question joins the history, and the task is at work again: one commit with the key."""
        await self._work_on(turn, turn.message, changes=(*self.reserved(turn), *ticket.spends))

    def reserved(self, turn: Turn) -> tuple[Reserve, ...]:
        """The key of the message that continues a task."""
        if turn.key is None:
            return ()
        return (Reserve(Reservation(turn.key, turn.digest, turn.task_id, self._services.now(), settled=True)),)

    async def _work_on(self, turn: Turn, *said: Message, changes: tuple[Change, ...]) -> None:
        now = self._services.now()
        assert turn.ticket is not None
        status = TaskStatus(state=TaskState.WORKING, timestamp=timestamp(now))
        # The status first: it moves the agent's question into the history, where the answer then follows.
        update = StatusUpdate(task_id=turn.task_id, context_id=turn.context_id, status=status)
        await turn.go_on(update, *said, changes=changes, audit=(turn.ticket.intent(now, turn.task_id),))

    async def _join(self, running: Turn, call: SendMessage) -> Turn:
        if running.digest != call.digest:
            raise used_otherwise(call.message.message_id)
        return running

    async def _replay(self, held: Reservation, call: SendMessage, turn: Turn | None) -> Answer:
        """The same message again: the same task, the same Message, or the same turn still at work."""
        answer = await known(self._services.store, held, call.digest)
        if turn is not None:
            turn.answer(answer)
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    def adopt(self, turn: Turn, work: Work) -> None:
        """Run a turn that an earlier life began."""
        turn.entry.gate.enter(force=True)
        turn.placed = True
        self._runner.start(turn, work)

    def _key(self, call: SendMessage, who: Principal, entry: Registered) -> Key | None:
        if not (entry.deduplicate or call.always_deduplicate):
            return None
        return Key(who.tenant, who.owner, entry.id, call.message.message_id)

    def _abandon(self, turn: Turn, error: BaseException) -> None:
        """A turn that never began, for whatever reason: its place is free again, and whoever joined it is told."""
        self._runner.drop(turn)
        turn.answer(unwritten(error))


def _pay(turn: Turn, accept: Accept) -> None:
    """Write the accept by itself, if nothing has taken it along."""

    def paid(written: asyncio.Future[Reservation | None]) -> None:
        if (error := problem(written)) is not None:
            turn.give_up(error)

    if accept.owed:
        accept.write().add_done_callback(paid)
