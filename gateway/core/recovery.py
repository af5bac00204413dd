"""After a restart: what an earlier life had in hand comes to an end, truthfully.

- A task that waits for input or authorization stays as it is.
- A remote task whose upstream id is stored is followed again to its true end.
- A local agent that declares itself resumable runs again from the caller's message.
- Only what is left ends FAILED, with a reason that says what is not known.
- In the audit log a task goes on as the call that it was, and any other call that has begun gets an end: `unknown`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from gateway.core.audit import Cause, Ticket
from gateway.core.engine import Engine
from gateway.core.registry import Registered, Registry
from gateway.core.runner import last_asked
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.base import timestamp
from gateway.model.call import SendMessage
from gateway.model.changes import Change, CreateTask, DropPushConfig, Release
from gateway.model.message import Message, Part, Role
from gateway.model.principal import Principal
from gateway.model.push import PushConfig
from gateway.model.rows import Record, Reservation, TaskRow
from gateway.model.task import Event, Task, TaskState, TaskStatus, envelope

log = logging.getLogger(__name__)

BATCH = 500  # rows a claim takes at once: bounds memory while a large backlog is taken up
ROOM = 1000  # turns in hand beyond which the next claim waits
LEASE_MS = 30_000  # how long a claim holds where several gateways share a store
EVER = 2**63 - 1  # whatever the clock said when it was written: nothing of this life is in hand yet
PAUSE_SECONDS = 0.1  # between looks whether there is room for more of a large backlog

_RESUMED = Decision(Verdict.PASS, "resumed", "decided when the message was accepted, before a restart")


class Recovery:
    def __init__(self, services: Services, registry: Registry, engine: Engine) -> None:
        self._services = services
        self._registry = registry
        self._engine = engine
        self._rest: asyncio.Task[None] | None = None
        self._open: dict[tuple[str, str], AuditEntry] = {}  # by the task: intents of messages that have no end yet

    async def start(self) -> None:
        """Take up what is unfinished. The first batch is in hand when this returns; a larger backlog follows in the
        background as room becomes free."""
        store, now = self._services.store, self._services.now()
        await self._look_at_record()
        if unsettled := await store.unsettled(EVER):
            changes = [change for left in unsettled for change in await self._settled(left)]
            records = [self._lost(left).outcome(now, "unknown", left.task_id) for left in unsettled]
            await store.commit(*changes, records=records)
        if await self._batch():
            self._rest = asyncio.create_task(self._continue(), name="recovery")
        else:
            await self._leave()

    async def _look_at_record(self) -> None:
        """How a call ended of which only the beginning is in the record, nobody knows; but a message's goes on with
        its task."""
        over = []
        for entry in await self._services.store.left_open():
            if entry.verb == SendMessage.verb and entry.task_id is not None:
                place = entry.tenant, entry.task_id
                over += [self._open[place]] if place in self._open else []
                self._open[place] = entry
            else:
                over.append(entry)
        await self._unknown(over)

    async def _leave(self) -> None:
        """All tasks are taken up: what no task goes on with is over."""
        left, self._open = list(self._open.values()), {}
        await self._unknown(left)

    async def _unknown(self, begun: list[AuditEntry]) -> None:
        now = self._services.now()
        for at in range(0, len(begun), BATCH):
            records = [
                replace(entry, at=now, outcome="unknown", phase="outcome", change=None, stamp=None)
                for entry in begun[at : at + BATCH]
            ]
            await self._services.store.commit(records=records)

    async def aclose(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            await asyncio.wait({self._rest})

    async def _continue(self) -> None:
        while True:
            try:
                if self._engine.active < ROOM and not await self._batch():
                    await self._leave()
                    return
            except Exception:
                log.exception("unfinished tasks could not be taken up, trying again")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _batch(self) -> int:
        now = self._services.now()
        rows = await self._services.store.claim(self._services.node, now, now + LEASE_MS, BATCH)
        # Turns first and without a pause, so that nobody can come between the claim and its turn. A task that has a
        # turn already was continued or canceled just now; that turn has it.
        idle = [row for row in rows if self._engine.turn(row.tenant, row.id) is None]
        hopeless = [(row, why) for row in idle if (why := self._take_up(row)) is not None]
        for row, (reason, text) in hopeless:
            try:
                await self._end(row, reason, text)
            except Exception:
                log.exception("task %s could not be ended", row.id)
        for row in rows:
            if row not in idle:
                await self._look_again(row)
        if rows:
            log.info("took up %d unfinished tasks", len(rows))
        return len(rows)

    async def _look_again(self, row: TaskRow) -> None:
        """Somebody was at it when it was claimed; if that left it unfinished, it is ours to take up."""
        while (turn := self._engine.turn(row.tenant, row.id)) is not None:
            await (turn.began if turn.run is None else turn.done)
            if turn.done.value is not None and self._engine.turn(row.tenant, row.id) is turn:
                return  # at work here, or at rest: it has an owner
        fresh = await self._services.store.task(row.tenant, row.id)
        if fresh is not None and not fresh.task.at_rest and (why := self._take_up(fresh)) is not None:
            await self._end(fresh, *why)

    def _ticket(self, who: Principal, agent: str, task_id: str) -> Ticket:
        """The call goes on, and how it ends is recorded like that of any other."""
        begun = self._open.pop((who.tenant, task_id), None)
        if begun is None:
            return Ticket(who, SendMessage.verb, agent, _RESUMED, self._services.new_id())
        cause = None if begun.cause is None else Cause(begun.correlation or begun.cause, begun.cause)
        return Ticket(
            who,
            SendMessage.verb,
            agent,
            _RESUMED,
            begun.request_id,
            digest=begun.digest,
            length=begun.length,
            upstream_hash=begun.upstream_hash,
            cause=cause,
            # Which span asked is not in the record; ours goes on in the same trace.
            traceparent=begun.trace and f"00-{begun.trace}-{begun.request_id[-16:]}-00",
        )

    def _lost(self, left: Reservation) -> Ticket:
        who = Principal.of(left.key.principal, left.key.tenant)
        return self._ticket(who, left.key.agent, left.task_id)

    def again(self, row: TaskRow, ticket: Ticket) -> tuple[str, str] | None:
        """A task that waited for an approval, and whose run is gone."""
        return self._take_up(row, ticket)

    def _take_up(self, row: TaskRow, ticket: Ticket | None = None) -> tuple[str, str] | None:
        """Set the task going again, or say why it cannot be (a reason, and a sentence)."""
        entry = self._registry.get(row.agent)
        if entry is None:
            return "agent-removed", "The gateway was restarted, and this agent is no longer registered"
        followed = row.upstream is not None and row.upstream.task_id is not None
        again = entry.agent if entry.agent is not None and entry.agent.resumable else None
        if not followed and again is None:
            return "unknown-outcome", "The gateway was restarted; whether the agent finished the work is not known"
        ticket = ticket or self._ticket(self._services.today(row.asker), row.agent, row.id)
        turn = Turn.of(self._services, entry, ticket, row, last_asked(row))
        if row.task.at_rest:
            turn.deadline = self._services.now() + int(entry.deadline * 1000)
            turn.status(TaskState.WORKING)
        turn.push = True  # whether there are configurations is for the store to see
        turn.context = self._engine.contexts.of(turn)
        if followed or again is None:
            self._engine.adopt(turn, partial(_followed, entry, turn.context))
        else:
            self._engine.adopt(turn, partial(again.run, turn.context, turn.message))
        return None

    async def _end(self, row: TaskRow, reason: str, text: str) -> None:
        entry = self._registry.get(row.agent) or self._registry.unknown(row.agent)
        turn = Turn.of(self._services, entry, self._ticket(row.asker, row.agent, row.id), row, last_asked(row))
        turn.push = turn.lost = True
        turn.status(TaskState.FAILED, text, reason=reason)
        await turn.flush()

    async def _settled(self, left: Reservation) -> list[Change]:
        """A message that was accepted and left nothing: its sender got no answer. Where a repeat does no harm the
        key is given back; else a FAILED task says that the outcome is not known, to the message's webhook too."""
        tenant, task_id = left.key.tenant, left.task_id
        webhooks = await self._services.store.push_configs(tenant, task_id, limit=1)  # a message names one at most
        entry = self._registry.get(left.key.agent)
        if entry is not None and entry.agent is not None and entry.agent.resumable:
            return [Release(left.key), *(DropPushConfig(tenant, task_id, config.id or "") for config in webhooks)]
        return [self._failed(left, tuple(webhooks))]

    def _failed(self, reservation: Reservation, webhooks: tuple[PushConfig, ...]) -> CreateTask:
        now, key = self._services.now(), reservation.key
        context_id = self._services.new_id()
        text = "The gateway was stopped while this message was being delivered; whether the agent got it is not known"
        message = Message(
            message_id=self._services.new_id(),
            role=Role.AGENT,
            parts=(Part(text=text),),
            context_id=context_id,
            task_id=reservation.task_id,
            metadata={"reason": "unknown-outcome"},
        )
        status = TaskStatus(state=TaskState.FAILED, message=message, timestamp=timestamp(now))
        task = Task(id=reservation.task_id, context_id=context_id, status=status)
        row = TaskRow(
            tenant=key.tenant,
            id=reservation.task_id,
            owner=key.principal,
            agent=key.agent,
            task=task,
            seq=1,
            fence=1,
            created=now,
            updated=now,
            deadline=now,
            message_id=key.message_id,
        )
        return CreateTask(row, self._services.node, (Record(1, task, envelope(task)),), key, webhooks)


async def _followed(entry: Registered, context: Context) -> AsyncIterator[Event]:
    """What the upstream still does. The agent's card may be on its way yet; the task's deadline bounds the wait."""
    await entry.reachable.wait()
    async for event in entry.ready().follow(context):
        yield event
