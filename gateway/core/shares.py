"""What lets somebody read another's task, and the streams that stand on it: each ends when that does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from gateway.core.freezer import Freezer
from gateway.core.watch import Followed
from gateway.model.errors import task_not_found
from gateway.model.governance import Cold, Frozen
from gateway.model.ports import Store
from gateway.model.principal import Principal
from gateway.model.rows import TaskRow
from gateway.model.sharing import Share

# A timer of the loop may go off a little before the clock says so; it must not be set again at once, time after time.
_LEAST_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Lent:
    """A task that is read by somebody whom its owner lets, and what they see of it."""

    task_id: str
    owner: str
    shown: object


Found: TypeAlias = tuple[TaskRow, Share | None]
"""A task that its caller may read, and what lets them if it is not their own."""


class Shares:
    def __init__(self, store: Store, freezer: Freezer, now: Callable[[], int]) -> None:
        self._store = store
        self._freezer = freezer
        self._now = now
        self._streams: set[SharedStream] = set()
        freezer.stopping.append(self._frozen)

    async def readable(self, who: Principal, task_id: str, agent: str | None) -> Found:
        """For verbs that read, and only where policy is asked about the agent that the task is at: before, where the
        call names it, or with what is found. Raises TASK_NOT_FOUND."""
        row, share = await self._store.task(who.tenant, task_id, owner=who.owner, agent=agent), None
        if row is None and (share := await self.given(who, task_id)) is not None:
            row = await self._store.task(who.tenant, task_id, owner=share.owner, agent=agent)
        if row is None:
            raise task_not_found(task_id)
        return row, share

    async def given(self, who: Principal, task_id: str) -> Share | None:
        """What lets `who` read a task that is not their own. An agent that asks for somebody, here or beyond another
        gateway, does not stand in their place for this."""
        if who.hops or who.on_behalf_of is not None:
            return None
        share = await self._store.shares.given(who.tenant, task_id, who.id)
        return share if share is not None and self.holds(share) else None

    def holds(self, share: Share) -> bool:
        return share.holds(self._now()) and not any(map(self._is_frozen, (share.owner, share.principal)))

    async def bind(self, watch: Followed, share: Share, who: Principal) -> None:
        """From now on the stream ends with what lets its reader in. Raises TASK_NOT_FOUND, and the stream is closed,
        when that is gone already."""
        stream = watch.lent = SharedStream(self, watch, share, self._now)
        self._streams.add(stream)
        try:
            # Looked at once more, now that its end would be heard here.
            fresh = await self.given(who, share.task_id)
            if fresh is None:
                raise task_not_found(share.task_id)
        except BaseException:
            await watch.aclose()
            raise
        stream.stand_on(fresh)

    def ended(self, share: Share) -> None:
        """It was taken back, or its end was changed."""
        self._end(stream for stream in self._streams if _key(stream.share) == _key(share))

    def forget(self, stream: SharedStream) -> None:
        self._streams.discard(stream)

    def _frozen(self, cold: Frozen) -> None:
        self._end(stream for stream in self._streams if not self.holds(stream.share))

    def _end(self, streams: Iterable[SharedStream]) -> None:
        for stream in tuple(streams):
            stream.end()

    def _is_frozen(self, principal: str) -> bool:
        return bool(self._freezer.about(Cold.PRINCIPAL, principal))


class SharedStream:
    """One stream of a task by somebody who does not own it."""

    def __init__(self, shares: Shares, watch: Followed, share: Share, now: Callable[[], int]) -> None:
        self.share = share
        self.owner = share.owner
        self._shares = shares
        self._watch = watch
        self._now = now
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def stand_on(self, share: Share) -> None:
        """What was given again meanwhile, perhaps with another end."""
        self.share = share
        self._stop()
        self._look()

    def holds(self) -> bool:
        """Whether its reader may hear more. Asked before each word, because the loop may be late for the timer."""
        return not self._over and self._shares.holds(self.share)

    def end(self) -> None:
        self._over = True
        self._watch.end()
        self.close()

    def close(self) -> None:
        self._shares.forget(self)
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self.share.until is None:
            return
        left = self.share.until - self._now()
        if left <= 0:
            self.end()
        else:
            wait = max(left / 1000, _LEAST_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(wait, self._look)


def _key(share: Share) -> tuple[str, str, str]:
    return share.tenant, share.task_id, share.principal
