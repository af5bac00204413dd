"""Task, its states, and the one function that moves them.

`MOVES` is the whole state machine (A2A 1.0 §4.1.3, §3.3.4); `moved` is the only place where a state changes, and
`Task.apply` folds events through it. Terminal stays terminal: an event that comes after the end is refused, never half
applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias

from gateway.model.base import Id, Model
from gateway.model.message import Artifact, Message, Part, Role


class TaskState(StrEnum):
    SUBMITTED = "TASK_STATE_SUBMITTED"
    WORKING = "TASK_STATE_WORKING"
    INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
    AUTH_REQUIRED = "TASK_STATE_AUTH_REQUIRED"
    COMPLETED = "TASK_STATE_COMPLETED"
    FAILED = "TASK_STATE_FAILED"
    CANCELED = "TASK_STATE_CANCELED"
    REJECTED = "TASK_STATE_REJECTED"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL

    @property
    def interrupted(self) -> bool:
        return self in INTERRUPTED


TERMINAL = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED})
INTERRUPTED = frozenset({TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED})
ACTIVE = frozenset({TaskState.SUBMITTED, TaskState.WORKING})

# From an active or interrupted state anything may follow except going back to "not yet begun":
# agents report progress by repeating WORKING, and a person's answer sends an interrupted task on.
_AFTER_START = frozenset(TaskState) - {TaskState.SUBMITTED}
MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.SUBMITTED: frozenset(TaskState),
    TaskState.WORKING: _AFTER_START,
    TaskState.INPUT_REQUIRED: _AFTER_START,
    TaskState.AUTH_REQUIRED: _AFTER_START,
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELED: frozenset(),
    TaskState.REJECTED: frozenset(),
}


class IllegalMove(Exception):
    """An event that the state machine does not allow at this point; the task is unchanged."""

    def __init__(self, before: TaskState, after: TaskState) -> None:
        super().__init__(f"{before.name} cannot become {after.name}")
        self.before = before
        self.after = after


class TaskStatus(Model):
    state: TaskState
    message: Message | None = None
    timestamp: str | None = None


class StatusUpdate(Model):
    """`TaskStatusUpdateEvent`."""

    KEY: ClassVar[str] = "statusUpdate"

    task_id: Id
    context_id: Id
    status: TaskStatus
    metadata: dict[str, Any] | None = None


class ArtifactUpdate(Model):
    """`TaskArtifactUpdateEvent`: a whole artifact, or with `append` more parts of one that is there."""

    KEY: ClassVar[str] = "artifactUpdate"

    task_id: Id
    context_id: Id
    artifact: Artifact
    append: bool | None = None
    last_chunk: bool | None = None
    metadata: dict[str, Any] | None = None


class Task(Model):
    KEY: ClassVar[str] = "task"

    id: Id
    context_id: Id
    status: TaskStatus
    artifacts: tuple[Artifact, ...] | None = None
    history: tuple[Message, ...] | None = None
    metadata: dict[str, Any] | None = None

    @property
    def at_rest(self) -> bool:
        """Nothing happens until somebody says something: terminal or interrupted."""
        return self.status.state.terminal or self.status.state.interrupted

    def apply(self, *events: Step) -> Task:
        """This task after some events. A `Message` joins the history (a turn of the conversation).

        All of them cost one copy of the task. Raises IllegalMove and leaves the task as it is when the state
        machine forbids one.
        """
        state, status, history, update = self.status.state, self.status, [*(self.history or ())], dict[str, Any]()
        artifacts = _Shelf(self.artifacts or ())
        for event in events:
            state = moved(state, event)
            if isinstance(event, ArtifactUpdate):
                artifacts.put(event)
                update["artifacts"] = ()
            elif isinstance(event, Message):
                history.append(event)
            else:
                if status.message is not None:
                    # What the agent said last stays readable once a newer status takes its place.
                    history.append(status.message)
                update["status"] = status = event.status
                if event.metadata:
                    update["metadata"] = {**(update.get("metadata") or self.metadata or {}), **event.metadata}
        if "artifacts" in update:
            update["artifacts"] = artifacts.all()
        if len(history) > len(self.history or ()):
            update["history"] = tuple(history)
        return self.model_copy(update=update)

    def differences(self, seen: Task) -> Iterator[Step]:
        """The events that turn this task into `seen`, the whole that an upstream shows of it: artifacts first,
        then what the agent said, then the status. Nothing that is here is taken back."""
        artifacts = {artifact.artifact_id: artifact for artifact in self.artifacts or ()}
        for artifact in seen.artifacts or ():
            if artifacts.get(artifact.artifact_id) != artifact:
                yield ArtifactUpdate(task_id=self.id, context_id=self.context_id, artifact=artifact, last_chunk=True)
        heard = {message.message_id for message in self.history or ()}
        if self.status.message is not None:
            heard.add(self.status.message.message_id)
        for message in seen.history or ():
            if message.role is Role.AGENT and message.message_id not in heard:
                yield message
        now, then = seen.status, self.status  # their clocks differ; what counts is what they say
        if (now.state, now.message) != (then.state, then.message) and now.state in MOVES[then.state]:
            yield StatusUpdate(task_id=self.id, context_id=self.context_id, status=seen.status)

    def trimmed(self, history_length: int | None, *, artifacts: bool = True) -> Task:
        """The view a caller asked for: at most `history_length` newest messages (0: no `history` at all,
        None: all of it, A2A §3.2.4), and without `artifacts` unless wanted."""
        drop = set()
        update: dict[str, Any] = {}
        if history_length is not None and self.history is not None:
            if history_length == 0:
                drop.add("history")
            elif len(self.history) > history_length:
                update["history"] = self.history[-history_length:]
        if not artifacts and self.artifacts is not None:
            drop.add("artifacts")
        if not drop and not update:
            return self
        view = self.model_copy(update=update)
        for name in drop:
            # Presence is what was set (model/base.py): a field leaves the wire by leaving that set.
            view.__pydantic_fields_set__.discard(name)
        return view


Step: TypeAlias = StatusUpdate | ArtifactUpdate | Message


def moved(before: TaskState, event: Step) -> TaskState:
    """The state after an event: the only place where one changes. Raises IllegalMove."""
    after = event.status.state if isinstance(event, StatusUpdate) else before
    if before in TERMINAL or after not in MOVES[before]:
        raise IllegalMove(before, after)
    return after


# What a task's log and its subscribers carry. A Task is the first event (or a resynchronised whole).
Event: TypeAlias = Step | Task

EVENTS: dict[str, type[Event]] = {kind.KEY: kind for kind in (StatusUpdate, ArtifactUpdate, Message, Task)}


def envelope(event: Event) -> bytes:
    """The event as a `StreamResponse` (§3.2.3): the wrapper key says what it is."""
    return b'{"%s":%s}' % (event.KEY.encode(), event.wire())


def parts_of(event: Event) -> int:
    """How many parts an event brings."""
    if isinstance(event, Message):
        return len(event.parts)
    if isinstance(event, ArtifactUpdate):
        return len(event.artifact.parts)
    said = 0 if event.status.message is None else len(event.status.message.parts)
    if isinstance(event, Task):
        said += sum(len(artifact.parts) for artifact in event.artifacts or ())
    return said


def open_envelope(tree: dict[str, Any]) -> Event:
    """The event in a parsed `StreamResponse`. Raises ValueError when it holds no event or a malformed one."""
    for key, kind in EVENTS.items():
        if key in tree:
            return kind.model_validate(tree[key])
    raise ValueError("a StreamResponse holds one of task, message, statusUpdate, artifactUpdate")


class _Shelf:
    """Artifacts by id while events are folded: chunks gather in a list, and each artifact is copied once."""

    def __init__(self, artifacts: tuple[Artifact, ...]) -> None:
        self._held: dict[str, tuple[Artifact, list[Part]]] = {held.artifact_id: (held, []) for held in artifacts}

    def put(self, event: ArtifactUpdate) -> None:
        new = event.artifact
        held = self._held.get(new.artifact_id) if event.append else None
        if held is None:
            self._held[new.artifact_id] = (new, [])
        else:
            held[1].extend(new.parts)

    def all(self) -> tuple[Artifact, ...]:
        return tuple(
            held.model_copy(update={"parts": (*held.parts, *more)}) if more else held
            for held, more in self._held.values()
        )
