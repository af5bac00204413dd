"""Where a call is let in or turned away, before its use case has it: what stands in the policy enforced (NIST SP
800-162's enforcement point; what decides is the policy's).

A ticket is what a call goes on with. A refusal is recorded here and raises; nothing else of the call happens then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from gateway.core.approvals.calls import AgentCalls
from gateway.core.approvals.said import edited_message, unsent
from gateway.core.audit import Recorder, Ticket
from gateway.core.freezer import Freezer
from gateway.core.halting import Halting
from gateway.core.messages import Messages
from gateway.core.policy import Situation, Target, address
from gateway.core.policy.actions import AGENT_VERBS
from gateway.core.policy.admission import Admission
from gateway.core.policy.limits import Charge
from gateway.core.policy.refusals import Refused, refused
from gateway.core.policy.rules import FROZEN, HOPEFUL
from gateway.core.policy.spoken import spoken
from gateway.core.registry import Registered, Registry
from gateway.core.services import Services
from gateway.model.approval import Outdated
from gateway.model.audit import Decision, Verdict
from gateway.model.call import (
    Call,
    FetchResult,
    FollowLog,
    GetExtendedCard,
    ReadContext,
    ReadLog,
    SendMessage,
    SubmitResult,
    SubscribeToTask,
)
from gateway.model.errors import GatewayError, Reason, agent_not_found
from gateway.model.principal import Principal
from gateway.model.sharing import ListShares, ShareTask, UnshareTask
from gateway.model.trail import Trail, asked

# Calls that name a task and no agent are judged by that task, once it is found.
_NAME_NO_AGENT = (FetchResult, SubmitResult, ReadLog, FollowLog, ReadContext, ShareTask, UnshareTask, ListShares)
_BY_TASK = Decision(Verdict.PASS, "by-task", "judged by the owner or worker of the task")
MAX_HOPS = 8  # agents that ask agents: deeper than this is a loop in all likelihood


class Enforcement:
    """`may_see` says whether somebody may know of an agent: one that they may not is as good as missing."""

    def __init__(
        self,
        services: Services,
        registry: Registry,
        admission: Admission,
        freezer: Freezer,
        halting: Halting,
        recorder: Recorder,
        messages: Messages,
        calls: AgentCalls,
        may_see: Callable[[Principal, Registered], bool],
    ) -> None:
        self._store = services.store
        self._new_id = services.new_id
        self._registry = registry
        self._policy = admission.policy
        self._admission = admission
        self._freezer = freezer
        self._halting = halting
        self._recorder = recorder
        self._messages = messages
        self._calls = calls
        self._may_see = may_see

    async def admit(self, call: Call | FollowLog, who: Principal) -> tuple[Ticket, Registered | None]:
        """The ticket of any call but a message, with the agent that it names. Raises GatewayError, recorded."""
        entry = self._registry.get(call.agent) if call.agent is not None else None
        target = entry.target if entry is not None else Target(call.agent or "gateway")
        if call.agent is None and isinstance(call, _NAME_NO_AGENT):
            decision = self._freezer.refusal(who, call.verb, target) or _BY_TASK
        else:
            decision = self._policy.decide(who, call.verb, target)
        ticket = Ticket(
            who,
            call.verb,
            target.id,
            decision,
            self._new_id(),
            upstream_hash=None if entry is None else entry.card_hash,
        )
        if (refusal := self._refusal(call, who, entry, decision)) is not None:
            await self._refuse(refusal, ticket, None)
        if self._admission.limits.any:
            unnamed = call.agent is None and call.verb in AGENT_VERBS
            ticket = replace(ticket, charge=self._taken(ticket, None if unnamed else target, None, None))
        return ticket, entry

    async def admit_message(self, call: SendMessage, who: Principal) -> tuple[SendMessage, Ticket, Registered]:
        """The call with its ticket; with a context, where it matters to which conversation it belongs. Waits for an
        approval where an agent asks in the middle of its work. Raises GatewayError, recorded."""
        entry = self._registry.get(call.agent)
        target = self._admission.aimed(entry.target if entry is not None else Target(call.agent), call)
        situation = None
        if self._admission.needs_conversation:
            call = await self._placed(call, who)
            situation = self._admission.situation(who, call.message.context_id or "", call.trail)
        decision = self._admission.decide(who, call.verb, target, partial(spoken, call), situation)
        card = None if entry is None else entry.card_hash
        ticket = Ticket(who, call.verb, target.id, decision, self._new_id(), *call.measured(), card)
        if (refusal := self._refusal(call, who, entry, decision)) is not None:
            await self._refuse(refusal, ticket, call.trail)
        assert entry is not None
        if decision.verdict is Verdict.ESCALATE:
            if call.trail is None:
                return call, ticket, entry  # to be held until somebody agrees; what it takes it takes then
            return await self._released(call, call.trail, ticket, entry, target, situation)
        if self._admission.needs_conversation:
            ticket = replace(ticket, charge=self._taken(ticket, target, situation, call.trail))
        return call, ticket, entry

    def admit_answer(self, call: SendMessage, who: Principal) -> Principal:
        """A caller that may not speak to the agent at all says nothing to what waits there either. An answer names no
        skill: whoever may use one may answer."""
        entry = self._registry.get(call.agent)
        target = entry.target if entry is not None else Target(call.agent)
        decision = self._policy.presumed(who, call.verb, target)
        skills = () if entry is None or entry.card is None or not self._policy.skilled else entry.card.skills
        targets = (target, *(target._replace(skill=skill.id) for skill in skills))
        if not any(self._policy.presumed(who, call.verb, each).verdict in HOPEFUL for each in targets):
            ticket = Ticket(who, call.verb, target.id, decision, self._new_id(), *call.measured())
            self._recorder.note(ticket, Reason.PERMISSION_DENIED)
            raise refused(decision, who, call.verb)
        return who

    async def _released(
        self,
        call: SendMessage,
        trail: Trail,
        ticket: Ticket,
        entry: Registered,
        target: Target,
        situation: Situation | None,
    ) -> tuple[SendMessage, Ticket, Registered]:
        """What an agent says and somebody has to agree to, once they have."""
        who = ticket.principal
        if entry.agent is None:  # after a restart: where it is has to be known before anybody is asked
            await entry.looked.wait()
        entry.ready()
        said = unsent(await self._messages.foreseen(call, ticket, entry))
        place = address(call.verb, target)
        asked = self._calls.approvals.asked(who, call.verb, place, said, ticket.decision, trail.root)
        released = await self._calls.released(asked, trail, ticket)
        if released is None:
            return await self.admit_message(call, who)
        sent = edited_message(call, released)
        if self._admission.needs_conversation:
            ticket = replace(ticket, charge=self._taken(ticket, target, situation, trail))
        ticket = self._calls.ticket(released, ticket)
        sent = await self._messages.passed(sent, ticket, entry)
        try:
            return sent, self._calls.spending(released, ticket), entry
        except Outdated:  # another one like it was faster; this one waits for an approval of its own
            return await self.admit_message(call, who)

    async def _placed(self, call: SendMessage, who: Principal) -> SendMessage:
        """The message in its context: that of its task, or a new one."""
        message = call.message
        if message.context_id or call.trail is not None:
            return call
        if message.task_id:
            row = await self._store.task(who.tenant, message.task_id, owner=who.owner, agent=call.agent)
            context = None if row is None else row.task.context_id
        else:
            context = self._new_id()
        if context is None:
            return call
        return replace(call, message=message.model_copy(update={"context_id": context}))

    async def _refuse(self, refusal: GatewayError, ticket: Ticket, trail: Trail | None) -> NoReturn:
        self._recorder.note(ticket, refusal.reason)
        if isinstance(refusal, Refused):
            await self._halting.heed(refusal, ticket.principal, trail)
        raise refusal

    def _taken(
        self, ticket: Ticket, target: Target | None, situation: Situation | None, trail: Trail | None
    ) -> Charge | None:
        """None for an agent that is not known yet: what that takes is taken when it is."""
        try:
            if target is None:
                return self._admission.limits.begin(ticket.principal, ticket.verb)
            return self._admission.take(ticket.principal, ticket.verb, target, situation, trail)
        except GatewayError as error:
            self._recorder.note(replace(ticket, why=error.message), error.reason)
            raise

    def _refusal(
        self, call: Call | FollowLog, who: Principal, entry: Registered | None, decision: Decision
    ) -> GatewayError | None:
        if who.hops > MAX_HOPS:
            return too_deep()
        if decision.rule == FROZEN:
            return refused(decision, who, call.verb)
        if call.agent is not None and (
            entry is None or not (decision.verdict in HOPEFUL or self._may_know(who, entry, decision))
        ):
            return agent_not_found()
        if entry is not None:
            # Before the verdict: asking for a credential would be asking in vain, and the card says as much.
            if isinstance(call, GetExtendedCard) and entry.extended is None:
                return GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent has no extended card")
            if (isinstance(call, SubscribeToTask) or getattr(call, "stream", False)) and not entry.streaming:
                return GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent offers no streams; see its card")
        waits = decision.verdict is Verdict.ESCALATE and isinstance(call, SendMessage)
        if not decision.allowed and not waits:
            return refused(decision, who, call.verb)
        if isinstance(call, SendMessage) and call.trail is not None:
            return _loop(call.trail, call)
        return None

    def _may_know(self, who: Principal, entry: Registered, decision: Decision) -> bool:
        """Whether the caller may hear that there is such an agent, though this decision stops its call."""
        return bool(decision.scopes) or self._may_see(who, entry)


def too_deep() -> GatewayError:
    return GatewayError(Reason.PERMISSION_DENIED, f"More than {MAX_HOPS} agents asked each other in a row")


def _loop(trail: Trail, call: SendMessage) -> GatewayError | None:
    """The same agent asked the same thing again, further down the same chain, would ask it once more."""
    if asked(call.agent, call.message) not in trail.asked:
        return None
    way = " → ".join([*(each.agent for each in trail.asked), call.agent])
    return GatewayError(Reason.PERMISSION_DENIED, f"A loop: {call.agent} was asked the same thing already ({way})")
