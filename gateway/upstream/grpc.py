"""The way out for gRPC: channels that lead only to addresses which were judged.

gRPC's core resolves and connects by itself, out of sight. So it is given no name: we resolve it, ask the same rules
about each address as for every other socket (egress.py), and make a channel to those that may be called, as literals.
Whatever the core does later, it connects to these. The name goes along for `:authority` and for the certificate. A
channel that has lost its connection is not used again: the next call resolves anew. No proxy setting is read.

A call is made once. What the core repeats by itself, no server has seen ("transparent" retries); others are off.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

import grpc

from gateway.dialects.grpc import DETAILS
from gateway.dialects.sse import MAX_EVENT_BYTES
from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import Origin
from gateway.upstream.answer import ANSWER_LIMIT, NOT_SENT, PERHAPS_SENT
from gateway.upstream.egress import CONNECT_TIMEOUT, Egress

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", ANSWER_LIMIT),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # Only "identity": a message is bounded as it arrives, and one that is compressed could become anything.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # A peer that is gone without a word. Servers take one ping in five minutes without calling it abuse.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.primary_user_agent", "gateway"),
)
MAX_ADDRESSES = 16  # of a name
# Without details these are what the core says of a call that broke on the way.
_BROKEN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Refused(Exception):
    """The status with which a server ended a call. `details` as they came in the trailer, b"" for none."""

    def __init__(self, status: str, message: str, details: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.message = message
        self.details = details


@dataclass(slots=True, eq=False)
class _Line:
    """A channel, and how many calls are on it. One that was given up closes with the last of them."""

    channel: grpc.aio.Channel
    calls: int = 0
    given_up: bool = False

    @property
    def usable(self) -> bool:
        """Connected now: on a channel that looks for a connection nobody could say what of a failed call was sent."""
        return not self.given_up and self.channel.get_state() is grpc.ChannelConnectivity.READY


class _Place(NamedTuple):
    origin: Origin
    named: bool


class Channels:
    """Calls over gRPC. One per process; errors are those of `Egress`, with `delivered` in their metadata, and Refused
    for what the server itself says."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._lines: dict[_Place, _Line] = {}
        self._dialling: dict[_Place, asyncio.Lock] = {}
        self._roots: bytes | None = None

    async def ask(
        self, origin: Origin, path: str, body: bytes, metadata: Mapping[str, str], *, timeout: float, trusted: bool
    ) -> bytes:
        """One answer. `timeout` is seconds for all of it, and the deadline that the server is told."""
        async with self._line(origin, trusted) as line:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = line.channel.unary_unary(path)
            try:
                return await method(body, timeout=timeout, metadata=_lower(metadata))
            except grpc.aio.AioRpcError as error:
                raise _ended(error, origin) from error

    async def stream(
        self, origin: Origin, path: str, body: bytes, metadata: Mapping[str, str], *, trusted: bool
    ) -> AsyncGenerator[bytes, None]:
        """The messages of an answer as they come, without an end time; leaving early cancels the call."""
        async with self._line(origin, trusted) as line:
            method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = line.channel.unary_stream(path)
            call = method(body, metadata=_lower(metadata))
            try:
                async for data in call:
                    if len(data) > MAX_EVENT_BYTES:
                        raise _too_large(origin)
                    yield data
            except grpc.aio.AioRpcError as error:
                raise _ended(error, origin) from error
            finally:
                call.cancel()

    async def aclose(self) -> None:
        lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            await line.channel.close()

    # Connecting

    @asynccontextmanager
    async def _line(self, origin: Origin, trusted: bool) -> AsyncIterator[_Line]:
        refusal = self._egress.rules.judge_text(origin, trusted=trusted)
        if refusal is not None:
            raise GatewayError(Reason.EGRESS_REFUSED, refusal, metadata=NOT_SENT)
        place = _Place(origin, trusted or self._egress.rules.named(origin))
        line = await self._connected(place)
        line.calls += 1
        try:
            yield line
        finally:
            line.calls -= 1
            if line.given_up and not line.calls:
                await line.channel.close()

    async def _connected(self, place: _Place) -> _Line:
        """A line whose connection stands, so that a call which fails after this may have been delivered."""
        async with self._dialling.setdefault(place, asyncio.Lock()):
            line = self._lines.get(place)
            if line is not None and line.usable:
                return line
            if line is not None:
                await self._give_up(place, line)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    line = await self._dial(place)
            except TimeoutError:
                raise _unreachable(place.origin, Reason.UPSTREAM_TIMEOUT, "could not be connected to in time") from None
            self._lines[place] = line
            return line

    async def _give_up(self, place: _Place, line: _Line) -> None:
        self._lines.pop(place, None)
        line.given_up = True
        if not line.calls:
            await line.channel.close()

    async def _dial(self, place: _Place) -> _Line:
        for target in await self._targets(place):
            channel = self._channel(target, place.origin)
            try:
                if await _ready(channel):
                    return _Line(channel)
            except BaseException:
                await channel.close()
                raise
            await channel.close()
        raise _unreachable(place.origin, Reason.UPSTREAM_FAILED, "could not be reached")

    async def _targets(self, place: _Place) -> list[str]:
        """Addresses of one family each, as gRPC writes them; only those that may be called."""
        origin, rules = place.origin, self._egress.rules
        addresses = await _addresses(origin)
        admitted = [each for each in addresses if rules.admits(each, origin.port, named=place.named)]
        if not admitted:
            sentence = rules.judge(origin, addresses[0], trusted=place.named)
            raise GatewayError(Reason.EGRESS_REFUSED, sentence or f"{origin} is not called", metadata=NOT_SENT)
        families: dict[str, list[str]] = {}
        for address in admitted:
            if ip_address(address).version == 4:
                families.setdefault("ipv4", []).append(f"{address}:{origin.port}")
            else:
                families.setdefault("ipv6", []).append(f"[{address}]:{origin.port}")
        return [f"{family}:{','.join(places)}" for family, places in families.items()]

    def _channel(self, target: str, origin: Origin) -> grpc.aio.Channel:
        options = [*OPTIONS, ("grpc.default_authority", origin.authority)]
        if origin.scheme == "http":
            return grpc.aio.insecure_channel(target, options)
        # The certificate must be the name's, though it is an address that is connected to.
        options.append(("grpc.ssl_target_name_override", origin.host))
        if self._roots is None:
            self._roots = self._egress.roots()
        credentials = grpc.ssl_channel_credentials(self._roots or None)
        return grpc.aio.secure_channel(target, credentials, options)


def _lower(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As HTTP/2 has them (RFC 9113 §8.2); gRPC refuses to send any other."""
    return tuple((name.lower(), value) for name, value in metadata.items())


async def _ready(channel: grpc.aio.Channel) -> bool:
    """True once the connection stands, False when none can be made."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            return False
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return True


async def _addresses(origin: Origin) -> list[str]:
    try:
        return [str(ip_address(origin.host))]
    except ValueError:
        pass  # a name
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            origin.host, origin.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
    except OSError:
        what = "could not be resolved to an address"
        raise _unreachable(origin, Reason.UPSTREAM_FAILED, what) from None
    return [str(place[0]) for *_, place in found[:MAX_ADDRESSES]]


def _ended(error: grpc.aio.AioRpcError, origin: Origin) -> GatewayError | Refused:
    """A call that came to nothing: what the server said, or what happened on the way."""
    status, said = error.code(), error.details() or ""
    details = dict(error.trailing_metadata() or ()).get(DETAILS)
    if isinstance(details, bytes):
        return Refused(status.name, said, details)
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _failed(origin, Reason.UPSTREAM_TIMEOUT, "did not answer in time")
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in said:
        return _too_large(origin)
    if status in _BROKEN:
        return _failed(origin, Reason.UPSTREAM_FAILED, "ended the call before its answer was complete")
    return Refused(status.name, said, b"")


def _too_large(origin: Origin) -> GatewayError:
    return _failed(origin, Reason.UPSTREAM_TOO_LARGE, f"answered with a message of more than {ANSWER_LIMIT} bytes")


def _failed(origin: Origin, reason: Reason, what: str) -> GatewayError:
    return GatewayError(reason, f"{origin.authority} {what}", metadata=PERHAPS_SENT)


def _unreachable(origin: Origin, reason: Reason, what: str) -> GatewayError:
    return GatewayError(reason, f"{origin.authority} {what}", metadata=NOT_SENT)
