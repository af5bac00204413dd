"""Telling the operator's webhook what waits and how it was decided.

An approval is told like a task of its own: its events go through the same outbox as those of all tasks, in order,
signed, again until they arrive. The task belongs to nobody who could call, so only the webhook ever sees it.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.model.approval import Approval, ApprovalState, chain
from gateway.model.base import timestamp
from gateway.model.changes import AdvanceTask, Change, CreateTask
from gateway.model.message import Message, Part, Role
from gateway.model.push import OPERATOR, PushConfig
from gateway.model.rows import Record, TaskRow
from gateway.model.task import Event, StatusUpdate, Task, TaskState, TaskStatus, envelope

OWNER = "approvals:gateway"  # nobody: a kind of principal that there is not
_STATES = {
    ApprovalState.WAITING: TaskState.INPUT_REQUIRED,
    ApprovalState.APPROVED: TaskState.COMPLETED,
    ApprovalState.REJECTED: TaskState.REJECTED,
    ApprovalState.EXPIRED: TaskState.FAILED,
    ApprovalState.VOID: TaskState.CANCELED,
}


class Notices:
    """`url` is the webhook, None where nobody wants to be told; `wake` tells the push worker that something is due."""

    def __init__(self, url: str | None, node: str, wake: Callable[[], None], now: Callable[[], int]) -> None:
        self._url = url
        self._node = node
        self._now = now
        self.wake = wake if url is not None else lambda: None

    def of(self, before: Approval | None, after: Approval) -> tuple[Change, ...]:
        """What goes with the commit of an approval. What becomes of a released call is not told: its task says that."""
        if self._url is None or (before is not None and before.state is not ApprovalState.WAITING):
            return ()
        status = TaskStatus(state=_STATES[after.state], message=_message(after), timestamp=timestamp(self._now()))
        task = Task(id=after.id, context_id=after.id, status=status)
        event: Event = task if before is None else StatusUpdate(task_id=after.id, context_id=after.id, status=status)
        row = TaskRow(
            tenant=after.tenant,
            id=after.id,
            owner=OWNER,
            agent="approvals",
            task=task,
            seq=after.revision,
            fence=1,
            created=after.created,
            updated=self._now(),
            deadline=after.until,
            message_id=after.id,
        )
        records = (Record(after.revision, event, envelope(event)),)
        if before is not None:
            return (AdvanceTask(row, records, push=True),)
        config = PushConfig(id="approvals", url=self._url, task_id=after.id, protocol_version=OPERATOR)
        return (CreateTask(row, self._node, records, push=(config,)),)


def _message(approval: Approval) -> Message:
    """What was said with the call is not in it: whoever may answer looks it up."""
    asked = approval.asked
    data = {
        "id": approval.id,
        "state": approval.state.value,
        "caller": asked.principal.id,
        "chain": list(chain(asked.principal)),
        "action": asked.verb,
        "target": asked.target,
        "task": approval.tasks[0] if approval.tasks else None,
        "rule": approval.rule,
        "reason": approval.reason,
        "approvers": list(approval.approvers),
        "missing": approval.missing,
        "words": [{"by": word.by, "said": word.said.value, "reason": word.reason} for word in approval.words],
        "until": timestamp(approval.until),
        "digest": approval.digest,
        "why": approval.why,
        **({"url": approval.page} if approval.page else {}),
    }
    return Message(
        message_id=f"{approval.id}-{approval.revision}",
        role=Role.AGENT,
        parts=(Part(data=data, media_type="application/json"),),
        context_id=approval.id,
        task_id=approval.id,
    )
