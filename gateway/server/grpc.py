"""The gRPC port: who listens there, how much it takes at most, and how it ends.

What the HTTP edge does by hand (edge.py) is here a list of settings of gRPC's own core. Beside A2A two services answer
without a credential, and tell nothing of agents: health (as /livez and /readyz do) and reflection (the public schema).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.core.gateway import Gateway
from gateway.model.value import value
from gateway.server.a2a_grpc import FACES, GrpcDoor
from gateway.server.auth import Authenticator
from gateway.server.cards import Cards
from gateway.server.front import peers
from gateway.server.head import EdgeLimits

_LIMITS = EdgeLimits()

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # two gateways on one port would share its callers in silence
    ("grpc.max_receive_message_length", _LIMITS.max_body),
    ("grpc.max_send_message_length", -1),  # our own answers; their sizes follow from what was taken
    ("grpc.max_metadata_size", _LIMITS.max_head),
    ("grpc.absolute_max_metadata_size", _LIMITS.max_head),
    # The two before hold from the moment that the peer acknowledges them; what it sends until then the door measures.
    ("grpc.http2.settings_timeout", 5_000),
    # Only "identity": a message is bounded as it arrives, and one that is compressed could become anything.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_concurrent_streams", 1024),  # on one connection
    ("grpc.server_handshake_timeout_ms", 5_000),
    # A peer that is gone without a word is found; one that does nothing but ask whether we are is not kept.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.max_connection_idle_ms", 300_000),
)
# What reflection tells: the schemas of all services in one pool.
_POOL = FACES[0].schema.pool
for _file in (*(face.schema.file.SerializeToString() for face in FACES[1:]), health_pb2.DESCRIPTOR.serialized_pb):
    _POOL.AddSerializedFile(_file)

MAX_CALLS = 10_000  # at the same time, streams included; as many as the HTTP port takes connections
STOP_SECONDS = 1.0  # for what still answers when the drain is over


class CannotListen(Exception):
    """The port is taken or not ours to take."""


@value
class Pem:
    """What is shown to new connections; with `client_ca` they have to show a certificate of these authorities."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class GrpcServer:
    """Listens from the moment it is made (`port` says where), answers from `start` on."""

    def __init__(self, host: str, port: int, *, tls: Pem | None, not_ready: Callable[[], str | None]) -> None:
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        self._health = _Health(not_ready)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._listen(address, tls)
        except RuntimeError as error:
            raise CannotListen(str(error)) from error
        if not self.port:
            raise CannotListen(address)

    def _listen(self, address: str, tls: Pem | None) -> int:
        if tls is None:
            return self._server.add_insecure_port(address)
        self._shown = self._taken = _shown(tls)
        asks = tls.client_ca is not None
        credentials = grpc.dynamic_ssl_server_credentials(self._shown, self._fresh, require_client_authentication=asks)
        return self._server.add_secure_port(address, credentials)

    def renew(self, tls: Pem) -> None:
        self._shown = _shown(tls)

    def _fresh(self) -> Any:
        """gRPC asks before each handshake, in a thread of its own; None is as before. Twice the same does no harm."""
        if (shown := self._shown) is self._taken:
            return None
        self._taken = shown
        return shown

    def serves(
        self,
        gateway: Gateway,
        auth: Authenticator,
        cards: Cards,
        default_agent: str | None,
        proxies: Iterable[str],
        url: str,
        now: Callable[[], int],
    ) -> None:
        """What is asked for here, who answers. `url` is how clients write this listener's address in a proof."""
        door = GrpcDoor(gateway, auth, cards, default_agent, peers(proxies), url, now)
        self._server.add_generic_rpc_handlers(tuple(door.handlers()))

    async def start(self) -> None:
        services = [face.service for face in FACES]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server, _POOL)
        for name in ("", *services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def retire(self) -> None:
        """Say that no new calls are wanted."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        await self._server.stop(STOP_SECONDS)


def _shown(tls: Pem) -> Any:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.cert)], root_certificates=tls.client_ca)


class _Health(health.aio.HealthServicer):
    """As /readyz: a gateway that cannot write serves nobody."""

    def __init__(self, not_ready: Callable[[], str | None]) -> None:
        super().__init__()
        self._not_ready = not_ready

    async def Check(self, request: Any, context: Any) -> Any:
        answer = await super().Check(request, context)
        if self._not_ready() is not None:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return answer
