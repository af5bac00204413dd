"""Use cases on the audit log itself: read it, follow it, forget a person in it, sign it with another key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.core.audit import Ticket
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.errors import GatewayError, Reason
from gateway.model.operation import EraseSubject, ReadAudit, RotateAuditKey
from gateway.model.ports import Store

# Takes what writes into the log that some keys are followed by others, with the word of the first; gives the others.
Rotate = Callable[[Callable[[list[str], list[str], str], Awaitable[None]]], Awaitable[list[str]]]


class Auditing:
    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self.rotate_key: Rotate | None = None  # where the log is signed

    async def read(self, call: ReadAudit, ticket: Ticket, entry: None) -> AuditPage:
        await self._store.commit()  # what was only to be written soon
        return await self._store.search_audit(call.query)

    async def erase(self, call: EraseSubject, ticket: Ticket, entry: None) -> str:
        def record(pseudonym: str) -> AuditEntry:
            return replace(ticket, target=pseudonym).intent(self._now())

        pseudonym = await self._store.forget_subject(call.principal, record)
        if pseudonym is None:
            raise GatewayError(Reason.NOT_FOUND, f"The audit log knows nobody called {call.principal!r}")
        return pseudonym

    async def rotate(self, call: RotateAuditKey, ticket: Ticket, entry: None) -> list[str]:
        async def announce(before: list[str], after: list[str], word: str) -> None:
            change = {"after": {"keys": after, "note": word}, "before": {"keys": before}}
            await self._store.commit(records=(ticket.intent(self._now(), change=change),))

        if self.rotate_key is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The audit log of this store is not signed")
        return await self.rotate_key(announce)

    # For whoever was let read the audit log and watches it now.

    async def end(self) -> int:
        """The number of the newest entry."""
        newest = await self._store.search_audit(AuditQuery(1))
        return newest.entries[0][0] if newest.entries else 0

    async def after(self, number: int, limit: int) -> list[tuple[int, AuditEntry]]:
        return await self._store.audit(number, limit)
