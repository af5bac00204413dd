"""What callers are told of a task that cannot be begun, continued, canceled or written now."""

from __future__ import annotations

from typing import TypeAlias

from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message
from gateway.model.ports import Fenced
from gateway.model.rows import TaskRow
from gateway.model.task import Task

Answer: TypeAlias = Task | Message | GatewayError


def shutting_down(row: TaskRow | None) -> GatewayError:
    if row is None:
        return GatewayError(Reason.UNAVAILABLE, "The gateway is shutting down; send this again shortly", retry_after=2)
    return GatewayError(
        Reason.UNAVAILABLE,
        "The gateway is shutting down; the task goes on after the restart, ask for it then",
        metadata={"taskId": row.id},
        retry_after=2,
    )


def unwritten(error: BaseException | None = None) -> GatewayError:
    """`error` is what kept it from being written."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, Fenced):
        return taken_over()
    return GatewayError(Reason.UNAVAILABLE, "The task could not be written; ask for it again", retry_after=1)


def taken_over() -> GatewayError:
    return GatewayError(
        Reason.UNAVAILABLE, "Another gateway has taken this task over; ask for the task again", retry_after=1
    )


def at_work(row: TaskRow | None) -> GatewayError:
    return GatewayError(
        Reason.UNSUPPORTED_OPERATION,
        "The task is at work; it takes a message when it asks for input",
        metadata={} if row is None else {"taskId": row.id, "state": row.task.status.state},
    )


def not_cancelable(row: TaskRow) -> GatewayError:
    state = row.task.status.state
    return GatewayError(
        Reason.TASK_NOT_CANCELABLE,
        f"The task has ended already ({state.name})",
        metadata={"taskId": row.id, "state": state},
    )


def used_otherwise(message_id: str) -> GatewayError:
    return invalid("message.messageId", f"{message_id!r} was used for a different message; every message needs its own")
