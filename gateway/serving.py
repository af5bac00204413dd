"""A gateway from its first socket to its last answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn

from gateway import logs
from gateway.app import App, assemble
from gateway.config import Settings
from gateway.credential import advertise
from gateway.listening import Shown, listen, listen_admin
from gateway.model.problems import BadCertificate
from gateway.server.edge import server_config
from gateway.server.head import EdgeLimits


@dataclass(frozen=True, slots=True)
class Running:
    """What a started gateway tells the person who started it."""

    url: str
    cards: list[tuple[str, str]]
    token_file: Path | None
    grpc: str | None = None  # host:port
    admin: str | None = None  # URL or unix:PATH of /admin, if it has a listener of its own


async def serve(
    settings: Settings, *, ready: Callable[[Running], None], again: Callable[[], Settings] | None = None
) -> int:
    """Run until SIGTERM or Ctrl-C. Returns the exit code. `again` reads the operator's file once more."""
    logs.configure()
    # The socket first: an address in use is found before anything is written.
    listener = listen(settings.host, settings.port)
    aside: socket.socket | None = None
    try:
        aside = None if settings.admin is None else listen_admin(settings.admin)
        app = await assemble(settings.bound(listener.getsockname()[1], _port(aside)))
        if again is not None:
            app.tools.reload = partial(app.reload, again)
        server = Server(app, ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.handle_exit, number, None)
        try:
            await app.start()
            # What is alive now stays: the collector need not look at it again (+8 to 10 % throughput).
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 100)
            async with _admin(app, aside):
                await server.serve([listener])
        finally:
            await app.aclose()
    finally:
        listener.close()
        if aside is not None:
            aside.close()
        if settings.admin is not None and settings.admin.path is not None:
            settings.admin.path.unlink(missing_ok=True)
    return 0


def _port(listener: socket.socket | None) -> int:
    return 0 if listener is None or listener.family == socket.AF_UNIX else int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def _admin(app: App, listener: socket.socket | None) -> AsyncIterator[None]:
    """/admin on a listener of its own, from before the public one is open until after it has closed."""
    settings = app.settings
    advertise(settings.data, settings.admin_url)
    if listener is None or settings.admin is None:
        yield
        return
    config = server_config(
        cast(Any, app.admin_asgi),
        settings.admin.host,
        settings.admin.port,
        EdgeLimits(),
        graceful_shutdown=1,
        lifespan="off",
        tls=None if settings.admin.local or app.shown is None else app.shown.context,
    )
    server = _Quiet(config)
    app.streams.among(server.server_state.connections)
    if config.is_ssl:
        app.when_shown.append(server.renew)
    serving = asyncio.create_task(server.serve([listener]), name="admin-listener")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({serving})


class _Quiet(uvicorn.Server):
    """uvicorn with the signals left to us, and with certificates that can be renewed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._one = asyncio.Lock()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._one:
            await super().startup(sockets)

    async def renew(self, shown: Shown) -> None:
        """New connections begin with this certificate, and with nothing of what was before: no session is taken up
        again, so that nobody comes in by one whose authority is not trusted any more. The socket stays: who waits to be
        let in waits on. Connections that are there go on. Raises BadCertificate."""
        async with self._one:
            config = self.config
            config.ssl_context_factory, config.ssl = lambda config, default: shown.context, shown.context
            if not self.started or self.should_exit:
                return
            before, self.servers = self.servers, await self._again(shown)
            for each in before:
                each.close()

    async def _again(self, shown: Shown) -> list[asyncio.Server]:
        """Listening where it does, once more."""
        loop, made = asyncio.get_running_loop(), list[asyncio.Server]()
        try:
            for listener in [listener for each in self.servers for listener in each.sockets]:
                sock = socket.socket(fileno=os.dup(listener.fileno()))
                backlog = self.config.backlog
                made.append(await loop.create_server(self._connection, sock=sock, ssl=shown.context, backlog=backlog))
        except OSError as error:
            for each in made:
                each.close()
            raise BadCertificate(f"cannot be used: {error.strerror}") from error
        return made

    def _connection(self) -> asyncio.Protocol:
        kind = cast(Any, self.config.http_protocol_class)
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again at the end, and a clean shutdown would look like a crash.
        yield


class Server(_Quiet):
    """uvicorn with a drain in front of its shutdown."""

    def __init__(self, app: App, ready: Callable[[Running], None]) -> None:
        settings = app.settings
        grace = max(1, int(settings.config.server.drain_seconds))
        config = server_config(
            cast(Any, app.asgi),
            settings.host,
            settings.port,
            EdgeLimits(),
            graceful_shutdown=grace,
            lifespan="off",
            tls=None if app.shown is None else app.shown.context,
        )
        super().__init__(config)
        app.when_shown.append(self.renew)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._app.streams.among(self.server_state.connections)
        settings = self._app.settings
        cards = [
            (entry.id, f"{settings.public_url}/agents/{entry.id}/.well-known/agent-card.json")
            for entry in self._app.registry.all()
        ]
        self._ready(
            Running(settings.public_url, cards, settings.data / "token", self._app.grpc_url, settings.admin_url)
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.drain()
        await super().shutdown(sockets)
