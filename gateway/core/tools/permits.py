"""What a request needs before it may be made: that its caller may, that people have agreed where they have to, that
the limits have room, that what is sent may pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TypeAlias

from gateway.core.approvals import words
from gateway.core.audit import Ticket
from gateway.core.policy import DENIED, Target
from gateway.core.policy.admission import MCP
from gateway.core.policy.question import Situation
from gateway.core.policy.refusals import refused
from gateway.core.tools.consents import Consents
from gateway.core.tools.found import Found
from gateway.core.tools.means import Books, Rules
from gateway.model.approval import Approval, ApprovalState, Outdated
from gateway.model.audit import Decision, Verdict
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import PeerError, Tree, measured
from gateway.model.toolcall import UseServer

_INVALID_PARAMS = -32602  # 2026-07-28: also for a resource that is not there

Permit: TypeAlias = tuple[UseServer, Found, Ticket]
"""The request as its server may have it, and the ticket under which it is made. Whoever has it closes the ticket."""


class Permits:
    def __init__(self, books: Books, rules: Rules, consents: Consents) -> None:
        self._recorder = books.recorder
        self._new_id = books.new_id
        self._policy = rules.admission.policy
        self._admission = rules.admission
        self._compliance = rules.compliance
        self._calls = rules.calls
        self._consents = consents

    async def of(self, call: UseServer, who: Principal, found: Found | None) -> Permit | None:
        """None: it has waited, and another server or another tool may have its name by now; it is to be found and
        decided anew. Raises GatewayError, recorded, for what may not be made; Held for what waits for somebody."""
        known, verb, target = self._known(call, who, found)
        situation = None
        if self._admission.needs_conversation:
            situation = self._admission.situation(who, MCP, call.trail)
        decision = self._decided(call, known, verb, target, situation)
        ticket = self._ticket(who, call, target.id, decision, known.hash)
        if call.method == "resources/read":
            ticket = await self._compliance.address(known.params["uri"], ticket)
        if verb != known.verb:  # what stands for a message waits as one, and is counted as one
            return await self._examined(call, known, ticket)
        if decision.verdict is Verdict.ESCALATE:
            return await self._agreed(call, known, ticket, target, situation)
        if situation is not None:
            ticket = self._charged(call, verb, ticket, target, situation)
        return await self._examined(call, known, ticket)

    # By the rules.

    def _known(self, call: UseServer, who: Principal, found: Found | None) -> tuple[Found, str, Target]:
        """And what policy is asked about it. Whatever the caller may not use does not exist for it."""
        if found is None:
            named = str(_name(call.method, call.params))[:200]
        else:
            verb, target = found.served.question(found.verb, found.key)
            if self._policy.known(who, verb, target):
                return found, verb, target
            named = target.id
        self._note(who, call, named, DENIED, Reason.NOT_FOUND)
        raise _missing(call)

    def _decided(
        self, call: UseServer, found: Found, verb: str, target: Target, situation: Situation | None
    ) -> Decision:
        """To let it be made, or to ask somebody. Raises GatewayError for what is refused or in quarantine."""
        who = found.who
        sent = call.params.get("arguments") if call.method == "tools/call" else None
        decision = self._admission.decide(who, verb, target, sent if isinstance(sent, dict) else {}, situation)
        # A completion belongs to what it completes; a person who is asked about that one is not asked about this.
        waits = decision.verdict is Verdict.ESCALATE and call.method != "completion/complete"
        if not decision.allowed and not waits:
            self._note(who, call, target.id, decision, Reason.PERMISSION_DENIED)
            raise refused(decision, who, call.verb, target.id)
        waiting = found.waiting() if found.verb != "resources/read" else None
        if waiting is not None:
            self._note(who, call, target.id, decision, "quarantined")
            raise GatewayError(
                Reason.PERMISSION_DENIED,
                f"{target.id} waits for approval ({waiting.why}); the operator can see and approve it with "
                f"gateway tools approve {target.id}",
            )
        return decision

    def _charged(
        self, call: UseServer, verb: str, ticket: Ticket, target: Target, situation: Situation | None
    ) -> Ticket:
        """With what it takes of the limits. Raises GatewayError when there is not enough."""
        try:
            charge = self._admission.take(ticket.principal, verb, target, situation, call.trail)
        except GatewayError as error:
            self._recorder.note(replace(ticket, why=error.message), error.reason)
            raise
        return replace(ticket, charge=charge)

    async def _examined(self, call: UseServer, found: Found, ticket: Ticket) -> Permit:
        """As the server may have it. Raises GatewayError, the ticket closed."""
        try:
            sent = await self._compliance.request(found.params, ticket, partial(found.declared, "inputSchema"))
            caller = await self._compliance.caller(call.caller, ticket)
        except BaseException as error:
            ticket.close()
            if isinstance(error, GatewayError):
                self._recorder.note(ticket, error.reason)
            raise
        if sent is found.params and caller is call.caller:  # nobody looked at it
            return call, found, ticket
        changed = {name: sent[name] for name in call.params if sent[name] is not found.params[name]}
        call = replace(call, params={**call.params, **changed}, caller=caller)
        return call, replace(found, params=sent), ticket

    # By people.

    async def _agreed(
        self, call: UseServer, found: Found, ticket: Ticket, target: Target, situation: Situation | None
    ) -> Permit | None:
        """Of a request that somebody has released, as it was released. None: anew. Raises Refused with the approval
        that it waits for."""
        released = await self._released(call, await self._foreseen(found, ticket), ticket)
        if released is None:
            return None
        edited = self._edited(call, found, released)
        if self._admission.needs_conversation:
            ticket = self._charged(call, found.verb, ticket, target, situation)
        if released.state is ApprovalState.USED:  # by the request that this one goes on with
            ticket = replace(ticket, decision=words.passed(released, ticket.decision.policy))
            return await self._examined(*edited, ticket)
        made, inner, ticket = await self._examined(*edited, self._calls.ticket(released, ticket))
        if found.served.gone:
            ticket.close()
            return None
        try:
            return made, inner, self._calls.spending(released, ticket)
        except Outdated:  # another request like it was faster; this one waits for an approval of its own
            return None

    async def _foreseen(self, found: Found, ticket: Ticket) -> Found:
        """The request as somebody is asked about it: what its server may have. Raises GatewayError: nobody is asked
        for what could not be sent."""
        arguments = found.params.get("arguments")
        if arguments is None:
            return found
        try:
            left = await self._compliance.foreseen(arguments, ticket, partial(found.declared, "inputSchema"))
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        return found if left is arguments else replace(found, params={**found.params, "arguments": left})

    def _edited(self, call: UseServer, found: Found, released: Approval) -> tuple[UseServer, Found]:
        """The request as it was released."""
        edited = {} if released.edited is None else {"arguments": released.edited}
        params = {**self._consents.bare(call, released), **edited}
        inner = {**{name: each for name, each in found.params.items() if name in params}, **edited}
        return replace(call, params=params), replace(found, params=inner, released=released)

    async def _released(self, call: UseServer, found: Found, ticket: Ticket) -> Approval | None:
        """The approval of a call that has one now. None: decide anew. Raises Refused with the one that it waits for."""
        who, trail = ticket.principal, call.trail
        task = "" if trail is None else trail.root
        sent, decision = _sent(found.params), ticket.decision
        asked = self._calls.approvals.asked(who, found.verb, ticket.target, sent, decision, task)
        if trail is not None:
            return await self._calls.released(asked, trail, ticket)
        return await self._consents.released(call, asked, ticket)

    def _ticket(
        self, who: Principal, call: UseServer, target: str, decision: Decision, hash: str | None = None
    ) -> Ticket:
        return Ticket(who, call.verb, target, decision, self._new_id(), *measured(call.params), upstream_hash=hash)

    def _note(self, who: Principal, call: UseServer, target: str, decision: Decision, outcome: str) -> None:
        self._recorder.note(self._ticket(who, call, target, decision), outcome)


def _sent(params: Tree) -> Tree:
    """What an approval shows of a request: its arguments, where it has some."""
    arguments = params.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _name(method: str, params: Tree) -> object:
    return params.get("uri") if method == "resources/read" else params.get("name")


def _missing(call: UseServer) -> GatewayError:
    """One sentence for what is not there and for what this caller may not know of."""
    if call.method == "resources/read":
        return PeerError(_INVALID_PARAMS, "Resource not found", {"uri": call.params.get("uri")})
    if call.method == "completion/complete":
        return GatewayError(Reason.NOT_FOUND, "There is no such prompt or resource template here")
    kind = "tool" if call.method == "tools/call" else "prompt"
    return GatewayError(Reason.NOT_FOUND, f"Unknown {kind}: {str(call.params.get('name'))[:200]}")
