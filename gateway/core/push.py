"""Telling webhooks: one worker that takes what is due from the outbox and delivers it.

Rows come into the outbox with the events they tell of, in the same commit, so nothing that happened is forgotten.
Each is tried at least once and up to three times more. What is due for one task and webhook is given out one event
at a time, in order, so a webhook that fails delays nobody but itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from gateway.model.errors import GatewayError
from gateway.model.ports import Delivery, Notifier, SettleDelivery, Store

log = logging.getLogger(__name__)

RETRY_MS = (1_000, 5_000, 25_000)  # after the first, second and third failure; then it is given up
LEASE_MS = 60_000  # longer than an attempt may take (the sender's own timeout is 15 s)
AT_ONCE = 32  # deliveries in hand: enough for many slow webhooks, few enough sockets
POLL_SECONDS = 1.0  # retries come due without anybody telling


class PushWorker:
    def __init__(self, store: Store, notifier: Notifier, now: Callable[[], int]) -> None:
        self._store = store
        self._notifier = notifier
        self._now = now
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trying: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._due.set()  # an earlier life may have left some
        self._task = asyncio.create_task(self._forever(), name="push")

    async def aclose(self) -> None:
        tasks = {task for task in (self._task, *self._trying) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def wake(self) -> None:
        self._due.set()

    async def _forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._due.wait()
            self._due.clear()
            try:
                await self._take()
            except GatewayError as error:
                log.error("the push outbox cannot be read: %s", error.message)

    async def _take(self) -> None:
        """Begin what is due, as far as there is room; nobody waits for anybody else's webhook."""
        while room := AT_ONCE - len(self._trying):
            deliveries = await self._store.due(self._now(), room, LEASE_MS)
            for delivery in deliveries:
                task = asyncio.create_task(self._try(delivery))
                self._trying.add(task)
                task.add_done_callback(self._tried)
            if not deliveries:
                return

    def _tried(self, task: asyncio.Task[None]) -> None:
        self._trying.discard(task)
        self._due.set()  # there is room again, and that webhook's next event may be due

    async def _try(self, delivery: Delivery) -> None:
        retry_at = None
        try:
            await self._notifier.deliver(delivery)
        except Exception as error:
            if delivery.attempts <= len(RETRY_MS):
                retry_at = self._now() + RETRY_MS[delivery.attempts - 1]
            self._log(delivery, error, given_up=retry_at is None)
        assert delivery.config.id is not None
        self._store.later(SettleDelivery(delivery.tenant, delivery.task_id, delivery.config.id, delivery.seq, retry_at))

    def _log(self, delivery: Delivery, error: Exception, *, given_up: bool) -> None:
        known = isinstance(error, GatewayError)
        log.warning(
            "push of task %s event %d, attempt %d: %s%s",
            delivery.task_id,
            delivery.seq,
            delivery.attempts,
            error.message if isinstance(error, GatewayError) else "failed unexpectedly",
            "; given up" if given_up else "",
            exc_info=None if known else error,
        )
