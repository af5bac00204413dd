"""What those hear who wait."""

from __future__ import annotations

from typing import Any

from gateway.core.policy.refusals import Refused
from gateway.core.policy.replay import RELEASED
from gateway.model.approval import APPROVAL, Approval, ApprovalState
from gateway.model.audit import Decision, Verdict
from gateway.model.base import timestamp
from gateway.model.errors import GatewayError, Reason
from gateway.model.task import TaskState

ANSWER = {
    "type": "object",
    "properties": {"decision": {"enum": ["approve", "reject"]}, "reason": {"type": "string"}},
    "required": ["decision"],
}
"""What a caller says that is asked itself, as data; the word alone will do as text."""


def state(approval: Approval) -> TaskState:
    return TaskState.INPUT_REQUIRED if approval.terms.caller else TaskState.AUTH_REQUIRED


def sentence(approval: Approval) -> str:
    """What waits, for whom and until when."""
    until = timestamp(approval.until)
    what = f"{approval.asked.verb} on {approval.asked.target}"
    if approval.terms.caller:
        return f"{what} waits for your word until {until}: answer approve or reject. {approval.reason}"
    people = "" if approval.terms.persons == 1 else f"{approval.terms.persons} of "
    whom = ", ".join(approval.approvers) or "nobody whom the policy names"
    return f"{what} waits for an approval by {people}{whom} until {until}: {approval.reason}"


def told(approval: Approval) -> str:
    """The same, and where it can be answered."""
    text = sentence(approval)
    return f"{text.rstrip('.')}. Whoever may answer can do so at {approval.page}" if approval.page else text


def about(approval: Approval) -> dict[str, Any]:
    """The same for machines: metadata of a status message, an error or a result."""
    told: dict[str, Any] = {
        APPROVAL: approval.id,
        "approvers": list(approval.approvers),
        "rule": approval.rule,
        "until": timestamp(approval.until),
    }
    if approval.page:
        told["url"] = approval.page
    return {**told, "schema": ANSWER} if approval.terms.caller else told


_ENDS = {
    ApprovalState.REJECTED: "was rejected",
    ApprovalState.EXPIRED: "was not approved in time",
    ApprovalState.VOID: "cannot be approved any more",
    ApprovalState.USED: "was made already, and an approval is good for one call",
}


def end(approval: Approval) -> str:
    """How it ended, for whoever waited."""
    why = f": {approval.why}" if approval.why else ""
    return f"{approval.asked.verb} on {approval.asked.target} {_ENDS[approval.state]}{why}"


def refusal(approval: Approval) -> GatewayError:
    """What a call gets that is not let through: it waits still, or never will be."""
    decision = Decision(Verdict.ESCALATE, approval.rule, approval.reason, policy=approval.asked.policy)
    text = told(approval) if approval.state.open else end(approval)
    metadata = {
        APPROVAL: approval.id,
        "approvers": ", ".join(approval.approvers),
        "rule": approval.rule,
        "state": approval.state.value,
        "until": timestamp(approval.until),
        "verdict": Verdict.ESCALATE.value,
    }
    return Refused(decision, Reason.PERMISSION_DENIED, text, metadata)


def passed(approval: Approval, policy: str) -> Decision:
    """What the record says of a call that was released, and is made under `policy`."""
    return Decision(Verdict.PASS, approval.rule, f"{RELEASED}{approval.id}", policy=policy, released=True)
