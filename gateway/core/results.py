"""Use cases of the older messages: results under the caller's own ids, and the workers that bring them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from gateway.core.audit import Ticket
from gateway.core.engine import Engine
from gateway.core.owned import Owned
from gateway.core.policy import Policy
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.tasks import Tasks
from gateway.model.call import FetchResult, PullTasks, SubmitResult
from gateway.model.errors import GatewayError, Reason, invalid, task_not_found
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.rows import Reservation
from gateway.model.task import Task, TaskState


@dataclass(frozen=True, slots=True)
class Found:
    """A result under the caller's own id."""

    agent: str
    context_id: str
    answer: Task | Message


@runtime_checkable
class Worked(Protocol):
    """An agent whose work is done by a worker that reports back."""

    async def take(self, limit: int, wait: float) -> list[dict[str, Any]]: ...

    async def submit(self, task_id: str, state: TaskState, result: Any, has_result: bool) -> None:
        """Returns when the agent has taken the report into the task."""
        ...


class Results:
    def __init__(self, services: Services, engine: Engine, tasks: Tasks, policy: Policy, owned: Owned) -> None:
        self._services = services
        self._engine = engine
        self._tasks = tasks
        self._policy = policy
        self._owned = owned
        self._draining = asyncio.Event()

    async def fetch(self, call: FetchResult, ticket: Ticket, entry: Registered | None) -> Found:
        who = ticket.principal
        held = await self._reserved(call.message_id, who, call.agent)
        if call.agent is None:
            held = self._allowed(held, call, ticket)
        if not held:
            raise task_not_found(call.message_id)
        if len(held) > 1:
            raise invalid("agent_id", "this task id is known at several agents; say which one you mean")
        if call.agent is None:
            self._owned.charge(ticket, held[0].key.agent)
        turn = self._engine.turn(who.tenant, held[0].task_id)
        if call.wait > 0 and turn is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(call.wait):
                    await turn.done
            held = await self._reserved(call.message_id, who, held[0].key.agent)
        return await self._found(held[0], who)

    async def _reserved(self, id: str, who: Principal, agent: str | None) -> Sequence[Reservation]:
        return await self._services.store.reservation(who.tenant, who.owner, id, agent=agent)

    def _allowed(self, held: Sequence[Reservation], call: FetchResult, ticket: Ticket) -> Sequence[Reservation]:
        """Those at agents that the caller may still ask about. Raises what it hears where there are only others."""
        judged = [(each, self._owned.refusal(ticket, each.key.agent, call.message_id)) for each in held]
        allowed = [each for each, refusal in judged if refusal is None]
        said = (why for _, why in judged if why is not None and why.reason is not Reason.TASK_NOT_FOUND)
        if not allowed and (refusal := next(said, None)) is not None:
            raise refusal
        return allowed

    async def _found(self, held: Reservation, who: Principal) -> Found:
        if held.reply is not None:
            return Found(held.key.agent, held.reply.context_id or "", held.reply)
        row = await self._tasks.row(who, held.task_id, None)
        return Found(held.key.agent, row.task.context_id, row.task)

    async def submit(self, call: SubmitResult, ticket: Ticket, entry: Registered | None) -> TaskState:
        """Only the worker of the task's agent is heard; to anybody else the task does not exist."""
        who = ticket.principal
        turn = self._engine.turn(who.tenant, call.task_id)
        if turn is None or call.agent not in (None, turn.entry.id):
            raise task_not_found(call.task_id)
        if not self._policy.decide(who, call.verb, turn.entry.target).allowed:
            raise task_not_found(call.task_id)
        if call.agent is None:
            self._owned.charge(ticket, turn.entry.id)
        turn.open()  # a quick worker may be here before the task's first write
        await _worked(turn.entry).submit(call.task_id, call.state, call.result, call.has_result)
        await turn.flush()  # the receipt says that the report will not be lost
        return call.state

    async def pull(self, call: PullTasks, ticket: Ticket, entry: Registered) -> list[dict[str, Any]]:
        """What waits for the worker. A wait ends early, with nothing, when the gateway shuts down."""
        taking = asyncio.create_task(_worked(entry).take(call.limit, call.wait))
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait((taking, draining), return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() else []
        finally:
            # Taking is one step without a pause, so a wait that is canceled has taken nothing.
            taking.cancel()
            draining.cancel()

    def drain(self) -> None:
        self._draining.set()


def _worked(entry: Registered) -> Worked:
    agent = entry.ready()
    if not isinstance(agent, Worked):
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, f"Agent {entry.id} takes no results from a worker")
    return agent
