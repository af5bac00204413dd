"""The verbs: one value per thing that a caller can ask for.

Every dialect decodes into these and every use case takes one of them. `verb` is the name that policy rules and
audit entries use; for A2A it is the JSON-RPC method name (§5.3). `agent` is the id of the agent whose endpoint
was called; None means "whichever of mine", which only the admin door may ask.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

from gateway.model.approval import ApprovalCall
from gateway.model.message import Message
from gateway.model.operation import OperatorCall
from gateway.model.push import PushConfig
from gateway.model.sharing import SharingCall
from gateway.model.task import TaskState
from gateway.model.tool import measured
from gateway.model.trail import Trail
from gateway.model.value import value


@value
class SendMessage:
    """Give a message to an agent (§3.1.1, §3.1.2).

    `digest` is the SHA-256 of the `message` member as it was sent (equal digests mean the same message), `size` its
    bytes, both with sorted keys; 0 where nothing was sent: by an agent in here, for a tool call, by an approval.
    `always_deduplicate` is for dialects whose ids are idempotency keys by definition, `as_task` for those that know no
    other answer than a task: the agent's plain reply then is how the task ends.
    """

    verb: ClassVar[str] = "SendMessage"

    agent: str
    message: Message
    digest: bytes
    return_immediately: bool = False
    history_length: int | None = None
    accepted_output_modes: tuple[str, ...] = ()
    push: PushConfig | None = None
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] = ()
    stream: bool = False
    always_deduplicate: bool = False
    size: int = 0
    as_task: bool = False
    trail: Trail | None = None  # where it comes from, if an agent sends it

    def measured(self) -> tuple[str, int]:
        """Digest (hex) and bytes of what is asked, for the record: as it was sent, or as it would be."""
        if self.size:
            return self.digest.hex(), self.size
        return measured(self.message.model_dump(mode="json", by_alias=True, exclude_unset=True))


@value
class GetTask:
    verb: ClassVar[str] = "GetTask"
    agent: str | None
    task_id: str
    history_length: int | None = None


@value
class ListTasks:
    verb: ClassVar[str] = "ListTasks"
    agent: str | None
    context_id: str | None = None
    status: TaskState | None = None
    page_size: int = 50
    page_token: str = ""
    history_length: int | None = None
    status_timestamp_after: int | None = None  # milliseconds since the epoch, inclusive (§3.1.4: at or after)
    include_artifacts: bool = False


@value
class CancelTask:
    verb: ClassVar[str] = "CancelTask"
    agent: str | None
    task_id: str
    metadata: dict[str, Any] | None = None


@value
class SubscribeToTask:
    verb: ClassVar[str] = "SubscribeToTask"
    agent: str | None
    task_id: str


@value
class CreatePushConfig:
    verb: ClassVar[str] = "CreateTaskPushNotificationConfig"
    agent: str
    task_id: str
    config: PushConfig


@value
class GetPushConfig:
    """Without an `id` the task's first configuration is meant."""

    verb: ClassVar[str] = "GetTaskPushNotificationConfig"
    agent: str
    task_id: str
    id: str


@value
class ListPushConfigs:
    verb: ClassVar[str] = "ListTaskPushNotificationConfigs"
    agent: str
    task_id: str
    page_size: int = 50
    page_token: str = ""


@value
class DeletePushConfig:
    verb: ClassVar[str] = "DeleteTaskPushNotificationConfig"
    agent: str
    task_id: str
    id: str


@value
class GetExtendedCard:
    verb: ClassVar[str] = "GetExtendedAgentCard"
    agent: str


@value
class FetchResult:
    """The older `agents/tasks/result` with only a `task_id`: the caller's own id, at most `wait` seconds."""

    verb: ClassVar[str] = "GetTask"
    agent: str | None
    message_id: str
    wait: float = 0.0


@value
class ReadLog:
    """A task of the caller's on whichever agent, with the events that made it what it is. `shared`: or one that its
    owner lets the caller read."""

    verb: ClassVar[str] = "GetTask"
    task_id: str
    shared: bool = False
    agent: None = None


@value
class FollowLog:
    """The same as it goes on: all events so far, then those that come, until the task rests."""

    verb: ClassVar[str] = "SubscribeToTask"
    task_id: str
    shared: bool = False
    agent: None = None


@value
class ReadContext:
    """The caller's tasks in a context, on all agents that it may use: at most `limit`, the oldest first."""

    verb: ClassVar[str] = "ListTasks"
    context_id: str
    limit: int
    agent: None = None


@value
class SubmitResult:
    """The older `agents/tasks/result` with a status: the worker of `agent` reports on the gateway's task."""

    verb: ClassVar[str] = "SubmitResult"
    agent: str | None
    task_id: str
    state: TaskState
    result: Any = None
    has_result: bool = False


@value
class PullTasks:
    """A worker takes the tasks that wait for it (`agents/tasks/pending`), for at most `wait` seconds."""

    verb: ClassVar[str] = "PullTasks"
    agent: str
    limit: int = 10
    wait: float = 0.0


@value
class ReplayTask:
    """A task as it was after event number `seq`, or at a moment (milliseconds since the epoch); else as it is now."""

    verb: ClassVar[str] = "ReplayTask"
    task_id: str
    seq: int | None = None
    at: int | None = None
    agent: None = None


@value
class ShowAdminApi:
    """What the admin API takes and answers."""

    verb: ClassVar[str] = "ShowAdminApi"
    agent: None = None


Call: TypeAlias = (
    SendMessage
    | GetTask
    | ListTasks
    | CancelTask
    | SubscribeToTask
    | CreatePushConfig
    | GetPushConfig
    | ListPushConfigs
    | DeletePushConfig
    | GetExtendedCard
    | FetchResult
    | ReadLog
    | ReadContext
    | SubmitResult
    | PullTasks
    | ReplayTask
    | ShowAdminApi
    | SharingCall
    | OperatorCall
    | ApprovalCall
)


@value
class TaskPage:
    """One page of ListTasks. `next_page_token` is "" on the last page (§3.1.4)."""

    tasks: tuple[Any, ...]
    next_page_token: str
    page_size: int
    total_size: int


@value
class PushConfigPage:
    configs: tuple[PushConfig, ...]
    next_page_token: str = ""
