"""Calls that wait for a person, as tasks of MCP (ext-tasks, SEP-2663): for clients that take tasks.

The task is the approval: it waits as long as that does, over restarts. Once it is released, the next look makes the
call, and what its server asks meanwhile is asked by the task. The result is kept in memory: a gateway that was
restarted after the call had begun says that nobody knows how it went, as for every call that was cut off.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.core.approvals import words
from gateway.core.approvals.approvals import Approvals
from gateway.core.tools import consents
from gateway.model.approval import Approval, ApprovalState
from gateway.model.asking import ASKED_WITH, ELICIT, lacking
from gateway.model.base import timestamp
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import Caller, CannotAsk, PeerError, Tree
from gateway.model.toolcall import UseServer

POLL_MS = 1_000  # what a client is asked to wait between two looks; each costs a look into memory
KEPT_MS = 3_600_000  # after its time an approval is still asked after so long
MAX_CALLS = 1_000  # calls that were begun, with their results; the oldest that has ended is forgotten first
SOON_SECONDS = 0.2  # a look waits so long for a call that ends at once

_CANCELED = "its caller canceled it"
_UNKNOWN = "The gateway was restarted while the call was made; nobody knows whether it was done"
_INTERNAL_ERROR = -32603

Make = Callable[[UseServer, Principal], Awaitable[Tree]]


@dataclass(slots=True)
class _Call:
    """One that was begun, for `caller`; what it asks waits in `asks`."""

    caller: Caller
    work: asyncio.Future[Tree] | None = None
    asks: dict[str, tuple[Tree, asyncio.Future[Tree]]] = field(default_factory=dict)
    asked: int = 0


class _Asking:
    """The caller as the server sees it: it is asked by the task."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        first = call.caller
        self.principal = first.principal
        self.hops = first.hops
        self.capabilities = {name: each for name, each in first.capabilities.items() if name in ASKED_WITH.values()}
        self.client = first.client
        self.log_level: str | None = None
        self.progress = False
        self.meta = first.meta

    async def notify(self, method: str, params: Tree) -> None:
        """A task has its status, and no stream."""

    async def ask(self, method: str, params: Tree) -> Tree:
        if method not in ASKED_WITH or lacking(method, params, self.capabilities):
            raise CannotAsk(method)
        self._call.asked += 1
        key, answer = f"ask-{self._call.asked}", asyncio.get_running_loop().create_future()
        self._call.asks[key] = ({"method": method, "params": params}, answer)
        try:
            found: Tree = await answer
            return found
        finally:
            self._call.asks.pop(key, None)


class HeldTasks:
    def __init__(self, approvals: Approvals, consenting: consents.Consents) -> None:
        self._approvals = approvals
        self._consents = consenting
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self.make: Make | None = None  # makes a call, once there is something that can (requests.py)

    async def aclose(self) -> None:
        works = [each.work for each in self._calls.values() if each.work is not None]
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    def created(self, approval: Approval) -> Tree:
        """`Task`: the handle, without its id."""
        last = max((word.at for word in approval.words), default=approval.created)
        return {
            "status": "working",
            "statusMessage": words.told(approval),
            "createdAt": timestamp(approval.created),
            "lastUpdatedAt": timestamp(last),
            "ttlMs": approval.until - approval.created + KEPT_MS,
            "pollIntervalMs": POLL_MS,
        }

    async def use(
        self, method: str, id: str, mount: str, name: str, params: Tree, who: Principal, caller: Caller
    ) -> Tree:
        """One `tasks/*` of the approval `id`, which a call of `name` on the mount waits for. Raises GatewayError."""
        approval = await self._approvals.find(id)
        if approval is None:
            raise GatewayError(Reason.TASK_NOT_FOUND, "There is no such task")
        if method == "tasks/update":
            await self._answered(approval, params["inputResponses"], who)
        elif method == "tasks/cancel":
            await self._canceled(approval)
        else:
            return {"resultType": "complete", **await self._shown(approval, mount, name, who, caller)}
        return {"resultType": "complete"}

    async def _shown(self, approval: Approval, mount: str, name: str, who: Principal, caller: Caller) -> Tree:
        """`DetailedTask`. A call that was released is begun by whoever looks first."""
        call = self._calls.get(approval.id)
        if call is None and approval.state is ApprovalState.APPROVED:
            call = self._begun(approval, mount, name, who, caller)
        shown = self.created(approval)
        if call is not None and call.work is not None:
            await asyncio.wait((call.work,), timeout=SOON_SECONDS)
            return {**shown, **_progress(call, call.work)}
        match approval.state:
            case ApprovalState.WAITING:
                if not consents.decides(approval, caller):
                    return shown
                asked = {"method": ELICIT, "params": consents.question(approval, caller)}
                return {**shown, "status": "input_required", "inputRequests": {consents.KEY: asked}}
            case ApprovalState.USED:
                return {**shown, "status": "failed", "error": {"code": _INTERNAL_ERROR, "message": _UNKNOWN}}
            case ApprovalState.VOID if approval.why == _CANCELED:
                return {**shown, "status": "cancelled", "statusMessage": words.end(approval)}
        told = {"content": [{"type": "text", "text": words.end(approval)}], "isError": True}
        return {**shown, "status": "completed", "statusMessage": words.end(approval), "result": told}

    def _begun(self, approval: Approval, mount: str, name: str, who: Principal, caller: Caller) -> _Call:
        assert self.make is not None
        call = self._calls[approval.id] = _Call(caller)
        params = {"name": name, "arguments": approval.asked.arguments}
        request = UseServer(mount, "tools/call", params, _Asking(call), live=True)
        call.work = asyncio.ensure_future(self.make(request, who))
        call.work.add_done_callback(_seen)
        while len(self._calls) > MAX_CALLS and (over := self._over()) is not None:
            del self._calls[over]
        return call

    def _over(self) -> str | None:
        return next((id for id, each in self._calls.items() if each.work is not None and each.work.done()), None)

    async def _answered(self, approval: Approval, responses: Tree, who: Principal) -> None:
        """What was not asked is ignored."""
        call = self._calls.get(approval.id)
        for key, answer in responses.items():
            if not isinstance(answer, dict):
                continue
            if key == consents.KEY and approval.state is ApprovalState.WAITING and approval.terms.caller:
                await self._consents.say(approval, who, answer)
            elif call is not None and key in call.asks and not call.asks[key][1].done():
                call.asks[key][1].set_result(answer)

    async def _canceled(self, approval: Approval) -> None:
        call = self._calls.get(approval.id)
        if call is not None and call.work is not None:
            call.work.cancel()
        else:
            await self._approvals.void(approval, _CANCELED)


def _progress(call: _Call, work: asyncio.Future[Tree]) -> Tree:
    if not work.done():
        asks = {key: question for key, (question, _) in call.asks.items()}
        told = {"statusMessage": "It was approved, and the call is being made"}
        return {**told, "status": "input_required", "inputRequests": asks} if asks else {**told, "status": "working"}
    if work.cancelled():
        return {"status": "cancelled", "statusMessage": "It was canceled while the call was made"}
    if (error := work.exception()) is None:
        result = {name: each for name, each in work.result().items() if name != "resultType"}
        return {"status": "completed", "statusMessage": "It was approved, and the call was made", "result": result}
    if isinstance(error, PeerError):
        data = {} if error.data is None else {"data": error.data}
        return {"status": "failed", "error": {"code": error.code, "message": error.message, **data}}
    text = error.message if isinstance(error, GatewayError) else "The call failed; the gateway's log says why"
    return {"status": "completed", "result": {"content": [{"type": "text", "text": text}], "isError": True}}


def _seen(work: asyncio.Future[Tree]) -> None:
    """An error that nobody looks at is no fault of the loop."""
    if not work.cancelled():
        work.exception()
