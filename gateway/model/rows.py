"""Rows: what the store keeps of tasks, messages, agents, keys and pushes. Times are milliseconds since the epoch."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.model.agent import Upstream
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.provenance import CardKeys
from gateway.model.push import PushConfig
from gateway.model.task import Event, Task, TaskState
from gateway.model.trail import Trail
from gateway.model.value import value


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
    where its newest message came from, if an agent sent that, and `caller` who was at the door with it (or with what
    led to it): its roles, scopes and client then, and for whom it acted; None where `owner` says all about it.
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
    caller: Principal | None = None

    @property
    def callers(self) -> tuple[str, ...]:
        """The ids of whoever came to the door with it, and of those on whose behalf."""
        return () if self.caller is None else self.caller.identity[1:]

    @property
    def asker(self) -> Principal:
        """Whoever it was asked by last, with what the caller at the outer end was let in with."""
        caller = self.caller or Principal.of(self.owner, self.tenant)
        return caller if self.trail is None else self.trail.asker(caller)


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
    """One push that is due: event `seq` of `owner`'s task for one configuration. `body` is a StreamResponse, `attempts`
    counts this one, `queued` is when the event happened (milliseconds since the epoch)."""

    tenant: str
    task_id: str
    owner: str
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
