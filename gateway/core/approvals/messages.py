"""Tasks that rest because of an approval and have no run: messages that no agent has seen yet, and what an agent was
working on when the gateway was stopped.

A message that waits is accepted like any other: its key, its task and its approval are one commit, and so are its end
and the approval's. The approval that is given goes with the commit by which the agent gets the message.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Protocol

from gateway.core.answers import Answer
from gateway.core.approvals import words
from gateway.core.approvals.approvals import Approvals, changed, created
from gateway.core.approvals.said import arguments, message_call
from gateway.core.audit import Cause, Ticket
from gateway.core.engine import Engine
from gateway.core.policy import address
from gateway.core.policy.admission import Admission
from gateway.core.policy.spoken import skill
from gateway.core.registry import Registered, Registry
from gateway.core.repeat import known
from gateway.core.runner import last_asked
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.approval import Approval, ApprovalState, Outdated, waits
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.base import timestamp
from gateway.model.call import SendMessage
from gateway.model.changes import Change, CreateTask, Reserve
from gateway.model.errors import GatewayError
from gateway.model.message import Message
from gateway.model.rows import Key, Record, Reservation, TaskRow
from gateway.model.task import StatusUpdate, Task, TaskState, TaskStatus, envelope

log = logging.getLogger(__name__)

_ENDS = {
    ApprovalState.REJECTED: TaskState.REJECTED,
    ApprovalState.EXPIRED: TaskState.FAILED,
    ApprovalState.VOID: TaskState.FAILED,
}
_REASONS = {
    ApprovalState.REJECTED: "approval-rejected",
    ApprovalState.EXPIRED: "approval-expired",
    ApprovalState.VOID: "approval-void",
}


class Again(Protocol):
    """Sets a task going again whose run is gone (core/recovery.py); why it cannot be, as a reason and a sentence."""

    def __call__(self, row: TaskRow, ticket: Ticket) -> tuple[str, str] | None: ...


class HeldMessages:
    def __init__(
        self, services: Services, engine: Engine, registry: Registry, approvals: Approvals, admission: Admission
    ) -> None:
        self._services = services
        self._engine = engine
        self._registry = registry
        self._approvals = approvals
        self._admission = admission
        self.again: Again = lambda row, ticket: ("unknown-outcome", "The gateway was restarted")
        approvals.then = self.end

    async def start(self) -> None:
        """After a restart: what was agreed to meanwhile goes on, and what cannot go on ends."""
        for approval in self._approvals.all():
            if not approval.tasks:
                continue
            row = await self._services.store.task(approval.tenant, approval.tasks[0])
            if row is None or row.task.status.state.terminal:
                await self._void(approval, "its task has ended")
            elif self._approvals.lost(approval):
                continue  # its end is on its way
            elif approval.state is ApprovalState.APPROVED:
                self._approvals.keep(self.go_on(approval), f"{approval.id} goes on")
            elif not approval.held:
                await self._orphaned(approval, row)

    # Holding.

    async def hold(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Task | Turn | Message:
        """Accept a message that waits for somebody: its task, at rest; or what came of it the first time."""
        self._engine.check_open()
        return await self._approvals.whole(self._hold(call, ticket, entry))

    async def _hold(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Task | Turn | Message:
        if call.message.task_id:
            return await self._hold_answer(call, ticket, entry)
        services, who, now = self._services, ticket.principal, self._services.now()
        task_id, context_id = services.new_id(), call.message.context_id or services.new_id()
        mine = call.message.model_copy(update={"task_id": task_id, "context_id": context_id})
        approval = self._draft(replace(call, message=mine), ticket, entry, task_id)
        first = Task.of(
            id=task_id,
            context_id=context_id,
            status=TaskStatus.of(state=TaskState.SUBMITTED, timestamp=timestamp(now)),
            history=(mine,),
        )
        told = self._told(approval, entry, context_id)
        records = (Record(1, first, envelope(first)), Record(2, told, envelope(told)))
        row = TaskRow(
            tenant=who.tenant,
            id=task_id,
            owner=who.owner,
            agent=entry.id,
            task=first.apply(told),
            seq=2,
            fence=1,
            created=now,
            updated=now,
            deadline=approval.until,
            message_id=call.message.message_id,
            caller=who.kept,
        )
        push = () if call.push is None else (call.push,)
        reserve: tuple[Reserve, ...] = ()
        if entry.deduplicate or call.always_deduplicate:
            key = Key(who.tenant, who.owner, entry.id, call.message.message_id)
            reserve = (Reserve(Reservation(key, call.digest, task_id, now, settled=True)),)
        create = CreateTask(row, services.node, records, push=push)
        audit = self._filed(ticket, approval, task_id)
        holder = await services.store.commit(*reserve, create, *self._approvals.filed(approval), records=(audit,))
        if holder is not None:
            return self._repeated(await known(services.store, holder, call.digest), ticket)
        self._approvals.took(approval)
        if push:
            services.pushed()
        return row.task

    async def _hold_answer(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Task | Turn | Message:
        """The same for a message that continues a task, which then waits for somebody else than before."""
        turn = await self._engine.seize(call, ticket, entry)
        if not isinstance(turn, Turn) or turn.ticket is not ticket:
            return turn if isinstance(turn, Turn) else self._repeated(turn, ticket)
        try:
            mine = replace(call, message=turn.message.model_copy(update={"task_id": turn.task_id}))
            approval = self._draft(mine, ticket, entry, turn.task_id)
            await turn.go_on(
                self._told(approval, entry, turn.context_id),
                changes=(*self._engine.reserved(turn), *self._approvals.filed(approval)),
                audit=(self._filed(ticket, approval, turn.task_id),),
            )
            self._approvals.took(approval)
        finally:
            self._engine.let_go(turn)
        assert turn.task is not None
        return turn.task

    def _repeated(self, answer: Answer, ticket: Ticket) -> Task | Message:
        if isinstance(answer, GatewayError):
            raise answer
        self._services.store.later(records=(ticket.outcome(self._services.now(), "repeated"),))
        return answer

    def _draft(self, call: SendMessage, ticket: Ticket, entry: Registered, task_id: str) -> Approval:
        decision = ticket.decision
        entry.ready()  # nobody is asked about an agent of which nobody knows where it is
        target = address(call.verb, entry.target._replace(skill=skill(call)))
        asked = self._approvals.asked(ticket.principal, call.verb, target, arguments(call), decision, task_id)
        return self._approvals.draft(asked, decision, ticket=ticket, agent=entry.id, tasks=(task_id,), held=True)

    def _filed(self, ticket: Ticket, approval: Approval, task_id: str) -> AuditEntry:
        return ticket.outcome(self._services.now(), words.state(approval).name, task_id, change=created(approval))

    def _told(self, approval: Approval, entry: Registered, context_id: str) -> StatusUpdate:
        context = self._context(approval, entry.id, context_id)
        return context.status(words.state(approval), words.told(approval), **words.about(approval))

    def _context(self, approval: Approval, agent: str, context_id: str) -> Context:
        return Context(agent, approval.asked.task, context_id, self._services.now, self._services.new_id)

    # What follows.

    async def go_on(self, approval: Approval) -> None:
        """It is released: the agent gets the message, once; a run that is gone begins anew. What only stands in the way
        for a while is tried again."""
        try:
            await self._go_on(approval)
        except Outdated:
            return  # used, or at its end, in this moment
        except GatewayError as error:
            if not error.retryable:
                await self._void(approval, error.message)
                return
            log.warning("approval %s: %s", approval.id, error.message)
            self._approvals.took(approval)  # it was not used after all
            self._approvals.later(lambda: self.go_on(approval), f"{approval.id} goes on", error.retry_after)

    async def _go_on(self, approval: Approval) -> None:
        if not approval.held and self._engine.turn(approval.tenant, approval.tasks[0]) is not None:
            return  # its run is there, about to wait, and finds it released
        row = await self._services.store.task(approval.tenant, approval.tasks[0])
        if row is None or not row.task.status.state.interrupted:
            await self._void(approval, "its task does not wait any more")
            return
        if not approval.held:
            await self._run_again(approval, row)
            return
        entry = self._registry.get(row.agent)
        if entry is None:
            await self._fail(approval, "the agent is no longer registered")
            return
        entry.ready()  # before that nobody can tell whether it is where it was
        if why := self._approvals.lost(approval):
            await self._fail(approval, why)
            return
        call = message_call(approval)
        ticket = self._ticket(approval)
        try:
            ticket = replace(ticket, charge=self._charge(approval, entry, call))
            # Another profile may hold since it was asked, and what was edited nobody has looked at yet.
            call = await self._services.compliance.message(call, ticket)
        except GatewayError as error:
            ticket.close()
            if error.retryable:  # a limit has no room just now
                raise
            await self._fail(approval, error.message)
            return
        await self._deliver(approval, row, call, ticket, entry)

    async def _deliver(
        self, approval: Approval, row: TaskRow, call: SendMessage, ticket: Ticket, entry: Registered
    ) -> None:
        first = row.message_id == call.message.message_id
        turn = await self._engine.resume(row, call.message, ticket, entry)
        try:
            spent = self._approvals.spend(approval)
        except Outdated:
            self._engine.let_go(turn)
            ticket.close()
            return
        turn.ticket = replace(ticket, spends=spent)
        said = () if first and approval.edited is None else (self._said(approval, call.message, first=first),)
        await self._engine.go_on(turn, call, *said, first=first)

    def _said(self, approval: Approval, message: Message, *, first: bool) -> Message:
        """What joins the history: a message that continues a task, and one that is not as its sender sent it."""
        if approval.edited is None:
            return message
        metadata = {**(message.metadata or {}), "editedBy": approval.words[0].by, "approval": approval.id}
        id = {"message_id": self._services.new_id()} if first else {}
        return message.model_copy(update={**id, "metadata": metadata})

    def _charge(self, approval: Approval, entry: Registered, call: SendMessage) -> Any:
        """What it takes of the limits it takes now. Raises GatewayError."""
        who = approval.asked.principal
        if not self._admission.needs_conversation:
            return None
        situation = self._admission.situation(who, call.message.context_id or "", None)
        return self._admission.take(who, call.verb, self._admission.aimed(entry.target, call), situation, None)

    def _ticket(self, approval: Approval) -> Ticket:
        """The call goes on, as the one that was asked for."""
        who, entry = approval.asked.principal, self._registry.get(approval.agent)
        digest, length = message_call(approval).measured() if approval.held else (None, None)
        return Ticket(
            self._services.today(who if approval.held else who.caller),
            SendMessage.verb,
            approval.agent,
            words.passed(approval, self._admission.policy.hash),
            self._services.new_id(),
            digest,
            length,
            upstream_hash=None if entry is None else entry.card_hash,
            cause=Cause(approval.request, approval.request),
        )

    async def end(
        self, before: Approval, after: Approval, *records: AuditEntry, changes: tuple[Change, ...] = ()
    ) -> None:
        """It is rejected, has run out or is void: its tasks end with it, unless somebody here goes on by itself.
        `changes` go with it."""
        if not before.tasks or self._approvals.waited_for(before):
            await self._approvals.put(before, after, *changes, records=records)
            return
        beside, changes = changes, (*changes, *self._approvals.follows(before, after))
        for task_id in before.tasks:
            row = await self._services.store.task(before.tenant, task_id)
            if row is not None and waits(row.task) == before.id:
                await self._end_task(row, before, after, changes, records)
                changes, records = (), ()
        if changes:
            await self._approvals.put(before, after, *beside, records=records)
        else:
            self._approvals.took(after)

    async def _end_task(
        self,
        row: TaskRow,
        before: Approval,
        after: Approval,
        changes: tuple[Change, ...],
        records: tuple[AuditEntry, ...],
    ) -> None:
        entry = self._registry.get(row.agent) or self._registry.unknown(row.agent)
        ticket = self._ticket(before)
        turn = await self._engine.resume(row, last_asked(row), ticket, entry)
        try:
            context = replace(self._context(before, row.agent, row.task.context_id), task_id=row.id)
            told = context.status(_ENDS[after.state], words.end(after), reason=_REASONS[after.state], approval=after.id)
            ended = replace(ticket, decision=_refused(after)).outcome(
                self._services.now(), _ENDS[after.state].name, row.id, change=changed(before, after)
            )
            await turn.go_on(told, changes=changes, audit=records or (ended,))
        finally:
            self._engine.let_go(turn)

    async def _fail(self, approval: Approval, why: str) -> None:
        await self.end(approval, approval.moved(ApprovalState.VOID, why=why))

    async def _void(self, approval: Approval, why: str) -> None:
        await self._approvals.void(approval, why)

    async def canceled(self, tenant: str, task_id: str) -> None:
        """The caller has canceled the task: whatever is said now comes too late."""
        for held in self._approvals.all():
            if held.tenant == tenant and task_id in held.tasks:
                await self._void(held, "its task was canceled")

    # After a restart.

    async def _orphaned(self, approval: Approval, row: TaskRow) -> None:
        """An agent waited in the middle of its work. One that may begin anew does so once the call is released; what it
        had asked of others is not waited for any more."""
        entry = self._registry.get(row.agent)
        if entry is None or entry.agent is None or not entry.agent.resumable:
            await self._fail(approval, "the gateway was restarted, and this agent cannot begin anew")
            return
        for task_id in approval.tasks[1:]:
            inner = await self._services.store.task(approval.tenant, task_id)
            if inner is not None and waits(inner.task) == approval.id:
                gone = replace(approval, state=ApprovalState.VOID, why="the gateway was restarted")
                await self._end_task(inner, approval, gone, (), ())

    async def _run_again(self, approval: Approval, row: TaskRow) -> None:
        """The same work from its beginning; when it comes to the call, that is released."""
        ticket = self._ticket(approval)
        if row.trail is not None:
            ticket = replace(ticket, principal=row.trail.asker(ticket.principal))
        if self.again(row, ticket) is not None:
            await self._fail(approval, "the gateway was restarted, and this agent cannot begin anew")


def _refused(approval: Approval) -> Decision:
    return Decision(Verdict.BLOCK, approval.rule, words.end(approval), policy=approval.asked.policy)
