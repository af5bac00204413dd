"""Ending tasks before their agents have: because the caller says so, or because nobody may go on with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.core.answers import not_cancelable
from gateway.core.audit import Ticket
from gateway.core.contexts import Contexts
from gateway.core.registry import Registered
from gateway.core.runner import Runner, last_asked
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.compliance import Place
from gateway.model.rows import TaskRow
from gateway.model.task import Event, Task, TaskState


class Canceling:
    def __init__(self, services: Services, runner: Runner, contexts: Contexts) -> None:
        self._services = services
        self._runner = runner
        self._contexts = contexts

    async def cancel(self, row: TaskRow, entry: Registered, ticket: Ticket) -> Task:
        """Stop a task. Terminal afterwards, or refused with TASK_NOT_CANCELABLE; never ignored."""
        while (turn := self._runner.turn(row.tenant, row.id)) is not None and turn.run is None:
            await turn.began  # it is being accepted, or canceled by somebody else, in this moment
        if turn is None:
            return await self._cancel_idle(row, entry, ticket)
        row = turn.row or row
        if row.task.status.state.terminal:
            raise not_cancelable(row)
        turn.canceled = True
        try:
            seen = await turn.entry.ready().cancel(turn.context) if turn.context is not None else None
            seen = await self._examined(seen, ticket)
        except BaseException:
            turn.canceled = False
            raise
        task = await self._concluded(turn, seen)
        if not turn.over:
            turn.canceled = False  # the agent has taken note and goes on; so do we
        elif turn.run is not None:
            turn.run.cancel()
        return task

    async def lay_down(self, row: TaskRow, entry: Registered, ticket: Ticket, why: str) -> bool:
        """End a task that waits for somebody. False when somebody is at it; then it is not left waiting either way."""
        if self._runner.turn(row.tenant, row.id) is not None:
            return False
        async with self._idle(row, entry, ticket) as (turn, row):
            if not row.task.status.state.interrupted:
                return False
            await self._equip(turn)
            await self._runner.lay_down(turn, why)
        return True

    async def _cancel_idle(self, row: TaskRow, entry: Registered, ticket: Ticket) -> Task:
        async with self._idle(row, entry, ticket) as (turn, row):
            if row.task.status.state.terminal:
                raise not_cancelable(row)
            context = await self._equip(turn)
            seen = await entry.agent.cancel(context) if entry.agent is not None else None
            return await self._concluded(turn, await self._examined(seen, ticket))

    @asynccontextmanager
    async def _idle(self, row: TaskRow, entry: Registered, ticket: Ticket) -> AsyncIterator[tuple[Turn, TaskRow]]:
        """A task that nobody is at, held so that nobody else begins on it: what stands now is what counts."""
        turn = Turn.of(self._services, entry, ticket, row, last_asked(row))
        self._runner.hold(turn, task=True)
        try:
            row = await self._services.store.task(row.tenant, row.id, owner=row.owner) or row
            turn.take(row)
            yield turn, row
        finally:
            self._runner.drop(turn)

    async def _equip(self, turn: Turn) -> Context:
        await turn.look_for_webhooks()
        turn.context = context = self._contexts.of(turn)
        return context

    async def _examined(self, seen: Event | None, ticket: Ticket) -> Event | None:
        compliance = self._services.compliance
        if seen is None or not compliance.covers(Place.ANSWER, ticket.target):
            return seen
        return await compliance.answer(seen, ticket)

    async def _concluded(self, turn: Turn, seen: Event | None) -> Task:
        turn.open()
        if seen is not None:
            turn.emit(seen)
        elif not turn.over:
            turn.status(TaskState.CANCELED, "Canceled by the caller")
        await turn.flush()
        assert turn.task is not None
        return turn.task
