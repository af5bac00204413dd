"""Remote agents: somebody else's A2A server behind the `Agent` port, over JSON-RPC or HTTP+JSON, of any version that
there is a `Wire` for.

The gateway owns the task; the agent's own ids are kept as `context.upstream`. A message is sent once and never
again; what may be repeated without harm (Subscribe, Get) is, so a broken stream is taken up where it stands.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from gateway.dialects.a2a_v1 import upstream as shared
from gateway.dialects.a2a_v1.upstream import Outgoing, Wire
from gateway.dialects.sse import Reader
from gateway.dialects.strict_json import read
from gateway.model.agent import Context, Upstream
from gateway.model.card import AgentCard, AgentInterface
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.ports import Bell, Bells
from gateway.model.task import Event, StatusUpdate, Task, TaskState
from gateway.model.trail import onward
from gateway.upstream.doze import Doze
from gateway.upstream.egress import Outbound, StreamAnswer
from gateway.upstream.looking import Looks, unknown

log = logging.getLogger(__name__)

# A stream without a byte for this long is dead: servers send comments every 15 to 30 s (a2a-sdk: 15).
IDLE_SECONDS = 120.0


class RemoteAgent:
    """`trusted` when the interface is at the very origin that the operator named for this agent. `streams` and `bells`
    are what may be used of what its card declares."""

    resumable = False

    def __init__(
        self,
        card: AgentCard,
        interface: AgentInterface,
        wire: Wire,
        egress: Outbound,
        *,
        trusted: bool,
        streams: bool = True,
        bells: Bells | None = None,
    ) -> None:
        self._interface = interface
        self._wire = wire
        self._egress = egress
        self._trusted = trusted
        self._streams = streams and bool(card.capabilities.streaming)
        self._bells = bells if card.capabilities.push_notifications else None

    def serves(self, url: str) -> bool:
        return url == self._interface.url

    async def run(self, context: Context, message: Message) -> AsyncGenerator[Event, None]:
        theirs = context.upstream
        params = shared.message_params(
            message,
            ours=context.task_id,
            task_id=theirs.task_id if theirs else None,
            context_id=theirs.context_id if theirs else None,
            accepted_output_modes=context.accepted_output_modes,
            metadata=context.metadata,
        )
        sent = self._sent_as_stream if context.stream and self._streams else self._sent
        began = False
        try:
            async with aclosing(sent(context, params)) as events:
                ended = False
                async for event in events:
                    began = True
                    ended = ended or ends(event)
                    yield event
                if ended:
                    return
        except GatewayError as error:
            broke = error.metadata.get("delivered") == "unknown"
            if not _known(context):
                if not broke:
                    raise
                yield unknown(context, error)
                return
            if not (began or broke):
                raise
            log.info("the answer to task %s broke: %s", context.task_id, error.message)
        if not _known(context):
            raise GatewayError(Reason.INVALID_AGENT_RESPONSE, "The agent's answer names no task")
        async with aclosing(self.follow(context)) as events:
            async for event in events:
                yield event

    async def _sent(self, context: Context, params: bytes) -> AsyncGenerator[Event, None]:
        out = self._wire.outgoing(self._interface, "SendMessage", params, extensions=context.extensions)
        out = _deeper(context, out)
        # The engine ends the run at its deadline; this must not come first and call it something else.
        yield self._named(context, await self._unary(context, out, math.ceil(context.remaining) + 1))

    def _sent_as_stream(self, context: Context, params: bytes) -> AsyncGenerator[Event, None]:
        out = self._wire.outgoing(self._interface, "SendStreamingMessage", params, extensions=context.extensions)
        return self._events(context, _deeper(context, out))

    async def follow(self, context: Context) -> AsyncGenerator[Event, None]:
        if not _known(context):
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The agent's own task id is not known")
        bell = None if self._bells is None else self._bells.hang(context.agent, context.task_id)
        try:
            async with aclosing(self._followed(context, Doze(bell, partial(self._show_bell, context)))) as events:
                async for event in events:
                    yield event
        finally:
            if bell is not None:
                bell.take_down()

    async def _followed(self, context: Context, doze: Doze) -> AsyncGenerator[Event, None]:
        looks = Looks()
        while True:
            news = 0
            if self._streams:
                async with aclosing(self._subscribed(context)) as events:
                    ended = False
                    async for event in events:
                        news += 1
                        ended = ended or ends(event)
                        yield event
                    if ended:
                        return
            task = await looks.take(self._look(context))
            if task is not None:
                yield task
                if task.at_rest:
                    return
            # The first event of a stream only says how things stand: it is no progress.
            await doze.wait(progress=news > 1)

    async def _show_bell(self, context: Context, bell: Bell) -> None:
        """Tell the agent where to ring for this task."""
        assert context.upstream is not None
        assert context.upstream.task_id is not None
        theirs = context.upstream.task_id
        params = shared.push_params(theirs, bell.url, bell.secret)
        out = self._wire.outgoing(self._interface, "CreateTaskPushNotificationConfig", params, theirs)
        await self._unary(context, out, 30.0)

    async def cancel(self, context: Context) -> Event | None:
        if context.upstream is None or context.upstream.task_id is None:
            return None
        out = self._wire.outgoing(self._interface, "CancelTask", b"{}", context.upstream.task_id)
        try:
            return self._named(context, await self._unary(context, out, 30.0))
        except GatewayError as error:
            if error.reason is Reason.TASK_NOT_FOUND:
                return None
            raise

    async def aclose(self) -> None:
        """The egress is shared and outlives its agents."""

    # One exchange.

    async def _look(self, context: Context) -> Task:
        assert context.upstream is not None
        out = self._wire.outgoing(self._interface, "GetTask", b"{}", context.upstream.task_id)
        task = self._named(context, await self._unary(context, out, 30.0))
        assert isinstance(task, Task)
        return task

    async def _unary(self, context: Context, out: Outgoing, timeout: float) -> object:
        answer = await self._egress.request(
            out.method, out.url, out.body, out.headers, timeout=timeout, trusted=self._trusted
        )
        return self._result(context, out, answer.status, answer.body)

    async def _subscribed(self, context: Context) -> AsyncGenerator[Event, None]:
        """What the agent streams, as long as it does. When it will not (the task may have ended) or breaks off, a look
        tells what is true."""
        assert context.upstream is not None
        out = self._wire.outgoing(self._interface, "SubscribeToTask", b"{}", context.upstream.task_id)
        try:
            async with aclosing(self._events(context, out)) as events:
                async for event in events:
                    yield event
        except GatewayError as error:
            log.info("no stream of task %s: %s", context.task_id, error.message)

    async def _events(self, context: Context, out: Outgoing) -> AsyncGenerator[Event, None]:
        exchange = self._egress.stream(
            out.method, out.url, out.body, out.headers, idle_timeout=IDLE_SECONDS, trusted=self._trusted
        )
        async with exchange as answer:
            if answer.status == 405 and out.other_method is not None:
                other = replace(out, method=out.other_method, body=None, other_method=None)
                async with aclosing(self._events(context, other)) as events:
                    async for event in events:
                        yield event
                return
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                yield await self._whole(context, out, answer)
                return
            reader = Reader()
            async for chunk in answer.chunks:
                ended = False
                for frame in reader.feed(chunk):
                    tree = self._result(context, out, answer.status, frame.data)
                    named = self._named(context, tree, size=len(frame.data))
                    ended = ended or ends(named)
                    yield named
                if ended:
                    await answer.settle()
                    return

    async def _whole(self, context: Context, out: Outgoing, answer: StreamAnswer) -> Event:
        """A plain answer where a stream was asked for: an error, or the result all at once."""
        return self._named(context, self._result(context, out, answer.status, await answer.read()))

    def _result(self, context: Context, out: Outgoing, status: int, body: bytes) -> object:
        names = self._names(context)
        return self._wire.result(self._interface, out.operation, status, _parsed(status, body), names)

    def _names(self, context: Context) -> dict[str, str]:
        """The agent's own ids, with ours for them."""
        theirs = context.upstream
        names: dict[str, str] = {}
        if theirs is not None and theirs.task_id:
            names[theirs.task_id] = context.task_id
        if theirs is not None and theirs.context_id:
            names[theirs.context_id] = context.context_id
        return names

    def _named(self, context: Context, tree: object, *, size: int = shared.PLENTY) -> Event:
        """The event under our ids; what the agent calls them is remembered with the task."""
        named = shared.event(tree, task_id=context.task_id, context_id=context.context_id, size=size)
        known = context.upstream
        if known is not None and known.task_id and named.task_id and known.task_id != named.task_id:
            raise GatewayError(Reason.INVALID_AGENT_RESPONSE, "The agent sent an event of another task")
        if known is None or not known.task_id:
            context.upstream = Upstream(
                self._interface.url, named.task_id, named.context_id or (known.context_id if known else None)
            )
        return named.event


def _deeper(context: Context, out: Outgoing) -> Outgoing:
    """Says how long the chain is, that a ring of gateways may end, and whose trace it belongs to."""
    headers = onward(out.headers, context.hops, context.traceparent)
    return Outgoing(out.method, out.url, out.body, headers, out.operation, out.other_method)


def _parsed(status: int, body: bytes) -> object:
    try:
        return read(body)
    except GatewayError as error:
        if status >= 300:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"The agent answered with status {status}") from error
        what = "The agent answered with something that is not strict JSON"
        raise GatewayError(Reason.INVALID_AGENT_RESPONSE, what) from error


def _known(context: Context) -> bool:
    """Whether the agent's own id of the task is known, so that it can be asked about it."""
    return context.upstream is not None and context.upstream.task_id is not None


def ends(event: Event) -> bool:
    """After this the turn is over. In AUTH_REQUIRED an agent may go on by itself (§7.6.1), so we stay."""
    if isinstance(event, StatusUpdate | Task):
        state = event.status.state
        return state.terminal or state is TaskState.INPUT_REQUIRED
    return isinstance(event, Message)
