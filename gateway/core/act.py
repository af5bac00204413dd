"""An operator's change and the record of it: one commit, or neither is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from gateway.core.audit import Ticket
from gateway.core.standing import Tree, after
from gateway.model.changes import Change
from gateway.model.errors import GatewayError
from gateway.model.ports import Store

T = TypeVar("T")

Standing = Mapping[str, Tree]
"""What stands, by a name that tells things of different kinds apart."""


class Act:
    """One admitted call that changes what somebody has set. `before` is what it is about, as it stood.

    `commit` writes the changes with the entry that says how the call ended, so it comes last and once. A call that
    reaches outside first, or that has more to write than one transaction takes, says so before with `begin`. What is
    changed nowhere in the store is recorded by whoever runs the call.
    """

    def __init__(self, ticket: Ticket, store: Store, now: Callable[[], int], before: Standing) -> None:
        self.ticket = ticket
        self.before = before
        self.recorded = False
        self._store = store
        self._now = now

    async def begin(self) -> None:
        """Returns when it is durable that this is tried."""
        await self._store.commit(records=(self.ticket.intent(self._now()),))

    async def commit(self, *changes: Change, standing: Standing | None = None) -> None:
        """Raises what the store raises, and then nothing was changed. `standing`: what will stand, where the changes
        alone do not say."""
        assert not self.recorded, "one entry says how a call ended"
        await self._write("ok", after(self.before, changes) if standing is None else standing, *changes)

    async def through(self, work: Awaitable[T], standing: Callable[[], Standing] | None = None) -> T:
        """The result of the work, recorded. `standing`: what the call is about as it stands when nothing of it is in
        the store."""
        try:
            result = await work
        except GatewayError as error:
            if not self.recorded:
                self.ticket = self.ticket.stopped(error)
                await self.ended(error.reason)
            raise
        if not self.recorded:
            await self.ended("ok", None if standing is None else standing())
        return result

    async def ended(self, outcome: str, standing: Standing | None = None) -> None:
        """It ended without a change of its own in the store. `standing`: what it is about, as it stands now."""
        await self._write(outcome, self.before if standing is None else standing)

    async def _write(self, outcome: str, standing: Standing, *changes: Change) -> None:
        change = None
        if standing != self.before:
            change = {"after": list(standing.values()), "before": list(self.before.values())}
        record = self.ticket.outcome(self._now(), outcome, change=change)
        await self._store.commit(*changes, records=(record,))
        self.recorded = True
