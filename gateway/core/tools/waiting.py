"""A server's task waited for by the gateway, for a caller that cannot ask after it: a session, an agent of ours.

A server that can do its work only as a task refuses such a caller (-32021). It is asked again in the gateway's own
name, and its task is polled to the end: what it says meanwhile is progress, what it asks is put to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.core.tools import questions
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import TASKS, Caller, PeerError, Tree

LEAST_POLL_SECONDS = 0.1  # however eager a server is: each look is a whole request
MOST_POLL_SECONDS = 30.0  # however patient: a caller waits for what has ended long ago
POLL_SECONDS = 1.0  # of a server that does not say
MAX_WAIT_SECONDS = 1_800.0  # between looks, in all; what a caller takes to answer does not count
CANCEL_SECONDS = 5.0  # what telling a server that nobody waits any more may take

# One request about the task: method, parameters; the server, its breaker and its gate are the maker's.
Ask = Callable[[str, Tree], Awaitable[Tree]]


class Declaring:
    """A caller in whose name the gateway takes tasks."""

    def __init__(self, caller: Caller) -> None:
        extensions = caller.capabilities.get("extensions")
        taken = {**(extensions if isinstance(extensions, dict) else {}), TASKS: {}}
        self.capabilities: Tree = {**caller.capabilities, "extensions": taken}
        self.principal = caller.principal
        self.hops = caller.hops
        self.client = caller.client
        self.log_level = caller.log_level
        self.progress = caller.progress
        self.meta = caller.meta
        self.notify = caller.notify
        self.ask = caller.ask


def needs_tasks(error: PeerError) -> bool:
    """Whether a server refused because it can answer only with a task."""
    required = error.data.get("requiredCapabilities") if isinstance(error.data, dict) else None
    extensions = required.get("extensions") if isinstance(required, dict) else None
    return error.code == questions.MISSING_CAPABILITY and isinstance(extensions, dict) and TASKS in extensions


def pause(task: Tree) -> float:
    """Seconds until the next look."""
    said = task.get("pollIntervalMs")
    seconds = said / 1000 if type(said) is int else POLL_SECONDS
    return min(max(seconds, LEAST_POLL_SECONDS), MOST_POLL_SECONDS)


async def end(task: Tree, caller: Caller, ask: Ask) -> Tree:
    """The result of the call that `task` was created for. Raises PeerError with the error that ended it, GatewayError
    when there is no end or none that can be used. Whoever stops waiting cancels the task."""
    try:
        return await _end(task, caller, ask)
    except PeerError:
        raise
    except (asyncio.CancelledError, GatewayError):
        with contextlib.suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await ask("tasks/cancel", {"taskId": task["taskId"]})
        raise


async def _end(task: Tree, caller: Caller, ask: Ask) -> Tree:
    id, waited, steps, said = task["taskId"], 0.0, 0, None
    answered: set[str] = set()
    while (ended := _ended(task)) is None:
        if task.get("status") == "input_required":
            new = {key: each for key, each in questions.questions(task).items() if key not in answered}
            if new:
                responses = {key: await questions.answer(each, caller) for key, each in new.items()}
                answered |= new.keys()
                await ask("tasks/update", {"taskId": id, "inputResponses": responses})
        if isinstance(words := task.get("statusMessage"), str) and words != said:
            steps, said = steps + 1, words
            await caller.notify("notifications/progress", {"progress": steps, "message": words})
        if waited >= MAX_WAIT_SECONDS:
            raise GatewayError(
                Reason.UPSTREAM_TIMEOUT, f"The server's task did not end within {MAX_WAIT_SECONDS:.0f} s"
            )
        seconds = pause(task)
        await asyncio.sleep(seconds)
        waited += seconds
        task = await ask("tasks/get", {"taskId": id})
    return ended


def _ended(task: Tree) -> Tree | None:
    status, result = task.get("status"), task.get("result")
    if status == "completed" and isinstance(result, dict):
        return {"resultType": "complete", **result}
    if status == "failed":
        raise _failure(task.get("error"))
    if status == "cancelled":
        raise GatewayError(Reason.UPSTREAM_FAILED, "The task was canceled at its server")
    if status in ("working", "input_required"):
        return None
    raise GatewayError(Reason.UPSTREAM_FAILED, f"The MCP server's task is in no state of MCP's: {str(status)[:40]!r}")


def _failure(error: Any) -> PeerError:
    if isinstance(error, dict) and type(error.get("code")) is int:
        return PeerError(error["code"], str(error.get("message", ""))[:2_000], error.get("data"))
    return PeerError(-32603, "The task failed at its server, which does not say why")
