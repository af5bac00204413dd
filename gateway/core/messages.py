"""Use cases of a message: give it to an agent and answer with what comes of it, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace

from gateway.core.answers import Answer
from gateway.core.approvals.messages import HeldMessages
from gateway.core.audit import Recorder, Ticket
from gateway.core.engine import Engine
from gateway.core.latch import Latch
from gateway.core.media import check_input_modes
from gateway.core.push.configs import Pushes
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.tasks import Tasks, whole
from gateway.core.turn import Turn
from gateway.core.watch import Watch
from gateway.model.approval import waits
from gateway.model.audit import Verdict
from gateway.model.call import SendMessage
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.rows import Record
from gateway.model.task import Task, TaskState, envelope

_NAME = re.compile(r"(https?://|urn:)[^\s?#@]{1,200}").fullmatch  # no user, query or fragment: where secrets stand


class Messages:
    def __init__(
        self,
        services: Services,
        engine: Engine,
        tasks: Tasks,
        pushes: Pushes,
        recorder: Recorder,
        held: HeldMessages,
    ) -> None:
        self._services = services
        self._engine = engine
        self._tasks = tasks
        self._pushes = pushes
        self._recorder = recorder
        self._held = held
        self._waiting = 0  # callers that wait for the end of a turn
        self._answered: asyncio.Event | None = None  # set when, during a drain, the last of them is

    async def send(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Task | Message:
        answer = await self._start(call, ticket, entry)
        if isinstance(answer, Turn):
            answer = await self._wait(answer.created if call.return_immediately else answer.done)
        if isinstance(answer, Task) and not call.return_immediately and not answer.at_rest:
            # The message had come before, and its task is still at work.
            running = self._engine.turn(ticket.principal.tenant, answer.id)
            answer = answer if running is None else await self._wait(running.done)
        if isinstance(answer, GatewayError):
            raise answer
        return answer.trimmed(call.history_length) if isinstance(answer, Task) else answer

    async def open(self, call: SendMessage, ticket: Ticket, entry: Registered) -> Watch:
        answer = await self._start(call, ticket, entry)
        if isinstance(answer, Turn):
            followed = await self._follow(answer, call.history_length)
            if isinstance(followed, Watch):
                return followed
            answer = followed
        if isinstance(answer, GatewayError):
            raise answer
        if isinstance(answer, Message) or (answer.at_rest and not _goes_on(answer)):
            return Watch(None, Record(0, answer, envelope(answer)), history_length=call.history_length)
        row = await self._tasks.row(ticket.principal, answer.id, entry.id)
        return await self._tasks.watch(row, until_pause=True, history_length=call.history_length)

    async def drain(self, seconds: float) -> None:
        """Take no more messages, end the streams, and give callers that wait for an answer up to `seconds`.
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
            if not ticket.spends:  # else it has passed before the approval was spent
                call = await self._passed(call, ticket, entry)
            if call.push is not None:
                await self._pushes.prove(call.push.url, ticket)
                call = replace(call, push=self._pushes.named(call.push))
            if ticket.decision.verdict is Verdict.ESCALATE:
                return await self._held.hold(call, ticket, entry)  # recorded with its approval
            answer = await self._engine.send(call, ticket, entry)
        except BaseException as error:
            ticket.close()
            if isinstance(error, GatewayError):
                self._recorder.note(ticket, error.reason)
            raise
        if not (isinstance(answer, Turn) and answer.ticket is ticket):
            ticket.close()
            self._recorder.note(ticket, "repeated")
        return answer

    async def foreseen(self, call: SendMessage, ticket: Ticket, entry: Registered) -> SendMessage:
        """The message as its agent will have it, if somebody agrees. Raises GatewayError, recorded: nobody is asked for
        what could not be sent."""
        try:
            call = self._checked(call, entry)
            return await self._services.compliance.message(call, ticket, foreseen=True)
        except GatewayError as error:
            self._recorder.note(ticket, error.reason)
            raise

    async def passed(self, call: SendMessage, ticket: Ticket, entry: Registered) -> SendMessage:
        """A message that is released, before its approval is spent. Raises GatewayError, recorded."""
        try:
            return await self._passed(call, ticket, entry)
        except BaseException as error:
            ticket.close()
            if isinstance(error, GatewayError):
                self._recorder.note(ticket, error.reason)
            raise

    async def _passed(self, call: SendMessage, ticket: Ticket, entry: Registered) -> SendMessage:
        """The message as its agent, and the task's history, may have it. It stays the message that was sent: its digest
        is of what the caller said."""
        return await self._services.compliance.message(self._checked(call, entry), ticket)

    def _checked(self, call: SendMessage, entry: Registered) -> SendMessage:
        """The message with those extensions that the agent's card offers or whose URI is a plain name (agents know
        some that their cards leave out): what else a caller put there is not for it, and could be a secret."""
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
            self._pushes.check(entry, call.push)
        if not call.extensions:
            return call
        offered = () if entry.card is None else entry.card.extensions
        return replace(call, extensions=tuple(uri for uri in call.extensions if uri in offered or _NAME(uri)))

    async def _follow(self, turn: Turn, history_length: int | None) -> Watch | Answer:
        """The turn's events from the first one; or the answer, when it makes no task of its own."""
        subscription = self._services.live.subscribe(turn.topic)
        first = None if turn.row is None else whole(turn.row)
        try:
            answer = await turn.created
        except BaseException:
            subscription.close()
            raise
        if turn.row is None or isinstance(answer, GatewayError):
            subscription.close()
            return answer
        return Watch(subscription, first, until_pause=True, history_length=history_length)

    async def _wait(self, latch: Latch[Answer]) -> Answer:
        self._waiting += 1
        try:
            return await latch
        finally:
            self._waiting -= 1
            if not self._waiting and self._answered is not None:
                self._answered.set()


def _goes_on(task: Task) -> bool:
    """It waits for somebody else than its caller, who can watch what comes of it."""
    return waits(task) is not None and task.status.state is TaskState.AUTH_REQUIRED
