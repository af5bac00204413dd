"""The two doors behind every protocol: `handle(call, principal)` for one answer, `open(call, principal)` for events.

Each call is let in or turned away (enforcement.py), acted on by its use case and recorded, here and nowhere else.
Dialects decode into calls before and encode results after; nothing in this package knows JSON, HTTP or SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from gateway.core.act import Act
from gateway.core.administration import Administration
from gateway.core.approvals.answers import Answers
from gateway.core.approvals.desk import Desk
from gateway.core.approvals.grounds import Grounds
from gateway.core.approvals.messages import HeldMessages
from gateway.core.approvals.sites import Sites
from gateway.core.audit import OwnActs, Recorder, Refusals, Ticket
from gateway.core.auditing import Auditing
from gateway.core.cursor import Cursors
from gateway.core.enforcement import MAX_HOPS, Enforcement, too_deep
from gateway.core.engine import Engine
from gateway.core.freezer import Freezer
from gateway.core.governance import Governance
from gateway.core.halting import Halting
from gateway.core.logs import Logs
from gateway.core.messages import Messages
from gateway.core.owned import Owned
from gateway.core.policy.admission import Admission
from gateway.core.policy.refusals import Insufficient, Refused, refused
from gateway.core.policy.rules import DENIED
from gateway.core.push.configs import Proof, Pushes
from gateway.core.push.letters import Letters
from gateway.core.registry import Registered, Registry
from gateway.core.replay import Replays
from gateway.core.results import Results
from gateway.core.scopes import ScopesInUse
from gateway.core.services import Services
from gateway.core.shares import Lent, Shares
from gateway.core.sharing import Sharing
from gateway.core.tasks import Tasks
from gateway.core.tools.listening import Listening
from gateway.core.tools.silent import Silent
from gateway.core.tools.tools import Tools
from gateway.core.tools.toolset import Toolset
from gateway.core.watch import Followed, Replay, Watch
from gateway.model import call as verbs
from gateway.model import governance as governing
from gateway.model import operation as operating
from gateway.model import sharing
from gateway.model.approval import ApprovalCall
from gateway.model.call import Call, FollowLog, GetExtendedCard, SendMessage, SubscribeToTask
from gateway.model.card import AgentCard
from gateway.model.errors import Fault, GatewayError, agent_not_found
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.task import Task
from gateway.model.tool import PeerError, ToolRequest, ToolResult
from gateway.model.toolcall import Listen, ToolCall, UseServer
from gateway.model.trail import Trail
from gateway.model.value import value

_INVALID_PARAMS = -32602  # what MCP says of a tool that is not there

T = TypeVar("T")
UseCase = Callable[[Any, Ticket, Any], Awaitable[Any]]
Changing = Callable[[Any, Act, Any], Awaitable[Any]]


@value
class Authority:
    """What a call is judged by: the policy with its limits and labels, who is frozen, and what operators see and change
    of both."""

    admission: Admission
    freezer: Freezer
    governance: Governance


@value
class Webhooks:
    """`judge` raises INVALID_PARAMS for a URL that its text alone rules out; `challenge` says whether whoever answers
    there gives a token back, where the operator asks for that."""

    judge: Callable[[str], None]
    challenge: Proof | None
    letters: Letters


class Gateway:
    def __init__(
        self,
        services: Services,
        registry: Registry,
        engine: Engine,
        cursors: Cursors,
        tools: Tools,
        authority: Authority,
        administration: Administration,
        webhooks: Webhooks,
    ) -> None:
        store, now, new_id = services.store, services.now, services.new_id
        admission, freezer, governance = authority.admission, authority.freezer, authority.governance
        calls, approvals, policy = tools.calls, tools.calls.approvals, admission.policy
        recorder = self._recorder = Recorder(store, now)
        self._store, self._now, self._policy = store, now, policy
        self._administration = administration
        self.registry = registry
        self.tools = tools
        self.connections = tools.connections
        self.kept = administration.connections
        self.draining = asyncio.Event()
        self.refusals = Refusals(recorder, new_id)
        self.own_acts = OwnActs(recorder, new_id)
        self.auditing = Auditing(store, now)
        self.scopes = ScopesInUse(policy, registry, tools.servers, tools.views)
        shares = Shares(store, freezer, now)
        owned = Owned(registry, policy, self.may_see)
        self.tasks = Tasks(services, registry, engine, cursors, shares, owned)
        self.halting = Halting(services, registry, engine, tools.flights, freezer)
        self.held = HeldMessages(services, engine, registry, approvals, admission)
        sites = Sites(registry, tools.servers)
        grounds = approvals.grounds = Grounds(admission, governance.question, sites)
        registry.when_changed.append(approvals.placed)
        tools.servers.when_changed.append(approvals.placed)
        self._desk = Desk(
            store, policy, registry, approvals, self.held, recorder, grounds, services.compliance, now, new_id
        )
        self._answers = Answers(approvals, self._desk, self.tasks)
        pushes = Pushes(services, engine, self.tasks, cursors, webhooks.judge, webhooks.challenge)
        self._messages = Messages(services, engine, self.tasks, pushes, recorder, self.held)
        self._enforcement = Enforcement(
            services, registry, admission, freezer, self.halting, recorder, self._messages, calls, self.may_see
        )
        self._results = Results(services, engine, self.tasks, policy, owned)
        self.logs = Logs(services, owned, self.tasks, shares)
        self._sharing = Sharing(services, owned, shares)
        self._uses = self._reading(pushes, webhooks.letters, governance)
        self._changes = changes(pushes, webhooks.letters, administration, governance, self._sharing)
        self.halting.laid_down = self.held.canceled
        tools.consents.desk = self._desk
        engine.contexts.front = self

    async def handle(self, call: Call | ToolCall, who: Principal) -> Any:
        """The result of one call; its type follows from the call's (see the use cases).

        Raises GatewayError for everything that the caller may know about.
        """
        if isinstance(call, ToolCall):
            if who.hops > MAX_HOPS:
                raise too_deep()
            try:
                return await self.tools.handle(call, who)
            except Refused as refusal:
                await self.halting.heed(refusal, who, call.trail if isinstance(call, UseServer) else None)
                raise
        if isinstance(call, SendMessage):
            if (asked := self._answers.meant(call, who)) is not None:
                return await self._answers.send(call, self._enforcement.admit_answer(call, who), asked, self._now())
            call, ticket, entry = await self._enforcement.admit_message(call, who)
            return await self._messages.send(call, ticket, entry)  # its engine records how a message ends
        if isinstance(call, ApprovalCall):
            return await self._desk.handle(call, who)
        ticket, registered = await self._enforcement.admit(call, who)
        try:
            if (changing := self._changes.get(type(call))) is not None:
                act = Act(ticket, self._store, self._now, self._administration.standing(call))
                standing = partial(self._administration.standing, call)
                return await act.through(changing(call, act, registered), standing)
            return await self._look(call, ticket, registered)
        except Refused as refusal:  # of a call that named no agent
            await self.halting.heed(refusal, who, None)
            raise
        finally:
            ticket.close()

    async def _look(self, call: Call, ticket: Ticket, entry: Registered | None) -> Any:
        """A call that changes nothing that anybody has set: one entry says how it ended."""
        try:
            result = await self._uses[type(call)](call, ticket, entry)
        except GatewayError as error:
            self._recorder.note(ticket.stopped(error), error.reason)
            raise
        if type(result) is Lent:
            self._recorder.note(_lent(ticket, result.owner), "ok", result.task_id)
            return result.shown
        self._recorder.note(ticket, "ok")
        return result

    async def open(self, call: SendMessage | SubscribeToTask, who: Principal) -> Watch:
        """The events of a task, the first of them the task itself; or one Message. Raises GatewayError before."""
        if isinstance(call, SendMessage):
            if (asked := self._answers.meant(call, who)) is not None:
                return await self._answers.open(call, self._enforcement.admit_answer(call, who), asked, self._now())
            call, ticket, entry = await self._enforcement.admit_message(call, who)
            return await self._messages.open(call, ticket, entry)
        ticket, registered = await self._enforcement.admit(call, who)
        watch = await self._opened(self.tasks.subscribe(call, ticket, registered), ticket)
        self._followed(watch, ticket, call.task_id)
        return watch

    async def follow(self, call: FollowLog, who: Principal) -> Replay:
        """A task's log from its beginning, and on to its rest. Raises GatewayError before."""
        ticket, _ = await self._enforcement.admit(call, who)
        replay = await self._opened(self.logs.follow(call, ticket), ticket)
        self._followed(replay, ticket, call.task_id)
        return replay

    async def _opened(self, opening: Awaitable[T], ticket: Ticket) -> T:
        try:
            return await opening
        except GatewayError as error:
            self._recorder.note(ticket.stopped(error), error.reason)
            if isinstance(error, Refused):
                await self.halting.heed(error, ticket.principal, None)
            raise
        finally:
            ticket.close()

    def _followed(self, events: Followed, ticket: Ticket, task_id: str) -> None:
        if events.lent is None:
            self._recorder.note(ticket, "ok")
        else:
            self._recorder.note(_lent(ticket, events.lent.owner), "ok", task_id)

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
        if not policy.silent(who, "GetAgentCard", target):
            return False
        return policy.known(who, SendMessage.verb, target) or (policy.skilled and self._may_use_some(who, entry))

    def _may_use_some(self, who: Principal, entry: Registered) -> bool:
        return entry.card is not None and any(self.may_use_skill(who, entry, skill.id) for skill in entry.card.skills)

    def may_use_skill(self, who: Principal, entry: Registered, skill: str) -> bool:
        """Whether some message for this skill of an agent would be let through, perhaps with more scopes. Of a set of
        tools: and the call of the tool that it is."""
        if not self._policy.known(who, SendMessage.verb, entry.target._replace(skill=skill)):
            return False
        return not isinstance(entry.agent, Toolset) or self.tools.may_call(who.delegate(entry.id), skill)

    def card(self, who: Principal, entry: Registered) -> AgentCard:
        """The card of one that has one, with the skills that the caller may use."""
        card = entry.card
        assert card is not None
        if not self._policy.skilled and not isinstance(entry.agent, Toolset):
            return card
        seen = tuple(skill for skill in card.skills if self.may_use_skill(who, entry, skill.id))
        return card if len(seen) == len(card.skills) else card.model_copy(update={"skills": seen})

    def find(self, agent: str, who: Principal) -> Registered:
        """An agent that the caller may see. Missing and hidden ones are the same to it; one that it could see with more
        scopes is not hidden."""
        entry = self.registry.get(agent)
        if entry is not None and self.may_see(who, entry):
            return entry
        decision = DENIED if entry is None else self._policy.decide(who, "GetAgentCard", entry.target)
        raise refused(decision, who, "GetAgentCard") if decision.scopes else agent_not_found()

    def _reading(self, pushes: Pushes, letters: Letters, governance: Governance) -> dict[type[Any], UseCase]:
        """The verbs that change nothing that somebody has set, but that of messages, and their use cases."""
        tasks, results, logs = self.tasks, self._results, self.logs
        administration, auditing = self._administration, self.auditing
        return {
            verbs.GetTask: tasks.get,
            verbs.ListTasks: tasks.list,
            verbs.GetPushConfig: pushes.get,
            verbs.ListPushConfigs: pushes.list,
            operating.ShowPushes: letters.show,
            operating.ListDeadPushes: letters.dead,
            verbs.GetExtendedCard: _extended_card,
            verbs.FetchResult: results.fetch,
            verbs.SubmitResult: results.submit,
            verbs.PullTasks: results.pull,
            verbs.ReadLog: logs.read,
            verbs.ReadContext: logs.context,
            sharing.ListShares: self._sharing.list,
            operating.ListAgents: administration.list_agents,
            operating.ShowCard: administration.show_card,
            operating.ListKeys: administration.list_keys,
            operating.ListClients: administration.list_clients,
            governing.ShowPolicy: governance.show,
            governing.ExplainPolicy: governance.explain,
            governing.ShadePolicy: governance.shade,
            governing.ReplayPolicy: governance.replay,
            governing.ShowCompliance: governance.show_compliance,
            governing.ListFrozen: governance.frozen,
            operating.ListUsers: administration.list_users,
            operating.ListGrants: administration.list_grants,
            operating.ListConnections: administration.list_connections,
            verbs.CancelTask: self._cancel,
            operating.ReadAudit: auditing.read,
            operating.EraseSubject: auditing.erase,
            operating.RotateAuditKey: auditing.rotate,
            operating.RotateVaultKey: administration.rotate_vault,
            verbs.ReplayTask: Replays(self._store).replay,
            verbs.ShowAdminApi: _admin_api,
        }

    async def _cancel(self, call: verbs.CancelTask, ticket: Ticket, entry: Registered | None) -> Task:
        """Whatever the task waited for, nobody can agree to it any more."""
        task = await self.tasks.cancel(call, ticket, entry)
        if task.status.state.terminal:
            await self.held.canceled(ticket.principal.tenant, task.id)
        return task

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


def changes(
    pushes: Pushes, letters: Letters, administration: Administration, governance: Governance, shares: Sharing
) -> dict[type[Any], Changing]:
    """The verbs that change what an operator or a task's owner has set, or reach outside for them."""
    return {
        verbs.CreatePushConfig: pushes.create,
        verbs.DeletePushConfig: pushes.delete,
        sharing.ShareTask: shares.share,
        sharing.UnshareTask: shares.unshare,
        operating.ReplayPushes: letters.replay,
        operating.VerifyCard: administration.verify_card,
        governing.ReloadPolicy: governance.reload,
        governing.ReloadCompliance: governance.reload_compliance,
        operating.AddAgent: administration.add_agent,
        operating.ChangeAgent: administration.change_agent,
        operating.RemoveAgent: administration.remove_agent,
        operating.AcceptCard: administration.accept_card,
        operating.AddKey: administration.add_key,
        operating.RevokeKey: administration.revoke_key,
        operating.AddClient: administration.add_client,
        operating.RevokeClient: administration.revoke_client,
        operating.RotateClient: administration.rotate_client,
        governing.Freeze: governance.freeze,
        governing.Thaw: governance.thaw,
        operating.InviteClient: administration.invite_client,
        operating.AddUser: administration.add_user,
        operating.RemoveUser: administration.remove_user,
        operating.RemoveGrant: administration.remove_grant,
        operating.RemoveConnection: administration.remove_connection,
        operating.SetPassword: administration.set_password,
    }


def _lent(ticket: Ticket, owner: str) -> Ticket:
    """A read of somebody else's task says whose it is."""
    return replace(ticket, why=f"a task of {owner} that is shared with the caller")


async def _extended_card(call: GetExtendedCard, ticket: Ticket, entry: Registered) -> Registered:
    return entry  # admitted, so it has one; its bytes are the server's to make


async def _admin_api(call: verbs.ShowAdminApi, ticket: Ticket, entry: None) -> None:
    """Admitted: what it takes is the server's to say."""
