"""The ports: what the core needs from the outside, said once, errors included.

**Store.** Writes are values (`model/changes.py`), and so is what is read (`model/rows.py`). `commit(*changes,
records=…)` applies all of them and the audit records in one transaction and returns when they are durable;
`later(…)` lets them ride with the next commit, at the latest after 5 ms. The caller chooses durability and nothing
else. Every key starts with the tenant. Reads see everything that a returned `commit` wrote.

Errors: `Fenced` when a task is no longer ours to write; GatewayError(UNAVAILABLE) when the store cannot write
(disk full, closed). A change that contradicts what is stored is a fault of ours and raises what the store calls it
(`BadChange`), to that caller only; it is never a GatewayError, so it shows as an incident.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeAlias

from gateway.model.agent import Agent, Upstream
from gateway.model.approval import ApprovalStore
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.card import AgentCard
from gateway.model.changes import Change
from gateway.model.clients import ClientStore
from gateway.model.governance import GovernanceStore
from gateway.model.people import PeopleStore
from gateway.model.provenance import CardKeys, CardRecord, Finding
from gateway.model.push import PushConfig
from gateway.model.rows import (
    AgentRecord,
    Balance,
    DeadDelivery,
    Delivery,
    KeyRecord,
    PinRecord,
    PushQueue,
    Record,
    Reservation,
    TaskQuery,
    TaskRow,
    TaskRows,
)
from gateway.model.sharing import ShareStore
from gateway.model.value import value


class Fenced(Exception):
    """The write carried an old fence: somebody else has taken the task over, and nothing was written."""


Write: TypeAlias = Callable[..., Awaitable[object]]
"""Takes changes and returns when they are durable: `commit`, or what adds the record of them."""


NOBODY: Mapping[str, int] = MappingProxyType({})


class Store(Protocol):
    """Everything durable. See the module's text for the contract of `commit` and `later`."""

    @property
    def approvals(self) -> ApprovalStore:
        """Calls that wait for a person (model/approval.py)."""
        ...

    @property
    def clients(self) -> ClientStore:
        """Clients of the built-in authorization server (model/clients.py)."""
        ...

    @property
    def governance(self) -> GovernanceStore:
        """What is frozen, used and labelled (model/governance.py)."""
        ...

    @property
    def people(self) -> PeopleStore:
        """People who log in to it, and what they have allowed (model/people.py)."""
        ...

    @property
    def shares(self) -> ShareStore:
        """Who may read whose task (model/sharing.py)."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written any more, as a sentence; None while all is well."""
        ...

    def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> Awaitable[Reservation | None]:
        """Durable when awaited. Gives the holder if a `Reserve` found its key taken, else None."""
        ...

    def later(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> bool:
        """Durable soon (≤ 5 ms, or with the next commit). Never raises; a failure is logged by the store. False: nobody
        should count on it, since nothing can be written any more, or what was tried last could not be; then it is
        tried all the same, so that the next ones hear that there is space again."""
        ...

    async def task(
        self, tenant: str, task_id: str, *, owner: str | None = None, agent: str | None = None
    ) -> TaskRow | None:
        """None when there is no such task *for this owner and agent*; None as filter means any."""
        ...

    async def tasks(self, query: TaskQuery) -> TaskRows:
        """One page: at most `query.limit` rows, fewer when they weigh more than a page may (one row always fits)."""
        ...

    async def waiting(
        self, limit: int, *, agent: str | None = None, principal: str | None = None, after: tuple[str, str] = ("", "")
    ) -> list[TaskRow]:
        """Tasks that wait for somebody's input or authorization, by tenant and id, those after `after`; None as filter
        means any. `agent` is whoever works on it or stands in its trail, `principal` its owner or whoever acts for
        them."""
        ...

    async def in_tree(self, tenant: str, root: str, limit: int, *, after: str = "") -> list[TaskRow]:
        """What an outermost task has led to and is not at its end, by id, those after `after`; not that task itself."""
        ...

    async def events(self, tenant: str, task_id: str, after: int) -> list[Record]:
        """The task's log after sequence number `after`, in order."""
        ...

    async def reservation(
        self, tenant: str, principal: str, message_id: str, *, agent: str | None = None
    ) -> list[Reservation]:
        """The caller's keys with this message id; more than one only if `agent` is None."""
        ...

    async def upstream_context(self, tenant: str, owner: str, agent: str, context_id: str) -> Upstream | None:
        """The agent's own id for the context, as an Upstream without a task."""
        ...

    async def push_config(self, tenant: str, task_id: str, id: str) -> PushConfig | None: ...

    async def push_configs(self, tenant: str, task_id: str, *, limit: int, after: str = "") -> list[PushConfig]:
        """Ordered by id, those after `after`."""
        ...

    async def claim(self, node: str, now: int, lease_until: int, limit: int) -> list[TaskRow]:
        """Take over active (not interrupted) tasks whose lease has ended or whose executor was an earlier life
        of this single-process store: fence + 1, owner `node`. Empty when there is nothing left."""
        ...

    async def unsettled(self, before: int) -> list[Reservation]:
        """Reservations from before `before` that have neither reply nor task: work a dead process began."""
        ...

    async def due(
        self,
        now: int,
        limit: int,
        lease_ms: int,
        *,
        per_host: int = 2**31,
        busy: Mapping[str, int] = NOBODY,
        silent: Collection[str] = frozenset(),
    ) -> list[Delivery]:
        """Deliveries due at `now`, oldest first; each is hidden from the next `due` for `lease_ms`. No more than
        `per_host` for one host, of which `busy` are taken already, and none of tasks that one of `silent` owns. Of each
        webhook and task the first that waits."""
        ...

    async def queues(self, limit: int, *, tenant: str | None = None, owner: str | None = None) -> list[PushQueue]:
        """What waits in the outbox, what is due first before the rest; None as filter means any."""
        ...

    async def dead(
        self, after: int, limit: int, *, tenant: str | None = None, owner: str | None = None, id: int | None = None
    ) -> list[DeadDelivery]:
        """What was given up after number `after`, in order; None as filter means any."""
        ...

    async def agents(self) -> list[AgentRecord]: ...

    async def cards(self) -> list[CardRecord]: ...

    async def keys(self) -> list[KeyRecord]: ...

    async def pins(self) -> list[PinRecord]: ...

    async def audit(self, after: int, limit: int) -> list[tuple[int, AuditEntry]]:
        """Audit records in the order in which they were written, those after index `after`."""
        ...

    async def search_audit(self, query: AuditQuery) -> AuditPage:
        """One page of what matches, the newest first."""
        ...

    async def left_open(self) -> list[AuditEntry]:
        """Intents that an earlier life of the process has left without an outcome, the oldest first. To be asked before
        anything is recorded about them."""
        ...

    async def forget_subject(self, principal: str, record: Callable[[str], AuditEntry]) -> str | None:
        """Make it impossible to say who a principal of the audit log was: what is left is the pseudonym, which is
        returned and goes into the `record` of it, in the same transaction. None: nobody is known by that name."""
        ...

    async def aclose(self) -> None:
        """Write what `later` still holds, then close. May be called twice."""
        ...


@value
class Fetched:
    """What fetching a card brought; `card` is None when it has not changed since `etag`.

    `body` is the card in the shape of the model's version, `received` and `source` are what came and from where;
    `findings` are its signatures. Of a card whose signature covers a part of it, `card` is that part.
    """

    card: AgentCard | None
    body: bytes
    etag: str | None
    received: bytes = b""
    source: str = ""
    findings: tuple[Finding, ...] = ()


class Directory(Protocol):
    """How remote agents are found and reached."""

    async def fetch(
        self, url: str, *, etag: str | None, trusted: bool, keys: CardKeys | None = None, agent: str | None = None
    ) -> Fetched:
        """The card at `url`, validated; `keys` alone may sign it, where they are given. `agent` is whose it is, where
        that is known: its credentials may be shown for it. Raises GatewayError with a sentence for every other
        outcome."""
        ...

    def connect(self, id: str, card: AgentCard, *, card_url: str, trusted: bool) -> Agent:
        """An agent behind the card. Raises GatewayError when it offers no interface that we speak."""
        ...

    def balance(self, agents: Sequence[Agent], how: Balance) -> Agent:
        """Several agents of `connect` that do the same work, as one."""
        ...


@value
class Told:
    """What a webhook answered: a status, and the seconds that it asked to be left alone."""

    status: int
    retry_after: float | None = None


class Notifier(Protocol):
    async def deliver(self, delivery: Delivery) -> Told:
        """POST the body to the webhook. Raises GatewayError when no answer comes."""
        ...

    async def challenge(self, url: str, token: str) -> bool:
        """Whether whoever answers at the webhook gives this token back. Raises GatewayError when no answer comes."""
        ...


class Bell(Protocol):
    """A webhook of ours for one task of a remote agent. `rang` says whether it ever did."""

    url: str
    secret: str
    rang: bool

    async def wait(self, seconds: float) -> bool:
        """Whether it rings, or has rung since the last time, before so many seconds are over."""
        ...

    def take_down(self) -> None: ...


class Bells(Protocol):
    """Where remote agents can say that there is news of a task. What the news is they are asked. `local` when nobody
    beyond this machine can reach it."""

    local: bool

    def hang(self, agent: str, task_id: str) -> Bell: ...
