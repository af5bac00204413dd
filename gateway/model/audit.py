"""What the gateway writes down about each call."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Any

from gateway.model.approval import Terms
from gateway.model.value import value


class Verdict(StrEnum):
    PASS = "PASS"
    FLAG = "FLAG"
    BLOCK = "BLOCK"
    ESCALATE = "ESCALATE"
    HALT = "HALT"


@value
class Decision:
    """What policy said: a value that can be printed, tested and recorded. `policy` is the hash of the rules; `terms`
    are those of an approval, where the rule that escalates has some of its own; `scopes` are all that an access token
    needs for the call, where nothing but some of them is missing; `released` means that people let the call through,
    and `reason` by which approval."""

    verdict: Verdict
    rule: str
    reason: str
    obligations: tuple[str, ...] = ()
    policy: str = ""
    terms: Terms | None = None
    scopes: tuple[str, ...] = ()
    released: bool = False

    @property
    def allowed(self) -> bool:
        return self.verdict in (Verdict.PASS, Verdict.FLAG)


@value
class Stamp:
    """Where and when an entry was written down: the log's name; the life of the process that wrote it; microseconds
    since that began, by a clock that is never set back."""

    log: str
    replica: str
    mono: int


@value
class AuditEntry:
    """One line of the record: the decision on a call (`phase` = "intent", committed before anything leaves
    the gateway), how it ended ("outcome"), or what compliance found in between ("finding"). Reads and refusals have one
    entry only.

    `at` is milliseconds since the epoch; `chain` on whose behalf the principal asked, the nearest first; `digest` and
    `length` the SHA-256 (hex) and the bytes of what was asked, never its content; `correlation` the request at the
    outer end of the chain and `cause` the one that made this one, None for a request from outside; `policy` the hash
    of the policy that decided; `upstream_hash` that of the card or the tool definition which was in force; `change`
    what an operator changed, as {"before": …, "after": …}; `marks` the compliance rules that found something in what
    passed during the call, whatever chunk it was in, and what they did; `client` the OAuth client that the caller at
    the outer end of the chain came with; `stamp` is the store's, None until it has written the entry.
    """

    at: int
    outcome: str
    phase: str
    principal: str
    request_id: str
    rule: str
    target: str
    tenant: str
    verb: str
    verdict: Verdict
    task_id: str | None = None
    digest: str | None = None
    length: int | None = None
    chain: tuple[str, ...] = ()
    correlation: str | None = None
    cause: str | None = None
    trace: str | None = None
    policy: str | None = None
    reason: str | None = None
    upstream_hash: str | None = None
    change: dict[str, Any] | None = field(default=None, hash=False)
    marks: dict[str, str] | None = field(default=None, hash=False)
    client: str | None = None
    stamp: Stamp | None = field(default=None, compare=False)  # not of what it says


@value
class AuditQuery:
    """Which entries, the newest first: those whose fields have these values, before entry number `before` (None: from
    the end). `at` lies in [since, until), milliseconds."""

    limit: int
    before: int | None = None
    principal: str | None = None
    client: str | None = None
    verb: str | None = None
    target: str | None = None
    outcome: str | None = None
    verdict: str | None = None
    rule: str | None = None
    task_id: str | None = None
    request_id: str | None = None
    correlation: str | None = None
    since: int | None = None
    until: int | None = None

    def matches(self, entry: AuditEntry) -> bool:
        return (
            all(wanted is None or getattr(entry, name) == wanted for name, wanted in self.words())
            and (self.principal is None or self.principal in (entry.principal, *entry.chain))
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
        )

    def words(self) -> list[tuple[str, str | None]]:
        """The fields that must be equal, and to what."""
        return [(name, getattr(self, name)) for name in _EQUAL]


_EQUAL = ("client", "verb", "target", "outcome", "verdict", "rule", "task_id", "request_id", "correlation")


@value
class AuditPage:
    """Entries with their numbers, the newest first. `before` is where the next page goes on; None: there is none."""

    entries: list[tuple[int, AuditEntry]]
    before: int | None
