"""It happened: every audit entry is built here, so that each call is recorded the same way and exactly once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import field, replace
from typing import Any, NamedTuple

from gateway.core.policy.limits import Charge
from gateway.core.policy.refusals import Refused
from gateway.core.policy.rules import FILE_CHANGED
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.changes import PutApproval
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Store
from gateway.model.principal import ANONYMOUS, MACHINE, Principal
from gateway.model.value import value

_TRACEPARENT = re.compile(
    rb"(?!ff)(?!00.{53}.)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?"
)
"""W3C Trace Context §3.2.2: no version ff, no ids of zeros; revisions after 00 may say more behind what 00 has."""


class Cause(NamedTuple):
    """The request that a call comes from, and the one at the outer end of that chain."""

    correlation: str
    request_id: str


# They follow the work into the tasks that it starts, which no argument could without going through every signature.
_cause: ContextVar[Cause | None] = ContextVar("cause", default=None)
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def traced(traceparent: bytes | None) -> None:
    """What is done from here on belongs to the caller's trace (W3C Trace Context), if the header is one. What goes on
    of it is what revision 00 knows, as §3.2.2.1 has it: nothing that a caller could write there freely."""
    found = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    _traceparent.set(None if found is None else f"00-{found[1].decode()}")


@value
class Ticket:
    """One admitted (or refused) call on its way through the core: who, what, on what, and what policy said.

    `digest` and `length` are of what was asked; `upstream_hash` of the card or definition that the caller relied on.
    `spends` is the approval that it uses up: written in the commit of its intent, or the call is not made.
    `marks` grows with what compliance finds on the way, and goes into the outcome. `why` is what stopped it although
    policy let it through: a limit, in words. `recorded` is what the record calls the target where its own name holds
    something that is to be nowhere.
    """

    principal: Principal
    verb: str
    target: str
    decision: Decision
    request_id: str
    digest: str | None = None
    length: int | None = None
    upstream_hash: str | None = None
    cause: Cause | None = field(default_factory=_cause.get)
    traceparent: str | None = field(default_factory=_traceparent.get)
    charge: Charge | None = field(default=None, hash=False, compare=False)
    spends: tuple[PutApproval, ...] = field(default=(), hash=False, compare=False)
    marks: dict[str, str] = field(default_factory=dict, hash=False, compare=False)
    why: str | None = field(default=None, hash=False, compare=False)
    recorded: str = field(default="", hash=False, compare=False)

    def close(self) -> None:
        """The call is over, and what it took of the limits is free again."""
        if self.charge is not None:
            self.charge.close()

    def stopped(self, error: GatewayError) -> Ticket:
        """With what stopped it once it was known what it is about: a rule, or a limit in words."""
        if isinstance(error, Refused):
            return replace(self, decision=error.decision)
        return replace(self, why=error.message) if "limit" in error.metadata else self

    def intent(self, at: int, task_id: str | None = None, *, change: dict[str, Any] | None = None) -> AuditEntry:
        """Written before anything leaves the gateway on behalf of this call. `change`: what is about to be changed."""
        return self._entry(at, "begun", "intent", task_id, change)

    def outcome(
        self, at: int, outcome: str, task_id: str | None = None, *, change: dict[str, Any] | None = None
    ) -> AuditEntry:
        """How it ended: a task state, `reply`, `ok`, or the reason of an error. `change`: what an operator changed."""
        return self._entry(at, outcome, "outcome", task_id, change)

    def finding(self, at: int, what: str) -> AuditEntry:
        """What compliance found on the way. The call goes on, or has an outcome beside it."""
        return self._entry(at, what, "finding", None)

    @contextmanager
    def causing(self) -> Iterator[None]:
        """Calls that are made inside come from this one."""
        correlation = self.cause.correlation if self.cause is not None else self.request_id
        token = _cause.set(Cause(correlation, self.request_id))
        try:
            yield
        finally:
            _cause.reset(token)

    def _entry(
        self, at: int, outcome: str, phase: str, task_id: str | None, change: dict[str, Any] | None = None
    ) -> AuditEntry:
        who, decision, cause = self.principal, self.decision, self.cause
        return AuditEntry(
            at,
            outcome,
            phase,
            who.id,
            self.request_id,
            decision.rule,
            self.recorded or self.target,
            who.tenant,
            self.verb,
            decision.verdict,
            task_id,
            self.digest,
            self.length,
            () if who.on_behalf_of is None else _chain(who.on_behalf_of),
            self.request_id if cause is None else cause.correlation,
            None if cause is None else cause.request_id,
            None if self.traceparent is None else self.traceparent[3:35],
            decision.policy or None,
            decision.reason if decision.released or not decision.allowed else self.why,
            self.upstream_hash,
            change,
            dict(self.marks) or None if phase == "outcome" else None,
            who.client,
        )


def _chain(who: Principal) -> tuple[str, ...]:
    return (who.id,) if who.on_behalf_of is None else (who.id, *_chain(who.on_behalf_of))


class Recorder:
    """Writes the one entry of a call that changes nothing, or was refused: it rides with the next commit."""

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now

    async def keep(self, ticket: Ticket, outcome: str) -> None:
        """The one entry of something that must not be known outside before it is recorded: a token, a yes."""
        await self._store.commit(records=(ticket.outcome(self._now(), outcome),))

    def note(self, ticket: Ticket, outcome: str, task_id: str | None = None) -> None:
        """Raises UNAVAILABLE when the entry cannot be written: what is not recorded does not happen."""
        self._later(ticket.outcome(self._now(), outcome, task_id))

    def found(self, ticket: Ticket, what: str) -> None:
        """Raises UNAVAILABLE likewise."""
        self._later(ticket.finding(self._now(), what))

    def _later(self, entry: AuditEntry) -> None:
        if not self._store.later(records=(entry,)):
            raise GatewayError(Reason.UNAVAILABLE, "The audit log cannot be written now", retry_after=1.0)


class OwnActs:
    """What the gateway does although nobody asked: a file that has changed is read, a tool that has changed is held."""

    def __init__(self, recorder: Recorder, new_id: Callable[[], str]) -> None:
        self._recorder = recorder
        self._new_id = new_id

    def note(self, verb: str, target: str, why: Decision, outcome: str) -> None:
        with suppress(GatewayError):  # it has happened; that it cannot be written stands in the store's own log
            self._recorder.note(Ticket(MACHINE, verb, target, why, self._new_id()), outcome)

    def reloaded(self, verb: str, policy: str, problem: str | None) -> None:
        """A file of the operator's was read again because it had changed. `policy` is the hash of the rules that hold
        now."""
        reason = "the file has changed" if problem is None else f"the file has changed and is wrong: {problem}"
        verdict = Verdict.PASS if problem is None else Verdict.BLOCK
        why = Decision(verdict, FILE_CHANGED, reason[:MAX_REASON], policy=policy)
        self.note(verb, "gateway", why, "ok" if problem is None else Reason.INVALID_REQUEST)

    def renewed(self, what: str, problem: str | None) -> None:
        """A certificate was read again because its files had changed; with a `problem` the one before is shown on."""
        verdict = Verdict.PASS if problem is None else Verdict.BLOCK
        why = Decision(verdict, FILE_CHANGED, f"the files have changed and {problem or 'are used'}"[:MAX_REASON])
        self.note("RenewCertificate", what, why, "ok" if problem is None else Reason.INVALID_REQUEST)

    def held(self, address: str, why: str) -> None:
        """A tool or prompt of an MCP server is not offered any more, or not yet."""
        self.note("QuarantineTool", address, Decision(Verdict.BLOCK, "quarantine", why[:MAX_REASON]), "quarantined")


MAX_REASON = 400  # characters of what a file or a server says is wrong
MAX_PATH = 200  # characters of what somebody unknown asked for
REFUSALS = 20  # of a stretch that are recorded one by one; the others are counted
STRETCH_SECONDS = 10.0  # a guesser who waits that long between tries is no flood

_UNKNOWN = Decision(Verdict.BLOCK, "authentication", "no credential that is known here")


class Refusals:
    """Who was turned away at the door, before it was clear who it is. A flood of them must not fill the disk: of each
    stretch of time the first ones have an entry each, and one more says how many others there were."""

    def __init__(self, recorder: Recorder, new_id: Callable[[], str]) -> None:
        self._recorder = recorder
        self._new_id = new_id
        self._count = 0
        self._end: asyncio.TimerHandle | None = None

    def note(self, path: str) -> None:
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(STRETCH_SECONDS, self.flush)
        self._count += 1
        if self._count <= REFUSALS:
            self._write(path[:MAX_PATH], Reason.UNAUTHENTICATED)

    def flush(self) -> None:
        """The stretch is over."""
        more, self._count = self._count - REFUSALS, 0
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if more > 0:
            with suppress(GatewayError):
                self._write("gateway", f"{more} more")

    def _write(self, target: str, outcome: str) -> None:
        self._recorder.note(Ticket(ANONYMOUS, "Authenticate", target, _UNKNOWN, self._new_id()), outcome)
