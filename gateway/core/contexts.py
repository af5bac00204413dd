"""What an agent gets to work with: the facts of its task, and its ways out, which lead through the front door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from gateway.core.connections import ConnectNeeded
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.agent import Context
from gateway.model.call import SendMessage
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.task import Task
from gateway.model.tool import ToolRequest, ToolResult
from gateway.model.trail import Trail

T = TypeVar("T")
W = TypeVar("W")


class Front(Protocol):
    """The front door of the gateway, as agents use it that work here."""

    async def ask(self, who: Principal, agent: str, message: Message, trail: Trail) -> Task | Message: ...

    async def use_tool(self, who: Principal, name: str, request: ToolRequest, trail: Trail) -> ToolResult: ...


class _Shut:
    async def ask(self, who: Principal, agent: str, message: Message, trail: Trail) -> Task | Message:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "Agents cannot ask each other here")

    async def use_tool(self, who: Principal, name: str, request: ToolRequest, trail: Trail) -> ToolResult:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "Agents have no tools here")


class Contexts:
    """`connect` returns once a caller has authorized what its agent was about to use."""

    def __init__(self, services: Services, connect: Callable[[Turn, ConnectNeeded], Awaitable[None]]) -> None:
        self._services = services
        self._connect = connect
        self.front: Front = _Shut()  # the gateway's own, once it is there
        self.stopping = False

    def of(self, turn: Turn, **asked: Any) -> Context:
        """`asked` is what the call brings, by the names of the context."""
        services = self._services
        return Context(
            agent=turn.entry.id,
            task_id=turn.task_id,
            context_id=turn.context_id,
            now=services.now,
            new_id=services.new_id,
            deadline_ms=turn.deadline,
            task=turn.task,
            upstream=turn.row.upstream if turn.row is not None else None,
            caller=turn.owner,
            tenant=turn.tenant,
            ask_agent=partial(self._ask, turn),
            use_tool=partial(self._use_tool, turn),
            hops=0 if turn.ticket is None else turn.ticket.principal.hops,
            traceparent=None if turn.ticket is None else turn.ticket.traceparent,
            **asked,
        )

    def of_call(self, turn: Turn, call: SendMessage) -> Context:
        return self.of(
            turn,
            stream=call.stream,
            accepted_output_modes=call.accepted_output_modes,
            extensions=call.extensions,
            metadata=call.metadata,
        )

    async def _ask(self, turn: Turn, agent: str, message: Message) -> Task | Message:
        turn.went_out = True
        return await self._go(turn, self.front.ask, agent, message)

    async def _use_tool(self, turn: Turn, name: str, request: ToolRequest) -> ToolResult:
        while True:
            try:
                result = await self._go(turn, self.front.use_tool, name, request)
            except ConnectNeeded as needed:
                await self._connect(turn, needed)
            else:
                turn.went_out = True
                return result

    async def _go(self, turn: Turn, way: Callable[[Principal, str, W, Trail], Awaitable[T]], name: str, what: W) -> T:
        """One of a local agent's ways out, one hop deeper and on its caller's behalf. Nothing leaves a run before its
        message is accepted."""
        assert turn.ticket is not None
        if turn.accept is not None:
            await turn.accept.made()
        try:
            with turn.ticket.causing():
                return await way(turn.ticket.principal.delegate(turn.entry.id), name, what, turn.trail)
        except GatewayError:
            if self.stopping:
                # Turned away because the gateway stops: that is not how this agent's work ends. It stops here too,
                # and the next start takes it up.
                await asyncio.get_running_loop().create_future()
            raise
