"""Use cases of sharing: the owner of a task, or the machine's own operator, lets one other principal read it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.core.act import Act
from gateway.core.audit import Ticket
from gateway.core.owned import Owned
from gateway.core.policy.refusals import refused
from gateway.core.policy.rules import DENIED
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.shares import Shares
from gateway.core.standing import shared, standing
from gateway.model.changes import DropShare, PutShare
from gateway.model.errors import GatewayError, Reason, invalid, task_not_found
from gateway.model.principal import Kind
from gateway.model.rows import TaskRow
from gateway.model.sharing import ListShares, Share, ShareTask, UnshareTask
from gateway.model.whom import named

MAX_SHARES = 32  # per task: they are named one by one, and whoever means more of them means a rule or a tenant
MAX_READER = 2048  # characters of a name, which is kept: as many as an OAuth client's id may have

# Whoever can be told apart and comes to the door: not agents here, not nobody, and not the machine's own credential.
_READERS = frozenset({Kind.KEY, Kind.OAUTH, Kind.SPIFFE})
_NAMED = "must name one principal: a key (`bob`), `user:NAME`, `client:NAME`, `oauth:ISSUER#SUBJECT` or `spiffe://…`"


class Sharing:
    def __init__(self, services: Services, owned: Owned, shares: Shares) -> None:
        self._services = services
        self._owned = owned
        self._shares = shares
        self._changing = asyncio.Lock()  # so that what is recorded as before was before, and the bound holds

    async def share(self, call: ShareTask, act: Act, entry: Registered | None) -> Share:
        """Given again, it replaces what there was; streams that stood on another end begin again."""
        reader, now = _reader(call.reader), self._services.now()
        if call.until is not None and call.until <= now:
            raise invalid("until", "is over already; name a time that is to come, or none")
        async with self._changing:
            row = await self._row(act.ticket, call.task_id)
            if reader == row.owner:
                raise invalid("reader", "owns the task; share it with somebody else")
            present = await self._services.store.shares.of(row.tenant, row.id)
            ended = [each for each in present if not each.holds(now)]
            before = next((each for each in present if each.principal == reader and each not in ended), None)
            if before is None and len(present) - len(ended) >= MAX_SHARES:
                raise invalid("reader", f"is one too many: a task has at most {MAX_SHARES}; unshare it with another")
            made = Share(row.tenant, row.id, reader, row.owner, act.ticket.principal.id, now, call.until)
            act.before = standing([] if before is None else [shared(before)])
            await act.commit(*map(_dropped, ended), PutShare(made))
        if before is not None and before.until != made.until:
            self._shares.ended(before)
        return made

    async def unshare(self, call: UnshareTask, act: Act, entry: Registered | None) -> None:
        reader = _reader(call.reader)
        async with self._changing:
            row = await self._row(act.ticket, call.task_id)
            found = await self._services.store.shares.given(row.tenant, row.id, reader)
            if found is None or not found.holds(self._services.now()):
                message = f"The task is not shared with {call.reader[:200]!r}; `gateway tasks shares` shows with whom"
                raise GatewayError(Reason.NOT_FOUND, message)
            act.before = standing([shared(found)])
            await act.commit(_dropped(found))
        self._shares.ended(found)

    async def list(self, call: ListShares, ticket: Ticket, entry: Registered | None) -> Sequence[Share]:
        row, now = await self._row(ticket, call.task_id), self._services.now()
        return [each for each in await self._services.store.shares.of(row.tenant, row.id) if each.holds(now)]

    async def _row(self, ticket: Ticket, task_id: str) -> TaskRow:
        """Everybody's for the machine's own operator, and for anyone else their own, of an agent where policy lets them
        share. What was shared with somebody is not theirs to share."""
        who = ticket.principal
        if who.kind is Kind.ANONYMOUS or who.hops:
            raise refused(DENIED, who, ticket.verb)
        owner = None if who.kind is Kind.LOCAL else who.owner
        row = await self._services.store.task(who.tenant, task_id, owner=owner)
        if row is None:
            raise task_not_found(task_id)
        self._owned.enter(ticket, row.agent, row.id)
        return row


def _reader(word: str) -> str:
    found = named(word) if len(word) <= MAX_READER else None
    if found is None or found.kind not in _READERS:
        raise invalid("reader", _NAMED)
    return found.id


def _dropped(share: Share) -> DropShare:
    return DropShare(share.tenant, share.task_id, share.principal)
