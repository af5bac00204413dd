"""Change notifications of one session, for everybody who wants to hear them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable

from gateway.dialects.mcp.client import failed
from gateway.dialects.mcp.message import Notification
from gateway.model.errors import GatewayError
from gateway.model.tool import Change

CHANGES = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
# Changes that may wait for a listener. All of them say "look again", so whoever is so far behind may as well be told
# that it missed some.
WAITING = 1024


Overheard = Callable[[Change], None]
"""Takes what is said in a session where nobody listens for it. Must neither wait nor raise."""


class Fanout:
    """`subscribe` and `unsubscribe` tell the server which resources are wanted; each is asked for once."""

    def __init__(self, overheard: Overheard) -> None:
        self._overheard = overheard
        self._listeners: dict[asyncio.Queue[Change | GatewayError], frozenset[str]] = {}
        self._wanted: Counter[str] = Counter()

    @property
    def busy(self) -> bool:
        return bool(self._listeners)

    def publish(self, notification: Notification) -> None:
        if notification.method not in CHANGES:
            return
        if not self._listeners:
            self._overheard(Change(notification.method, notification.params))
            return
        uri = notification.params.get("uri")
        uri = uri if isinstance(uri, str) else ""  # whatever else it is, nobody wants it
        for queue, uris in tuple(self._listeners.items()):
            if notification.method == "notifications/resources/updated" and uri not in uris:
                continue
            if queue.qsize() >= WAITING:
                self._lose(queue, failed("sends changes faster than they can be told"))
            else:
                queue.put_nowait(Change(notification.method, notification.params))

    def end(self, error: GatewayError) -> None:
        """The session is over; everybody has to listen anew."""
        for queue in tuple(self._listeners):
            self._lose(queue, error)

    async def listen(
        self, uris: frozenset[str], first: Change, subscribe: Callable[[str, bool], Awaitable[None]]
    ) -> AsyncGenerator[Change, None]:
        """`first`, as soon as `subscribe(uri, True)` has been done for each of `uris`, and then what comes."""
        queue: asyncio.Queue[Change | GatewayError] = asyncio.Queue()
        self._listeners[queue] = uris
        subscribed = []
        try:
            for uri in sorted(uris):
                self._wanted[uri] += 1
                subscribed.append(uri)
                if self._wanted[uri] == 1:
                    await subscribe(uri, True)
            yield first
            while not isinstance(news := await queue.get(), GatewayError):
                yield news
            raise news
        finally:
            self._listeners.pop(queue, None)
            for uri in subscribed:
                self._wanted[uri] -= 1
                if not self._wanted[uri]:
                    del self._wanted[uri]
                    await subscribe(uri, False)

    def _lose(self, queue: asyncio.Queue[Change | GatewayError], error: GatewayError) -> None:
        self._listeners.pop(queue, None)
        queue.put_nowait(error)
