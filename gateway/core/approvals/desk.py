"""Where people answer: what waits for them, and what they say to it.

Who may is decided by policy, on the target of the call that waits. Nobody answers for a call of their own, nor for one
that is made on their behalf, nor does an agent in its chain or that agent's worker; only where the rule says `approver:
caller` may whoever began it all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.core.approvals import words
from gateway.core.approvals.approvals import Approvals, changed
from gateway.core.approvals.grounds import Grounds
from gateway.core.approvals.messages import HeldMessages
from gateway.core.approvals.said import message_call
from gateway.core.audit import Recorder, Ticket
from gateway.core.compliance.compliance import Compliance
from gateway.core.policy import DENIED, Target
from gateway.core.policy.approvers import approves
from gateway.core.policy.engine import Policy
from gateway.core.policy.refusals import refused
from gateway.core.policy.spoken import skill
from gateway.core.registry import Registry
from gateway.model.approval import (
    Answering,
    Approval,
    ApprovalCall,
    ApprovalPage,
    ApprovalQuery,
    ApprovalState,
    ApproveCall,
    EditCall,
    ListApprovals,
    Outdated,
    Said,
    ShowApproval,
    Word,
    chain,
    paged,
)
from gateway.model.audit import Decision, Verdict
from gateway.model.call import SendMessage
from gateway.model.changes import Change
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message
from gateway.model.ports import Store
from gateway.model.principal import Kind, Principal
from gateway.model.tool import Tree

_OWN = Decision(Verdict.PASS, "approver-caller", "the rule lets whoever began it answer")
_FILTERED = Decision(Verdict.PASS, "filtered", "a list shows only what its reader may answer or has asked for")
_GATEWAY = "gateway"
_STAYS = frozenset({"messageId", "role", "taskId", "contextId"})
EDITABLE = frozenset({SendMessage.verb, "tools/call", "prompts/get"})


class Desk:
    def __init__(
        self,
        store: Store,
        policy: Policy,
        registry: Registry,
        approvals: Approvals,
        messages: HeldMessages,
        recorder: Recorder,
        grounds: Grounds,
        compliance: Compliance,
        now: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._policy = policy
        self._registry = registry
        self._approvals = approvals
        self._messages = messages
        self._recorder = recorder
        self._grounds = grounds
        self._compliance = compliance
        self._now = now
        self._new_id = new_id

    async def handle(self, call: ApprovalCall, who: Principal) -> Any:
        """An `Approval`, or a page of them. Raises GatewayError."""
        if isinstance(call, ListApprovals):
            page = await self._list(call, who)
            return ApprovalPage(tuple(self._for(who, each) for each in page.approvals), page.before)
        answer = self._show(call, who) if isinstance(call, ShowApproval) else self.answer(call, who)
        return self._for(who, await answer)

    async def _list(self, call: ListApprovals, who: Principal) -> ApprovalPage:
        page = await self._every(call, who) if call.every else self._open(call, who)
        if not page.approvals:
            self._enter(call, who)
        self._recorder.note(Ticket(who, call.verb, _GATEWAY, _FILTERED, self._new_id()), "ok")
        return page

    def _open(self, call: ListApprovals, who: Principal) -> ApprovalPage:
        behind = (each for each in self._approvals.all() if not call.before or each.id < call.before)
        seen = sorted(filter(partial(self._may_see, who), behind), key=lambda each: each.id, reverse=True)
        return paged(seen, call.limit)

    async def _every(self, call: ListApprovals, who: Principal) -> ApprovalPage:
        """Who may see what is the same for all calls of one target: the store is told of those, and fills the page."""
        tenant = None if who.kind is Kind.LOCAL else who.tenant
        there = await self._store.approvals.targets()
        targets = frozenset(target for target in there if self._policy.visible(who, ApproveCall.verb, Target(target)))
        owner = "" if who.kind is Kind.ANONYMOUS else who.id
        return await self._store.approvals.page(ApprovalQuery(call.limit, call.before, tenant, targets, owner))

    async def _show(self, call: ShowApproval, who: Principal) -> Approval:
        found = await self._found(call, who)
        self._recorder.note(Ticket(who, call.verb, found.asked.target, _FILTERED, self._new_id()), "ok")
        return found

    async def answer(self, call: Answering, who: Principal, *changes: Change, as_caller: bool = False) -> Approval:
        """What somebody says to a call that waits. `changes` go with it; `as_caller` is a caller that answers where it
        asked, and may so only by the terms of the rule."""
        found = await self._found(call, who)
        decision = self._decide(call, who, found, as_caller=as_caller)
        ticket = Ticket(who, call.verb, found.asked.target, decision, self._new_id())
        if not decision.allowed:
            self._recorder.note(ticket, Reason.PERMISSION_DENIED)
            if decision.scopes:
                raise refused(decision, who, call.verb, found.asked.target)
            raise GatewayError(Reason.PERMISSION_DENIED, decision.reason)
        return await self._approvals.whole(self._answered(call, who, found, ticket, changes))

    async def _answered(
        self, call: Answering, who: Principal, found: Approval, ticket: Ticket, changes: tuple[Change, ...]
    ) -> Approval:
        waited_for = self._approvals.waited_for(found)  # now: whoever waits goes on as soon as it is written
        try:
            after = await self._said(call, who, found, ticket, changes)
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        if after.state is ApprovalState.APPROVED and after.tasks and not waited_for:
            await self._messages.go_on(after)
        return await self._approvals.find(after.id) or after

    # What is said.

    async def _said(
        self, call: Answering, who: Principal, found: Approval, ticket: Ticket, changes: tuple[Change, ...]
    ) -> Approval:
        """The approval after it. Of two who answer at one moment the second says it to what the first has left."""
        while True:
            after = self._after(found, call, who)
            if call.said is Said.EDIT:
                await self._foresee(after)
            task = found.asked.task or None
            record = ticket.outcome(self._now(), after.state.value, task, change=changed(found, after))
            try:
                if after.state is ApprovalState.REJECTED:
                    await self._messages.end(found, after, record, changes=changes)
                else:
                    await self._approvals.put(found, after, *changes, records=(record,))
            except Outdated as error:
                now = await self._store.approvals.find(found.id)
                if now is None or now.revision == found.revision:
                    raise _decided(found) from error
                found = now
            else:
                return after

    def _after(self, found: Approval, call: Answering, who: Principal) -> Approval:
        """The approval after it. Raises GatewayError for what cannot be said to it, Outdated when it is decided."""
        if found.state is not ApprovalState.WAITING:
            raise _decided(found)
        if found.until <= self._now():
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "Its time is over; the call has to be made again")
        if isinstance(call, ApproveCall) and call.seen not in ("", found.released):
            raise GatewayError(Reason.OUTDATED, "It was edited meanwhile; look at it again")
        if why := self._approvals.lost(found):
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, f"{why.capitalize()}; the call has to be made again")
        word = Word(who.id, call.said, self._now(), call.reason[:1000], who.roles, who.scopes)
        if call.said is Said.REJECT:
            why = f"by {who.id}" + (f": {word.reason}" if word.reason else "")
            return found.moved(ApprovalState.REJECTED, words=(*found.words, word), why=why)
        said = self._grounds.counting(found)
        if isinstance(call, EditCall):
            said = ()  # what was agreed to before was another call
            found = replace(found, edited=self._edited(found, call.arguments))
        if any(self._grounds.persons.alike(each.by, who.id) for each in said):
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "You have approved it; somebody else has to, too")
        said = (*said, word)
        enough = len(said) >= found.terms.persons
        return found.moved(ApprovalState.APPROVED if enough else ApprovalState.WAITING, words=said, edited=found.edited)

    def _edited(self, found: Approval, wanted: Tree) -> Tree:
        """Raises INVALID_PARAMS for what is no such call, PERMISSION_DENIED for what its caller may not do at all."""
        if found.asked.verb not in EDITABLE:
            raise invalid("arguments", f"{found.asked.verb} has none that could be others; approve or reject it")
        arguments = _message(found, wanted) if found.asked.verb == SendMessage.verb else wanted
        if self._grounds.fits(found, arguments):
            return arguments
        decision = self._grounds.decide(found, arguments)
        what = "The caller may not do this at all"
        if decision.verdict is Verdict.ESCALATE:
            what = "This would be for others to approve"
        raise GatewayError(Reason.PERMISSION_DENIED, f"{what} ({decision.rule}: {decision.reason})")

    async def _foresee(self, approval: Approval) -> None:
        """Raises GatewayError for a call that may not pass as it was edited; whoever edits it can do so again."""
        asked, target = approval.asked, self._grounds.target(approval).id
        decision = words.passed(approval, self._policy.hash)
        ticket = Ticket(asked.principal, asked.verb, target, decision, self._new_id())
        if asked.verb == SendMessage.verb:
            await self._compliance.message(message_call(approval), ticket, foreseen=True)
        else:
            await self._compliance.foreseen(approval.arguments, ticket)

    # Who may.

    async def _found(self, call: ShowApproval | Answering, who: Principal) -> Approval:
        found = await self._approvals.find(call.id)
        if found is not None and who.tenant == found.tenant and not self._may_see(who, found):
            self._ask_for_scopes(call, who, Target(found.asked.target))
        if found is None or not self._may_see(who, found):
            self._enter(call, who)
            raise GatewayError(Reason.NOT_FOUND, f"There is no approval {call.id[:80]!r}")
        return found

    def _ask_for_scopes(self, call: ShowApproval | Answering, who: Principal, target: Target) -> None:
        """Raises for whoever would be an approver with a token of more scopes."""
        decision = self._policy.decide(who, ApproveCall.verb, target)
        if decision.scopes:
            self._recorder.note(Ticket(who, call.verb, target.id, decision, self._new_id()), Reason.PERMISSION_DENIED)
            raise refused(decision, who, call.verb, target.id)

    def _enter(self, call: ApprovalCall, who: Principal) -> None:
        """Raises for whoever may answer nothing: it is not told what there is."""
        if approves(self._policy.rules, who):
            return
        self._recorder.note(Ticket(who, call.verb, _GATEWAY, DENIED, self._new_id()), Reason.PERMISSION_DENIED)
        reason = Reason.UNAUTHENTICATED if who.kind is Kind.ANONYMOUS else Reason.PERMISSION_DENIED
        raise GatewayError(reason, f"You may not use {call.verb} here")

    def _may_see(self, who: Principal, approval: Approval) -> bool:
        if who.kind is not Kind.LOCAL and who.tenant != approval.tenant:
            return False
        if who.kind is not Kind.ANONYMOUS and who.id == approval.owner:
            return True
        return self._answers_for(who, approval)

    def _answers_for(self, who: Principal, approval: Approval) -> bool:
        return self._policy.visible(who, ApproveCall.verb, Target(approval.asked.target))

    def _for(self, who: Principal, approval: Approval) -> Approval:
        """Where agents and servers are is for those who have to judge it: their callers know the gateway alone."""
        return approval if self._answers_for(who, approval) else replace(approval, sites=())

    def _decide(self, call: Answering, who: Principal, found: Approval, *, as_caller: bool) -> Decision:
        policy = self._policy.hash
        persons = self._grounds.persons
        if found.terms.caller and persons.alike(who.id, found.owner) and not who.hops:
            return replace(_OWN, policy=policy)
        involved = who.hops > 0 or who.kind is Kind.AGENT or self._involved(who.id, found)
        if involved or as_caller:
            return Decision(Verdict.BLOCK, "own-call", "Nobody answers for a call of their own", policy=policy)
        decision = self._policy.decide(who, call.verb, Target(found.asked.target))
        if decision.allowed:
            return decision
        return replace(decision, reason=f"You may not use {call.verb} on {found.asked.target}")

    def _involved(self, id: str, found: Approval) -> bool:
        """Whether it is a call of theirs: of the caller, those it is made for, or the workers of the agents among
        them."""
        asked = found.asked.principal
        ids = (asked.id, *chain(asked))
        agents = {found.agent, *(each.partition(":")[2] for each in ids if each.startswith(f"{Kind.AGENT}:"))}
        entries = (self._registry.get(agent) for agent in agents)
        workers = [entry.worker for entry in entries if entry is not None and entry.worker is not None]
        alike = partial(self._grounds.persons.alike, id)
        return self._grounds.own(found, id) or any(map(alike, workers))


def _decided(found: Approval) -> GatewayError:
    return GatewayError(Reason.UNSUPPORTED_OPERATION, f"It is {found.state.value} already; each is answered once")


def _message(found: Approval, wanted: Tree) -> Tree:
    """Only what is said can be edited: who is asked, for which of its skills, and in which task, stays."""
    said = wanted.get("message", wanted)
    before = found.asked.arguments["message"]
    try:
        if not isinstance(said, dict) or not said.get("parts"):
            raise ValueError("it has no parts")
        said = {name: each for name, each in said.items() if name not in _STAYS}
        message = Message.model_validate({"messageId": "new", **before, **said})
        tree = message.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if "messageId" not in before:
            del tree["messageId"]
    except ValueError as error:
        raise invalid("arguments", "must be a message with parts, as the approval shows it") from error
    edited = {**found.asked.arguments, "message": tree}
    if skill(message_call(replace(found, edited=edited))) != skill(message_call(replace(found, edited=None))):
        raise invalid("arguments", "would be for another skill or tool of the agent, which its caller has to ask for")
    return edited
