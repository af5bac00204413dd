"""The two doors of MCP, behind the gateway's own: `handle` for one answer, `open` for changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.core.act import Act, Standing
from gateway.core.audit import Ticket
from gateway.core.connections import Connections, tool_server
from gateway.core.flights import Flights
from gateway.core.policy import Target
from gateway.core.policy.refusals import refused
from gateway.core.tools.consents import Consents
from gateway.core.tools.found import Finder
from gateway.core.tools.held_tasks import HeldTasks
from gateway.core.tools.hygiene import CheckSchema
from gateway.core.tools.listening import Listening
from gateway.core.tools.logins import Logins
from gateway.core.tools.means import Books, Rules, Seals
from gateway.core.tools.naming import Mount
from gateway.core.tools.news import Board
from gateway.core.tools.own_lists import OwnLists
from gateway.core.tools.parking import Parking
from gateway.core.tools.permits import Permits
from gateway.core.tools.pins import Pins
from gateway.core.tools.reach import Reach
from gateway.core.tools.requests import Requests
from gateway.core.tools.rounds import Rounds
from gateway.core.tools.search import META, Search, listing
from gateway.core.tools.served import Served, owner_in
from gateway.core.tools.servers import Servers
from gateway.core.tools.state import States
from gateway.core.tools.task_news import Followed
from gateway.core.tools.tasks import McpTasks
from gateway.core.tools.views import Views
from gateway.model.audit import Decision, Verdict
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Kind as Who
from gateway.model.principal import Principal
from gateway.model.tool import TASKS, Kind
from gateway.model.toolcall import (
    ApproveTools,
    Discover,
    Inventory,
    ListDefinitions,
    Listen,
    ListServers,
    LoginCall,
    Offer,
    OperatorCall,
    ToolCall,
    UseServer,
    UseTask,
)

# Whoever is there may ask what there is: the answer holds only what it may use.
_FILTERED = Decision(Verdict.PASS, "filtered", "a list shows only what its reader may use")
_GATEWAY = Target("gateway")

# Bridged for every mount, whatever is behind it at the moment: clients ask once, servers come and go.
CAPABILITIES: dict[str, dict[str, Any]] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
    "extensions": {TASKS: {}},
}


# Reads the operator's file again; the names of the servers that are new, changed or gone.
Reload = Callable[[], Awaitable[list[str]]]


class Tools:
    def __init__(
        self,
        books: Books,
        rules: Rules,
        seals: Seals,
        check_schema: CheckSchema,
        mounts: Mapping[str, Mount],
        connections: Connections,
    ) -> None:
        now, policy, calls = books.now, rules.admission.policy, rules.calls
        self.calls = calls
        self.servers = Servers(Pins(books.store, now), Board(), now, check_schema)
        self.own = OwnLists(self.servers, now)
        self.views = Views(self.servers, mounts, policy)
        self.own.when_changed.append(self.views.forget)
        connections.heard.append(self.own.connected)
        self.flights = Flights()
        reach, states = Reach(connections, now), States(seals.states, now)
        self.consents = Consents(calls.approvals, states, books.new_id)
        self._held = HeldTasks(calls.approvals, self.consents)
        self.tasks = McpTasks(self.servers, self.views, books, rules, seals.tasks, reach, self._held, self.flights)
        self.requests = Requests(
            Finder(self.servers, self.own, self.views),
            Permits(books, rules, self.consents),
            Rounds(reach, states, Parking(books.new_id), connections, self.consents),
            books,
            rules,
            self.tasks,
            self.flights,
        )
        self._held.make = self.requests.use
        self._followed = Followed()
        self._search = Search()
        self._logins = Logins(self.servers)
        self.granted: Callable[[], Standing] = dict
        self.reload: Reload | None = None  # how the operator's file is read again; None: there is none
        self._policy = policy
        self.connections = connections
        self._recorder = books.recorder
        self._store = books.store
        self._now = now
        self._new_id = books.new_id

    def to_connect(self, who: Principal) -> list[tuple[str, str]]:
        """Servers of which the caller may use something, each with the link at which they authorize the gateway there:
        one that nothing is listed of can be connected nowhere else."""
        return [
            (each.id, self.connections.needed(tool_server(each.id), owner_in(who), "").url)
            for each in self.servers.personal
            if self._policy.known(who, *each.question("tools/call", "*"))
            or any(self.views.may_know(who, one) for one in each.definitions)
        ]

    def may_call(self, who: Principal, address: str) -> bool:
        """Whether some call of this tool would be let through, perhaps with more scopes, and there is one for `who`."""
        server, _, key = address.partition("/")
        served = self.servers.get(server)
        if served is None or served.lists(who).find(Kind.TOOL, key) is None:
            return False
        return self._policy.known(who, *served.question("tools/call", key))

    async def start(self) -> None:
        await self.servers.start()

    def drain(self) -> None:
        """End the streams of changes; requests have their time like all others."""
        self.servers.board.close()

    async def aclose(self) -> None:
        await self._held.aclose()
        await self.requests.aclose()
        await self.own.aclose()
        await self.servers.aclose()

    async def handle(self, call: ToolCall, who: Principal) -> Any:
        """The result of one call: a tree for `UseServer` and `UseTask`; `Offer`, `View`, `Inventory`, `Definition`s."""
        if isinstance(call, UseServer):
            return await self._use(call, who)
        if isinstance(call, UseTask):
            return await self.tasks.use(call, who)
        if isinstance(call, OperatorCall):
            return await self._operate(call, who)
        assert not isinstance(call, Listen), "a subscription is opened"
        mount = self.views.mount(call.mount)
        self._admit(call, who, mount)
        await self.servers.settled()
        if isinstance(call, Discover):
            return self._offer(mount)
        await self.own.settled(who)
        view = self.views.view(who, mount, call.kind)
        return listing(mount, view.ttl_ms) if mount.search and call.kind is Kind.TOOL else view

    async def _use(self, call: UseServer, who: Principal) -> Any:
        """A request to a server, or one of the tools with which a mount lets others be found."""
        name, arguments = call.params.get("name"), call.params.get("arguments", {})
        mount = self.views.mount(call.mount) if call.mount else None
        if mount is None or not mount.search or call.method != "tools/call" or name not in META:
            return await self.requests.use(call, who)
        if not isinstance(arguments, dict):
            raise invalid("arguments", "must be an object")
        if name == "call_tool":
            # Decided and recorded as what it is: a call of that tool.
            params = {**call.params, "name": arguments.get("name"), "arguments": arguments.get("arguments", {})}
            return await self.requests.use(replace(call, params=params), who)
        await self.servers.settled()
        await self.own.settled(who)
        view = self.views.view(who, mount, Kind.TOOL)
        self._recorder.note(Ticket(who, call.verb, f"gateway/{name}", _FILTERED, self._new_id()), "ok")
        if name == "search_tools":
            return self._search.find(view, arguments)
        return self._search.describe(view, mount, arguments)

    async def open(self, call: Listen, who: Principal) -> Listening:
        """Raises GatewayError before the stream begins; what it then holds is in `uris`."""
        mount = self.views.mount(call.mount)
        self._admit(call, who, mount)
        await self.servers.settled()
        await self.own.settled(who)
        listening = Listening(who, mount, call.kinds, self.servers, self.views, self._policy, self._followed)
        try:
            for uri in sorted(call.uris):
                await listening.add(uri)
            for id in sorted(call.tasks):
                held = self.tasks.find(call.mount, who, id)
                if held is not None and call.caller is not None and self.tasks.may_follow(held, who):
                    listening.follow(id, self.tasks.follow(held, id, who, call.caller))
        except BaseException:
            await listening.aclose()
            raise
        return listening

    def _admit(self, call: Discover | ListDefinitions | Listen, who: Principal, mount: Mount) -> None:
        target = f"mcp/{mount.id}" if mount.id else "mcp"
        self._recorder.note(Ticket(who, call.verb, target, _FILTERED, self._new_id()), "ok")

    def _offer(self, mount: Mount) -> Offer:
        """The words of a server to models are passed on only where it is alone: among others they could speak of
        tools that are not its own."""
        served: Served | None = self.servers.get(mount.only) if mount.only is not None else None
        catalog = served.catalog if served is not None else None
        return Offer(CAPABILITIES, catalog.face.instructions if catalog is not None else None)

    async def _operate(self, call: OperatorCall, who: Principal) -> Any:
        target = _operated(call)
        ticket = Ticket(who, call.verb, target.id, self._policy.decide(who, call.verb, target), self._new_id())
        if not ticket.decision.allowed:
            self._recorder.note(ticket, Reason.PERMISSION_DENIED)
            if ticket.decision.scopes:
                raise refused(ticket.decision, who, call.verb)
            reason = Reason.UNAUTHENTICATED if who.kind is Who.ANONYMOUS else Reason.PERMISSION_DENIED
            raise GatewayError(reason, f"You may not use {call.verb} here")
        if isinstance(call, ListServers):
            self._recorder.note(ticket, "ok")
            return Inventory(
                tuple(served.health() for served in self.servers.all()),
                {mount.id: self.views.collisions(mount) for mount in self.views.mounts.values()},
            )
        act = Act(ticket, self._store, self._now, {})
        if isinstance(call, ApproveTools):
            return await act.through(self.servers.approve(call.address, call.hash, act))
        await act.begin()
        return await act.through(self._logins.handle(call) if isinstance(call, LoginCall) else self._reload(act))

    async def _reload(self, act: Act) -> list[str]:
        """Recorded with the grants that are gone and those that are new."""
        if self.reload is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This gateway was started without a file to read again")
        before = self.granted()
        changed = await self.reload()
        after = self.granted()
        act.before = {name: each for name, each in before.items() if name not in after}
        await act.ended("ok", {name: each for name, each in after.items() if name not in before})
        return changed


def _operated(call: OperatorCall) -> Target:
    """What an operator's call is about, for policy and record."""
    if isinstance(call, ApproveTools):
        return Target(call.address)
    return Target(call.server) if isinstance(call, LoginCall) else _GATEWAY
