"""Connections by origin: opened to addresses that were judged, lent to one call at a time, kept for a moment.

The pool knows how to reach a host; whether it may is the question that it asks `admits` about the very address of each
socket, in the line before that socket connects. A name is resolved for each new connection and never again after that.
One timer per pool looks at all connections when the first deadline comes: a timer per call costs more than the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from gateway.upstream.address import Origin
from gateway.upstream.exchange import CLOSED, UNCERTIFIED, Failed, refused_certificate
from gateway.upstream.http1 import Connection

# 2 000 open streams to one agent is what we promise. More than that to a single host means it has stopped
# answering, and it must not take every file descriptor from the others.
CONNECTIONS_PER_HOST = 2048
# Below the 5 s after which uvicorn and Node close an idle connection: we let go first, so that a POST is
# rarely sent into a connection that its server has just given up.
KEEPALIVE = 4.0
# RFC 8305 §5: after this long without an answer from one address the next one is tried beside it.
HEAD_START_SECONDS = 0.25
# Addresses of a name that are tried. Two families with a few machines each; who has more has them all alike.
MAX_ADDRESSES = 16
# The clock looks at most this often: an eighth of the shortest timeout that anybody sets outside of tests.
TICK_SECONDS = 0.005


class Refused(Failed):
    """The rules do not admit `address`, and no other address of the name could be connected to."""

    def __init__(self, address: str) -> None:
        super().__init__("has an address that is not called", sent=False)
        self.address = address


class _Address(NamedTuple):
    family: int
    text: str
    port: int
    place: Any  # as `sock_connect` takes it, which depends on the family


class _Host:
    """What is open to one origin."""

    __slots__ = ("busy", "idle", "waiting")

    def __init__(self) -> None:
        self.idle: dict[Connection, None] = {}  # a set that remembers which came last
        self.busy = 0  # lent or being opened
        self.waiting: deque[asyncio.Future[None]] = deque()  # for their turn to be busy


class Pool:
    """`admits(address, port)` is asked for each socket. `tls` gives the context when the first https call needs it."""

    def __init__(
        self,
        admits: Callable[[str, int], bool],
        tls: Callable[[], ssl.SSLContext],
        *,
        per_host: int = CONNECTIONS_PER_HOST,
    ) -> None:
        self._admits = admits
        self._tls = tls
        self._per_host = per_host
        self._loop = asyncio.get_running_loop()
        self._hosts: dict[Origin, _Host] = {}
        self._open: dict[Connection, Origin] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when the timer fires
        self._keep = KEEPALIVE
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    # Lending

    def take(self, origin: Origin) -> Connection | None:
        """The connection that was used last, if one is idle."""
        host = self._hosts.get(origin)
        if host is None or host.busy >= self._per_host:
            return None
        connection = _idle(host)
        if connection is not None:
            host.busy += 1
        return connection

    async def connect(self, origin: Origin, until: float, patience: float, *, fresh: bool = False) -> Connection:
        """A connection, when it is this call's turn: by `until` (loop time), and within `patience` s of dialling.

        `fresh` does not take one that has been used. Raises Failed with `sent=False`, Refused among them.
        """
        host = self._hosts.setdefault(origin, _Host())
        if host.busy < self._per_host:
            host.busy += 1
        else:
            await self._turn(origin, host, until)
        try:
            connection = None if fresh else _idle(host)
            if connection is None:
                until = min(until, self._loop.time() + patience)
                connection = await self._dial(origin, until)
            return connection
        except BaseException:
            self._next_turn(origin, host)
            raise

    async def _turn(self, origin: Origin, host: _Host, until: float) -> None:
        """Wait to be busy in somebody else's place."""
        turn = self._loop.create_future()
        host.waiting.append(turn)
        try:
            async with asyncio.timeout_at(until):
                await turn
        except BaseException as error:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # passed over already
                    host.waiting.remove(turn)
            else:
                self._next_turn(origin, host)  # it came at the same moment
            if isinstance(error, TimeoutError):
                raise _late() from None
            raise

    def _next_turn(self, origin: Origin, host: _Host) -> None:
        """One is busy no more: another in its place, or one less."""
        while host.waiting:
            turn = host.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        host.busy -= 1
        if not host.busy and not host.idle:
            self._hosts.pop(origin, None)

    # As the owner of connections

    def wake_by(self, when: float) -> None:
        if when < self._next:
            if self._timer is not None:
                self._timer.cancel()
            self._next = when
            self._timer = self._loop.call_at(when, self._look)

    def back(self, connection: Connection, *, reusable: bool) -> None:
        origin = self._open[connection]
        host = self._hosts[origin]
        if reusable:
            host.idle[connection] = None
            connection.deadline = until = self._loop.time() + self._keep
            self.wake_by(until)
        if host.waiting or not reusable:
            self._next_turn(origin, host)
        else:
            host.busy -= 1

    def gone(self, connection: Connection) -> None:
        origin = self._open.pop(connection, None)  # None: gone before it was here
        host = self._hosts.get(origin) if origin else None
        if origin and host:
            host.idle.pop(connection, None)
            if not host.busy and not host.idle:
                del self._hosts[origin]
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    def _look(self) -> None:
        self._timer, self._next = None, math.inf
        now = self._loop.time()
        first = math.inf
        for connection in tuple(self._open):
            if connection.deadline <= now:
                connection.deadline = math.inf
                connection.expire()
            elif connection.deadline < first:
                first = connection.deadline
        if first < math.inf:
            self.wake_by(max(first, now + TICK_SECONDS))

    def retire(self) -> bool:
        """Keep no connection from now on, but for the calls that are under way. Whether any is still open."""
        self._keep = 0.0
        for host in tuple(self._hosts.values()):
            for connection in tuple(host.idle):
                connection.close()
        return bool(self._open)

    async def aclose(self) -> None:
        """Close every connection; calls that are under way fail."""
        self._closed = True
        for connection in tuple(self._open):
            connection.close()
        if self._open:
            self._emptied = self._loop.create_future()
            await self._emptied
        if self._timer is not None:
            self._timer.cancel()

    # Connecting

    async def _dial(self, origin: Origin, until: float) -> Connection:
        try:
            async with asyncio.timeout_at(until):
                sock = await self._reach(await self._addresses(origin))
                return await self._speak(origin, sock)
        except TimeoutError:
            raise _late() from None
        except OSError as error:
            raise Failed(_what_failed(error), sent=False) from error

    async def _addresses(self, origin: Origin) -> list[_Address]:
        try:
            family = socket.AF_INET if ip_address(origin.host).version == 4 else socket.AF_INET6
            return [_Address(family, origin.host, origin.port, (origin.host, origin.port))]
        except ValueError:
            pass  # a name
        found = await self._loop.getaddrinfo(
            origin.host, origin.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return [_Address(family, str(place[0]), origin.port, place) for family, _, _, _, place in found[:MAX_ADDRESSES]]

    async def _reach(self, addresses: list[_Address]) -> socket.socket:
        """The socket that connects first. Each address gets a head start over the next; one that fails gives way."""
        if len(addresses) == 1:
            return await self._socket(addresses[0])
        waiting, running = deque(addresses), set[asyncio.Task[socket.socket]]()
        failures: list[BaseException] = []
        try:
            while waiting or running:
                if waiting:
                    running.add(self._loop.create_task(self._socket(waiting.popleft())))
                done, _ = await asyncio.wait(
                    running, timeout=HEAD_START_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    running.discard(task)
                    failure = task.exception()
                    if failure is None:
                        return task.result()
                    failures.append(failure)
        finally:
            for task in running:
                task.cancel()
                task.add_done_callback(_let_go)
        # What really happened at an address says more than that another one was not allowed.
        raise next((failure for failure in failures if not isinstance(failure, Refused)), failures[0])

    async def _socket(self, address: _Address) -> socket.socket:
        sock = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._admits(address.text, address.port):
                raise Refused(address.text)
            await self._loop.sock_connect(sock, address.place)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _speak(self, origin: Origin, sock: socket.socket) -> Connection:
        """HTTP over a connected socket; with TLS, after the certificate was found to be the host's."""
        tls = self._tls() if origin.scheme == "https" else None
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self, self._loop, None if tls else sock),
                sock=sock,
                ssl=tls,
                server_hostname=origin.host if tls else None,
            )
        except BaseException as error:
            sock.close()
            if tls is not None and isinstance(error, ConnectionError):
                raise Failed(f"could not be reached: TLS failed, {UNCERTIFIED}", sent=False) from error
            raise
        if self._closed or connection.closed:
            connection.close()
            raise Failed(CLOSED, sent=False)
        self._open[connection] = origin
        return connection


def _idle(host: _Host) -> Connection | None:
    while host.idle:
        connection, _ = host.idle.popitem()
        if connection.idle():
            return connection
    return None


def _let_go(task: asyncio.Task[socket.socket]) -> None:
    """An attempt that came second."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _late() -> Failed:
    return Failed("could not be connected to in time", sent=False, late=True)


def _what_failed(error: OSError) -> str:
    match error:
        case socket.gaierror():
            return "could not be resolved to an address"
        case ssl.SSLCertVerificationError():
            return f"showed a certificate that is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return refused_certificate(error) or "could not be reached: TLS failed"
        case ConnectionRefusedError():
            return "refused the connection"
        case _:
            return "could not be reached"
