"""A caller of MCP whose call needs somebody's approval: what it is told, what it may answer, how long it is kept.

It is told for whom the call waits and until when, in the form that its era has for it; where it can be asked, that is a
question, and where the rule says `approver: caller` its answer decides. Any other answer only says whether it waits on:
the call itself goes through once people have agreed, in the request that is open then, or in the next one like it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from gateway.core.approvals import words
from gateway.core.approvals.approvals import Approvals
from gateway.core.audit import Ticket
from gateway.core.connections import takes_urls
from gateway.core.policy.refusals import Refused
from gateway.core.tools.state import States, asked
from gateway.model.approval import Answering, Approval, ApprovalState, ApproveCall, Asked, RejectCall
from gateway.model.asking import ELICIT, lacking
from gateway.model.changes import Change
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import Caller, PeerError, Tree, takes_tasks
from gateway.model.toolcall import UseServer

HOLD_SECONDS = 20.0  # a caller that has been told is kept so long when it comes again: below what clients wait
OPEN_SECONDS = 300.0  # the same for a session, whose client shows its user a question meanwhile
MAX_FOLLOWED = 1_000  # released calls whose servers have asked something back; the oldest is forgotten first
MAX_TOLD = 1_000  # callers that were told to call again, and shall hear of a rejection then; likewise

KEY = "approval"
"""The question's name in `inputRequests`, and the claim of a state that stands for a call that waits."""
FOLLOWS = "released"  # the claim of a state that goes on with a call that was made: which approval, and which turn
ABOUT = "gateway/approval"  # in a result's `_meta`: `words.about`


_WORDS: dict[str, type[ApproveCall | RejectCall]] = {"accept": ApproveCall, "decline": RejectCall}


class Desk(Protocol):
    async def answer(self, call: Answering, who: Principal, *changes: Change, as_caller: bool = False) -> Approval: ...


class Held(Refused):
    """The call is not made now. `result` is what a caller that comes back is answered with; `again` says that it waits
    since an earlier request."""

    def __init__(self, ticket: Ticket, approval: Approval, result: Tree | None) -> None:
        refusal = words.refusal(approval)
        super().__init__(ticket.decision, refusal.reason, refusal.message, refusal.metadata)
        self.ticket = ticket
        self.approval = approval
        self.result = result
        self.again = approval.request != ticket.request_id

    def told(self) -> Tree:
        """The result of a tool that was not called: a model reads it, and tells its user."""
        meta = {"_meta": {ABOUT: words.about(self.approval)}} if self.approval.state.open else {}
        text = self.message
        if self.approval.state is ApprovalState.WAITING:
            text = f"{text.rstrip('.')}. Once it is approved, the same call goes through."
            if self.approval.terms.caller:
                text += f" If your client does not ask you, answer with `gateway approvals approve {self.approval.id}`."
        content = [{"type": "text", "text": text}]
        return {"resultType": "complete", "content": content, "isError": True, **meta}


class Consents:
    def __init__(self, approvals: Approvals, states: States, new_id: Callable[[], str]) -> None:
        self._approvals = approvals
        self._states = states
        self._new_id = new_id
        self._following: OrderedDict[str, str] = OrderedDict()  # approval -> the turn that may come next
        self._told: OrderedDict[str, str] = OrderedDict()  # digest of a call that shall come again -> its approval
        self.desk: Desk | None = None  # where answers go, which is made after the tools

    async def released(self, call: UseServer, asked: Asked, ticket: Ticket) -> Approval:
        """The approval with which the call may be made now: APPROVED, or USED by the request that this one goes on
        with. Raises Held, with what the caller is told."""
        claims = self._claims(call)
        if (followed := await self._followed(claims, asked)) is not None:
            return followed
        id = str(claims.get(KEY, "")) if claims is not None else ""
        known = bool(id) or self._approvals.of(asked) is not None
        if not known and (rejected := await self._rejected(call, asked)) is not None:
            raise self._held(call, rejected, ticket)
        approval = await self._approvals.ask(asked, ticket.decision, ticket=ticket, id=id)
        if approval.state is ApprovalState.WAITING and not as_task(call):
            if call.live:
                approval = await self._asked_live(call, approval, ticket.principal, known=known)
            elif call.mount is not None:
                approval = await self._came_back(call, approval, ticket.principal, known=known, answered=bool(id))
        if approval.state is ApprovalState.APPROVED:
            return approval
        raise self._held(call, approval, ticket)

    def goes_on(self, approval: Approval) -> Tree:
        """Claims for a state: the server has asked something back, and the answer belongs to the call that was made."""
        turn = self._following[approval.id] = self._new_id()
        self._following.move_to_end(approval.id)
        _keep(self._following, MAX_FOLLOWED)
        return {FOLLOWS: [approval.id, turn]}

    def bare(self, call: UseServer, approval: Approval) -> Tree:
        """The parameters without what belonged to the waiting and not to the call."""
        if approval.state is ApprovalState.USED:
            return call.params  # the answer is for its server
        return {name: each for name, each in call.params.items() if name not in ("requestState", "inputResponses")}

    # What comes back.

    def _claims(self, call: UseServer) -> Tree | None:
        """Of a state that is this caller's and of late. What it is for, the approval itself knows better."""
        if call.live or "requestState" not in call.params:
            return None
        return self._states.read(call.params["requestState"], call.caller.principal)

    async def _followed(self, claims: Tree | None, asked: Asked) -> Approval | None:
        """Each turn once. After a restart nobody remembers which is next, and the call needs an approval again."""
        found = claims.get(FOLLOWS) if claims is not None else None
        if not isinstance(found, list) or self._following.get(found[0]) != found[1]:
            return None
        approval = await self._approvals.find(found[0])
        if approval is None or asked.digest not in (approval.digest, approval.released):
            return None
        if self._approvals.lost(approval):
            return None
        del self._following[found[0]]
        return approval

    async def _rejected(self, call: UseServer, asked: Asked) -> Approval | None:
        """The approval of a call that its caller makes again, as it was told to, if somebody has said no meanwhile. A
        caller that cannot be asked has no other way to hear of it; the next call like it is a question of its own."""
        id = self._told.pop(asked.digest, None)
        approval = None if id is None else await self._approvals.find(id)
        if approval is None or can_be_asked(approval, call.caller):
            return None
        return approval if approval.state is ApprovalState.REJECTED else None

    async def _came_back(
        self, call: UseServer, approval: Approval, who: Principal, *, known: bool, answered: bool
    ) -> Approval:
        responses = call.params.get("inputResponses")
        answer = responses.get(KEY) if answered and isinstance(responses, dict) else None
        action = answer.get("action") if isinstance(answer, dict) else None
        if decides(approval, call.caller) and isinstance(answer, dict):
            return await self.say(approval, who, answer)
        if action in ("decline", "cancel") or not (known or call.caller.progress):
            return approval
        return await self._hold(call.caller, approval, HOLD_SECONDS)

    async def _asked_live(self, call: UseServer, approval: Approval, who: Principal, *, known: bool) -> Approval:
        """A session is asked while its request is open, and goes on by itself when somebody else answers first."""
        caller = call.caller
        if not can_be_asked(approval, caller):
            return await self._hold(caller, approval, HOLD_SECONDS) if known or caller.progress else approval
        await _notify(caller, approval)
        waiting = asyncio.ensure_future(self._approvals.wait(approval.id, OPEN_SECONDS))
        asking = asyncio.ensure_future(caller.ask(ELICIT, question(approval, caller)))
        try:
            await asyncio.wait((waiting, asking), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                answer = _answer(asking)
                if decides(approval, caller) and answer is not None:
                    return await self.say(approval, who, answer)
                if answer is None or answer.get("action") != "accept":
                    return approval
            return await waiting or approval
        finally:
            for each in (waiting, asking):
                each.cancel()
            await asyncio.gather(waiting, asking, return_exceptions=True)

    async def say(self, approval: Approval, who: Principal, answer: Tree) -> Approval:
        """What a caller says that is asked itself. Whoever closes the question has said nothing."""
        content = answer.get("content")
        reason = str(content.get("reason", "")) if isinstance(content, dict) else ""
        said = _WORDS.get(str(answer.get("action")))
        if said is None:
            return approval
        assert self.desk is not None
        return await self.desk.answer(said(approval.id, reason), who, as_caller=True)

    async def _hold(self, caller: Caller, approval: Approval, seconds: float) -> Approval:
        await _notify(caller, approval)
        return await self._approvals.wait(approval.id, seconds) or approval

    # What is told.

    def _held(self, call: UseServer, approval: Approval, ticket: Ticket) -> Held:
        result = None
        comes_back = not call.live and call.mount is not None and can_be_asked(approval, call.caller)
        asks = comes_back and not as_task(call) and not _declined(call)
        if approval.state is ApprovalState.WAITING and asks:
            state = self._states.give(
                {KEY: approval.id}, call.caller.principal, asked(call.mount, call.method, call.params), approval.until
            )
            requests = {KEY: {"method": ELICIT, "params": question(approval, call.caller)}}
            result = {"resultType": "input_required", "inputRequests": requests, "requestState": state}
        elif approval.state is ApprovalState.WAITING and not as_task(call) and not can_be_asked(approval, call.caller):
            self._told[approval.digest] = approval.id
            _keep(self._told, MAX_TOLD)
        else:
            self._told.pop(approval.digest, None)
        return Held(ticket, approval, result)


def _keep(held: OrderedDict[str, str], most: int) -> None:
    while len(held) > most:
        held.popitem(last=False)


def question(approval: Approval, caller: Caller) -> Tree:
    """Parameters of an elicitation. Without `approver: caller` there is nothing to fill in, and nothing to decide; then
    a client that can is led to the page where people answer who may (a form shows no links: client/elicitation, URL
    mode)."""
    text, fields = words.sentence(approval).rstrip(".") + ".", {}
    if not decides(approval, caller) and _takes_page(approval, caller):
        text = f"{text} Whoever may answer can do so on this page. To have opened it does not release the call."
        return {"mode": "url", "message": text, "url": approval.page}
    if approval.terms.caller:
        text = f"{text} Accept to let it be made, decline to reject it."
        fields = {"reason": {"type": "string", "title": "Reason", "maxLength": 1000}}
    else:
        text = f"{text} Accept to wait for them; your answer does not release it."
    return {"mode": "form", "message": text, "requestedSchema": {"type": "object", "properties": fields}}


def takes_forms(caller: Caller) -> bool:
    return not lacking(ELICIT, {"mode": "form"}, caller.capabilities)


def decides(approval: Approval, caller: Caller) -> bool:
    """Whether what the caller answers to the question is an answer to the approval."""
    return approval.terms.caller and takes_forms(caller)


def can_be_asked(approval: Approval, caller: Caller) -> bool:
    return takes_forms(caller) or _takes_page(approval, caller)


def _takes_page(approval: Approval, caller: Caller) -> bool:
    return bool(approval.page) and takes_urls(caller)


def as_task(call: UseServer) -> bool:
    """Whether the caller is given a task that waits, instead of waiting itself."""
    return call.mount is not None and call.method == "tools/call" and takes_tasks(call.caller.capabilities)


def _declined(call: UseServer) -> bool:
    """The caller does not want to be asked again."""
    responses = call.params.get("inputResponses")
    answer = responses.get(KEY) if isinstance(responses, dict) else None
    return isinstance(answer, dict) and answer.get("action") != "accept"


def _answer(asking: asyncio.Future[Tree]) -> Tree | None:
    """None of a client that has an error for an answer."""
    try:
        return asking.result()
    except PeerError:
        return None
    except GatewayError as error:
        if error.reason is Reason.INTERNAL_ERROR:
            raise
        return None


async def _notify(caller: Caller, approval: Approval) -> None:
    """In whatever way it has asked to hear of what goes on. The number is below any that a server begins with."""
    sentence = words.told(approval)
    if caller.progress:
        await caller.notify("notifications/progress", {"progress": -1, "message": sentence})
    if caller.log_level is not None:
        data = {"message": sentence, **words.about(approval)}
        await caller.notify("notifications/message", {"level": "notice", "logger": "gateway", "data": data})
