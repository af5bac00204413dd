"""Agents that speak the older messages: we send `agents/tasks/create` (or let them fetch it), they report with
`agents/tasks/result`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.dialects import tasks as dialect
from gateway.dialects.strict_json import read
from gateway.model.agent import Context
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.task import Event, TaskState
from gateway.model.trail import onward
from gateway.upstream.egress import Egress

PULL = "pull"
HEADERS = {"content-type": "application/json", "accept": "application/json"}
# A report waits for its turn in the task; longer than this means that the task has ended otherwise.
TAKEN_SECONDS = 10.0


@dataclass(slots=True)
class _Report:
    """What a worker says; `taken` is set when its events are in the task."""

    state: TaskState
    result: Any = None
    has_result: bool = False
    taken: asyncio.Event = field(default_factory=asyncio.Event)


class _Work:
    """One delegated task: the parameters to send, and the reports that come back."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.reports: asyncio.Queue[_Report] = asyncio.Queue(maxsize=64)


class TasksAgent:
    """`url` is where `create` is posted to; "pull" leaves the work for `agents/tasks/pending`.

    Resumable: the task id is the idempotency key of `create`, so sending it again is harmless by definition.
    """

    resumable = True

    def __init__(self, id: str, url: str, egress: Egress) -> None:
        self._id = id
        self._url = url
        self._egress = egress
        self._work: dict[str, _Work] = {}
        self._waiting: deque[str] = deque()
        self._arrived = asyncio.Event()

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        params = dialect.delegation(self._id, context.task_id, context.context_id, context.caller, message)
        work = self._register(context, params)
        try:
            if self._url == PULL:
                self._waiting.append(context.task_id)
                self._arrived.set()
                yield context.status(TaskState.SUBMITTED)
            else:
                answer = await self._create(context, params)
                for event in _events(context, *answer):
                    yield event
                if answer[0].terminal:
                    return
            while True:
                report = await work.reports.get()
                for event in _events(context, report.state, report.result, report.has_result):
                    yield event
                report.taken.set()
                if report.state.terminal:
                    return
        finally:
            self._work.pop(context.task_id, None)

    def follow(self, context: Context) -> AsyncIterator[Event]:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent's tasks are sent again, not followed")

    async def cancel(self, context: Context) -> Event | None:
        return None

    async def aclose(self) -> None:
        self._work.clear()

    # What the worker asks of us.

    async def take(self, limit: int, wait: float) -> list[dict[str, Any]]:
        """The next tasks for the worker, at most `limit`, waiting up to `wait` seconds for the first."""
        taken = self._take(limit)
        if taken or wait <= 0:
            return taken
        self._arrived.clear()
        try:
            async with asyncio.timeout(wait):
                while not taken:
                    await self._arrived.wait()
                    taken = self._take(limit)
                    if not taken:
                        self._arrived.clear()
        except TimeoutError:
            pass
        return taken

    async def submit(self, task_id: str, state: TaskState, result: Any, has_result: bool) -> None:
        work = self._work.get(task_id)
        if work is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This task is not waiting for a result")
        report = _Report(state, result, has_result)
        try:
            work.reports.put_nowait(report)
        except asyncio.QueueFull:
            raise GatewayError(Reason.OVERLOADED, "Too many reports on this task at once", retry_after=1) from None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_SECONDS):
                await report.taken.wait()
                return
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This task no longer takes reports; read it to see why")

    def _take(self, limit: int) -> list[dict[str, Any]]:
        taken: list[dict[str, Any]] = []
        while self._waiting and len(taken) < limit:
            work = self._work.get(self._waiting.popleft())
            if work is not None:
                work.reports.put_nowait(_Report(TaskState.WORKING))
                taken.append(work.params)
        return taken

    def _register(self, context: Context, params: dict[str, Any]) -> _Work:
        work = self._work[context.task_id] = _Work(params)
        return work

    async def _create(self, context: Context, params: dict[str, Any]) -> tuple[TaskState, Any, bool]:
        body = orjson.dumps({"jsonrpc": "2.0", "id": context.task_id, "method": dialect.CREATE, "params": params})
        headers = onward(HEADERS, context.hops, context.traceparent)
        # Named by the operator in the configuration file, hence trusted.
        answer = await self._egress.post(self._url, body, headers, timeout=context.remaining, trusted=True)
        try:
            tree = read(answer.body)
        except GatewayError as error:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"The agent answered with status {answer.status}") from error
        result = tree.get("result") if isinstance(tree, dict) else None
        if not isinstance(result, dict):
            raise GatewayError(Reason.INVALID_AGENT_RESPONSE, _refusal(tree))
        state = dialect.STATE.get(str(result.get("status")), TaskState.WORKING)
        return state, result.get("result"), "result" in result


def _refusal(tree: Any) -> str:
    error = tree.get("error") if isinstance(tree, dict) else None
    said = error.get("message") if isinstance(error, dict) else None
    return f"The agent did not accept the task: {said}"[:500] if said else "The agent did not accept the task"


def _events(context: Context, state: TaskState, result: Any, has_result: bool) -> list[Event]:
    """A report as events: the result is an artifact of a completed task, the reason of a failed one."""
    if state is TaskState.FAILED:
        return [context.failed(dialect.result_parts(result if has_result else "The agent reported a failure"))]
    events: list[Event] = []
    if has_result:
        events.append(context.artifact(dialect.result_parts(result), id="result", name="result"))
    events.append(context.status(TaskState.WORKING if state is TaskState.SUBMITTED else state))
    return events
