"""It happened: every audit entry is built here, so that each call is recorded the same way and exactly once."""

from __future__ import annotations

from collections.abc import Callable

from gateway.model.audit import AuditEntry, Decision
from gateway.model.ports import Store
from gateway.model.principal import Principal
from gateway.model.value import value


@value
class Ticket:
    """One admitted (or refused) call on its way through the core: who, what, on what, and what policy said."""

    principal: Principal
    verb: str
    target: str
    decision: Decision
    request_id: str
    digest: str | None = None

    def intent(self, at: int, task_id: str | None = None) -> AuditEntry:
        """Written before anything leaves the gateway on behalf of this call."""
        return self._entry(at, "intent", "begun", task_id)

    def outcome(self, at: int, outcome: str, task_id: str | None = None) -> AuditEntry:
        """How it ended: a task state, `reply`, `ok`, or the reason of an error."""
        return self._entry(at, "outcome", outcome, task_id)

    def _entry(self, at: int, phase: str, outcome: str, task_id: str | None) -> AuditEntry:
        who = self.principal
        return AuditEntry(
            at,
            self.digest,
            who.on_behalf_of.id if who.on_behalf_of else None,
            outcome,
            phase,
            who.id,
            self.request_id,
            self.decision.rule,
            self.target,
            task_id,
            who.tenant,
            self.verb,
            self.decision.verdict,
        )


class Recorder:
    """Writes the one entry of a call that changes nothing, or was refused: it rides with the next commit."""

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now

    def note(self, ticket: Ticket, outcome: str) -> None:
        self._store.later(records=(ticket.outcome(self._now(), outcome),))
