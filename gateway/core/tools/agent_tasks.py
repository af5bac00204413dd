"""The task of an agent as a task of MCP (ext-tasks, SEP-2663): one and the same task, seen through either protocol.

What the agent asks is an input request whose key is the id of the message that asks. Whatever the agent says at its end
is the result of the call, a failure too (error handling: `failed` is for JSON-RPC errors alone).
"""

from __future__ import annotations

from gateway.core.tools.agent_results import of_task
from gateway.model.approval import APPROVAL
from gateway.model.base import timestamp
from gateway.model.message import Part
from gateway.model.rows import TaskRow
from gateway.model.task import Task, TaskState, TaskStatus
from gateway.model.tool import Tree

POLL_MS = 1_000  # what a client is asked to wait between two looks; each look is one read of the store

_ANSWER: Tree = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}

# AUTH_REQUIRED waits for the client as INPUT_REQUIRED does; MCP has one word for both.
STATUS: dict[TaskState, str] = {
    TaskState.SUBMITTED: "working",
    TaskState.WORKING: "working",
    TaskState.INPUT_REQUIRED: "input_required",
    TaskState.AUTH_REQUIRED: "input_required",
    TaskState.COMPLETED: "completed",
    TaskState.FAILED: "completed",
    TaskState.REJECTED: "completed",
    TaskState.CANCELED: "cancelled",
}


def created(row: TaskRow) -> Tree:
    """`Task`: the handle that a call is answered with. Its `taskId` is the A2A task's."""
    status = row.task.status
    tree: Tree = {
        "taskId": row.id,
        "status": "working" if waits_for_others(status) else STATUS[status.state],
        "createdAt": timestamp(row.created),
        "lastUpdatedAt": status.timestamp or timestamp(row.updated),
        "ttlMs": None,  # a task is kept for as long as the store keeps it
        "pollIntervalMs": POLL_MS,
    }
    if status.message is not None and status.message.text:
        tree["statusMessage"] = status.message.text
    return tree


def detailed(row: TaskRow) -> Tree:
    """`DetailedTask`: with what it asks, or with its result."""
    tree = created(row)
    if tree["status"] == "input_required":
        tree["inputRequests"] = {key(row.task): {"method": "elicitation/create", "params": question(row.task)}}
    elif tree["status"] == "completed":
        tree["result"] = of_task(row.task)
    return tree


def key(task: Task) -> str:
    """The name of the question that a task waits with: never used twice (tasks/update, keys)."""
    asked = task.status.message
    return asked.message_id if asked is not None else f"asked-{task.status.timestamp}"


def waits_for_others(status: TaskStatus) -> bool:
    """Whether it waits for an approval that its caller cannot give."""
    return status.state is TaskState.AUTH_REQUIRED and _approval(status) is not None


def _approval(status: TaskStatus) -> str | None:
    """The approval that a task waits for."""
    asked = status.message
    found = (asked.metadata or {}).get(APPROVAL) if asked is not None else None
    return found if isinstance(found, str) else None


def question(task: Task) -> Tree:
    """What the agent asks, as the parameters of an elicitation."""
    asked = task.status.message
    schema = (asked.metadata or {}).get("schema") if asked is not None else None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        schema = _ANSWER
    return {"mode": "form", "message": asked.text if asked else "", "requestedSchema": schema}


def answer(result: Tree, task: Task) -> tuple[Part, ...] | None:
    """What a person filled in, as the parts of a message; None when they would not. To a task that waits for the
    caller's own approval a no is an answer as well."""
    content = result.get("content")
    if result.get("action") == "decline" and _approval(task.status) is not None:
        return (Part(data={"decision": "reject"}),)
    if result.get("action") != "accept" or not isinstance(content, dict):
        return None
    simple = content.get("answer") if content.keys() == {"answer"} else None
    return (Part(text=simple) if isinstance(simple, str) else Part(data=content),)
