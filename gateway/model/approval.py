"""Approvals: a call that a rule has stopped, and what people say to it.

An approval is for one exact call. `Asked.digest` names it: the caller with its whole chain, the tenant, the target, the
arguments, the task that the call belongs to, what of the policy stopped it and where the target is. Nothing else can
be done with it, and that only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

from gateway.model.principal import Principal
from gateway.model.task import Task
from gateway.model.tool import Tree, digest
from gateway.model.value import value

HOUR_MS = 3_600_000  # how long a call waits whose rule says nothing: people eat, and nobody is surprised days later

APPROVAL = "approval"
"""The entry of a status message's metadata that says which approval a task waits for."""


class ApprovalState(StrEnum):
    WAITING = "waiting"
    APPROVED = "approved"  # released: the call may be made, once
    REJECTED = "rejected"
    EXPIRED = "expired"
    USED = "used"
    VOID = "void"  # the call cannot be made any more: it was canceled, or is decided otherwise now

    @property
    def open(self) -> bool:
        """Something may still come of it."""
        return self in (ApprovalState.WAITING, ApprovalState.APPROVED)


_ENDS = frozenset({ApprovalState.REJECTED, ApprovalState.EXPIRED, ApprovalState.VOID})
MOVES: Mapping[ApprovalState, frozenset[ApprovalState]] = {
    ApprovalState.WAITING: _ENDS | {ApprovalState.WAITING, ApprovalState.APPROVED},
    ApprovalState.APPROVED: frozenset({ApprovalState.USED, ApprovalState.EXPIRED, ApprovalState.VOID}),
    **{state: frozenset() for state in (*_ENDS, ApprovalState.USED)},
}


class Outdated(Exception):
    """An approval has moved on since it was read, and nothing was written."""


@value
class Terms:
    """What a rule asks for: `persons` different people, within so many milliseconds. `caller` means that whoever began
    it all may answer for itself. `rule` is a hash of what the file says in that rule, "" where no rule of a file asks.
    """

    caller: bool = False
    persons: int = 1
    within_ms: int = HOUR_MS
    rule: str = ""


@value
class Site:
    """A place where a call goes. `at` is where the operator says it is: a URL, a command, an import string. `leads` are
    the URLs that the card there names, `hash` is that of the card, without its signatures, or of the tool's definition;
    "" for a place that has none, or of which nobody has read it yet."""

    at: str
    leads: tuple[str, ...] = ()
    hash: str = ""


@value
class Asked:
    """The exact call. `target` is its address as rules write it; `arguments` are a tool's, or of a message what is said
    with it. `task` is the task that waits: a message's own, or the outermost one that an agent's call belongs to; empty
    for a call that belongs to none. `ground` is a hash of what stopped it: the rule with its terms (core/approvals/
    grounds.py); `site` one of where the target is, as far as the operator says it (core/approvals/sites.py); `policy`
    that of all rules at that time, for the record."""

    principal: Principal
    verb: str
    target: str
    arguments: Tree = field(hash=False)
    policy: str
    task: str = ""
    ground: str = ""
    site: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the call, its ground and its site; roles and scopes are how the caller came to it, not
        what it asks, and rules that have nothing to do with it may change."""
        who = self.principal
        named = {"caller": who.id, "chain": list(chain(who)), "tenant": who.tenant}
        asked = {"arguments": self.arguments, "target": self.target, "verb": self.verb}
        return digest({**named, **asked, "ground": self.ground, "site": self.site, "task": self.task})


def chain(who: Principal) -> Iterator[str]:
    """On whose behalf it is asked, the nearest first."""
    behalf = who.on_behalf_of
    while behalf is not None:
        yield behalf.id
        behalf = behalf.on_behalf_of


class Said(StrEnum):
    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"


@value
class Word:
    """What one person said, and when (milliseconds since the epoch). `roles` and `scopes` are those that the person
    had then."""

    by: str
    said: Said
    at: int
    reason: str = ""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()


@value
class Approval:
    """`digest` is that of the call as it was asked, `released` that of the call as it may be made: another one once
    somebody has edited it (`edited`: the arguments then).

    `words` are what people have said to what stands now: an edit makes what was said before it void. `tasks` are those
    that rest because of it, the outermost first; `held` says that it is a message that no agent has seen yet.
    `sites` are where the call goes, as it was when it was asked; none where whoever looks may not know them.
    `approvers` are whom the policy lets approve, in the words of its rules. `revision` goes up with each change, `why`
    says how it came to its end. `request` is the audit's number of the call, `page` the URL where people answer it, ""
    where nobody can log in.
    """

    id: str
    asked: Asked = field(hash=False)
    digest: str
    rule: str
    reason: str
    terms: Terms
    created: int
    until: int
    state: ApprovalState = ApprovalState.WAITING
    revision: int = 1
    words: tuple[Word, ...] = ()
    approvers: tuple[str, ...] = ()
    edited: Tree | None = field(default=None, hash=False)
    tasks: tuple[str, ...] = ()
    agent: str = ""
    held: bool = False
    request: str = ""
    why: str = ""
    page: str = ""
    sites: tuple[Site, ...] = ()

    @property
    def tenant(self) -> str:
        return self.asked.principal.tenant

    @property
    def owner(self) -> str:
        """Who began it all."""
        return self.asked.principal.owner

    @property
    def arguments(self) -> Tree:
        """What the call may be made with."""
        return self.asked.arguments if self.edited is None else self.edited

    @property
    def released(self) -> str:
        return self.digest if self.edited is None else replace(self.asked, arguments=self.edited).digest

    @property
    def missing(self) -> int:
        """How many more people have to agree."""
        return max(0, self.terms.persons - len(self.words)) if self.state is ApprovalState.WAITING else 0

    def moved(self, state: ApprovalState, **changes: Any) -> Approval:
        """The next revision. Raises Outdated where nothing may follow any more."""
        if state not in MOVES[self.state]:
            raise Outdated(f"{self.state} cannot become {state}")
        return replace(self, state=state, revision=self.revision + 1, **changes)

    def shown(self) -> Tree:
        """For the audit: what changes, without what was said with the call."""
        return {
            "digest": self.digest,
            "id": self.id,
            "released": self.released,
            "sites": [{"at": site.at, "hash": site.hash, "leads": list(site.leads)} for site in self.sites],
            "state": self.state.value,
            "words": [{"by": word.by, "said": word.said.value} for word in self.words],
        }


def waits(task: Task) -> str | None:
    """The approval that a task waits for."""
    status = task.status
    if not status.state.interrupted or status.message is None or status.message.metadata is None:
        return None
    found = status.message.metadata.get(APPROVAL)
    return found if isinstance(found, str) else None


@value
class ApprovalQuery:
    """Those whose target is one of `targets`, or which `owner` has begun; of one tenant or of all (None). The newest
    first, only those whose id is smaller than `before`. (Ids begin with the time.)"""

    limit: int
    before: str = ""
    tenant: str | None = None
    targets: frozenset[str] = frozenset()
    owner: str = ""

    def matches(self, approval: Approval) -> bool:
        return (
            (not self.before or approval.id < self.before)
            and self.tenant in (None, approval.tenant)
            and (approval.asked.target in self.targets or approval.owner == self.owner)
        )


@value
class ApprovalPage:
    """`before` is where the next page goes on; None: there is none."""

    approvals: tuple[Approval, ...]
    before: str | None


def paged(found: Sequence[Approval], limit: int) -> ApprovalPage:
    """Of one more than the page has room for, if there are so many."""
    page = tuple(found[:limit])
    return ApprovalPage(page, page[-1].id if len(found) > limit else None)


class ApprovalStore(Protocol):
    """What is written goes with a commit (`ports.PutApproval`), beside what follows from it; what has had its time is
    forgotten by itself."""

    async def open(self) -> list[Approval]:
        """Those that wait or are released, the oldest first."""
        ...

    async def find(self, id: str) -> Approval | None: ...

    async def page(self, query: ApprovalQuery) -> ApprovalPage: ...

    async def targets(self) -> list[str]:
        """What the calls were for, each once."""
        ...

    async def forget(self, before: int, limit: int) -> int:
        """Drop up to `limit` ended ones whose time was over before then (milliseconds since the epoch); how many."""
        ...


# The verbs. `agent` is None: an approval is found by its id.


@value
class ListApprovals:
    """An `ApprovalPage` of those that the caller may answer or has asked for; `every`: the decided ones too."""

    verb: ClassVar[str] = "ListApprovals"
    every: bool = False
    limit: int = 100
    before: str = ""
    agent: None = None


@value
class ShowApproval:
    verb: ClassVar[str] = "ShowApproval"
    id: str
    agent: None = None


@value
class ApproveCall:
    """`seen` is the digest of the call that whoever approves has seen, "" for whatever stands: after an edit it is
    another one."""

    verb: ClassVar[str] = "ApproveCall"
    said: ClassVar[Said] = Said.APPROVE
    id: str
    reason: str = ""
    seen: str = ""
    agent: None = None


@value
class EditCall:
    """Let it be made with these arguments instead."""

    verb: ClassVar[str] = "EditCall"
    said: ClassVar[Said] = Said.EDIT
    id: str
    arguments: Tree = field(hash=False)
    reason: str = ""
    agent: None = None


@value
class RejectCall:
    verb: ClassVar[str] = "RejectCall"
    said: ClassVar[Said] = Said.REJECT
    id: str
    reason: str = ""
    agent: None = None


Answering: TypeAlias = ApproveCall | EditCall | RejectCall
ApprovalCall: TypeAlias = ListApprovals | ShowApproval | Answering
