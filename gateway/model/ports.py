"""The ports: what the core needs from the outside, said once, errors included.

**Store.** Writes are values (`Reserve`, `CreateTask`, …). `commit(*changes, records=…)` applies all of them and
the audit records in one transaction and returns when they are durable; `later(…)` lets them ride with the next
commit, at the latest after 5 ms. The caller chooses durability and nothing else. Every key starts with the
tenant. Reads see everything that a returned `commit` wrote.

Errors: `Fenced` when a task is no longer ours to write; GatewayError(UNAVAILABLE) when the store cannot write
(disk full, closed). A change that contradicts what is stored is a fault of ours and raises what the store calls it
(`BadChange`), to that caller only; it is never a GatewayError, so it shows as an incident.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from gateway.model.agent import Agent, Upstream
from gateway.model.approval import Approval, ApprovalStore
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.card import AgentCard
from gateway.model.clients import ClientRecord, ClientStore, RevokedToken
from gateway.model.governance import Cold, Frozen, GovernanceStore, Halted
from gateway.model.message import Message
from gateway.model.people import PeopleStore, UserRecord
from gateway.model.principal import Principal
from gateway.model.provenance import CardKeys, CardRecord, Finding
from gateway.model.push import PushConfig
from gateway.model.task import Event, Task, TaskState
from gateway.model.trail import Trail
from gateway.model.value import value


class Fenced(Exception):
    """The write carried an old fence: somebody else has taken the task over, and nothing was written."""


class Key(NamedTuple):
    """The idempotency key of a message: one message, one task (or one reply)."""

    tenant: str
    principal: str
    agent: str
    message_id: str


@value
class Reservation:
    """What is known about a key. Neither `reply` nor `settled`: the work has begun and left nothing yet."""

    key: Key
    digest: bytes
    task_id: str
    at: int
    settled: bool = False
    reply: Message | None = None


@value
class Record:
    """One event in a task's log. `body` is its StreamResponse (`task.envelope`), made once for the log, the
    streams and the pushes. `at` is when it was written, milliseconds since the epoch; 0 where that is not known."""

    seq: int
    event: Event
    body: bytes
    at: int = field(default=0, compare=False)


@value
class TaskRow:
    """A task and what the gateway knows about it. Times are milliseconds since the epoch.

    `seq` is the last event's number; `fence` goes up with each change of the executing `node`;
    `message_id` is the id of the message that began the task, `deadline` when the current turn must end. `trail` is
    where its newest message came from, if an agent sent that.
    """

    tenant: str
    id: str
    owner: str
    agent: str
    task: Task
    seq: int
    fence: int
    created: int
    updated: int
    deadline: int
    message_id: str
    upstream: Upstream | None = None
    trail: Trail | None = None

    @property
    def asker(self) -> Principal:
        """Whoever it was asked by last, as far as the row knows: roles and scopes are not kept."""
        owner = Principal.of(self.owner, self.tenant)
        return owner if self.trail is None else self.trail.asker(owner)


@value
class TaskQuery:
    """ListTasks, newest status first. `after` is the (updated, id) of the last row of the page before."""

    tenant: str
    owner: str
    agent: str | None
    limit: int
    context_id: str | None = None
    state: TaskState | None = None
    updated_since: int | None = None
    after: tuple[int, str] | None = None


@value
class TaskRows:
    """A page: its rows, how many tasks match in all, and whether it was cut short because its rows weigh much."""

    rows: list[TaskRow]
    total: int
    cut: bool


class Balance(StrEnum):
    """Which of several endpoints gets a new message."""

    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"


@value
class RemoteSettings:
    """What the operator says about a remote agent beside its address: the cards of further servers that are the same
    agent, which of them gets a message, and who has to have signed its card."""

    replicas: tuple[str, ...] = ()
    balance: Balance = Balance.ROUND_ROBIN
    card_keys: CardKeys | None = None
    require_signature: bool = False


@value
class AgentRecord:
    """A registered remote agent. `card` is the last card that was fetched (JSON), None before the first;
    `trusted` means that the operator named the URL on this machine (SURFACES: egress)."""

    id: str
    card_url: str
    trusted: bool
    added: int
    card: bytes | None = None
    etag: str | None = None
    fetched: int = 0
    settings: RemoteSettings = RemoteSettings()


@value
class KeyRecord:
    """An API key: `prefix` is its visible beginning, `hash` the SHA-256 of the whole."""

    id: str
    tenant: str
    name: str
    prefix: str
    hash: bytes
    created: int
    revoked: int | None = None


@value
class PinRecord:
    """A definition of an MCP server that was approved: `kind` and `key` as in `model.tool`, the tree as it was."""

    server: str
    kind: str
    key: str
    hash: str
    tree: dict[str, Any]
    approved: int


@value
class Delivery:
    """One push that is due: event `seq` of a task for one configuration. `body` is a StreamResponse, `attempts` counts
    this one, `queued` is when the event happened (milliseconds since the epoch)."""

    tenant: str
    task_id: str
    config: PushConfig
    seq: int
    body: bytes
    attempts: int
    queued: int


@value
class DeadDelivery:
    """A push that was given up, under the number that the store gave it. Its body is event `seq` of the task."""

    id: int
    tenant: str
    task_id: str
    config_id: str
    seq: int
    host: str
    attempts: int
    problem: str  # what the last attempt met, as a sentence
    queued: int
    died: int


@value
class PushQueue:
    """What waits for one webhook of one task. All but `waiting` is about the first of it: it is tried (again) at `due`,
    after `attempts` that failed, the last one because of `problem`."""

    tenant: str
    task_id: str
    config_id: str
    host: str
    waiting: int
    attempts: int
    queued: int
    due: int
    problem: str | None


@value
class Told:
    """What a webhook answered: a status, and the seconds that it asked to be left alone."""

    status: int
    retry_after: float | None = None


# Changes: what a commit can do.


@value
class Reserve:
    """Take a key. If it is taken, *nothing else of the commit is applied* and `commit` returns its holder."""

    reservation: Reservation


@value
class Release:
    """Give a key back: the message was refused before anything came of it."""

    key: Key


@value
class SaveReply:
    """The agent answered with a Message: keep it under the key."""

    key: Key
    reply: Message


@value
class CreateTask:
    """A new task with its first events (`row.task` is the state after them) and its push configurations.
    Settles `key`; writes one outbox row per event and configuration."""

    row: TaskRow
    node: str
    records: tuple[Record, ...]
    key: Key | None = None
    push: tuple[PushConfig, ...] = ()


@value
class AdvanceTask:
    """More events of a task; `row` is the state after them. Writes outbox rows when `push`.
    Settles `key` (a continued task's message). Raises Fenced if `row.fence` is old."""

    row: TaskRow
    records: tuple[Record, ...]
    push: bool = False
    key: Key | None = None


@value
class PutPushConfig:
    tenant: str
    config: PushConfig  # with id and task_id


@value
class DropPushConfig:
    """Deletes one configuration, what is still queued for it and what was given up. Deleting a missing one is no error
    (§3.1.10)."""

    tenant: str
    task_id: str
    id: str


@value
class PutUpstreamContext:
    """The remote agent's own id for one of our contexts, and the interface that gave it."""

    tenant: str
    owner: str
    agent: str
    context_id: str
    upstream_context_id: str
    url: str = ""


@value
class SettleDelivery:
    """A push attempt ended: done (`retry_at` None), or to be tried again then because of `problem`."""

    tenant: str
    task_id: str
    config_id: str
    seq: int
    retry_at: int | None = None
    problem: str | None = None


@value
class BuryDelivery:
    """The last push attempt ended and the event is given up: kept as a DeadDelivery, so that the next has its turn."""

    tenant: str
    task_id: str
    config_id: str
    seq: int
    problem: str
    at: int


@value
class ReplayDelivery:
    """What was given up is queued again as if it had just happened. Nothing, if there is none of this number."""

    id: int


@value
class PutAgent:
    record: AgentRecord


@value
class DropAgent:
    id: str


@value
class PutCard:
    """The card of a remote agent that was taken last, by its id and the URL of the card."""

    record: CardRecord


@value
class DropCards:
    """All cards of an agent."""

    agent: str


@value
class PutKey:
    record: KeyRecord


@value
class PutPin:
    record: PinRecord


@value
class DropPin:
    server: str
    kind: str
    key: str


@value
class PutApproval:
    """An approval as it stands now. `before` is the revision that this one follows, 0 for a new one. Raises
    approval.Outdated when another one stands there."""

    approval: Approval
    before: int = 0


@value
class PutClient:
    """A new client of the authorization server, or its new state."""

    record: ClientRecord


@value
class PutUser:
    """A new user of the authorization server, or their new state."""

    record: UserRecord


@value
class EndGrant:
    """What a person has allowed a client is over."""

    id: str


@value
class RevokeToken:
    """Remember a revoked token; forget those that have ended by `now`."""

    token: RevokedToken
    now: int


@value
class PutFrozen:
    record: Frozen


@value
class DropFrozen:
    kind: Cold
    name: str


@value
class PutHalted:
    """From now on nothing of a tree of tasks goes on. What of it is at work or waits is ended by whoever halts it."""

    record: Halted


@value
class DropHalted:
    """Nothing is left of it that could."""

    tenant: str
    root: str


Change: TypeAlias = (
    Reserve
    | Release
    | SaveReply
    | CreateTask
    | AdvanceTask
    | PutPushConfig
    | DropPushConfig
    | PutUpstreamContext
    | SettleDelivery
    | BuryDelivery
    | ReplayDelivery
    | PutAgent
    | DropAgent
    | PutCard
    | DropCards
    | PutKey
    | PutPin
    | DropPin
    | PutApproval
    | PutClient
    | PutUser
    | EndGrant
    | RevokeToken
    | PutFrozen
    | DropFrozen
    | PutHalted
    | DropHalted
)

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
    def trouble(self) -> str | None:
        """Why nothing can be written any more, as a sentence; None while all is well."""
        ...

    def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> Awaitable[Reservation | None]:
        """Durable when awaited. Gives the holder if a `Reserve` found its key taken, else None."""
        ...

    def later(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> bool:
        """Durable soon (≤ 5 ms, or with the next commit). Never raises; a failure is logged by the store. False: it is
        known already that nothing will be written."""
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
        self, limit: int, *, agent: str | None = None, owner: str | None = None, after: tuple[str, str] = ("", "")
    ) -> list[TaskRow]:
        """Tasks that wait for somebody's input or authorization, by tenant and id, those after `after`; None as filter
        means any. `agent` is whoever works on it or stands in its trail."""
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
        self, now: int, limit: int, lease_ms: int, *, per_host: int = 2**31, busy: Mapping[str, int] = NOBODY
    ) -> list[Delivery]:
        """Deliveries due at `now`, oldest first; each is hidden from the next `due` for `lease_ms`. No more than
        `per_host` for one host, of which `busy` are taken already. Of each webhook and task the first that waits."""
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
