"""The two doors behind every protocol: `handle(call, principal)` for one answer, `open(call, principal)` for events.

Each call is admitted (resolve, decide), acted on by its use case and recorded, here and nowhere else. Dialects
decode into calls before and encode results after; nothing in this package knows JSON, HTTP or SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from gateway.core.act import Act
from gateway.core.administration import Administration, TokenServer
from gateway.core.approvals.answers import Answers
from gateway.core.approvals.desk import Desk
from gateway.core.approvals.grounds import Grounds, ground
from gateway.core.approvals.messages import HeldMessages
from gateway.core.approvals.said import edited_message, unsent
from gateway.core.audit import OwnActs, Recorder, Refusals, Ticket
from gateway.core.connections import Connections
from gateway.core.cursor import Cursors
from gateway.core.engine import Engine
from gateway.core.freezer import Freezer
from gateway.core.governance import Governance
from gateway.core.halting import Halting
from gateway.core.kept import KeptConnections
from gateway.core.keys import KeyRing
from gateway.core.logs import Logs
from gateway.core.messages import Messages
from gateway.core.policy import Situation, Target, address
from gateway.core.policy.admission import Admission
from gateway.core.policy.limits import Charge
from gateway.core.policy.refusals import Insufficient, Refused, refused
from gateway.core.policy.rules import DENIED, FROZEN, HOPEFUL
from gateway.core.policy.spoken import skill, spoken
from gateway.core.push.configs import Proof, Pushes
from gateway.core.push.letters import Letters
from gateway.core.registry import Registered, Registry
from gateway.core.replay import Replays
from gateway.core.results import Results
from gateway.core.scopes import ScopesInUse
from gateway.core.tasks import Tasks
from gateway.core.tools.listening import Listening
from gateway.core.tools.silent import Silent
from gateway.core.tools.tools import Tools
from gateway.core.turn import Services
from gateway.core.watch import Replay, Watch
from gateway.model import call as verbs
from gateway.model import governance as governing
from gateway.model.approval import ApprovalCall, Asked, Outdated
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery, Decision, Verdict
from gateway.model.call import (
    Call,
    FetchResult,
    FollowLog,
    GetExtendedCard,
    ReadContext,
    ReadLog,
    SendMessage,
    SubmitResult,
    SubscribeToTask,
)
from gateway.model.errors import Fault, GatewayError, Reason
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.task import Task
from gateway.model.tool import PeerError, ToolRequest, ToolResult
from gateway.model.toolcall import Listen, ToolCall, UseServer
from gateway.model.trail import Trail, asked

# Calls that name a task and no agent are judged by that task, once it is found.
_NAME_NO_AGENT = (FetchResult, SubmitResult, ReadLog, FollowLog, ReadContext)
_BY_TASK = Decision(Verdict.PASS, "by-task", "judged by the owner or worker of the task")
_INVALID_PARAMS = -32602  # what MCP says of a tool that is not there
MAX_HOPS = 8  # agents that ask agents: deeper than this is a loop in all likelihood

# Takes what writes into the log that some keys are followed by others; gives those.
Rotate = Callable[[Callable[[list[str], list[str]], Awaitable[None]]], Awaitable[list[str]]]
UseCase = Callable[[Any, Ticket, Any], Awaitable[Any]]
Changing = Callable[[Any, Act, Any], Awaitable[Any]]


class Gateway:
    def __init__(
        self,
        services: Services,
        registry: Registry,
        engine: Engine,
        admission: Admission,
        keys: KeyRing,
        cursors: Cursors,
        judge_webhook: Callable[[str], None],
        tools: Tools,
        connections: Connections,
        kept: KeptConnections,
        letters: Letters,
        server: TokenServer | None = None,
        freezer: Freezer | None = None,
        governance: Governance | None = None,
        prove_webhook: Proof | None = None,
    ) -> None:
        self.registry = registry
        self.tools = tools
        self.connections = connections
        self.kept = kept
        self.tasks = Tasks(services, registry, engine, cursors)
        self._new_id = services.new_id
        self._store = services.store
        self._now = services.now
        self.draining = asyncio.Event()
        self.rotate_audit_key: Rotate | None = None  # where the log is signed
        self.rotate_vault_key: Callable[[], Awaitable[int]] | None = None  # how many files it has sealed anew
        policy = self._policy = admission.policy
        self._admission = admission
        self._recorder = Recorder(services.store, services.now)
        self.refusals = Refusals(self._recorder, services.new_id)
        self.own_acts = OwnActs(self._recorder, services.new_id)
        pushes = Pushes(services, engine, self.tasks, cursors, judge_webhook, prove_webhook)
        engine.front = self
        self._freezer = freezer or Freezer(services.store.governance, services.now)
        self.halting = Halting(services, registry, engine, tools.flights, self._freezer)
        self._results = Results(services, engine, self.tasks, policy)
        self.scopes = ScopesInUse(policy, registry, tools.servers, tools.views)
        self._administration = Administration(registry, keys, server, kept)
        self._logs = Logs(services, registry, self._judge)
        governance = governance or Governance(admission, registry, tools.servers, self._freezer, services.store)
        self._calls = tools.calls
        self.held = HeldMessages(services, engine, registry, self._calls.approvals, admission)
        self.halting.laid_down = self.held.canceled
        grounds = self._calls.approvals.grounds = Grounds(admission, governance.question)
        self._desk = Desk(
            services.store, policy, registry, self._calls.approvals, self.held, self._recorder, grounds,
            services.compliance, services.now, services.new_id,
        )  # fmt: skip
        tools.consents.desk = self._desk
        self._messages = Messages(services, engine, self.tasks, pushes, self._recorder, self.held)
        self._answers = Answers(self._calls.approvals, self._desk, self.tasks)
        self._uses = _uses(
            self.tasks,
            pushes,
            letters,
            self._results,
            self._logs,
            self._administration,
            governance,
        )
        self._changes = changes(pushes, letters, self._administration, governance)
        self._uses[verbs.CancelTask] = self._cancel
        self._uses[verbs.ReadAudit] = self._read_audit
        self._uses[verbs.EraseSubject] = self._erase
        self._uses[verbs.RotateAuditKey] = self._rotate
        self._uses[verbs.RotateVaultKey] = self._rotate_vault
        self._uses[verbs.ReplayTask] = Replays(services.store).replay

    async def handle(self, call: Call | ToolCall, who: Principal) -> Any:
        """The result of one call; its type follows from the call's (see the use cases).

        Raises GatewayError for everything that the caller may know about.
        """
        if isinstance(call, ToolCall):
            if who.hops > MAX_HOPS:
                raise _too_deep()
            try:
                return await self.tools.handle(call, who)
            except Refused as refusal:
                await self.halting.heed(refusal, who, call.trail if isinstance(call, UseServer) else None)
                raise
        if isinstance(call, SendMessage):
            if (asked := self._answers.meant(call, who)) is not None:
                return await self._answers.send(call, self._admit_answer(call, who), asked, self._now())
            call, ticket, entry = await self._admit_message(call, who)
            return await self._messages.send(call, ticket, entry)  # its engine records how a message ends
        if isinstance(call, ApprovalCall):
            return await self._desk.handle(call, who)
        ticket, registered = await self._admit(call, who)
        try:
            if (changing := self._changes.get(type(call))) is not None:
                act = Act(ticket, self._store, self._now, self._administration.standing(call))
                standing = partial(self._administration.standing, call)
                return await act.through(changing(call, act, registered), standing)
            return await self._look(call, ticket, registered)
        finally:
            ticket.close()

    async def _look(self, call: Call, ticket: Ticket, entry: Registered | None) -> Any:
        """A call that changes nothing that anybody has set: one entry says how it ended."""
        try:
            result = await self._uses[type(call)](call, ticket, entry)
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        self._recorder.note(ticket, "ok")
        return result

    async def open(self, call: SendMessage | SubscribeToTask, who: Principal) -> Watch:
        """The events of a task, the first of them the task itself; or one Message. Raises GatewayError before."""
        if isinstance(call, SendMessage):
            if (asked := self._answers.meant(call, who)) is not None:
                return await self._answers.open(call, self._admit_answer(call, who), asked, self._now())
            call, ticket, entry = await self._admit_message(call, who)
            return await self._messages.open(call, ticket, entry)
        ticket, registered = await self._admit(call, who)
        try:
            watch = await self.tasks.subscribe(call, ticket, registered)
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        finally:
            ticket.close()
        self._recorder.note(ticket, "ok")
        return watch

    async def follow(self, call: FollowLog, who: Principal) -> Replay:
        """A task's log from its beginning, and on to its rest. Raises GatewayError before."""
        ticket, _ = await self._admit(call, who)
        try:
            replay = await self._logs.follow(call, ticket)
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise
        self._recorder.note(ticket, "ok")
        return replay

    async def listen(self, call: Listen, who: Principal) -> Listening:
        """Changes of a mount, as they come. Raises GatewayError before."""
        return await self.tools.open(call, who)

    async def drain(self, seconds: float) -> None:
        """Take nothing new, end what only waits, and give callers up to `seconds` for their answers."""
        self.draining.set()
        self.refusals.flush()
        self.tools.drain()
        self._results.drain()
        await self._messages.drain(seconds)

    def may_see(self, who: Principal, entry: Registered) -> bool:
        """Whoever may send a message to an agent may see it, unless a rule says otherwise of its card."""
        policy, target = self._policy, entry.target
        if policy.visible(who, "GetAgentCard", target):
            return True
        return policy.silent(who, "GetAgentCard", target) and policy.known(who, SendMessage.verb, target)

    def may_use_skill(self, who: Principal, entry: Registered, skill: str) -> bool:
        """Whether some message for this skill of an agent would be let through, perhaps with more scopes."""
        return self._policy.known(who, SendMessage.verb, entry.target._replace(skill=skill))

    def find(self, agent: str, who: Principal) -> Registered:
        """An agent that the caller may see. Missing and hidden ones are the same to it; one that it could see with more
        scopes is not hidden."""
        entry = self.registry.get(agent)
        if entry is not None and self.may_see(who, entry):
            return entry
        decision = DENIED if entry is None else self._policy.decide(who, "GetAgentCard", entry.target)
        raise refused(decision, who, "GetAgentCard") if decision.scopes else _no_agent()

    async def _admit(self, call: Call | FollowLog, who: Principal) -> tuple[Ticket, Registered | None]:
        entry = self.registry.get(call.agent) if call.agent is not None else None
        target = entry.target if entry is not None else Target(call.agent or "gateway")
        if call.agent is None and isinstance(call, _NAME_NO_AGENT):
            decision = self._freezer.refusal(who, call.verb, target) or _BY_TASK
        else:
            decision = self._policy.decide(who, call.verb, target)
        ticket = Ticket(
            who,
            call.verb,
            target.id,
            decision,
            self._new_id(),
            upstream_hash=None if entry is None else entry.card_hash,
        )
        if (refusal := self._refusal(call, who, entry, decision)) is not None:
            await self._refuse(refusal, ticket, None)
        if self._admission.limits.any:
            ticket = replace(ticket, charge=self._taken(ticket, target, None, None))
        return ticket, entry

    async def _admit_message(self, call: SendMessage, who: Principal) -> tuple[SendMessage, Ticket, Registered]:
        """The call with its ticket; with a context, where it matters to which conversation it belongs."""
        entry = self.registry.get(call.agent)
        target = entry.target if entry is not None else Target(call.agent)
        if self._policy.skilled:
            target = target._replace(skill=skill(call))
        situation = None
        if self._admission.needs_conversation:
            call = await self._placed(call, who)
            situation = self._admission.situation(who, call.message.context_id or "", call.trail)
        decision = self._admission.decide(who, call.verb, target, partial(spoken, call), situation)
        card = None if entry is None else entry.card_hash
        ticket = Ticket(who, call.verb, target.id, decision, self._new_id(), call.digest.hex(), call.size, card)
        if (refusal := self._refusal(call, who, entry, decision)) is not None:
            await self._refuse(refusal, ticket, call.trail)
        assert entry is not None
        if decision.verdict is Verdict.ESCALATE:
            if call.trail is None:
                return call, ticket, entry  # to be held until somebody agrees; what it takes it takes then
            return await self._admit_released(call, call.trail, ticket, entry, target, situation)
        if self._admission.needs_conversation:
            ticket = replace(ticket, charge=self._taken(ticket, target, situation, call.trail))
        return call, ticket, entry

    async def _admit_released(
        self,
        call: SendMessage,
        trail: Trail,
        ticket: Ticket,
        entry: Registered,
        target: Target,
        situation: Situation | None,
    ) -> tuple[SendMessage, Ticket, Registered]:
        """What an agent says and somebody has to agree to, once they have."""
        who, decision = ticket.principal, ticket.decision
        place, said = address(call.verb, target), unsent(await self._messages.foreseen(call, ticket, entry))
        asked = Asked(who, call.verb, place, said, decision.policy, trail.root, ground(decision))
        released = await self._calls.released(asked, trail, ticket)
        if released is None:
            return await self._admit_message(call, who)
        sent = edited_message(call, released)
        if self._admission.needs_conversation:
            ticket = replace(ticket, charge=self._taken(ticket, target, situation, trail))
        ticket = self._calls.ticket(released, ticket)
        sent = await self._messages.passed(sent, ticket, entry)
        try:
            return sent, self._calls.spending(released, ticket), entry
        except Outdated:  # another one like it was faster; this one waits for an approval of its own
            return await self._admit_message(call, who)

    def _admit_answer(self, call: SendMessage, who: Principal) -> Principal:
        """A caller that may not speak to the agent at all says nothing to what waits there either."""
        entry = self.registry.get(call.agent)
        target = entry.target if entry is not None else Target(call.agent)
        decision = self._policy.presumed(who, call.verb, target)
        if not decision.allowed and decision.verdict is not Verdict.ESCALATE:
            ticket = Ticket(who, call.verb, target.id, decision, self._new_id(), call.digest.hex(), call.size)
            self._recorder.note(ticket, Reason.PERMISSION_DENIED)
            raise refused(decision, who, call.verb)
        return who

    async def _placed(self, call: SendMessage, who: Principal) -> SendMessage:
        """The message in its context: that of its task, or a new one."""
        message = call.message
        if message.context_id or call.trail is not None:
            return call
        if message.task_id:
            row = await self._store.task(who.tenant, message.task_id, owner=who.owner, agent=call.agent)
            context = None if row is None else row.task.context_id
        else:
            context = self._new_id()
        if context is None:
            return call
        return replace(call, message=message.model_copy(update={"context_id": context}))

    async def _refuse(self, refusal: GatewayError, ticket: Ticket, trail: Trail | None) -> NoReturn:
        self._recorder.note(ticket, refusal.reason)
        if isinstance(refusal, Refused):
            await self.halting.heed(refusal, ticket.principal, trail)
        raise refusal

    def _taken(self, ticket: Ticket, target: Target, situation: Situation | None, trail: Trail | None) -> Charge | None:
        try:
            return self._admission.take(ticket.principal, ticket.verb, target, situation, trail)
        except GatewayError as error:
            self._recorder.note(replace(ticket, why=error.message), error.reason)
            raise

    def _refusal(
        self, call: Call | FollowLog, who: Principal, entry: Registered | None, decision: Decision
    ) -> GatewayError | None:
        if who.hops > MAX_HOPS:
            return _too_deep()
        if decision.rule == FROZEN:
            return refused(decision, who, call.verb)
        if call.agent is not None and (
            entry is None or not (decision.verdict in HOPEFUL or self._may_know(who, entry, decision))
        ):
            return _no_agent()
        if entry is not None:
            # Before the verdict: asking for a credential would be asking in vain, and the card says as much.
            if isinstance(call, GetExtendedCard) and entry.extended is None:
                return GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent has no extended card")
            if (isinstance(call, SubscribeToTask) or getattr(call, "stream", False)) and not entry.streaming:
                return GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent offers no streams; see its card")
        waits = decision.verdict is Verdict.ESCALATE and isinstance(call, SendMessage)
        if not decision.allowed and not waits:
            return refused(decision, who, call.verb)
        if isinstance(call, SendMessage) and call.trail is not None:
            return _loop(call.trail, call)
        return None

    def _judge(self, who: Principal, verb: str, entry: Registered) -> GatewayError | None:
        """What a caller hears who names no agent, and turns out to mean this one."""
        decision = self._policy.decide(who, verb, entry.target)
        if decision.allowed:
            return None
        seen = decision.verdict in HOPEFUL or self._may_know(who, entry, decision)
        return refused(decision, who, verb) if seen else _no_agent()

    def _may_know(self, who: Principal, entry: Registered, decision: Decision) -> bool:
        """Whether the caller may hear that there is such an agent, though this decision stops its call."""
        return bool(decision.scopes) or self.may_see(who, entry)

    async def _cancel(self, call: verbs.CancelTask, ticket: Ticket, entry: Registered | None) -> Task:
        """Whatever the task waited for, nobody can agree to it any more."""
        task = await self.tasks.cancel(call, ticket, entry)
        if task.status.state.terminal:
            await self.held.canceled(ticket.principal.tenant, task.id)
        return task

    async def _read_audit(self, call: verbs.ReadAudit, ticket: Ticket, entry: None) -> AuditPage:
        await self._store.commit()  # what was only to be written soon
        return await self._store.search_audit(call.query)

    async def _erase(self, call: verbs.EraseSubject, ticket: Ticket, entry: None) -> str:
        def record(pseudonym: str) -> AuditEntry:
            return replace(ticket, target=pseudonym).intent(self._now())

        pseudonym = await self._store.forget_subject(call.principal, record)
        if pseudonym is None:
            raise GatewayError(Reason.NOT_FOUND, f"The audit log knows nobody called {call.principal!r}")
        return pseudonym

    async def _rotate(self, call: verbs.RotateAuditKey, ticket: Ticket, entry: None) -> list[str]:
        async def announce(before: list[str], after: list[str]) -> None:
            change = {"after": {"keys": after}, "before": {"keys": before}}
            await self._store.commit(records=(ticket.intent(self._now(), change=change),))

        if self.rotate_audit_key is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The audit log of this store is not signed")
        return await self.rotate_audit_key(announce)

    async def _rotate_vault(self, call: verbs.RotateVaultKey, ticket: Ticket, entry: None) -> int:
        if self.rotate_vault_key is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "Nothing is sealed here")
        await self._store.commit(records=(ticket.intent(self._now()),))
        return await self.rotate_vault_key()

    # For whoever was let read the audit log and watches it now.

    async def audit_end(self) -> int:
        """The number of the newest entry."""
        newest = await self._store.search_audit(AuditQuery(1))
        return newest.entries[0][0] if newest.entries else 0

    async def audit_after(self, number: int, limit: int) -> list[tuple[int, AuditEntry]]:
        return await self._store.audit(number, limit)

    # The ways out of local agents: through this same door, one hop deeper.

    async def ask(self, who: Principal, agent: str, message: Message, trail: Trail) -> Task | Message:
        answer: Task | Message = await self.handle(SendMessage(agent, message, digest=b"", trail=trail), who)
        return answer

    async def use_tool(self, who: Principal, name: str, request: ToolRequest, trail: Trail) -> ToolResult:
        caller = Silent.of(who, {"elicitation": {"form": {}, "url": {}}} if request.asks else {}, trail)
        params = {"name": name, **request.params}
        try:
            return ToolResult(await self.handle(UseServer(None, "tools/call", params, caller, trail=trail), who))
        except GatewayError as error:
            if isinstance(error, PeerError | Insufficient) or error.fault is not Fault.CLIENT:
                raise  # which scopes a token has is the business of whoever asked the agent
            # It is the agent that asked for what is not there, not whoever asked the agent.
            raise PeerError(_INVALID_PARAMS, error.message) from error


def _uses(
    tasks: Tasks,
    pushes: Pushes,
    letters: Letters,
    results: Results,
    logs: Logs,
    administration: Administration,
    governance: Governance,
) -> dict[type[Any], UseCase]:
    """The verbs that change nothing that somebody has set, but that of messages, and their use cases."""

    async def extended_card(call: GetExtendedCard, ticket: Ticket, entry: Registered) -> Registered:
        return entry  # admitted, so it has one; its bytes are the server's to make

    return {
        verbs.GetTask: tasks.get,
        verbs.ListTasks: tasks.list,
        verbs.GetPushConfig: pushes.get,
        verbs.ListPushConfigs: pushes.list,
        verbs.ShowPushes: letters.show,
        verbs.ListDeadPushes: letters.dead,
        verbs.GetExtendedCard: extended_card,
        verbs.FetchResult: results.fetch,
        verbs.SubmitResult: results.submit,
        verbs.PullTasks: results.pull,
        verbs.ReadLog: logs.read,
        verbs.ReadContext: logs.context,
        verbs.ListAgents: administration.list_agents,
        verbs.ShowCard: administration.show_card,
        verbs.ListKeys: administration.list_keys,
        verbs.ListClients: administration.list_clients,
        governing.ShowPolicy: governance.show,
        governing.ExplainPolicy: governance.explain,
        governing.ShadePolicy: governance.shade,
        governing.ReplayPolicy: governance.replay,
        governing.ShowCompliance: governance.show_compliance,
        governing.ListFrozen: governance.frozen,
        verbs.ListUsers: administration.list_users,
        verbs.ListGrants: administration.list_grants,
        verbs.ListConnections: administration.list_connections,
    }


def changes(
    pushes: Pushes, letters: Letters, administration: Administration, governance: Governance
) -> dict[type[Any], Changing]:
    """The verbs that change what an operator or a task's owner has set, or reach outside for them."""
    return {
        verbs.CreatePushConfig: pushes.create,
        verbs.DeletePushConfig: pushes.delete,
        verbs.ReplayPushes: letters.replay,
        verbs.VerifyCard: administration.verify_card,
        governing.ReloadPolicy: governance.reload,
        governing.ReloadCompliance: governance.reload_compliance,
        verbs.AddAgent: administration.add_agent,
        verbs.ChangeAgent: administration.change_agent,
        verbs.RemoveAgent: administration.remove_agent,
        verbs.AcceptCard: administration.accept_card,
        verbs.AddKey: administration.add_key,
        verbs.RevokeKey: administration.revoke_key,
        verbs.AddClient: administration.add_client,
        verbs.RevokeClient: administration.revoke_client,
        governing.Freeze: governance.freeze,
        governing.Thaw: governance.thaw,
        verbs.InviteClient: administration.invite_client,
        verbs.AddUser: administration.add_user,
        verbs.RemoveUser: administration.remove_user,
        verbs.RemoveGrant: administration.remove_grant,
        verbs.RemoveConnection: administration.remove_connection,
        verbs.SetPassword: administration.set_password,
    }


def _too_deep() -> GatewayError:
    return GatewayError(Reason.PERMISSION_DENIED, f"More than {MAX_HOPS} agents asked each other in a row")


def _loop(trail: Trail, call: SendMessage) -> GatewayError | None:
    """The same agent asked the same thing again, further down the same chain, would ask it once more."""
    if asked(call.agent, call.message) not in trail.asked:
        return None
    way = " → ".join([*(each.agent for each in trail.asked), call.agent])
    return GatewayError(Reason.PERMISSION_DENIED, f"A loop: {call.agent} was asked the same thing already ({way})")


def _no_agent() -> GatewayError:
    return GatewayError(Reason.NOT_FOUND, "There is no such agent here")
