"""Remote agents that speak ACP: somebody else's ACP server behind the `Agent` port.

A run's id is known from the first bytes of its stream and stored with the task. A message is sent once and never again;
a stream that breaks is taken up by looking at the run, to its true end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import chain, repeat
from typing import Any

from gateway.dialects.acp.errors import carried
from gateway.dialects.acp.manifests import place
from gateway.dialects.acp.upstream import HEADERS, STREAM_HEADERS, RunReader, create_body, resume_body
from gateway.dialects.paths import segment
from gateway.dialects.sse import Reader
from gateway.dialects.strict_json import read
from gateway.model.agent import Context, Upstream
from gateway.model.card import AgentInterface
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.task import Event, StatusUpdate, Task, TaskState
from gateway.model.trail import onward
from gateway.upstream.egress import ANSWER_LIMIT, Outbound, StreamAnswer
from gateway.upstream.looking import Looks, unknown

log = logging.getLogger(__name__)

# ACP's servers send nothing while an agent thinks, not even comments: longer than that it is asked how it stands.
IDLE_SECONDS = 120.0
# Between looks at a run whose stream broke.
POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
LOOK_SECONDS = 30.0  # one look at a run, or a request to cancel it
# A run that is told to stop says so at once, and ends a moment later; so long that moment is waited for.
CANCEL_LOOKS = 10


class _Refused(Exception):
    """The server took nothing on."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


class AcpAgent:
    """`interface.url` is the address of the agent's manifest. `trusted` when it is at the very origin that the operator
    named for this agent. Raises INVALID_AGENT_RESPONSE for an address where no ACP server has a manifest."""

    resumable = False

    def __init__(self, interface: AgentInterface, egress: Outbound, *, trusted: bool) -> None:
        self._url = interface.url
        found = place(interface.url)
        if found is None:
            what = "An ACP agent is known by the address of its manifest at its server, which ends in /agents/NAME"
            raise GatewayError(Reason.INVALID_AGENT_RESPONSE, what)
        self._base, self._name = found
        self._egress = egress
        self._trusted = trusted

    def serves(self, url: str) -> bool:
        return url == self._url

    async def run(self, context: Context, message: Message) -> AsyncGenerator[Event, None]:
        theirs = context.upstream
        if theirs is not None and theirs.task_id is not None:
            body, path = resume_body(theirs.task_id, message, context), self._run(theirs.task_id)
        else:
            body, path = create_body(self._name, message, context), "/runs"
        try:
            async with aclosing(self._events(context, path, body)) as events:
                async for event in events:
                    yield event
                    if _rests(event):
                        return
        except _Refused as refused:
            # A run that does not wait any more is looked at; anything else is for the caller to know.
            if refused.error.reason is not Reason.UNSUPPORTED_OPERATION or theirs is None or theirs.task_id is None:
                raise refused.error from None
        except GatewayError as error:
            if error.metadata.get("delivered") == "no":
                raise
            if context.upstream is None or context.upstream.task_id is None:
                if error.metadata.get("delivered") is None:
                    raise  # it answered, with nonsense
                yield unknown(context, error)  # nobody can say whether there is a run
                return
            log.info("the stream of task %s broke: %s", context.task_id, error.message)
        if context.upstream is None or context.upstream.task_id is None:
            raise GatewayError(Reason.INVALID_AGENT_RESPONSE, "The agent's answer names no run")
        async with aclosing(self.follow(context)) as events:
            async for event in events:
                yield event

    async def follow(self, context: Context) -> AsyncGenerator[Event, None]:
        if context.upstream is None or context.upstream.task_id is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The agent's own run id is not known")
        looks = Looks("run")
        for pause in chain(POLL_SECONDS, repeat(POLL_SECONDS[-1])):
            task = await looks.take(self._look(context))
            if task is not None:
                yield task
                if task.at_rest:
                    return
            await asyncio.sleep(pause)

    async def cancel(self, context: Context) -> Event | None:
        theirs = context.upstream
        if theirs is None or theirs.task_id is None:
            return None
        status, tree = await self._ask("POST", self._run(theirs.task_id) + "/cancel")
        if status == 404:
            return None
        if status == 403:
            raise GatewayError(Reason.TASK_NOT_CANCELABLE, "The agent says that its run has ended already")
        if status >= 300:
            raise carried(status, tree)
        for look in range(CANCEL_LOOKS):
            task = await self._look(context)
            if task.status.state.terminal:
                return task
            await asyncio.sleep(POLL_SECONDS[0] * min(look + 1, 5))
        return context.working()  # it has taken note, and has not ended yet

    async def aclose(self) -> None:
        """The egress is shared and outlives its agents."""

    # One exchange.

    def _run(self, run_id: str) -> str:
        return f"/runs/{segment(run_id)}"

    async def _look(self, context: Context) -> Task:
        """The task as the server shows its run now. Raises TASK_NOT_FOUND when it knows of none."""
        assert context.upstream is not None
        assert context.upstream.task_id is not None
        status, tree = await self._ask("GET", self._run(context.upstream.task_id))
        if status == 404:
            raise GatewayError(Reason.TASK_NOT_FOUND, "The agent knows no such run")
        if status >= 300:
            raise carried(status, tree)
        reader = RunReader(context)
        reader.run_id = context.upstream.task_id
        return reader.whole(reader.look(tree))

    async def _ask(self, method: str, path: str) -> tuple[int, Any]:
        answer = await self._egress.request(
            method, self._base + path, None, HEADERS, timeout=LOOK_SECONDS, trusted=self._trusted
        )
        return answer.status, _parsed(answer.status, answer.body)

    async def _events(self, context: Context, path: str, body: bytes) -> AsyncGenerator[Event, None]:
        """What the server streams of a run, as long as it does. Raises _Refused instead."""
        reader = RunReader(context)
        headers = onward(STREAM_HEADERS, context.hops, context.traceparent)
        exchange = self._egress.stream(
            "POST", self._base + path, body, headers, idle_timeout=IDLE_SECONDS, trusted=self._trusted
        )
        async with exchange as answer:
            if answer.status >= 300:
                raise _Refused(carried(answer.status, _parsed(answer.status, await answer.read())))
            self._learn(context, answer.headers.get("run-id"), reader.session_id)
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                yield await self._whole(context, reader, answer)
                return
            frames = Reader(ANSWER_LIMIT)  # its last event holds all that the run made
            async for chunk in answer.chunks:
                for sent in frames.feed(chunk):
                    for event in reader.feed(_parsed(200, sent.data)):
                        self._learn(context, reader.run_id, reader.session_id)
                        yield event
                        if _rests(event):
                            await answer.settle()
                            return

    async def _whole(self, context: Context, reader: RunReader, answer: StreamAnswer) -> Event:
        """A plain answer where a stream was asked for: the run as it stands."""
        run = reader.look(_parsed(answer.status, await answer.read()))
        self._learn(context, reader.run_id, reader.session_id)
        return reader.whole(run)

    def _learn(self, context: Context, run_id: str | None, session_id: str | None) -> None:
        """What the server calls the run and its session is remembered with the task."""
        known = context.upstream
        run_id = (known.task_id if known else None) or run_id
        session_id = (known.context_id if known else None) or session_id
        if run_id is not None and (known is None or (known.task_id, known.context_id) != (run_id, session_id)):
            context.upstream = Upstream(self._url, run_id, session_id)


def _parsed(status: int, body: bytes) -> Any:
    try:
        return read(body)
    except GatewayError as error:
        if status >= 300:
            return None  # its status says enough
        what = "The agent answered with something that is not strict JSON"
        raise GatewayError(Reason.INVALID_AGENT_RESPONSE, what) from error


def _rests(event: Event) -> bool:
    """After this the server's stream says nothing more. It awaits whatever it asked for."""
    if not isinstance(event, StatusUpdate | Task):
        return False
    state: TaskState = event.status.state
    return state.terminal or state.interrupted
