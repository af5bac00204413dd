"""Changes: what a commit of the store can do, as values. What they raise is said at each, and in `model/ports.py`."""

from __future__ import annotations

from typing import TypeAlias

from gateway.model.approval import Approval
from gateway.model.clients import ClientRecord, RevokedToken
from gateway.model.governance import Cold, Frozen, Halted
from gateway.model.message import Message
from gateway.model.people import UserRecord
from gateway.model.provenance import CardRecord
from gateway.model.push import PushConfig
from gateway.model.rows import AgentRecord, Key, KeyRecord, PinRecord, Record, Reservation, TaskRow
from gateway.model.sharing import Share
from gateway.model.value import value


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


@value
class PutShare:
    """Somebody may read a task that is not theirs. Replaces what there was for them."""

    share: Share


@value
class DropShare:
    """Not any more; a missing one is no error."""

    tenant: str
    task_id: str
    principal: str


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
    | PutShare
    | DropShare
)
