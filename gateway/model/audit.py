"""What the gateway writes down about each call."""

from __future__ import annotations

from enum import StrEnum

from gateway.model.value import value


class Verdict(StrEnum):
    PASS = "PASS"
    FLAG = "FLAG"
    BLOCK = "BLOCK"
    ESCALATE = "ESCALATE"
    HALT = "HALT"


@value
class Decision:
    """What policy said: a value that can be printed, tested and recorded. `policy` is the hash of the rules."""

    verdict: Verdict
    rule: str
    reason: str
    obligations: tuple[str, ...] = ()
    policy: str = ""

    @property
    def allowed(self) -> bool:
        return self.verdict in (Verdict.PASS, Verdict.FLAG)


@value
class AuditEntry:
    """One line of the record: the decision on a call (`phase` = "intent", committed before anything leaves
    the gateway) or how it ended ("outcome"). Reads and refusals have one entry only.

    `at` is milliseconds since the epoch, `digest` the SHA-256 (hex) of what was asked, never its content.
    The fields stand in alphabetical order: written one after the other they are the canonical form.
    """

    at: int
    digest: str | None
    on_behalf_of: str | None
    outcome: str
    phase: str
    principal: str
    request_id: str
    rule: str
    target: str
    task_id: str | None
    tenant: str
    verb: str
    verdict: Verdict
