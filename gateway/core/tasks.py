"""Use cases on tasks that are there: get, list, cancel, subscribe. Each sees the caller's own tasks only,
get and subscribe also one that its owner lets the caller read."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.audit import Ticket
from gateway.core.cursor import Cursors
from gateway.core.engine import Engine
from gateway.core.owned import Owned
from gateway.core.registry import Registered, Registry
from gateway.core.services import Services
from gateway.core.shares import Found, Lent, Shares
from gateway.core.watch import Watch
from gateway.model.call import CancelTask, GetTask, ListTasks, SubscribeToTask, TaskPage
from gateway.model.errors import GatewayError, Reason, task_not_found
from gateway.model.principal import Principal
from gateway.model.rows import Record, TaskQuery, TaskRow
from gateway.model.task import Task, envelope


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a listing across agents."""

    agent: str
    task: Task


class Tasks:
    def __init__(
        self, services: Services, registry: Registry, engine: Engine, cursors: Cursors, shares: Shares, owned: Owned
    ) -> None:
        self._services = services
        self._registry = registry
        self._engine = engine
        self._cursors = cursors
        self._shares = shares
        self._owned = owned

    async def row(self, who: Principal, task_id: str, agent: str | None) -> TaskRow:
        """The caller's task on this agent (None: on any). Foreign and missing are the same (A2A §3.3.2)."""
        # Always from the store, also when the task is at work here: what is committed can be read (by a listing, or by
        # a stream that begins) before the turn hears of it, and no later answer may fall behind an earlier one.
        row = await self._services.store.task(who.tenant, task_id, owner=who.owner, agent=agent)
        if row is None:
            raise task_not_found(task_id)
        return row

    async def _readable(self, call: GetTask | SubscribeToTask, ticket: Ticket) -> Found:
        """For GetTask and SubscribeToTask alone. Only the operator's door leaves out the agent, and shows no shares."""
        if call.agent is None:
            return await self._own(call, ticket), None
        return await self._shares.readable(ticket.principal, call.task_id, call.agent)

    async def _own(self, call: GetTask | SubscribeToTask | CancelTask, ticket: Ticket) -> TaskRow:
        row = await self.row(ticket.principal, call.task_id, call.agent)
        if call.agent is None:
            self._owned.enter(ticket, row.agent, row.id)
        return row

    async def get(self, call: GetTask, ticket: Ticket, entry: Registered | None) -> Task | Lent:
        row, share = await self._readable(call, ticket)
        task = row.task.trimmed(call.history_length)
        return task if share is None else Lent(row.id, share.owner, task)

    async def list(self, call: ListTasks, ticket: Ticket, entry: Registered | None) -> TaskPage:
        who = ticket.principal
        bound = repr((who.tenant, who.owner, call.agent, call.context_id, call.status, call.status_timestamp_after))
        after = None
        if call.page_token:
            updated, _, last = self._cursors.open(call.page_token, bound).partition(" ")
            after = (int(updated), last)
        query = TaskQuery(
            tenant=who.tenant,
            owner=who.owner,
            agent=call.agent,
            limit=call.page_size + 1,
            context_id=call.context_id,
            state=call.status,
            updated_since=call.status_timestamp_after,
            after=after,
        )
        page = await self._services.store.tasks(query)
        more, rows = page.cut or len(page.rows) > call.page_size, page.rows[: call.page_size]
        token = self._cursors.seal(f"{rows[-1].updated} {rows[-1].id}", bound) if more else ""
        shown = rows if call.agent is not None else self._owned.among(ticket, rows)
        listed = tuple(
            Listed(row.agent, row.task.trimmed(call.history_length, artifacts=call.include_artifacts)) for row in shown
        )
        return TaskPage(listed, token, call.page_size, page.total)

    async def cancel(self, call: CancelTask, ticket: Ticket, entry: Registered | None) -> Task:
        row = await self._own(call, ticket)
        agent = self._registry.get(row.agent) or self._registry.unknown(row.agent)
        await self._services.store.commit(records=(ticket.intent(self._services.now(), row.id),))
        return await self._engine.canceling.cancel(row, agent, ticket)

    async def subscribe(self, call: SubscribeToTask, ticket: Ticket, entry: Registered | None) -> Watch:
        row, share = await self._readable(call, ticket)
        if row.task.status.state.terminal:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION,
                f"The task has ended ({row.task.status.state.name}); read it with GetTask",
                metadata={"taskId": row.id},
            )
        watch = await self.watch(row, until_pause=False)
        if share is not None:
            await self._shares.bind(watch, share, ticket.principal)
        return watch

    async def watch(self, row: TaskRow, *, until_pause: bool, history_length: int | None = None) -> Watch:
        # Listen first, read then: what is written in between is in both, and its number tells.
        subscription = self._services.live.subscribe((row.tenant, row.id))
        try:
            fresh = await self._services.store.task(row.tenant, row.id, owner=row.owner)
        except BaseException:
            subscription.close()
            raise
        return Watch(subscription, whole(fresh or row), until_pause=until_pause, history_length=history_length)


def whole(row: TaskRow) -> Record:
    """The task as it stands, as the first event of a stream."""
    return Record(row.seq, row.task, envelope(row.task))
