"""Use cases on a task's log: how it came to be, and how it goes on. For dialects whose addresses name no agent.

Whoever owns the task may read it, and whom its owner lets, as long as policy lets them read tasks of its agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.audit import Ticket
from gateway.core.owned import Owned
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.shares import Found, Lent, Shares
from gateway.core.tasks import Tasks
from gateway.core.watch import Replay
from gateway.model.call import FollowLog, ReadContext, ReadLog
from gateway.model.principal import Principal
from gateway.model.rows import Record, TaskQuery, TaskRow
from gateway.model.value import value


@value
class TaskLog:
    agent: str
    records: Sequence[Record]


class Logs:
    def __init__(self, services: Services, owned: Owned, tasks: Tasks, shares: Shares) -> None:
        self._services = services
        self._owned = owned
        self._tasks = tasks
        self._shares = shares

    async def read(self, call: ReadLog, ticket: Ticket, entry: Registered | None) -> TaskLog | Lent:
        row, share = await self._row(ticket, call)
        log = await self._log(row)
        return log if share is None else Lent(row.id, share.owner, log)

    async def answer(self, who: Principal, task_id: str) -> TaskLog:
        """What came of a message that was let in: nobody is asked again whether its sender may hear it."""
        return await self._log(await self._tasks.row(who, task_id, None))

    async def answering(self, who: Principal, task_id: str) -> Replay:
        """The same as it comes."""
        return await self._replay(await self._tasks.row(who, task_id, None))

    async def _log(self, row: TaskRow) -> TaskLog:
        return TaskLog(row.agent, await self._services.store.events(row.tenant, row.id, 0))

    async def follow(self, call: FollowLog, ticket: Ticket) -> Replay:
        row, share = await self._row(ticket, call)
        replay = await self._replay(row)
        if share is not None:
            await self._shares.bind(replay, share, ticket.principal)
        return replay

    async def _replay(self, row: TaskRow) -> Replay:
        # Listen first, read then: what is written in between is in both, and its number tells.
        subscription = self._services.live.subscribe((row.tenant, row.id))
        try:
            return Replay(row.agent, subscription, await self._services.store.events(row.tenant, row.id, 0))
        except BaseException:
            subscription.close()
            raise

    async def context(self, call: ReadContext, ticket: Ticket, entry: Registered | None) -> list[TaskRow]:
        who = ticket.principal
        query = TaskQuery(who.tenant, who.owner, None, call.limit, context_id=call.context_id)
        page = await self._services.store.tasks(query)
        rows = page.rows
        while page.cut and len(rows) < call.limit:
            query = replace(query, after=(rows[-1].updated, rows[-1].id))
            page = await self._services.store.tasks(query)
            rows = rows + page.rows
        shown = self._owned.among(ticket, rows[: call.limit])
        return sorted(shown, key=lambda row: row.id)  # ids begin with the moment that they were made in

    async def _row(self, ticket: Ticket, call: ReadLog | FollowLog) -> Found:
        who = ticket.principal
        if call.shared:
            row, share = await self._shares.readable(who, call.task_id, None)
        else:
            row, share = await self._tasks.row(who, call.task_id, None), None
        self._owned.enter(ticket, row.agent, row.id)
        return row, share
