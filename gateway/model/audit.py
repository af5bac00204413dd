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
    """What policy said: a value that can be printed, tested and recorded."""

    verdict: Verdict
    rule: str
    reason: str
    obligations: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.verdict in (Verdict.PASS, Verdict.FLAG)


@value
class AuditEntry:
    """One line of the record: the decision on a call (`phase` = "intent", committed before anything leaves
    the gateway) or how it ended ("outcome"). Reads and refusals have one entry only.

    `at` is milliseconds since the epoch, `digest` the SHA-256 (hex) of what was asked, never its content.
    """

    at: int
    tenant: str
    principal: str
    on_behalf_of: str | None
    verb: str
    target: str
    request_id: str
    phase: str
    verdict: Verdict
    rule: str
    outcome: str
    task_id: str | None = None
    digest: str | None = None
