"""Use case of every request that goes to a server: find it, decide, record, ask, and bring the answer back.

The four combinations of eras meet here. A server of 2026-07-28 answers `input_required`: a caller that comes back is
given that answer, one with a session is asked while its request is open. A session server asks while it works: a
caller with a session is asked just so, for one that comes back the work is parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from gateway.core.approvals import words
from gateway.core.approvals.calls import AgentCalls
from gateway.core.approvals.grounds import ground
from gateway.core.audit import Recorder, Ticket
from gateway.core.compliance.compliance import Compliance
from gateway.core.connections import Connections, ConnectNeeded, takes_urls
from gateway.core.flights import Flights
from gateway.core.policy import DENIED
from gateway.core.policy.admission import MCP, Admission
from gateway.core.policy.refusals import refused
from gateway.core.tools import links, questions, waiting
from gateway.core.tools.consents import Consents, Held, as_task
from gateway.core.tools.naming import Mount
from gateway.core.tools.own_lists import OwnLists
from gateway.core.tools.parking import Parked, Parking
from gateway.core.tools.reach import Reach
from gateway.core.tools.servers import Served, Servers
from gateway.core.tools.state import States, asked
from gateway.core.tools.tasks import McpTasks
from gateway.core.tools.views import Views
from gateway.model.agent import MAX_ROUNDS
from gateway.model.approval import Approval, ApprovalState, Asked, Outdated
from gateway.model.asking import ASKED_WITH, ELICIT
from gateway.model.audit import Decision, Verdict
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.ports import Store
from gateway.model.principal import Principal
from gateway.model.tool import Caller, CannotAsk, Definition, Kind, PeerError, Tree, measured
from gateway.model.toolcall import UseServer
from gateway.model.value import value

_INVALID_PARAMS = -32602  # 2026-07-28: also for a resource that is not there
FLAGGED = "gateway/flagged-by"  # in a result's `_meta`: the rule that wants it marked
_URLS = "urls"  # the claim of a state that stands for nothing but such a visit

Work = Callable[[Caller], Awaitable[Tree]]


@value
class Found:
    """What a request is for: the server, the key there, and the request in the server's own names."""

    served: Served
    verb: str  # what must be allowed
    key: str
    params: Tree
    rename: Callable[[str], str]
    who: Principal
    hash: str | None = None  # of the definition that is in force
    released: Approval | None = None  # with which the request may be made

    def declared(self, schema: str) -> Tree | None:
        """What a tool itself says about what it takes or gives."""
        definition = self.served.lists(self.who).find(Kind.TOOL, self.key) if self.verb == "tools/call" else None
        return None if definition is None else definition.tree.get(schema)


class Requests:
    def __init__(
        self,
        servers: Servers,
        own: OwnLists,
        views: Views,
        admission: Admission,
        recorder: Recorder,
        store: Store,
        states: States,
        tasks: McpTasks,
        reach: Reach,
        connections: Connections,
        flights: Flights,
        compliance: Compliance,
        calls: AgentCalls,
        consents: Consents,
        now: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._flights = flights
        self.calls = calls
        self._servers = servers
        self._own = own
        self._views = views
        self._policy = admission.policy
        self._admission = admission
        self._recorder = recorder
        self._store = store
        self._states = states
        self._tasks = tasks
        self._reached = reach
        self._connections = connections
        self._compliance = compliance
        self._now = now
        self._new_id = new_id
        self._parking = Parking(new_id)
        self.consents = consents

    async def use(self, call: UseServer, who: Principal) -> Tree:
        """The result, in the mount's names. Raises GatewayError; PeerError for what the server refused."""
        await self._servers.settled()
        if self._servers.personal:
            await self._own.settled(who)
        found = self._find(call, who)
        if found is None and await self._servers.started():
            found = self._find(call, who)
        try:
            call, found, ticket = await self._admit(call, who, found)
        except Held as held:
            if held.again:  # the first time it is in the record with the approval
                self._recorder.note(held.ticket, held.approval.state.value)
            if held.approval.state is ApprovalState.WAITING and found is not None and as_task(call):
                assert call.mount is not None
                name = str(call.params["name"])
                return self._tasks.held(call.mount, found.served, found.key, name, held.approval, call.caller)
            if held.result is None and call.method == "tools/call" and call.mount is not None:
                return held.told()
            if held.result is None:
                raise
            return held.result
        try:
            if not ticket.spends:  # else it has passed before the approval was spent
                call, found = await self._examined(call, found, ticket)
            await self._store.commit(*ticket.spends, records=(ticket.intent(self._now()),))
        except BaseException:
            ticket.close()
            raise
        try:
            with self._flights.begin(who, ticket.target):
                result = await self._ask(call, found)
            result = await self._compliance.result(result, ticket, partial(found.declared, "outputSchema"))
        except asyncio.CancelledError:
            self._recorder.note(ticket, "canceled")
            raise
        except GatewayError as error:
            await self._ended(ticket, error.reason)
            if call.method == "tools/call" and call.mount is not None and _is_for_the_model(error, live=call.live):
                return _told(error)
            raise
        finally:
            ticket.close()
        await self._ended(ticket, _outcome(result))
        if ticket.decision.verdict is Verdict.FLAG:
            result = {**result, "_meta": {**result.get("_meta", {}), FLAGGED: ticket.decision.rule}}
        if result.get("resultType") == "task":
            assert call.mount is not None, "whoever is inside takes no tasks"
            return self._tasks.given(call.mount, found.served, found.key, result, call.caller)
        return links.result(call.method, result, found.rename)

    async def _examined(self, call: UseServer, found: Found, ticket: Ticket) -> tuple[UseServer, Found]:
        """The request as the server may have it. Raises GatewayError."""
        try:
            sent = await self._compliance.request(found.params, ticket, partial(found.declared, "inputSchema"))
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        caller = self._compliance.caller(call.caller, ticket)
        if sent is found.params and caller is call.caller:  # nobody looked at it
            return call, found
        changed = {name: sent[name] for name in call.params if sent[name] is not found.params[name]}
        return replace(call, params={**call.params, **changed}, caller=caller), replace(found, params=sent)

    async def aclose(self) -> None:
        await self._parking.aclose()

    async def _ended(self, ticket: Ticket, outcome: str) -> None:
        await self._store.commit(records=(ticket.outcome(self._now(), outcome),))

    # Finding and deciding.

    async def _admit(self, call: UseServer, who: Principal, found: Found | None) -> tuple[UseServer, Found, Ticket]:
        """What is asked for and a ticket for it. Whatever the caller may not use does not exist for it."""
        verb, target = found.served.question(found.verb, found.key) if found is not None else ("", None)
        sent = call.params.get("arguments") if call.method == "tools/call" else None
        arguments = sent if isinstance(sent, dict) else {}
        known = target is not None and found is not None and self._policy.known(who, verb, target)
        if target is None or found is None or not known:
            named = target.id if target is not None else str(_name(call.method, call.params))[:200]
            self._note(who, call, named, DENIED, Reason.NOT_FOUND)
            raise _missing(call)
        situation = None
        if self._admission.needs_conversation:
            situation = self._admission.situation(who, MCP, call.trail)
        decision = self._admission.decide(who, verb, target, arguments, situation)
        # A completion belongs to what it completes; a person who is asked about that one is not asked about this.
        waits = decision.verdict is Verdict.ESCALATE and call.method != "completion/complete"
        if not decision.allowed and not waits:
            self._note(who, call, target.id, decision, Reason.PERMISSION_DENIED)
            raise refused(decision, who, call.verb, target.id)
        lists = found.served.lists(who)
        waiting = next((each for each in lists.waiting if each.definition.key == found.key), None)
        if waiting is not None and found.verb != "resources/read":
            self._note(who, call, target.id, decision, "quarantined")
            raise GatewayError(
                Reason.PERMISSION_DENIED,
                f"{target.id} waits for approval ({waiting.why}); the operator can see and approve it with "
                f"gateway tools approve {target.id}",
            )
        ticket, first = self._ticket(who, call, target.id, decision, found.hash), (call, found)
        released = None
        if waits and verb == found.verb:  # what stands for a message waits as one
            released = await self._released(call, await self._foreseen(found, ticket), ticket)
            if released is None:
                return await self._admit(call, who, found)
            call, found = self._edited(call, found, released)
        if self._admission.needs_conversation and verb == found.verb:  # what stands for a message is counted as one
            try:
                charge = self._admission.take(who, verb, target, situation, call.trail)
                ticket = replace(ticket, charge=charge)
            except GatewayError as error:
                self._recorder.note(replace(ticket, why=error.message), error.reason)
                raise
        if released is None:
            return call, found, ticket
        if released.state is ApprovalState.USED:  # by the request that this one goes on with
            return call, found, replace(ticket, decision=words.passed(released, ticket.decision.policy))
        ticket = self.calls.ticket(released, ticket)
        try:
            call, found = await self._examined(call, found, ticket)
        except BaseException:
            ticket.close()
            raise
        try:
            return call, found, self.calls.spending(released, ticket)
        except Outdated:  # another request like it was faster; this one waits for an approval of its own
            return await self._admit(first[0], who, first[1])

    async def _foreseen(self, found: Found, ticket: Ticket) -> Found:
        """The request as somebody is asked about it: what its server may have. Raises GatewayError: nobody is asked
        for what could not be sent."""
        arguments = found.params.get("arguments")
        if arguments is None:
            return found
        try:
            left = await self._compliance.foreseen(arguments, ticket, partial(found.declared, "inputSchema"))
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        return found if left is arguments else replace(found, params={**found.params, "arguments": left})

    def _edited(self, call: UseServer, found: Found, released: Approval) -> tuple[UseServer, Found]:
        """The request as it was released."""
        edited = {} if released.edited is None else {"arguments": released.edited}
        params = {**self.consents.bare(call, released), **edited}
        inner = {**{name: each for name, each in found.params.items() if name in params}, **edited}
        return replace(call, params=params), replace(found, params=inner, released=released)

    async def _released(self, call: UseServer, found: Found, ticket: Ticket) -> Approval | None:
        """The approval of a call that has one now. None: decide anew. Raises Refused with the one that it waits for."""
        who, trail = ticket.principal, call.trail
        asked = Asked(
            who,
            found.verb,
            ticket.target,
            _sent(found.params),
            ticket.decision.policy,
            "" if trail is None else trail.root,
            ground(ticket.decision),
        )
        if trail is not None:
            return await self.calls.released(asked, trail, ticket)
        return await self.consents.released(call, asked, ticket)

    def _ticket(
        self, who: Principal, call: UseServer, target: str, decision: Decision, hash: str | None = None
    ) -> Ticket:
        return Ticket(who, call.verb, target, decision, self._new_id(), *measured(call.params), upstream_hash=hash)

    def _note(self, who: Principal, call: UseServer, target: str, decision: Decision, outcome: str) -> None:
        self._recorder.note(self._ticket(who, call, target, decision), outcome)

    def _find(self, call: UseServer, who: Principal) -> Found | None:
        mount = None if call.mount is None else self._views.mount(call.mount)
        if call.method == "tools/call":
            return self._named(mount, Kind.TOOL, call.params, "tools/call", who)
        if call.method == "prompts/get":
            return self._named(mount, Kind.PROMPT, call.params, "prompts/get", who)
        if call.method == "resources/read":
            return self._resource(mount, call.params, who)
        return self._completed(mount, call.params, who)

    def _named(self, mount: Mount | None, kind: Kind, params: Tree, verb: str, who: Principal) -> Found | None:
        name = params.get("name")
        if not isinstance(name, str):
            raise invalid("name", "must be a text")
        if not isinstance(params.get("arguments", {}), dict):
            raise invalid("arguments", "must be an object")
        address = self._address(mount, kind, name, who)
        if address is None:
            return None
        served, key = address
        lists = served.lists(who)
        definition = lists.find(kind, key)
        if definition is None and not any(each.definition.key == key for each in lists.waiting):
            return None
        hash = None if definition is None else definition.hash
        return Found(served, verb, key, {**params, "name": key}, _renaming(mount, served), who, hash)

    def _address(self, mount: Mount | None, kind: Kind, name: str, who: Principal) -> tuple[Served, str] | None:
        if mount is None:
            server, _, key = name.partition("/")
            served = self._servers.get(server)
            return None if served is None else (served, key)
        definition = self._views.names(mount, kind, who).named.get(name) or self._quarantined(mount, kind, name, who)
        served = self._servers.get(definition.server) if definition is not None else None
        return None if served is None or definition is None else (served, definition.key)

    def _quarantined(self, mount: Mount, kind: Kind, name: str, who: Principal) -> Definition | None:
        for served in self._views.served(mount):
            for each in served.lists(who).waiting:
                definition = each.definition
                if definition.kind is kind and mount.holds(definition) and name in mount.name(definition):
                    return definition
        return None

    def _resource(self, mount: Mount | None, params: Tree, who: Principal) -> Found | None:
        uri = params.get("uri")
        if not isinstance(uri, str):
            raise invalid("uri", "must be a text")
        where = self._place(mount, uri)
        if where is None:
            return None
        served, inner = where
        return Found(served, "resources/read", inner, {**params, "uri": inner}, _renaming(mount, served), who)

    def _place(self, mount: Mount | None, uri: str) -> tuple[Served, str] | None:
        if mount is None:
            server, _, inner = uri.partition("/")
        else:
            server, inner = mount.locate(uri) or ("", "")
            if not server or not mount.holds_server(server):
                return None
        served = self._servers.get(server)
        return None if served is None else (served, inner)

    def _completed(self, mount: Mount | None, params: Tree, who: Principal) -> Found | None:
        """Completion of an argument belongs to the prompt or template it is for, and is allowed with it."""
        ref = params.get("ref")
        if not isinstance(ref, dict):
            raise invalid("ref", "must be an object")
        if ref.get("type") == "ref/prompt":
            found = self._named(mount, Kind.PROMPT, {"name": ref.get("name")}, "prompts/get", who)
            inner = {"name": found.key} if found is not None else {}
        elif ref.get("type") == "ref/resource":
            found = self._resource(mount, {"uri": ref.get("uri")}, who)
            inner = {"uri": found.key} if found is not None else {}
        else:
            raise invalid("ref.type", "must be ref/prompt or ref/resource")
        if found is None:
            return None
        return Found(found.served, found.verb, found.key, {**params, "ref": {**ref, **inner}}, found.rename, who)

    # Asking.

    async def _ask(self, call: UseServer, found: Found) -> Tree:
        params = {name: each for name, each in found.params.items() if name != "requestState"}
        if call.live:
            return await self._rounds(call, found, params)
        if "requestState" in call.params:
            return await self._again(call, found, params)
        return await self._first(call, found, params)

    async def _reach(self, found: Found, method: str, params: Tree, caller: Caller, *, waits: bool = False) -> Tree:
        """`waits` is for callers that have no way to ask after a task: a server that has nothing else for them is asked
        in the gateway's name."""
        try:
            return await self._reached(found.served, found.key, found.who, method, params, caller)
        except PeerError as error:
            if not waits or not waiting.needs_tasks(error):
                raise
        taking = waiting.Declaring(caller)

        async def ask(method: str, params: Tree) -> Tree:
            return await self._reached(found.served, found.key, found.who, method, params, taking)

        result = await ask(method, params)
        return await waiting.end(result, caller, ask) if result.get("resultType") == "task" else result

    async def _rounds(self, call: UseServer, found: Found, params: Tree) -> Tree:
        """For a caller with a session: what the server needs is asked while the request is open."""
        send = params
        for _ in range(MAX_ROUNDS):
            try:
                result = await self._reach(found, call.method, send, call.caller, waits=True)
            except ConnectNeeded as needed:
                raise self._connections.refusal(needed, call.caller) from needed
            if result.get("resultType") != "input_required":
                return result
            wanted = questions.questions(result).items()
            answers = {key: await questions.answer(each, call.caller) for key, each in wanted}
            send = {**params, "inputResponses": answers}
            if "requestState" in result:
                send["requestState"] = result["requestState"]
        raise GatewayError(Reason.UPSTREAM_FAILED, f"{found.served.id} asked more than {MAX_ROUNDS} times")

    async def _first(self, call: UseServer, found: Found, params: Tree) -> Tree:
        work = self._work(found, call.method, params, waits=call.mount is None)
        if ASKED_WITH.values() & call.caller.capabilities.keys():
            return self._shown(call, await self._parking.begin(call.caller, work), found)
        return self._shown(call, await work(call.caller), found)

    async def _again(self, call: UseServer, found: Found, params: Tree) -> Tree:
        owner = call.caller.principal
        question = asked(call.mount, call.method, call.params)
        claims = self._states.take(call.params["requestState"], owner, question)
        answers = call.params.get("inputResponses")
        answers = answers if isinstance(answers, dict) else {}
        if "parked" in claims:
            return self._shown(call, await self._parking.go_on(claims["parked"], call.caller, answers), found)
        if _URLS in claims:
            params = {name: each for name, each in params.items() if name != "inputResponses"}
        elif "state" in claims:
            params = {**params, "requestState": claims["state"]}
        return await self._first(call, found, params)

    def _work(self, found: Found, method: str, params: Tree, *, waits: bool) -> Work:
        async def work(caller: Caller) -> Tree:
            try:
                return await self._reach(found, method, params, caller, waits=waits)
            except PeerError as error:
                urls = questions.visits(error, caller)
                if urls is None:
                    raise
                return {"resultType": "input_required", "inputRequests": urls, "requestState": None}
            except ConnectNeeded as needed:
                if waits or not takes_urls(caller):
                    raise  # whoever is inside does not answer for it: its own caller does (core/resting.py)
                asked = {"connect": {"method": ELICIT, "params": needed.visit}}
                return {"resultType": "input_required", "inputRequests": asked, "requestState": None}

        return work

    def _shown(self, call: UseServer, came: Tree | Parked, found: Found) -> Tree:
        """An answer for a caller that comes back: with a state of ours instead of the server's."""
        if isinstance(came, Parked):
            claims: Tree = {"parked": came.id}
            result: Tree = {"resultType": "input_required", "inputRequests": came.questions}
        elif came.get("resultType") == "input_required":
            questions.check_asked(came, call.caller)
            if "requestState" not in came and found.released is None:
                return came
            state = came.get("requestState")
            claims = {"state": state} if state is not None else {_URLS: True} if "requestState" in came else {}
            result = came
        else:
            return came
        if found.released is not None:
            claims |= self.consents.goes_on(found.released)
        question = asked(call.mount, call.method, call.params)
        return {**result, "requestState": self._states.give(claims, call.caller.principal, question)}


def _sent(params: Tree) -> Tree:
    """What an approval shows of a request: its arguments, where it has some."""
    arguments = params.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _renaming(mount: Mount | None, served: Served) -> Callable[[str], str]:
    return (lambda uri: uri) if mount is None else (lambda uri: mount.uri(served.id, uri))


def _name(method: str, params: Tree) -> object:
    return params.get("uri") if method == "resources/read" else params.get("name")


def _missing(call: UseServer) -> GatewayError:
    """One sentence for what is not there and for what this caller may not know of."""
    if call.method == "resources/read":
        return PeerError(_INVALID_PARAMS, "Resource not found", {"uri": call.params.get("uri")})
    if call.method == "completion/complete":
        return GatewayError(Reason.NOT_FOUND, "There is no such prompt or resource template here")
    kind = "tool" if call.method == "tools/call" else "prompt"
    return GatewayError(Reason.NOT_FOUND, f"Unknown {kind}: {str(call.params.get('name'))[:200]}")


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
