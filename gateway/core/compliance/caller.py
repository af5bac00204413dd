"""Whoever asked a server, as the server may know them while a profile looks on."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.core.audit import Ticket
from gateway.model.compliance import Place
from gateway.model.errors import GatewayError
from gateway.model.tool import Caller, Tree

log = logging.getLogger(__name__)


class Examiner(Protocol):
    async def examined(self, tree: Tree, place: Place, ticket: Ticket) -> Tree: ...


class WatchedCaller:
    """Reports and questions pass as results do, and what the caller answers as arguments do."""

    def __init__(self, caller: Caller, ticket: Ticket, examiner: Examiner, meta: Tree) -> None:
        self._caller = caller
        self._ticket = ticket
        self._examiner = examiner
        self.principal = caller.principal
        self.hops = caller.hops
        self.capabilities = caller.capabilities
        self.client = caller.client
        self.log_level = caller.log_level
        self.progress = caller.progress
        self.meta = meta

    async def notify(self, method: str, params: Tree) -> None:
        try:
            params = await self._examiner.examined(params, Place.RESULT, self._ticket)
        except GatewayError as error:
            log.info("a %s of %s was dropped: %s", method, self._ticket.target, error.message)
            return
        await self._caller.notify(method, params)

    async def ask(self, method: str, params: Tree) -> Tree:
        params = await self._examiner.examined(params, Place.RESULT, self._ticket)
        answer = await self._caller.ask(method, params)
        return await self._examiner.examined(answer, Place.ARGUMENTS, self._ticket)
