"""The two doors behind every protocol: `handle(call, principal)` for one answer, `open(call, principal)` for events.

Each call is admitted (resolve, decide), acted on and recorded, here and nowhere else. Dialects decode into calls
before and encode results after; this module knows neither JSON nor HTTP nor SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from gateway.core.audit import Ticket
from gateway.core.cursor import Cursors
from gateway.core.engine import Engine
from gateway.core.keys import KeyRing, NewKey
from gateway.core.media import check_input_modes
from gateway.core.policy import Policy, Target
from gateway.core.registry import Registered, Registry
from gateway.core.turn import Answer, Services, Turn
from gateway.core.watch import Watch
from gateway.model.agent import Ask
from gateway.model.audit import Decision, Verdict
from gateway.model.call import (
    AddAgent,
    AddKey,
    Call,
    CancelTask,
    CreatePushConfig,
    DeletePushConfig,
    FetchResult,
    GetExtendedCard,
    GetPushConfig,
    GetTask,
    ListAgents,
    ListKeys,
    ListPushConfigs,
    ListTasks,
    PullTasks,
    PushConfigPage,
    RemoveAgent,
    RevokeKey,
    SendMessage,
    SubmitResult,
    SubscribeToTask,
    TaskPage,
)
from gateway.model.errors import GatewayError, Reason, invalid, task_not_found
from gateway.model.message import Message
from gateway.model.ports import (
    DropPushConfig,
    KeyRecord,
    PutPushConfig,
    Record,
    Reservation,
    TaskQuery,
    TaskRow,
)
from gateway.model.principal import Kind, Principal
from gateway.model.push import PushConfig
from gateway.model.task import Task, TaskState, envelope

# Calls that name a task and no agent are judged by that task, once it is found.
_BY_TASK = Decision(Verdict.PASS, "by-task", "judged by the owner or worker of the task")
MAX_HOPS = 8  # agents that ask agents: deeper than this is a loop in all likelihood
MAX_PUSH_CONFIGS = 16  # per task: each multiplies the outbox


@dataclass(frozen=True, slots=True)
class Found:
    """A result under the caller's own id (the older `agents/tasks/*` messages)."""

    agent: str
    context_id: str
    answer: Task | Message


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a listing across agents."""

    agent: str
    task: Task


@dataclass(frozen=True, slots=True)
class Catalogue:
    agents: tuple[Registered, ...]
    shadowed: tuple[str, ...]


@runtime_checkable
class Worked(Protocol):
    """An agent whose work is done by a worker that reports back."""

    async def take(self, limit: int, wait: float) -> list[dict[str, Any]]: ...

    async def submit(self, task_id: str, state: TaskState, result: Any, has_result: bool) -> None:
        """Returns when the agent has taken the report into the task."""
        ...


class Gateway:
    def __init__(
        self,
        services: Services,
        registry: Registry,
        engine: Engine,
        policy: Policy,
        keys: KeyRing,
        cursors: Cursors,
        judge_webhook: Callable[[str], None],
    ) -> None:
        self.registry = registry
        self.keys = keys
        self._services = services
        self._engine = engine
        self._policy = policy
        self._cursors = cursors
        self._judge_webhook = judge_webhook
        self._waiting = 0  # callers that wait for the end of a turn
        self._answered: asyncio.Event | None = None  # set when, during a drain, the last of them is
        self._uses: dict[type[Any], Callable[[Any, Ticket, Any], Awaitable[Any]]] = {
            SendMessage: self._send,
            GetTask: self._get_task,
            ListTasks: self._list_tasks,
            CancelTask: self._cancel_task,
            CreatePushConfig: self._create_push,
            GetPushConfig: self._get_push,
            ListPushConfigs: self._list_push,
            DeletePushConfig: self._delete_push,
            GetExtendedCard: self._extended_card,
            FetchResult: self._fetch_result,
            SubmitResult: self._submit_result,
            PullTasks: self._pull_tasks,
            ListAgents: self._list_agents,
            AddAgent: self._add_agent,
            RemoveAgent: self._remove_agent,
            AddKey: self._add_key,
            ListKeys: self._list_keys,
            RevokeKey: self._revoke_key,
        }

    # The doors.

    async def handle(self, call: Call, who: Principal) -> Any:
        """The result of one call; its type follows from the call's (see the use cases below).

        Raises GatewayError for everything that the caller may know about.
        """
        ticket, entry = self._admit(call, who)
        try:
            result = await self._uses[type(call)](call, ticket, entry)
        except GatewayError as error:
            if not isinstance(call, SendMessage):  # the engine records how a message ends
                self._note(ticket, error.reason)
            raise
        if not isinstance(call, SendMessage):
            self._note(ticket, "ok")
        return result

    async def open(self, call: SendMessage | SubscribeToTask, who: Principal) -> Watch:
        """The events of a task, the first of them the task itself; or one Message. Raises GatewayError before."""
        ticket, entry = self._admit(call, who)
        if entry is not None and not entry.streaming:
            self._note(ticket, Reason.UNSUPPORTED_OPERATION)
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent offers no streams; see its card")
        if isinstance(call, SendMessage):
            assert entry is not None
            return await self._open_send(call, ticket, entry)
        try:
            events = await self._subscribe(call, ticket, entry)
        except GatewayError as error:
            self._note(ticket, error.reason)
            raise
        self._note(ticket, "ok")
        return events

    def may_see(self, who: Principal, entry: Registered) -> bool:
        return self._policy.decide(who, "GetAgentCard", entry.target).allowed

    def find(self, agent: str, who: Principal) -> Registered:
        """An agent that the caller may see. Missing and hidden ones are the same to it."""
        entry = self.registry.get(agent)
        if entry is None or not self.may_see(who, entry):
            raise _no_agent()
        return entry

    def _admit(self, call: Call, who: Principal) -> tuple[Ticket, Registered | None]:
        entry = self.registry.get(call.agent) if call.agent is not None else None
        target = entry.target if entry is not None else Target(call.agent or "gateway")
        if entry is None and isinstance(call, FetchResult | SubmitResult):
            decision = _BY_TASK
        else:
            decision = self._policy.decide(who, call.verb, target)
        digest = call.digest.hex() if isinstance(call, SendMessage) else None
        ticket = Ticket(who, call.verb, target.id, decision, self._services.new_id(), digest)
        if who.hops > MAX_HOPS:
            error = GatewayError(Reason.PERMISSION_DENIED, f"More than {MAX_HOPS} agents asked each other in a row")
        elif call.agent is not None and (entry is None or not (decision.allowed or self.may_see(who, entry))):
            error = _no_agent()
        elif isinstance(call, GetExtendedCard) and entry is not None and entry.extended is None:
            # Before the verdict: asking for a credential would be asking in vain, and the card says as much.
            error = GatewayError(Reason.UNSUPPORTED_OPERATION, "This agent has no extended card")
        elif not decision.allowed:
            error = _denied(who, call.verb)
        else:
            return ticket, entry
        self._note(ticket, error.reason)
        raise error

    def _note(self, ticket: Ticket, outcome: str) -> None:
        self._services.store.later(records=(ticket.outcome(self._services.now(), outcome),))

    # Messages and streams.

    async def _send(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Task | Message:
        answer = await self._start(call, ticket, entry)
        if isinstance(answer, Task) and not call.return_immediately and not _at_rest(answer):
            answer = self._engine.turn(ticket.principal.tenant, answer.id) or answer
        if isinstance(answer, Turn):
            answer = await self._wait(answer.created if call.return_immediately else answer.done)
        if isinstance(answer, GatewayError):
            raise answer
        return answer.trimmed(call.history_length) if isinstance(answer, Task) else answer

    async def _wait(self, future: asyncio.Future[Answer]) -> Answer:
        self._waiting += 1
        try:
            # Shielded: a caller that goes away must not take the turn's answer with it.
            return await asyncio.shield(future)
        finally:
            self._waiting -= 1
            if not self._waiting and self._answered is not None:
                self._answered.set()

    async def drain(self, seconds: float) -> None:
        """Stop taking new messages, end the streams, and give callers that wait for an answer up to `seconds`.
        Then stop all turns where they are; whoever still waits is told to ask again."""
        self._engine.refuse()
        self._services.live.close()
        if self._waiting:
            self._answered = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._answered.wait()
        await self._engine.aclose()

    async def _start(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Turn | Answer:
        """Accept the message. What the engine begins it also records; all else is recorded here."""
        try:
            self._check(call, entry)
            if call.push is not None:
                call = _with_push_id(call, self._services.new_id)
            answer = await self._engine.send(call, ticket, entry, self._ask_as(ticket.principal.delegate(entry.id)))
        except GatewayError as error:
            self._note(ticket, error.reason)
            raise
        if not (isinstance(answer, Turn) and answer.ticket is ticket):
            self._note(ticket, "repeated")
        return answer

    def _check(self, call: SendMessage, entry: Registered) -> None:
        missing = [uri for uri in entry.card.required_extensions if uri not in call.extensions] if entry.card else []
        if missing:
            raise GatewayError(
                Reason.EXTENSION_SUPPORT_REQUIRED,
                f"This agent requires the extension {missing[0]}; list it in A2A-Extensions",
                metadata={"extensions": ",".join(missing)},
            )
        if entry.kind == "local" and entry.card is not None:
            check_input_modes(call.message, entry.card)
        if call.push is not None:
            self._check_push(entry)
            self._judge_webhook(call.push.url)

    def _ask_as(self, who: Principal) -> Ask:
        async def ask(agent: str, message: Message) -> Task | Message:
            call = SendMessage(agent=agent, message=message, digest=b"")
            answer: Task | Message = await self.handle(call, who)
            return answer

        return ask

    async def _open_send(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Watch:
        answer = await self._start(call, ticket, entry)
        if isinstance(answer, Turn):
            return await self._follow_turn(answer, ticket)
        if isinstance(answer, GatewayError):
            raise answer
        if isinstance(answer, Message):
            return Watch(None, Record(0, answer, envelope(answer)))
        if _at_rest(answer):
            return Watch(None, Record(0, answer, envelope(answer)))
        row = await self._row(ticket.principal, answer.id, entry.id)
        return await self._watch(row, until_pause=True)

    async def _follow_turn(self, turn: Turn, ticket: Ticket) -> Watch:
        subscription = self._services.live.subscribe(turn.topic)
        try:
            whole = None if turn.row is None else _whole(turn.row)
            answer = await asyncio.shield(turn.created)
            if isinstance(answer, GatewayError):
                raise answer
            if isinstance(answer, Message):
                subscription.close()
                return Watch(None, Record(0, answer, envelope(answer)))
        except BaseException:
            subscription.close()
            raise
        return Watch(subscription, whole, until_pause=True)

    async def _subscribe(self, call: SubscribeToTask, ticket: Ticket, entry: Registered | None) -> Watch:
        row = await self._row(ticket.principal, call.task_id, call.agent)
        if row.task.status.state.terminal:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION,
                f"The task has ended ({row.task.status.state.name}); read it with GetTask",
                metadata={"taskId": row.id},
            )
        return await self._watch(row, until_pause=False)

    async def _watch(self, row: TaskRow, *, until_pause: bool) -> Watch:
        # Listen first, read then: what is written in between is in both, and its number tells.
        subscription = self._services.live.subscribe((row.tenant, row.id))
        try:
            fresh = await self._services.store.task(row.tenant, row.id, owner=row.owner)
        except BaseException:
            subscription.close()
            raise
        return Watch(subscription, _whole(fresh or row), until_pause=until_pause)

    # Tasks.

    async def _get_task(self, call: GetTask, ticket: Ticket, entry: Registered | None) -> Task:
        return (await self.row(call, ticket.principal)).task.trimmed(call.history_length)

    async def row(self, call: GetTask, who: Principal) -> TaskRow:
        return await self._row(who, call.task_id, call.agent)

    async def _row(self, who: Principal, task_id: str, agent: str | None) -> TaskRow:
        """The caller's task on this agent (None: on any). Foreign and missing are the same."""
        turn = self._engine.turn(who.tenant, task_id)
        if turn is not None and turn.row is not None:
            row: TaskRow | None = turn.row  # as last written: no need to read it back
            if row is not None and (row.owner != who.owner or agent not in (None, row.agent)):
                row = None
        else:
            row = await self._services.store.task(who.tenant, task_id, owner=who.owner, agent=agent)
        if row is None:
            raise task_not_found(task_id)
        return row

    async def _list_tasks(self, call: ListTasks, ticket: Ticket, entry: Registered | None) -> TaskPage:
        who = ticket.principal
        bound = "\n".join(
            (who.tenant, who.owner, call.agent or "", call.context_id or "", call.status or "",
             str(call.status_timestamp_after or ""))
        )  # fmt: skip
        after = None
        if call.page_token:
            updated, _, last = self._cursors.open(call.page_token, bound).partition(" ")
            after = (int(updated), last)
        query = TaskQuery(
            tenant=who.tenant,
            owner=who.owner,
            agent=call.agent,
            limit=call.page_size + 1,
            context_id=call.context_id,
            state=call.status,
            updated_since=call.status_timestamp_after,
            after=after,
        )
        rows, total = await self._services.store.tasks(query)
        more, rows = len(rows) > call.page_size, rows[: call.page_size]
        token = self._cursors.seal(f"{rows[-1].updated} {rows[-1].id}", bound) if more else ""
        listed = tuple(
            Listed(row.agent, row.task.trimmed(call.history_length, artifacts=call.include_artifacts)) for row in rows
        )
        return TaskPage(listed, token, call.page_size, total)

    async def _cancel_task(self, call: CancelTask, ticket: Ticket, entry: Registered | None) -> Task:
        row = await self._row(ticket.principal, call.task_id, call.agent)
        owner = self.registry.get(row.agent) or self.registry.unknown(row.agent)
        await self._services.store.commit(records=(ticket.intent(self._services.now(), row.id),))
        return await self._engine.cancel(row, owner, ticket)

    # Push configurations.

    def _check_push(self, entry: Registered) -> None:
        if not entry.pushes:
            raise GatewayError(
                Reason.PUSH_NOTIFICATION_NOT_SUPPORTED, "This agent offers no push notifications; see its card"
            )

    async def _create_push(self, call: CreatePushConfig, ticket: Ticket, entry: Registered) -> PushConfig:
        self._check_push(entry)
        row = await self._row(ticket.principal, call.task_id, entry.id)
        self._judge_webhook(call.config.url)
        config = call.config.model_copy(update={"id": call.config.id or self._services.new_id(), "task_id": row.id})
        present = await self._services.store.push_configs(row.tenant, row.id, limit=MAX_PUSH_CONFIGS)
        if len(present) >= MAX_PUSH_CONFIGS and config.id not in {known.id for known in present}:
            raise GatewayError(
                Reason.INVALID_PARAMS,
                f"A task has at most {MAX_PUSH_CONFIGS} push configurations; delete one first",
            )
        await self._services.store.commit(PutPushConfig(row.tenant, config))
        turn = self._engine.turn(row.tenant, row.id)
        if turn is not None:
            turn.push = True
        return config

    async def _get_push(self, call: GetPushConfig, ticket: Ticket, entry: Registered) -> PushConfig:
        self._check_push(entry)
        row = await self._row(ticket.principal, call.task_id, entry.id)
        config = await self._services.store.push_config(row.tenant, row.id, call.id)
        if config is None:
            raise task_not_found(call.task_id)
        return config

    async def _list_push(self, call: ListPushConfigs, ticket: Ticket, entry: Registered) -> PushConfigPage:
        self._check_push(entry)
        row = await self._row(ticket.principal, call.task_id, entry.id)
        bound = f"push\n{row.tenant}\n{row.id}"
        after = self._cursors.open(call.page_token, bound) if call.page_token else ""
        configs = await self._services.store.push_configs(row.tenant, row.id, limit=call.page_size + 1, after=after)
        more, configs = len(configs) > call.page_size, configs[: call.page_size]
        token = self._cursors.seal(configs[-1].id or "", bound) if more else ""
        return PushConfigPage(tuple(configs), token)

    async def _delete_push(self, call: DeletePushConfig, ticket: Ticket, entry: Registered) -> None:
        self._check_push(entry)
        row = await self._row(ticket.principal, call.task_id, entry.id)
        await self._services.store.commit(DropPushConfig(row.tenant, row.id, call.id))

    # Cards.

    async def _extended_card(self, call: GetExtendedCard, ticket: Ticket, entry: Registered) -> Registered:
        return entry

    # The older messages.

    async def _fetch_result(self, call: FetchResult, ticket: Ticket, entry: Registered | None) -> Found:
        who = ticket.principal
        held = await self._services.store.reservation(who.tenant, who.owner, call.message_id, agent=call.agent)
        if not held:
            raise task_not_found(call.message_id)
        if len(held) > 1:
            raise invalid("agent_id", "this task id is known at several agents; say which one you mean")
        found = await self._found(held[0], who)
        if call.wait > 0 and isinstance(found.answer, Task) and not _at_rest(found.answer):
            turn = self._engine.turn(who.tenant, held[0].task_id)
            if turn is not None:
                await asyncio.wait((turn.done,), timeout=call.wait)
            found = await self._found(held[0], who)
        return found

    async def _found(self, held: Reservation, who: Principal) -> Found:
        if held.reply is not None:
            return Found(held.key.agent, held.reply.context_id or "", held.reply)
        row = await self._row(who, held.task_id, None)
        return Found(held.key.agent, row.task.context_id, row.task)

    async def _submit_result(self, call: SubmitResult, ticket: Ticket, entry: Registered | None) -> TaskState:
        who = ticket.principal
        turn = self._engine.turn(who.tenant, call.task_id)
        row = None if turn is None else turn.row
        if row is None or call.agent not in (None, row.agent) or turn is None:
            raise task_not_found(call.task_id)
        if not self._policy.decide(who, call.verb, turn.entry.target).allowed:
            raise task_not_found(call.task_id)
        await _worked(turn.entry).submit(call.task_id, call.state, call.result, call.has_result)
        await turn.flush()  # the receipt says that the report will not be lost
        return call.state

    async def _pull_tasks(self, call: PullTasks, ticket: Ticket, entry: Registered) -> list[dict[str, Any]]:
        return await _worked(entry).take(call.limit, call.wait)

    # Administration.

    async def _list_agents(self, call: ListAgents, ticket: Ticket, entry: None) -> Catalogue:
        who = ticket.principal
        seen = tuple(entry for entry in self.registry.all() if self.may_see(who, entry))
        shadowed = tuple(record.id for record in self.registry.shadowed()) if who.kind is Kind.LOCAL else ()
        return Catalogue(seen, shadowed)

    async def _add_agent(self, call: AddAgent, ticket: Ticket, entry: None) -> Registered:
        return await self.registry.add(call.card_url, call.id, trusted=ticket.principal.kind is Kind.LOCAL)

    async def _remove_agent(self, call: RemoveAgent, ticket: Ticket, entry: None) -> None:
        await self.registry.remove(call.id)

    async def _add_key(self, call: AddKey, ticket: Ticket, entry: None) -> NewKey:
        return await self.keys.add(call.name)

    async def _list_keys(self, call: ListKeys, ticket: Ticket, entry: None) -> Sequence[KeyRecord]:
        return self.keys.all()

    async def _revoke_key(self, call: RevokeKey, ticket: Ticket, entry: None) -> None:
        await self.keys.revoke(call.id)


def _whole(row: TaskRow) -> Record:
    return Record(row.seq, row.task, envelope(row.task))


def _at_rest(task: Task) -> bool:
    return task.status.state.terminal or task.status.state.interrupted


def _with_push_id(call: SendMessage, new_id: Callable[[], str]) -> SendMessage:
    assert call.push is not None
    return replace(call, push=call.push.model_copy(update={"id": call.push.id or new_id()}))


def _worked(entry: Registered) -> Worked:
    agent = entry.ready()
    if not isinstance(agent, Worked):
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, f"Agent {entry.id} takes no results from a worker")
    return agent


def _no_agent() -> GatewayError:
    return GatewayError(Reason.NOT_FOUND, "There is no such agent here")


def _denied(who: Principal, verb: str) -> GatewayError:
    if who.kind is Kind.ANONYMOUS:
        return GatewayError(Reason.UNAUTHENTICATED, f"{verb} needs a credential")
    return GatewayError(Reason.PERMISSION_DENIED, f"You may not use {verb} here")
