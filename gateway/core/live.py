"""Who is watching which task right now: ordered fan-out from one writer to any number of subscribers.

A subscriber that begins to listen *before* it reads the task from the store and then drops what it has already
seen (`Record.seq`) gets every event exactly once, without a lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TypeAlias

from gateway.model.errors import GatewayError, Reason
from gateway.model.rows import Record

Topic: TypeAlias = tuple[str, str]  # tenant, task id

# After this long without news a reader is told so with an empty group, so that the door can keep the connection
# alive: proxies cut silent ones after 30 to 60 s.
HEARTBEAT_SECONDS = 15.0
# A reader that falls this far behind is let go; it can subscribe again and misses nothing. Large enough for a
# burst (an agent's commit groups are at most 64 events), small enough that 2 000 stuck readers stay affordable.
MAX_BACKLOG = 512


class Subscription:
    """One reader of one task. Iterate with `next(timeout)`; use as a context manager so that it is always closed."""

    __slots__ = ("_closed", "_live", "_overflow", "_queue", "_topic", "_waiter")

    def __init__(self, live: Live, topic: Topic) -> None:
        self._live = live
        self._topic = topic
        self._queue: deque[Sequence[Record]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._overflow = False
        self._closed = False

    def put(self, records: Sequence[Record]) -> None:
        if len(self._queue) >= MAX_BACKLOG:
            self._overflow = True
            self._queue.clear()
        elif not self._overflow:
            self._queue.append(records)
        self._wake()

    def end(self) -> None:
        """No more news: the gateway is shutting down. The reader sees what is queued, then None."""
        self._closed = True
        self._wake()

    def _news(self) -> bool:
        return bool(self._queue) or self._overflow or self._closed

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Sequence[Record] | None:
        """The next group of records; an empty one after `heartbeat` seconds of silence; None at the end.

        Raises GatewayError(OVERLOADED) when this reader was too slow.
        """
        while True:
            if self._overflow:
                raise GatewayError(
                    Reason.OVERLOADED,
                    "This stream was read too slowly; subscribe again to go on",
                    retry_after=1,
                )
            if self._queue:
                return self._queue.popleft()
            if self._closed:
                return None
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            alarm = loop.call_later(self._live.heartbeat, self._wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
                self._waiter = None
            if not self._news():
                return ()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._live.remove(self._topic, self)


class Live:
    """All subscriptions of this process."""

    def __init__(self, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self.heartbeat = heartbeat
        self._topics: dict[Topic, list[Subscription]] = {}
        self._closed = False

    def close(self) -> None:
        """End all streams; their readers subscribe again elsewhere or later."""
        self._closed = True
        for subscriptions in self._topics.values():
            for subscription in subscriptions:
                subscription.end()

    def subscribe(self, topic: Topic) -> Subscription:
        subscription = Subscription(self, topic)
        if self._closed:
            subscription.end()
        self._topics.setdefault(topic, []).append(subscription)
        return subscription

    def publish(self, topic: Topic, records: Sequence[Record]) -> None:
        for subscription in self._topics.get(topic, ()):
            subscription.put(records)

    def remove(self, topic: Topic, subscription: Subscription) -> None:
        readers = self._topics.get(topic)
        if readers is None or subscription not in readers:
            return
        readers.remove(subscription)
        if not readers:
            del self._topics[topic]
