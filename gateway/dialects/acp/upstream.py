"""An ACP server's runs as events of ours: bodies to send, and answers to read. Pure.

A run is read in two ways: event by event from its stream, and whole from a look at it. Both make the same artifacts
under the same ids, so a stream that broke is taken up by a look, and nothing is told twice.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from typing import Any, Final

import orjson
from pydantic import ValidationError

from gateway.dialects.a2a_v1.upstream import unique
from gateway.dialects.acp import requests
from gateway.dialects.acp.artifacts import read_update
from gateway.dialects.acp.messages import CLOSING, read_message, session_of, write_input
from gateway.dialects.acp.parts import A2A, ACP, Tree
from gateway.dialects.acp.runs import STATUS
from gateway.model.agent import Context
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message, Part, Role
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Task, TaskState, TaskStatus

HEADERS: Final = {"content-type": "application/json", "accept": "application/json"}
STREAM_HEADERS: Final = {"content-type": "application/json", "accept": "text/event-stream, application/json"}

_STATES: Final[dict[str, TaskState]] = {
    **{status: state for state, status in reversed(STATUS.items())},
    "failed": TaskState.FAILED,
    "awaiting": TaskState.INPUT_REQUIRED,
    "cancelling": TaskState.WORKING,
}
# States of ours for which ACP has one word; the gateway's own facade says beside it which one it was.
_FINER: Final = {
    "failed": (TaskState.FAILED, TaskState.REJECTED),
    "awaiting": (TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED),
}


def create_body(agent: str, message: Message, context: Context) -> bytes:
    """A new run, always as a stream. What the caller brought along of a session goes on, but not the session's id: to
    the server all our callers are one, and two of them may have chosen the same."""
    given = _given(message, context)
    body: Tree = {"agent_name": agent, "input": given, "mode": "stream"}
    if context.upstream is not None and context.upstream.context_id is not None:
        body["session_id"] = context.upstream.context_id
    elif (session := session_of(message)) is not None:
        body["session"] = session
    return orjson.dumps(body)


def resume_body(run_id: str, message: Message, context: Context) -> bytes:
    """The answer to what a run awaits. ACP takes one message: of several the parts of all, in the name of the first."""
    first, *more = _given(message, context)
    first["parts"] = [part for each in (first, *more) for part in each["parts"]]
    return orjson.dumps({"run_id": run_id, "await_resume": {"type": "message", "message": first}, "mode": "stream"})


def _given(message: Message, context: Context) -> list[Tree]:
    """The input, with what stands beside a message in A2A noted on it."""
    beside = {
        "metadata": context.metadata,
        "acceptedOutputModes": list(context.accepted_output_modes),
        "extensions": list(context.extensions),
    }
    request = {name: value for name, value in beside.items() if value}
    return write_input(message, message_id=unique(message.message_id, context.task_id), request=request)


class RunReader:
    """Reads one run for the task of `context`. `run_id` and `session_id` are the server's own, once they are known."""

    def __init__(self, context: Context) -> None:
        self.run_id: str | None = None
        self.session_id: str | None = None
        self._context = context
        self._known = {each.artifact_id for each in (context.task.artifacts if context.task else None) or ()}
        self._messages = 0  # of the output, that have begun
        self._parts = 0  # of the last one, that were read
        self._open = False  # the last one may have more
        self._envelope: Tree = {}
        self._last: Message | None = None  # what the agent said when it completed, where that is told
        self._parting: Message | None = None  # the same of a canceled one

    # Event by event.

    def feed(self, tree: Any) -> list[Event]:
        """The events that one of the stream's means. Raises INVALID_AGENT_RESPONSE; UPSTREAM_FAILED for an `error`."""
        type = tree.get("type") if isinstance(tree, dict) else None
        read = _READ.get(type) if isinstance(type, str) else None
        if read is not None:
            return read(self, tree)
        if not isinstance(type, str):
            raise _nonsense("sent an event without a type")
        return [self._report(tree)]  # a newer server's kind of event

    def _run_event(self, tree: Tree) -> list[Event]:
        run = self.look(tree.get("run"))
        status, output = run["status"], run["output"]
        if status == "created":
            return [self._context.status(TaskState.SUBMITTED)]
        if status in ("in-progress", "cancelling"):
            if not self._messages and output:
                self._take_up(output)
            return [self._context.working()]
        if self._seen(output):
            return [self._ended(run)]
        return [self.whole(run)]

    def _take_up(self, output: list[Tree]) -> None:
        """A run that went on before: its last message goes on, if it was not complete."""
        self._messages = len(output)
        self._open = output[-1].get("completed_at") is None
        self._parts = len(output[-1]["parts"])
        self._envelope = _envelope(output[-1])

    def _seen(self, output: list[Tree]) -> bool:
        return len(output) == self._messages and (not output or len(output[-1]["parts"]) == self._parts)

    def _message_created(self, tree: Tree) -> list[Event]:
        message = _message(tree.get("message"))
        self._messages += 1
        self._parts, self._open, self._envelope, self._last = 0, True, _envelope(message), None
        if _closes(message):
            self._last = self._said(message)
        return []

    def _message_part(self, tree: Tree) -> list[Event]:
        part = _part(tree.get("part"))
        if not self._open:  # a server that says parts without a message around them
            self._message_created({"message": {"role": "agent", "parts": []}})
        self._parts += 1
        return [] if self._last is not None else [self._update(part, self._messages, self._envelope, self._known)]

    def _message_completed(self, tree: Tree) -> list[Event]:
        message = _message(tree.get("message"))
        if not self._open:
            self._message_created(tree)
        missed = message["parts"][self._parts :]
        events = [event for part in missed for event in self._message_part({"part": part})]
        self._open = False
        if _closes(message):
            self._last = self._said(message)
        return events

    def _generic(self, tree: Tree) -> list[Event]:
        generic = tree.get("generic")
        if (said := _aside(generic)) is not None:
            try:
                return self._restored(said)
            except ValidationError:
                pass  # not of our making after all
        return [self._report(generic)]

    def _restored(self, said: Tree) -> list[Event]:
        ids = {"taskId": self._context.task_id, "contextId": self._context.context_id}
        if "artifactUpdate" in said:
            return [ArtifactUpdate.model_validate({**said["artifactUpdate"], **ids})]
        update = self._context.working()
        message = said.get("message")
        if message is not None:
            spoken = Message.model_validate({**message, **ids, "role": Role.AGENT})
            if said.get("state") == TaskState.CANCELED:
                self._parting = spoken
            else:
                status = update.status.model_copy(update={"message": spoken})
                update = update.model_copy(update={"status": status})
        return [update if "metadata" not in said else update.model_copy(update={"metadata": said["metadata"]})]

    def _report(self, generic: Any) -> StatusUpdate:
        thought = generic.get("thought") if isinstance(generic, dict) and len(generic) == 1 else None
        part = Part.of(text=thought) if isinstance(thought, str) else Part.of(data=generic)
        return self._context.working(part, **{ACP: {"generic": True}})

    def _error(self, tree: Tree) -> list[Event]:
        error = tree.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        raise GatewayError(Reason.UPSTREAM_FAILED, f"The agent broke off: {said or 'it did not say why'}"[:500])

    def _update(self, part: Tree, place: int, envelope: Tree, known: set[str]) -> ArtifactUpdate:
        ids = {"task_id": self._context.task_id, "context_id": self._context.context_id}
        return read_update(part, place, envelope, known, **ids)

    # As a whole.

    def look(self, tree: Any) -> Tree:
        """A run, looked at. Raises INVALID_AGENT_RESPONSE."""
        status = tree.get("status") if isinstance(tree, dict) else None
        if not isinstance(status, str) or status not in _STATES or not isinstance(tree.get("run_id"), str):
            raise _nonsense("sent a run that is none")
        if self.run_id is not None and _plain(self.run_id) != _plain(tree["run_id"]):
            raise _nonsense("sent another run than the one that it was asked about")
        output = tree.get("output") or []
        if not isinstance(output, list):
            raise _nonsense("sent a run whose output is no list")
        self.run_id = tree["run_id"]
        session = tree.get("session_id")
        self.session_id = session if isinstance(session, str) else self.session_id
        return {**tree, "output": [_message(message) for message in output]}

    def whole(self, run: Tree) -> Task:
        """The task as a run that was looked at shows it."""
        context, known, updates = self._context, set[str](), list[ArtifactUpdate]()
        for place, message in enumerate(run["output"], 1):
            if not _closes(message):
                updates += [self._update(part, place, _envelope(message), known) for part in message["parts"]]
        task = Task.of(
            id=context.task_id, context_id=context.context_id, status=TaskStatus.of(state=TaskState.WORKING)
        ).apply(*updates)
        status = self._ended(run).status if run["status"] in _RESTS else TaskStatus.of(state=_STATES[run["status"]])
        return task.model_copy(update={"status": status})

    def _ended(self, run: Tree) -> StatusUpdate:
        """How a run ended, or what it awaits."""
        status = run["status"]
        finer, said = _STATES[status], None
        if status == "awaiting":
            request = run.get("await_request")
            asked = _message(request.get("message") if isinstance(request, dict) else None)
            finer = _state(request, status)
            said = self._said(asked) if asked["parts"] else None
        elif status == "failed":
            finer, said = self._failure(run.get("error"))
        elif status == "cancelled":
            said = self._parting
        elif status == "completed" and run["output"] and _closes(run["output"][-1]):
            said = self._said(run["output"][-1])
        update = self._context.status(finer)
        if said is None:
            return update
        return update.model_copy(update={"status": update.status.model_copy(update={"message": said})})

    def _failure(self, error: Any) -> tuple[TaskState, Message | None]:
        tree = error if isinstance(error, dict) else {}
        data = tree.get("data")
        said = data.get(A2A) if isinstance(data, dict) else None
        state = _state(data, "failed")
        ids = {"taskId": self._context.task_id, "contextId": self._context.context_id, "role": Role.AGENT}
        if isinstance(said, dict) and isinstance(said.get("message"), dict):
            try:
                return state, Message.model_validate({**said["message"], **ids})
            except ValidationError:
                pass  # not of our making after all
        text = tree.get("message")
        parts = [{"text": text if isinstance(text, str) and text else "The agent failed and did not say why"}]
        note = {ACP: {"code": tree.get("code"), **({} if data is None else {"data": data})}}
        return state, self._said({"role": "agent", "parts": []}).model_copy(
            update={"parts": tuple(Part.model_validate(part) for part in parts), "metadata": note}
        )

    def _said(self, message: Tree) -> Message:
        """A message of the agent; one without an id of A2A's gets the one that its content always gives."""
        mark = blake2s(f"{self.run_id}".encode() + orjson.dumps(message), digest_size=16).hexdigest()
        ids = {"task_id": self._context.task_id, "context_id": self._context.context_id}
        try:
            return read_message(message, message_id=mark, **ids)
        except ValidationError:
            raise _nonsense("sent a message that is none") from None


_ASIDE: Final[dict[str, type]] = {"message": dict, "state": str, "metadata": dict, "artifactUpdate": dict}
_RESTS: Final = frozenset({"awaiting", "completed", "failed", "cancelled"})

_READ: Final[dict[str, Callable[[RunReader, Tree], list[Event]]]] = {
    **{f"run.{status}": RunReader._run_event for status in _STATES},
    "message.created": RunReader._message_created,
    "message.part": RunReader._message_part,
    "message.completed": RunReader._message_completed,
    "generic": RunReader._generic,
    "error": RunReader._error,
}


def _aside(generic: Any) -> Tree | None:
    """What the facade noted on an event of no kind, if it did."""
    said = generic.get(A2A) if isinstance(generic, dict) else None
    if not isinstance(said, dict) or not said:
        return None
    return said if all(isinstance(value, _ASIDE.get(name, ())) for name, value in said.items()) else None


def _closes(message: Tree) -> bool:
    """Whether this is what an agent of A2A said when it completed, and not a result."""
    return message.get(CLOSING) == TaskState.COMPLETED


def _state(holder: Any, status: str) -> TaskState:
    """Which of our states an ACP status is, where there are two."""
    said = holder.get(A2A) if isinstance(holder, dict) else None
    finer = said.get("state") if isinstance(said, dict) else None
    return next((state for state in _FINER[status] if state == finer), _STATES[status])


def _envelope(message: Tree) -> Tree:
    """What is known of a message from its beginning to its end. (Its role is not: acp-sdk says another one in the
    stream than in the run.)"""
    return {name: message[name] for name in ("created_at",) if isinstance(message.get(name), str)}


def _message(tree: Any) -> Tree:
    try:
        requests.Message.model_validate(tree)
    except ValidationError:
        raise _nonsense("sent a message that is none") from None
    made: Tree = tree
    return made


def _part(tree: Any) -> Tree:
    try:
        requests.MessagePart.model_validate(tree)
    except ValidationError:
        raise _nonsense("sent a part that is none") from None
    made: Tree = tree
    return made


def _plain(id: str) -> str:
    return id.lower().replace("-", "")


def _nonsense(what: str) -> GatewayError:
    return GatewayError(Reason.INVALID_AGENT_RESPONSE, f"The agent {what}")
