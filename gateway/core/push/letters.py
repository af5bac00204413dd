"""Use cases on what waits for webhooks and on what was given up: see it, and try it again.

The machine's own credential sees everybody's; whoever else policy lets in, the pushes of their own tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

from gateway.core.act import Act
from gateway.core.audit import Ticket
from gateway.core.push.hosts import Hosts, HostState
from gateway.model.changes import ReplayDelivery
from gateway.model.errors import GatewayError, Reason
from gateway.model.operation import ListDeadPushes, ReplayPushes, ShowPushes
from gateway.model.ports import Store
from gateway.model.principal import Kind, Principal
from gateway.model.rows import DeadDelivery, PushQueue
from gateway.model.value import value

PAGE_ROOM = 500  # dead letters that one commit queues again


@value
class PushState:
    queues: Sequence[PushQueue]
    hosts: Sequence[HostState]


class _Whose(TypedDict):
    tenant: str | None
    owner: str | None


class Letters:
    """`wake` tells the worker that something is due."""

    def __init__(self, store: Store, hosts: Hosts, wake: Callable[[], None]) -> None:
        self._store = store
        self._hosts = hosts
        self._wake = wake

    async def show(self, call: ShowPushes, ticket: Ticket, entry: None) -> PushState:
        queues = await self._store.queues(call.limit, **_whose(ticket.principal))
        seen = {queue.host for queue in queues}
        every = ticket.principal.kind is Kind.LOCAL
        return PushState(queues, [state for state in self._hosts.state() if every or state.host in seen])

    async def dead(self, call: ListDeadPushes, ticket: Ticket, entry: None) -> Sequence[DeadDelivery]:
        return await self._store.dead(call.after, call.limit, **_whose(ticket.principal))

    async def replay(self, call: ReplayPushes, act: Act, entry: None) -> int:
        """How many were queued again: the one, or all that are dead now. What is more than one commit holds is recorded
        before the first and with the last."""
        whose, after, count = _whose(act.ticket.principal), 0, 0
        while page := await self._store.dead(after, PAGE_ROOM, id=call.id, **whose):
            # In the order of their events, so that a webhook hears them as they happened.
            ordered = sorted(page, key=lambda letter: (letter.tenant, letter.task_id, letter.config_id, letter.seq))
            again = [ReplayDelivery(letter.id) for letter in ordered]
            after, last = page[-1].id, len(page) < PAGE_ROOM
            if not (last or count):
                await act.begin()
            await (act.commit if last else self._store.commit)(*again)
            count += len(page)
            if last:
                break
        if call.id is not None and not count:
            raise GatewayError(Reason.NOT_FOUND, f"There is no dead push {call.id}; `gateway push dead` shows them")
        self._wake()
        return count


def _whose(who: Principal) -> _Whose:
    every = who.kind is Kind.LOCAL
    return {"tenant": None if every else who.tenant, "owner": None if every else who.owner}
