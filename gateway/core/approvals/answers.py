"""A caller answers where it asked: a message to its own task, which waits for an approval.

Only where the rule says `approver: caller` is it an answer; else the caller is told again whom the task waits for.
"""

from __future__ import annotations

from gateway.core.approvals import words
from gateway.core.approvals.approvals import Approvals
from gateway.core.approvals.desk import Desk
from gateway.core.tasks import Tasks
from gateway.core.watch import Watch
from gateway.model.approval import Answering, Approval, ApproveCall, RejectCall
from gateway.model.base import timestamp
from gateway.model.call import SendMessage
from gateway.model.changes import Reserve
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.rows import Key, Reservation
from gateway.model.task import Task

_YES = frozenset({"approve", "approved", "yes"})
_NO = frozenset({"reject", "rejected", "no"})


class Answers:
    def __init__(self, approvals: Approvals, desk: Desk, tasks: Tasks) -> None:
        self._approvals = approvals
        self._desk = desk
        self._tasks = tasks

    def meant(self, call: SendMessage, who: Principal) -> Approval | None:
        """The approval that a message is about, if the task that it continues is the caller's own and waits for one."""
        if not call.message.task_id:
            return None
        found = self._approvals.of_task(who.tenant, call.message.task_id)
        return found if found is not None and found.owner == who.owner and found.agent == call.agent else None

    async def open(self, call: SendMessage, who: Principal, approval: Approval, now: int) -> Watch:
        """What follows from the answer. Raises GatewayError."""
        assert call.message.task_id is not None
        if not approval.terms.caller:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION,
                f"A message does not release it. {words.told(approval)}",
                metadata={
                    "taskId": call.message.task_id,
                    "approval": approval.id,
                    "approvers": ", ".join(approval.approvers),
                    "until": timestamp(approval.until),
                },
            )
        answer = _answer(call.message, approval.id)
        row = await self._tasks.row(who, call.message.task_id, call.agent)
        key = Key(who.tenant, who.owner, call.agent, call.message.message_id)
        reserve = Reserve(Reservation(key, call.digest, row.id, now, settled=True))
        watch = await self._tasks.watch(row, until_pause=True, history_length=call.history_length)
        try:
            await self._desk.answer(answer, who, reserve, as_caller=True)
        except BaseException:
            await watch.aclose()
            raise
        return watch

    async def send(self, call: SendMessage, who: Principal, approval: Approval, now: int) -> Task:
        watch = await self.open(call, who, approval, now)
        try:
            if not call.return_immediately:
                async for _ in watch:
                    pass
        finally:
            await watch.aclose()
        assert call.message.task_id is not None
        row = await self._tasks.row(who, call.message.task_id, call.agent)
        return row.task.trimmed(call.history_length)


def _answer(message: Message, id: str) -> Answering:
    data = next((part.data for part in message.parts if part.data is not None), None)
    said = data.get("decision") if isinstance(data, dict) else message.text
    reason = data.get("reason") if isinstance(data, dict) else None
    word = said.strip().lower() if isinstance(said, str) else ""
    if word in _YES:
        return ApproveCall(id, str(reason or ""))
    if word in _NO:
        return RejectCall(id, str(reason or ""))
    raise invalid("message.parts", "the task waits for your word: answer approve or reject, as text or as `decision`")
