"""Telling webhooks: one worker that takes what is due from the outbox and delivers it.

Rows come into the outbox with the events they tell of, in the same commit, so nothing that happened is forgotten.
Each is tried at least once and up to three times more. What is due for one task and webhook is given out one event
at a time, in order, so a webhook that fails delays nobody but itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.model.errors import GatewayError
from gateway.model.ports import Delivery, Notifier, SettleDelivery, Store

log = logging.getLogger(__name__)

RETRY_MS = (1_000, 5_000, 25_000)  # after the first, second and third failure; then it is given up
LEASE_MS = 60_000  # longer than an attempt may take (the sender's own timeout is 15 s)
BATCH = 32  # deliveries in hand at once
POLL_SECONDS = 1.0  # retries come due without anybody telling


class PushWorker:
    def __init__(self, store: Store, notifier: Notifier, now: Callable[[], int]) -> None:
        self._store = store
        self._notifier = notifier
        self._now = now
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._due.set()  # an earlier life may have left some
        self._task = asyncio.create_task(self._forever(), name="push")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def wake(self) -> None:
        self._due.set()

    async def _forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                while deliveries := await self._store.due(self._now(), BATCH, LEASE_MS):
                    await asyncio.gather(*(self._try(delivery) for delivery in deliveries))
            except GatewayError as error:
                log.error("the push outbox cannot be read: %s", error.message)

    async def _try(self, delivery: Delivery) -> None:
        retry_at = None
        try:
            await self._notifier.deliver(delivery)
        except GatewayError as error:
            if delivery.attempts <= len(RETRY_MS):
                retry_at = self._now() + RETRY_MS[delivery.attempts - 1]
            log.warning(
                "push of task %s event %d, attempt %d: %s%s",
                delivery.task_id,
                delivery.seq,
                delivery.attempts,
                error.message,
                "" if retry_at else "; given up",
            )
        assert delivery.config.id is not None
        self._store.later(SettleDelivery(delivery.tenant, delivery.task_id, delivery.config.id, delivery.seq, retry_at))
