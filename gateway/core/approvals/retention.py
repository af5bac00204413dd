"""Approvals that have ended are kept for some time, for whoever asks how it went; the audit log keeps what was decided.

A few at a time: whoever writes meanwhile waits for a few rows at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.core.approvals.approvals import Approvals
from gateway.model.approval import ApprovalStore
from gateway.model.errors import GatewayError

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3_600.0  # between two looks: days are counted, so an hour more is nothing
AT_ONCE = 500  # rows of one transaction, some milliseconds


class Retention:
    """The `days` count from the end of an approval's time, whenever it was decided."""

    def __init__(self, approvals: Approvals, store: ApprovalStore, days: int, now: Callable[[], int]) -> None:
        self._approvals = approvals
        self._store = store
        self._keep_ms = days * 86_400_000
        self._now = now
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._work = asyncio.create_task(self._forget())

    async def aclose(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))

    async def _forget(self) -> None:
        while True:
            try:
                await self.sweep()
            except GatewayError as error:
                log.warning("old approvals are still there: %s", error.message)
            except Exception:
                log.exception("old approvals are still there")
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        before = self._now() - self._keep_ms
        self._approvals.forget(before)
        while await self._store.forget(before, AT_ONCE) == AT_ONCE:
            pass
