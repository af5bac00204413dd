"""A task's past, from its events: each is kept, in its order and with its time, so any moment can be put together."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.audit import Ticket
from gateway.model.call import ReplayTask
from gateway.model.errors import GatewayError, Reason, task_not_found
from gateway.model.ports import Store
from gateway.model.principal import Kind
from gateway.model.rows import Record
from gateway.model.task import Task


@dataclass(frozen=True, slots=True)
class Replayed:
    """The task as it was after the last of `events`; `later` more have come since."""

    agent: str
    task: Task
    events: tuple[Record, ...]
    later: int


class Replays:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def replay(self, call: ReplayTask, ticket: Ticket, entry: None) -> Replayed:
        """Everybody's tasks for the machine's own operator, and for anyone else its own."""
        who = ticket.principal
        owner = None if who.kind is Kind.LOCAL else who.owner
        row = await self._store.task(who.tenant, call.task_id, owner=owner)
        if row is None:
            raise task_not_found(call.task_id)
        every = await self._store.events(row.tenant, row.id, 0)
        past = tuple(record for record in every if _reached(call, record))
        if not past:
            raise GatewayError(Reason.NOT_FOUND, "There was no such task yet at that moment")
        return Replayed(row.agent, folded(past), past, len(every) - len(past))


def _reached(call: ReplayTask, record: Record) -> bool:
    return (call.seq is None or record.seq <= call.seq) and (call.at is None or record.at <= call.at)


def folded(records: tuple[Record, ...]) -> Task:
    """The task that a log's beginning comes to. Its first event is the whole task."""
    task = records[0].event
    assert isinstance(task, Task)
    for record in records[1:]:
        task = record.event if isinstance(record.event, Task) else task.apply(record.event)
    return task
