"""Use cases of a task that a call was answered with (ext-tasks, SEP-2663): get, update, cancel, and news of it.

The id that a caller holds is sealed: the mount, the server, the tool, the server's own id and whose it is. So any
replica can answer, nothing is kept, and an id that is another's is like one that never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from gateway.core.audit import Ticket
from gateway.core.flights import Flights
from gateway.core.policy import DENIED
from gateway.core.policy.refusals import refused
from gateway.core.tools import links, questions, waiting
from gateway.core.tools.agents import AgentTools
from gateway.core.tools.held_tasks import HeldTasks
from gateway.core.tools.means import Books, Rules
from gateway.core.tools.naming import Mount
from gateway.core.tools.reach import Reach
from gateway.core.tools.served import Served
from gateway.core.tools.servers import Servers
from gateway.core.tools.state import Sealer
from gateway.core.tools.views import Views
from gateway.model.approval import Approval
from gateway.model.audit import Decision
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Principal
from gateway.model.tool import TASK_ENDS, Caller, Kind, PeerError, Tree, measured
from gateway.model.toolcall import UseTask
from gateway.model.value import value

MAX_INNER_ID = 512  # characters of a server's own task id; sealed, it is sent in a header
MAX_TASK_ID = 4_096  # characters of an id that is looked at: twice what a sealed one can have

_INVALID_PARAMS = -32602  # what a server says of a task that it does not know (protocol errors)


@value
class Held:
    """What a task id stands for: the tool `key` of a server, and the server's own `id` of the task."""

    served: Served
    key: str
    id: str
    rename: links.Rename
    mount: str = ""
    called: str = ""  # the tool's name on the mount, of a call that waits for an approval: `id` is that


class McpTasks:
    def __init__(
        self,
        servers: Servers,
        views: Views,
        books: Books,
        rules: Rules,
        sealer: Sealer,
        reach: Reach,
        waiting_calls: HeldTasks,
        flights: Flights,
    ) -> None:
        self._flights = flights
        self._servers = servers
        self._views = views
        self._policy = rules.admission.policy
        self._recorder = books.recorder
        self._store = books.store
        self._sealer = sealer
        self._reach = reach
        self._compliance = rules.compliance
        self._calls = waiting_calls
        self._now = books.now
        self._new_id = books.new_id

    def given(self, mount: str, served: Served, key: str, result: Tree, caller: Caller) -> Tree:
        """A server's `CreateTaskResult` as the caller gets it. Raises UPSTREAM_FAILED for an id that nobody can use."""
        id = result.get("taskId")
        if not isinstance(id, str) or not 0 < len(id) <= MAX_INNER_ID:
            raise GatewayError(Reason.UPSTREAM_FAILED, "The MCP server made a task without an id that can be used")
        claims = {"m": mount, "s": served.id, "k": key, "t": id, "o": caller.principal}
        return {**result, "taskId": self._sealer.seal(claims)}

    def held(self, mount: str, served: Served, key: str, called: str, approval: Approval, caller: Caller) -> Tree:
        """What a call is answered with that waits for a person: a task of our own."""
        claims = {"m": mount, "s": served.id, "k": key, "t": approval.id, "o": caller.principal, "c": called}
        return {"resultType": "task", "taskId": self._sealer.seal(claims), **self._calls.created(approval)}

    async def use(self, call: UseTask, who: Principal) -> Tree:
        """The result of one `tasks/*`. Raises GatewayError; PeerError for what the server refused."""
        await self._servers.settled()
        id = call.params.get("taskId")
        held, ticket = self._admit(call, who, id)
        params: Tree = {"taskId": held.id}
        if call.method == "tasks/update":
            params["inputResponses"] = call.params.get("inputResponses")
            if not isinstance(params["inputResponses"], dict):
                raise invalid("inputResponses", "must be an object")
            params = await self._compliance.request(params, ticket)
        if call.method != "tasks/get":  # looking changes nothing
            await self._store.commit(records=(ticket.intent(self._now()),))
        try:
            with self._flights.begin(who, ticket.target):
                result = await self._asked(held, ticket, call.method, params, call.caller)
        except asyncio.CancelledError:
            self._recorder.note(ticket, "canceled")
            raise
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        self._recorder.note(ticket, "ok")
        return _shown(result, id, held) if call.method == "tasks/get" else result

    def find(self, mount: str, who: Principal, id: object) -> Held | None:
        """What the id stands for; None for one that is not this caller's, on this mount, and allowed, or would be with
        more scopes."""
        claims = self._sealer.open(id) if isinstance(id, str) and len(id) <= MAX_TASK_ID else None
        if claims is None or claims["o"] != f"{who.tenant}/{who.id}" or claims["m"] != mount:
            return None
        served, place = self._servers.get(claims["s"]), self._views.mount(mount)
        if served is None or served not in self._views.served(place):
            return None
        if not self._policy.known(who, *served.question("tools/call", claims["k"])):
            return None
        return Held(served, claims["k"], claims["t"], _renaming(place, served), mount, claims.get("c", ""))

    def may_follow(self, held: Held, who: Principal) -> bool:
        return self._policy.visible(who, *held.served.question("tools/call", held.key))

    async def follow(self, held: Held, id: str, who: Principal, caller: Caller) -> AsyncIterator[Tree]:
        """The task as `tasks/get` shows it, now and whenever it has changed, to its end. A server is polled for it, as
        often as it wishes: not every one sends notifications."""
        if isinstance(held.served.server, AgentTools) and not held.called:
            async for tree in held.served.server.follow(who, held.key, held.id):
                yield _shown(tree, id, held)
            return
        verb, target = held.served.question("tools/call", held.key)
        ticket = Ticket(who, "tasks/get", target.id, self._policy.presumed(who, verb, target), self._new_id())
        before: Tree = {}
        while before.get("status") not in TASK_ENDS and self.may_follow(held, who):  # as the rules are by then
            now = await self._asked(held, ticket, "tasks/get", {"taskId": held.id}, caller)
            if now != before:
                yield {name: each for name, each in _shown(now, id, held).items() if name not in _RESULT}
                before = now
            if now.get("status") not in TASK_ENDS:
                await asyncio.sleep(waiting.pause(now))

    async def _asked(self, held: Held, ticket: Ticket, method: str, params: Tree, caller: Caller) -> Tree:
        who = ticket.principal
        try:
            if held.called:
                result = await self._calls.use(method, held.id, held.mount, held.called, params, who, caller)
            else:
                result = await self._reach(held.served, held.key, who, method, params, caller)
        except PeerError as error:
            if error.code == _INVALID_PARAMS and method != "tasks/update":
                raise _missing() from error
            raise
        except GatewayError as error:
            if error.reason is Reason.TASK_NOT_FOUND:
                raise _missing() from error
            raise
        if method == "tasks/get":
            questions.check_asked(result, caller)
        return result if held.called else await self._examined(held, result, ticket)

    async def _examined(self, held: Held, task: Tree, ticket: Ticket) -> Tree:
        """A server's task as its caller may have it. What it has come to is held to what the tool promises, as if it
        had been answered at once. Raises GatewayError."""

        def declared() -> Tree | None:
            definition = held.served.lists(ticket.principal).find(Kind.TOOL, held.key)
            return None if definition is None else definition.tree.get("outputSchema")

        ended = task.get("result")
        if not isinstance(ended, dict):
            return await self._compliance.result(task, ticket)
        ended = await self._compliance.result(ended, ticket, declared)
        around = {name: each for name, each in task.items() if name != "result"}
        return {**await self._compliance.result(around, ticket), "result": ended}

    def _admit(self, call: UseTask, who: Principal, id: object) -> tuple[Held, Ticket]:
        if not isinstance(id, str):
            raise invalid("taskId", "must be a text")
        held = self.find(call.mount, who, id)
        if held is None:
            self._recorder.note(self._ticket(who, call, "task", DENIED), Reason.NOT_FOUND)
            raise _missing()
        verb, target = held.served.question("tools/call", held.key)
        ticket = self._ticket(who, call, target.id, self._policy.presumed(who, verb, target))
        if ticket.decision.scopes:
            self._recorder.note(ticket, Reason.PERMISSION_DENIED)
            raise refused(ticket.decision, who, call.verb, target.id)
        return held, ticket

    def _ticket(self, who: Principal, call: UseTask, target: str, decision: Decision) -> Ticket:
        return Ticket(who, call.verb, target, decision, self._new_id(), *measured(call.params))


_RESULT = frozenset({"resultType", "_meta"})  # of an answer, and no part of a notification's parameters


def _shown(result: Tree, id: Any, held: Held) -> Tree:
    """A server's `DetailedTask` as its caller knows it: under the caller's id, with the mount's links."""
    shown = {**result, "taskId": id}
    if isinstance(inner := result.get("result"), dict) and not held.called:  # whose result has the mount's links
        shown["result"] = links.result("tools/call", inner, held.rename)
    return shown


def _renaming(mount: Mount, served: Served) -> links.Rename:
    return lambda uri: mount.uri(served.id, uri)


def _missing() -> GatewayError:
    """One sentence for what is not there, has expired, or is another's."""
    return GatewayError(Reason.NOT_FOUND, "There is no such task")
