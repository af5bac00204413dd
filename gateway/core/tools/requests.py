"""Use case of every request that goes to a server: find it (found.py), let it in (permits.py), record, ask (rounds.py),
record how it ended, and bring the answer back."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.core.audit import Ticket
from gateway.core.connections import ConnectNeeded
from gateway.core.flights import Flights
from gateway.core.tools import links, questions
from gateway.core.tools.consents import Held, as_task
from gateway.core.tools.found import Finder, Found
from gateway.core.tools.means import Books, Rules
from gateway.core.tools.permits import Permits
from gateway.core.tools.rounds import Rounds
from gateway.core.tools.tasks import McpTasks
from gateway.model.approval import ApprovalState
from gateway.model.audit import Verdict
from gateway.model.errors import GatewayError
from gateway.model.principal import Principal
from gateway.model.tool import CannotAsk, PeerError, Tree
from gateway.model.toolcall import UseServer

FLAGGED = "gateway/flagged-by"  # in a result's `_meta`: the rule that wants it marked


class Requests:
    def __init__(
        self,
        finder: Finder,
        permits: Permits,
        rounds: Rounds,
        books: Books,
        rules: Rules,
        tasks: McpTasks,
        flights: Flights,
    ) -> None:
        self._finder = finder
        self._permits = permits
        self._rounds = rounds
        self._store = books.store
        self._recorder = books.recorder
        self._now = books.now
        self._compliance = rules.compliance
        self._tasks = tasks
        self._flights = flights

    async def aclose(self) -> None:
        await self._rounds.aclose()

    async def use(self, call: UseServer, who: Principal) -> Tree:
        """The result, in the mount's names. Raises GatewayError; PeerError for what the server refused."""
        permit = None
        while permit is None:
            found = await self._finder.find(call, who)
            try:
                permit = await self._permits.of(call, who, found)
            except Held as held:
                return self._waits(held, call, found)
        call, found, ticket = permit
        try:
            await self._store.commit(*ticket.spends, records=(ticket.intent(self._now()),))
            try:
                with self._flights.begin(who, ticket.target):
                    result = await self._rounds.ask(call, found)
                result = await self._compliance.result(result, ticket, partial(found.declared, "outputSchema"))
            except asyncio.CancelledError:
                self._recorder.note(ticket, "canceled")
                raise
            except GatewayError as error:
                return await self._failed(call, ticket, error)
        finally:
            ticket.close()
        await self._store.commit(records=(ticket.outcome(self._now(), _outcome(result)),))
        return self._given(call, found, ticket, result)

    def _waits(self, held: Held, call: UseServer, found: Found | None) -> Tree:
        """What a caller is answered whose call waits for somebody. Raises it where there is no result for that."""
        if held.again:  # the first time it is in the record with the approval
            self._recorder.note(held.ticket, held.approval.state.value)
        if held.approval.state is ApprovalState.WAITING and found is not None and as_task(call):
            assert call.mount is not None
            name = str(call.params["name"])
            return self._tasks.held(call.mount, found.served, found.key, name, held.approval, call.caller)
        if held.result is not None:
            return held.result
        if call.method == "tools/call" and call.mount is not None:
            return held.told()
        raise held

    async def _failed(self, call: UseServer, ticket: Ticket, error: GatewayError) -> Tree:
        """The result that says so. Raises the error where it is none."""
        await self._store.commit(records=(ticket.outcome(self._now(), error.reason),))
        if call.method == "tools/call" and call.mount is not None and _is_for_the_model(error, live=call.live):
            return _told(error)
        raise error

    def _given(self, call: UseServer, found: Found, ticket: Ticket, result: Tree) -> Tree:
        """The result as the caller gets it."""
        if ticket.decision.verdict is Verdict.FLAG:
            result = {**result, "_meta": {**result.get("_meta", {}), FLAGGED: ticket.decision.rule}}
        if result.get("resultType") == "task":
            assert call.mount is not None, "whoever is inside takes no tasks"
            return self._tasks.given(call.mount, found.served, found.key, result, call.caller)
        return links.result(call.method, result, found.rename)


def _is_for_the_model(error: GatewayError, *, live: bool) -> bool:
    """What a caller cannot be asked for is said in the tool's own result, where a model reads it and tells its user:
    a link that it has to be at, and in a session, which has no error for it, what its client would have to declare."""
    if isinstance(error, ConnectNeeded):
        return True
    lacks = isinstance(error, PeerError) and error.code == questions.MISSING_CAPABILITY
    return live and (lacks or isinstance(error, CannotAsk))


def _told(error: GatewayError) -> Tree:
    return {"resultType": "complete", "content": [{"type": "text", "text": error.message}], "isError": True}


def _outcome(result: Tree) -> str:
    kind = result.get("resultType", "complete")
    if kind != "complete":
        return str(kind)[:40]
    return "tool-error" if result.get("isError") is True else "ok"
