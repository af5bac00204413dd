"""Remote agents over gRPC: as any other remote agent (a2a.py), on another wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Protocol

import gateway.dialects.a2a_v03.grpc_upstream as wire_v03
import gateway.dialects.a2a_v1.grpc_upstream as wire_v1
from gateway.dialects.a2a_v1.upstream import Outgoing, Wire
from gateway.model.agent import Context
from gateway.model.card import AgentCard, AgentInterface
from gateway.model.errors import GatewayError
from gateway.model.ports import Bells
from gateway.model.task import Event
from gateway.upstream.a2a import RemoteAgent, ends
from gateway.upstream.address import Origin
from gateway.upstream.egress import Egress
from gateway.upstream.grpc import Channels, Refused


class GrpcWire(Wire, Protocol):
    """What a revision has to give so that its agents can be called over gRPC."""

    def refusal(
        self, operation: str, status: str, message: str, details: bytes, names: Mapping[str, str]
    ) -> GatewayError: ...


WIRES: dict[str, GrpcWire] = {"1.0": wire_v1, "0.3": wire_v03}


class GrpcAgent(RemoteAgent):
    """`origin` is where the interface's URL leads to."""

    def __init__(
        self,
        card: AgentCard,
        interface: AgentInterface,
        egress: Egress,
        channels: Channels,
        origin: Origin,
        *,
        trusted: bool,
        streams: bool = True,
        bells: Bells | None = None,
    ) -> None:
        self._rpc = WIRES[interface.version]
        super().__init__(card, interface, self._rpc, egress, trusted=trusted, streams=streams, bells=bells)
        self._channels = channels
        self._origin = origin

    async def _unary(self, context: Context, out: Outgoing, timeout: float) -> object:
        assert out.body is not None
        try:
            data = await self._channels.ask(
                self._origin, out.method, out.body, out.headers, timeout=timeout, trusted=self._trusted
            )
        except Refused as refused:
            raise self._refusal(context, out, refused) from refused
        return self._rpc.result(self._interface, out.operation, 200, data, {})

    async def _events(self, context: Context, out: Outgoing) -> AsyncGenerator[Event, None]:
        assert out.body is not None
        messages = self._channels.stream(self._origin, out.method, out.body, out.headers, trusted=self._trusted)
        try:
            async with aclosing(messages) as stream:
                async for data in stream:
                    tree = self._rpc.result(self._interface, out.operation, 200, data, {})
                    event = self._named(context, tree, size=len(data))
                    yield event
                    if ends(event):
                        return
        except Refused as refused:
            raise self._refusal(context, out, refused) from refused

    def _refusal(self, context: Context, out: Outgoing, refused: Refused) -> GatewayError:
        names = self._names(context)
        return self._rpc.refusal(out.operation, refused.status, refused.message, refused.details, names)


class GrpcAgents:
    """What all agents over gRPC share."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._channels = Channels(egress)

    def agent(
        self,
        card: AgentCard,
        interface: AgentInterface,
        origin: Origin,
        *,
        trusted: bool,
        streams: bool,
        bells: Bells | None,
    ) -> GrpcAgent:
        return GrpcAgent(
            card, interface, self._egress, self._channels, origin, trusted=trusted, streams=streams, bells=bells
        )

    async def aclose(self) -> None:
        await self._channels.aclose()
