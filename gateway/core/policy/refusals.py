"""A decision against a call, as its caller hears it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.policy.rules import DENIED
from gateway.model.audit import Decision, Verdict
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Kind, Principal


class Refused(GatewayError):
    """What policy did not let through."""

    def __init__(
        self, decision: Decision, reason: Reason, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason, message, metadata=metadata)
        self.decision = decision
        self.heeded = False  # what a HALT asks for is done


class Insufficient(Refused):
    """Nothing is missing but scopes of the caller's access token (RFC 6750 §3.1). `scopes` are all that the call
    needs, those that `who` has among them."""

    def __init__(self, decision: Decision, who: Principal, what: str) -> None:
        scopes = " ".join(decision.scopes)
        message = f"{what} needs an access token with the scopes: {scopes}"
        super().__init__(decision, Reason.PERMISSION_DENIED, message, {"scope": scopes})
        self.scopes = decision.scopes
        self.who = who


_SENTENCES: dict[Verdict, str] = {
    Verdict.BLOCK: "{what} is refused: {reason}",
    Verdict.ESCALATE: "{what} needs an approval, and only messages and uses of tool servers can wait for one: {reason}",
    Verdict.HALT: "{what} is refused and the work that it belongs to is stopped: {reason}",
}


def refused(decision: Decision, who: Principal, verb: str, tool: str = "") -> Refused:
    """`tool` is the address of what was called, where that says more than the verb."""
    if decision.scopes:
        return Insufficient(decision, who, tool or verb)
    if decision.rule == "grant-arguments":
        return Refused(decision, Reason.PERMISSION_DENIED, f"{tool} is {decision.reason}")
    if decision.rule == DENIED.rule:
        if who.kind is Kind.ANONYMOUS:
            return Refused(decision, Reason.UNAUTHENTICATED, f"{verb} needs authentication: show a credential")
        return Refused(decision, Reason.PERMISSION_DENIED, f"You may not use {tool or verb} here")
    sentence = _SENTENCES[decision.verdict].format(what=tool or verb, reason=decision.reason)
    metadata = {"rule": decision.rule, "verdict": decision.verdict.value}
    return Refused(decision, Reason.PERMISSION_DENIED, sentence, metadata)
