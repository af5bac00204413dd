"""What becomes of the cards of remote agents when nobody has called: they change, and are taken or refused. For the
audit log, where what an operator does about it stands beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from gateway.core.audit import Ticket
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.principal import Kind, Principal
from gateway.model.provenance import CardRecord

_TAKEN = Decision(Verdict.PASS, "card-taken", "its signature is as good as is asked for")


def told(card: CardRecord) -> dict[str, Any]:
    """Which card it is and what its signature is worth; `card` is the SHA-256 (hex) of what came."""
    return {"card": hashlib.sha256(card.body).hexdigest(), "cardUrl": card.card_url, "verdict": card.verdict}


class CardLog:
    def __init__(self, now: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._now = now
        self._new_id = new_id

    def taken(self, before: CardRecord | None, after: CardRecord, hash: str | None) -> AuditEntry:
        """`hash` is that of the card which was in force until now."""
        return self._entry(before, after, _TAKEN, "changed" if before is not None else "taken", hash)

    def refused(self, before: CardRecord | None, after: CardRecord, why: str, hash: str | None) -> AuditEntry:
        """The one before stays in force."""
        return self._entry(before, after, Decision(Verdict.BLOCK, "card-refused", why), "refused", hash)

    def _entry(
        self, before: CardRecord | None, after: CardRecord, decision: Decision, outcome: str, hash: str | None
    ) -> AuditEntry:
        """It is the agent that says something new."""
        who = Principal(Kind.AGENT, after.agent)
        ticket = Ticket(who, "RefreshCard", after.agent, decision, self._new_id(), upstream_hash=hash)
        change = {"after": told(after), "before": None if before is None else told(before)}
        return ticket.outcome(self._now(), outcome, change=change)
