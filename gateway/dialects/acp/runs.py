"""A task's log, told as the events of a run. The log is durable, so these are too: they follow from it each time anew.

Record in, events out, always the same ones: the number of an event is its place, and a stream goes on after any of
them.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.dialects.acp.artifacts import note_of, write_parts
from gateway.dialects.acp.errors import SERVER_ERROR
from gateway.dialects.acp.ids import uuid
from gateway.dialects.acp.messages import CLOSING, tree_of, write_input, write_message
from gateway.dialects.acp.parts import A2A, ACP, Tree
from gateway.model.message import Message, Role
from gateway.model.rows import Record
from gateway.model.task import ArtifactUpdate, StatusUpdate, Task, TaskState, TaskStatus

CREATED, IN_PROGRESS, AWAITING, CANCELLING = "created", "in-progress", "awaiting", "cancelling"
STATUS: Final[dict[TaskState, str]] = {
    TaskState.SUBMITTED: CREATED,
    TaskState.WORKING: IN_PROGRESS,
    TaskState.INPUT_REQUIRED: AWAITING,
    TaskState.AUTH_REQUIRED: AWAITING,
    TaskState.COMPLETED: "completed",
    TaskState.FAILED: "failed",
    TaskState.CANCELED: "cancelled",
    TaskState.REJECTED: "failed",
}
_IDS = frozenset({"taskId", "contextId"})


class RunLog:
    """One run. `feed` it the task's records in order; `run` is how it stands then, `count` how many events were told,
    `messages` what was said by both sides."""

    def __init__(self, agent: str) -> None:
        self.count = 0
        self.messages: list[Tree] = []
        self.run: Tree = {}
        self._agent = agent
        self._role = f"agent/{agent}"
        self._open: Tree | None = None  # the message whose parts are coming
        self._place: object = None  # which message of an ACP agent it is, if it is one
        self._envelope: Tree = {}  # when it began, as far as that is known
        self._known: set[str] = set()  # artifacts that have begun
        self._at: str | None = None  # when the task last changed its status
        self._told: list[bytes] = []

    def feed(self, record: Record) -> list[bytes]:
        """The events (JSON) that a record brings."""
        self._told = []
        event = record.event
        if isinstance(event, Task):
            self._begin(event)
        elif isinstance(event, StatusUpdate):
            self._status(event.status, event.metadata)
        elif isinstance(event, ArtifactUpdate):
            self._artifact(event)
        else:
            self._message(event)
        return self._told

    def _tell(self, type: str, **members: Any) -> None:
        self.count += 1
        self._told.append(orjson.dumps({"type": type, **members}))  # now: what it shows goes on changing

    def _tell_status(self, status: str) -> None:
        self.run["status"] = status
        self._tell(f"run.{status}", run=self.run)

    def _begin(self, task: Task) -> None:
        session = uuid(task.context_id)
        self._at = task.status.timestamp
        self.run = {
            "run_id": uuid(task.id),
            "agent_name": self._agent,
            "session_id": session,
            "status": CREATED,
            "await_request": None,
            "output": [],
            "error": None,
            "created_at": task.status.timestamp,
            "finished_at": None,
        }
        if session is None:  # a name that an A2A client gave it
            self.run[A2A] = {"contextId": task.context_id}
        for message in task.history or ():
            self._message(message)
        self._tell_status(CREATED)
        for artifact in task.artifacts or ():
            self._artifact(ArtifactUpdate.of(task_id=task.id, context_id=task.context_id, artifact=artifact))
        self._status(task.status, None)

    def _message(self, message: Message) -> None:
        if message.role is Role.USER:
            self.messages += write_input(message)
        else:
            self._tell("generic", generic=_progress(message, None))

    def _status(self, status: TaskStatus, metadata: Tree | None) -> None:
        state, said = status.state, status.message
        self._at = status.timestamp or self._at
        if state is TaskState.SUBMITTED:
            return
        if self.run["status"] != IN_PROGRESS:
            self.run["await_request"] = None
            self._tell_status(IN_PROGRESS)
        # ACP's messages are results; what else is said, and what has no other place, are events of no kind.
        aside = said if state in (TaskState.WORKING, TaskState.CANCELED) else None
        if aside is not None or metadata:
            self._tell("generic", generic=_progress(aside, metadata, state))
        if state is TaskState.WORKING:
            return
        self._close()
        if state.interrupted:
            self.run["await_request"] = self._request(status)
        else:
            self._end(status)
        self._tell_status(STATUS[state])

    def _end(self, status: TaskStatus) -> None:
        state, said = status.state, status.message
        self.run["finished_at"] = self._at
        if state is TaskState.COMPLETED and said is not None:
            message = write_message(said, self._role, self._at)
            message[CLOSING] = state
            self._say(message)
        elif state in (TaskState.FAILED, TaskState.REJECTED):
            self.run["error"] = {
                "code": SERVER_ERROR,
                "message": (said.text if said is not None else "") or state.name.lower(),
                "data": {A2A: {"state": state, **({} if said is None else {"message": _bare(said)})}},
            }

    def _request(self, status: TaskStatus) -> Tree:
        said = status.message
        message = {"role": self._role, "parts": []} if said is None else write_message(said, self._role, self._at)
        return {"type": "message", "message": message, A2A: {"state": status.state}}

    def _say(self, message: Tree) -> None:
        self.run["output"].append(message)
        self.messages.append(message)
        self._tell("message.created", message={**message, "parts": [], "completed_at": None})
        for part in message["parts"]:
            self._tell("message.part", part=part)
        self._tell("message.completed", message=message)

    def _artifact(self, update: ArtifactUpdate) -> None:
        if not update.artifact.parts:
            tree = {name: value for name, value in tree_of(update).items() if name not in _IDS}
            self._tell("generic", generic={A2A: {"artifactUpdate": tree}})
            return
        bare = {name: value for name, value in tree_of(update.artifact).items() if name != "parts"}
        note = note_of(bare) or {}
        if self._open is None or note.get("message") != self._place:
            self._close()
            self._place = note.get("message")
            began = note.get("created_at")
            self._envelope = {"created_at": began} if isinstance(began, str) else {}
            self._open = {"role": self._role, "parts": [], "created_at": None, **self._envelope, "completed_at": None}
            self.run["output"].append(self._open)
            self.messages.append(self._open)
            self._tell("message.created", message=self._open)
        for part in write_parts(update, len(self.run["output"]), self._envelope, self._known):
            self._open["parts"].append(part)
            self._tell("message.part", part=part)

    def _close(self) -> None:
        if self._open is not None:
            self._open["completed_at"] = self._at
            self._tell("message.completed", message=self._open)
            self._open = None


def _progress(message: Message | None, metadata: Tree | None, state: TaskState = TaskState.WORKING) -> Tree:
    """What an agent reports while it works. ACP's agents call it `thought`."""
    made: Tree = {}
    said: Tree = {}
    if message is not None:
        tree = _bare(message)
        if metadata is None and state is TaskState.WORKING and (theirs := _generic(tree)) is not None:
            return theirs
        if message.text:
            made["thought"] = message.text
        said["message"] = tree
        if state is not TaskState.WORKING:
            said["state"] = state
    if metadata:
        said["metadata"] = metadata
    return {**made, A2A: said}


def _generic(message: Tree) -> Tree | None:
    """What an ACP agent reported, if that is what the message is."""
    if message.get("metadata") != {ACP: {"generic": True}} or len(message["parts"]) != 1:
        return None
    (part,) = message["parts"]
    if part.keys() == {"text"}:
        return {"thought": part["text"]}
    data = part.get("data")
    return data if part.keys() == {"data"} and isinstance(data, dict) and data.keys() != {"thought"} else None


def _bare(message: Message) -> Tree:
    return {name: value for name, value in tree_of(message).items() if name not in _IDS}
