"""The older messages, `agents/tasks/create` and `agents/tasks/result`, over the same calls.

The two examples that these messages come from disagree on where `input_data` stands (beside `task` or inside it);
both are read, and if both are there they must be equal. The caller's task id is its idempotency key; who gives none
gets one. `result` has two meanings: with only a `task_id` it asks, with a `status` it reports (the worker of an agent
does).
`agents/tasks/pending` is ours: how a worker that nobody can call takes its work.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.dialects.a2a_v1.requests import canonical, violations
from gateway.model.call import Call, FetchResult, PullTasks, SendMessage, SubmitResult
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message, Part, Role
from gateway.model.task import Task, TaskState

CREATE, RESULT, PENDING = "agents/tasks/create", "agents/tasks/result", "agents/tasks/pending"
METHODS = frozenset({CREATE, RESULT, PENDING})

# How long `create` waits for a result before it answers with the state only, unless the caller says otherwise.
DEFAULT_WAIT = 10.0
MAX_WAIT = 300.0  # seconds; longer silences are cut by what stands between (nginx: 60 s by default), so ask again

Wait = Annotated[float, Field(ge=0, le=MAX_WAIT)]
TaskId = Annotated[str, Field(min_length=1, max_length=256)]

# A2A state -> the older word. What has no twin is folded, and `metadata.a2a_state` keeps the original.
STATUS: dict[TaskState, str] = {
    TaskState.SUBMITTED: "pending",
    TaskState.WORKING: "in_progress",
    TaskState.INPUT_REQUIRED: "in_progress",
    TaskState.AUTH_REQUIRED: "in_progress",
    TaskState.COMPLETED: "completed",
    TaskState.FAILED: "failed",
    TaskState.CANCELED: "failed",
    TaskState.REJECTED: "failed",
}
STATE: dict[str, TaskState] = {
    "pending": TaskState.SUBMITTED,
    "in_progress": TaskState.WORKING,
    "completed": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
}


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Task(_Shape):
    id: TaskId | None = None
    agent_id: str | None = None
    description: str = ""
    context: dict[str, Any] | None = None
    priority: Literal["low", "normal", "high", "critical"] = "normal"
    input_data: Any = None


class _Create(_Shape):
    agent_id: str | None = None
    task: _Task
    input_data: Any = None
    wait: Wait = DEFAULT_WAIT


class _Result(_Shape):
    agent_id: str | None = None
    task_id: TaskId
    status: Literal["pending", "in_progress", "completed", "failed"] | None = None
    result: Any = None
    wait: Wait = 0.0


class _Pending(_Shape):
    agent_id: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    wait: Wait = 0.0


def decode(method: str, params: Any, agent: str | None, new_id: Callable[[], str]) -> tuple[Call, float]:
    """The call and how many seconds its answer may wait. `agent` is the endpoint's, None at the root; `new_id` names
    a task that its caller gave no id.

    Raises INVALID_PARAMS with a violation per wrong field.
    """
    try:
        if method == CREATE:
            return _create(_Create.model_validate(params), agent, new_id)
        if method == RESULT:
            return _result(_Result.model_validate(params), agent)
        pending = _Pending.model_validate(params)
        return PullTasks(
            _agent(pending.agent_id, agent, required=True) or "", pending.limit, pending.wait
        ), pending.wait
    except ValidationError as error:
        found = violations(error)
        sentence = "; ".join(f"{violation.field}: {violation.description}" for violation in found[:3])
        raise GatewayError(Reason.INVALID_PARAMS, sentence, violations=found) from None


def _create(request: _Create, agent: str | None, new_id: Callable[[], str]) -> tuple[SendMessage, float]:
    task, target = request.task, _agent(_named(request), agent, required=True)
    data = _input_data(request)
    parts = [Part(text=task.description)] if task.description else []
    if data is not None:
        parts.append(Part(data=data, media_type="application/json"))
    if not parts:
        raise invalid("task", "needs a description or input_data")
    context = task.context or {}
    session = context.get("session_id")
    if session is not None and not isinstance(session, str):
        raise invalid("task.context.session_id", "must be a text")
    fields: dict[str, Any] = {"context_id": session} if session else {}
    message = Message(
        message_id=task.id or new_id(),
        role=Role.USER,
        parts=tuple(parts),
        metadata={"priority": task.priority, **({"context": context} if context else {})},
        **fields,
    )
    said = canonical(orjson.loads(message.wire()))
    call = SendMessage(
        agent=target or "",
        message=message,
        digest=sha256(said).digest(),
        size=len(said),
        return_immediately=True,
        always_deduplicate=True,
    )
    return call, request.wait


def _result(request: _Result, agent: str | None) -> tuple[Call, float]:
    target = _agent(request.agent_id, agent, required=False)
    submits = request.status is not None or "result" in request.model_fields_set
    if not submits:
        return FetchResult(target, request.task_id, request.wait), request.wait
    state = STATE[request.status or "completed"]
    if state is TaskState.SUBMITTED:
        raise invalid("status", "a report says in_progress, completed or failed")
    return SubmitResult(target, request.task_id, state, request.result, "result" in request.model_fields_set), 0.0


def _agent(named: str | None, endpoint: str | None, *, required: bool) -> str | None:
    if endpoint is not None and named not in (None, endpoint):
        raise invalid("agent_id", f"must be {endpoint!r} at this address, or be left out")
    target = endpoint or named
    if required and not target:
        raise invalid("agent_id", "is required here")
    return target


def _named(request: _Create) -> str | None:
    outer, inner = request.agent_id, request.task.agent_id
    if outer is not None and inner not in (None, outer):
        raise invalid("agent_id", "stands beside task and inside it with different values; send one")
    return inner if outer is None else outer


def _input_data(request: _Create) -> Any:
    outer, inner = request.input_data, request.task.input_data
    if outer is not None and inner is not None and outer != inner:
        raise invalid("input_data", "stands beside task and inside it with different values; send one")
    return inner if outer is None else outer


def encode(id: str, agent: str, context_id: str, answer: Task | Message) -> bytes:
    """What `create` and a fetching `result` answer; `id` is the caller's own."""
    body: dict[str, Any] = {"task_id": id, "agent_id": agent, "context_id": context_id}
    if isinstance(answer, Message):
        body |= {"status": "completed", "result": value(answer.parts)}
    else:
        body |= _of_task(answer)
    return orjson.dumps(body)


def _of_task(task: Task) -> dict[str, Any]:
    state = task.status.state
    body: dict[str, Any] = {"status": STATUS[state], "metadata": {"a2a_state": state}}
    said = task.status.message.text if task.status.message is not None else ""
    if state is TaskState.COMPLETED:
        body["result"] = _outcome(task)
    elif state.terminal:
        body["reason"] = said or state.name.lower()
    elif state.interrupted:
        body["detail"] = said
    return body


def _outcome(task: Task) -> Any:
    """The artifacts are the result; without any, what the agent said last."""
    artifacts = [value(artifact.parts) for artifact in task.artifacts or ()]
    if artifacts:
        return artifacts[0] if len(artifacts) == 1 else artifacts
    return value(task.status.message.parts) if task.status.message is not None else None


def value(parts: tuple[Part, ...]) -> Any:
    """One part is its content; several are a list of theirs."""
    contents = [_content(part) for part in parts]
    return contents[0] if len(contents) == 1 else contents


def _content(part: Part) -> Any:
    if part.text is not None:
        return part.text
    if "data" in part.model_fields_set:
        return part.data
    return orjson.loads(part.wire())


def result_parts(result: Any) -> tuple[Part, ...]:
    """A worker's result as parts: text stays text, anything else is data."""
    return (Part(text=result),) if isinstance(result, str) else (Part(data=result, media_type="application/json"),)


def encode_receipt(task_id: str, state: TaskState) -> bytes:
    """What a worker's report is answered with."""
    return orjson.dumps({"task_id": task_id, "status": STATUS[state], "metadata": {"a2a_state": state}})


def encode_pending(work: list[dict[str, Any]]) -> bytes:
    """What a worker that pulls gets: the parameters of as many `agents/tasks/create`."""
    return orjson.dumps({"tasks": work})


def delegation(agent: str, task_id: str, context_id: str, caller: str, message: Message) -> dict[str, Any]:
    """Our own `agents/tasks/create` parameters, in the form of the JSON example (`input_data` beside `task`)."""
    data = [part.data for part in message.parts if "data" in part.model_fields_set]
    priority = (message.metadata or {}).get("priority")
    task: dict[str, Any] = {
        "id": task_id,
        "description": message.text,
        "context": {"session_id": context_id, "user_id": caller},
        "priority": priority if priority in ("low", "normal", "high", "critical") else "normal",
    }
    params: dict[str, Any] = {"agent_id": agent, "task": task}
    if data:
        params["input_data"] = data[0] if len(data) == 1 else data
    return params
