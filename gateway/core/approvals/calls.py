"""An agent waits in the middle of its work: a call of its own needs somebody's approval.

Its task, and those of the agents that wait for it, say so meanwhile. The run stays where it is and goes on by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from gateway.core.approvals import words
from gateway.core.approvals.approvals import Approvals
from gateway.core.audit import Cause, Ticket
from gateway.core.engine import Engine
from gateway.core.turn import Turn
from gateway.model.approval import Approval, ApprovalState, Asked, Outdated
from gateway.model.trail import Trail


class AgentCalls:
    def __init__(self, engine: Engine, approvals: Approvals, new_id: Callable[[], str]) -> None:
        self._engine = engine
        self._approvals = self.approvals = approvals
        self._new_id = new_id

    async def released(self, asked: Asked, trail: Trail, ticket: Ticket) -> Approval | None:
        """The approval of a call that may be made. None: it has waited, and is to be decided anew, since somebody may
        be frozen, a tool changed or other rules hold meanwhile; what was released then is so still. Raises Refused when
        it was rejected or nobody has answered."""
        turns = self._line(asked.principal.tenant, trail)
        agent = turns[0].entry.id if turns else ""
        tasks = tuple(turn.task_id for turn in turns)
        approval = await self._approvals.ask(asked, ticket.decision, ticket=ticket, agent=agent, tasks=tasks)
        if approval.state is ApprovalState.APPROVED:
            return approval
        if approval.state is ApprovalState.WAITING:
            approval = await self._waited(approval, turns)
        if approval.state in (ApprovalState.APPROVED, ApprovalState.USED, ApprovalState.VOID):
            return None
        raise words.refusal(approval)

    def ticket(self, approval: Approval, before: Ticket) -> Ticket:
        """For the call that is made now: `before` was the one that waited."""
        cause = Cause(before.request_id if before.cause is None else before.cause.correlation, before.request_id)
        decision = words.passed(approval, before.decision.policy)
        return replace(before, decision=decision, request_id=self._new_id(), cause=cause)

    def spending(self, approval: Approval, ticket: Ticket) -> Ticket:
        """The same once nothing stands in the way any more: the approval is used up. Raises Outdated, closed, when
        another call was faster."""
        try:
            return replace(ticket, spends=self._approvals.spend(approval))
        except Outdated:
            ticket.close()
            raise

    async def _waited(self, approval: Approval, turns: list[Turn]) -> Approval:
        try:
            async with AsyncExitStack() as resting:
                for turn in turns:
                    state, text = words.state(approval), words.told(approval)
                    await resting.enter_async_context(self._engine.pause(turn, state, text, **words.about(approval)))
                return await self._approvals.wait(approval.id) or approval
        finally:
            held = await self._approvals.find(approval.id)
            if held is not None and any(turn.over for turn in turns):
                await self._approvals.void(held, "its task was canceled")

    def _line(self, tenant: str, trail: Trail) -> list[Turn]:
        """The turns that wait, the outermost first."""
        line: list[Turn] = []
        task: str | None = trail.task
        while task is not None and (turn := self._engine.turn(tenant, task)) is not None and turn not in line:
            line.insert(0, turn)
            task = None if turn.came is None else turn.came.task
        return line
