"""Agents as tools: each agent that the caller may use is a tool `agents/NAME`, and calling it is sending it a message.

The task is like any other: durable, owned by the caller, in the record, to be found again by its id. A caller that
takes tasks is given it at once and asks after it (agent_tasks.py). For any other one what happens is told as progress,
a question of the agent's becomes an elicitation, and a caller that leaves cancels the task.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol

from gateway.core.registry import Registered, Registry
from gateway.core.tools import agent_tasks, consents
from gateway.core.tools.agent_results import of_task, result
from gateway.core.tools.silent import Silent
from gateway.core.watch import Watch
from gateway.model.call import CancelTask, GetTask, SendMessage
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message, Part, Role
from gateway.model.principal import Principal
from gateway.model.rows import TaskRow
from gateway.model.task import StatusUpdate, Task, TaskState
from gateway.model.tool import ACKNOWLEDGED, Caller, CannotAsk, Change, Era, Face, Kind, Listing, Tree, takes_tasks
from gateway.model.trail import Trail

ID = "agents"  # reserved as a name of servers, so nobody else can be called so
LOOK_SECONDS = 2  # how often it is looked whether the cards have changed; a look at 100 of them costs microseconds
MAX_TURNS = 8  # questions of one agent in one call

_SCHEMA: Tree = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What to say to the agent."},
        "data": {"description": "Data for the agent beside the message: any JSON value."},
        "contextId": {"type": "string", "description": "Go on with this conversation."},
        "taskId": {
            "type": "string",
            "description": "Go on with this task, which waits for an answer. Alone: see how it stands.",
        },
    },
}
_OUTPUT: Tree = {
    "type": "object",
    "properties": {
        "taskId": {"type": "string"},
        "contextId": {"type": "string"},
        "state": {"type": "string"},
        "artifacts": {"type": "array"},
    },
}


class Rows(Protocol):
    """The caller's own tasks. Raises TASK_NOT_FOUND for any other one."""

    async def row(self, who: Principal, task_id: str, agent: str | None) -> TaskRow: ...

    async def watch(self, row: TaskRow, *, until_pause: bool) -> Watch: ...


class Doors(Protocol):
    """The gateway's own two doors, and the tasks behind them."""

    @property
    def tasks(self) -> Rows: ...

    async def handle(self, call: SendMessage | CancelTask | GetTask, who: Principal) -> Any: ...

    async def open(self, call: SendMessage, who: Principal) -> Watch: ...


class AgentTools:
    """A `ToolServer` whose tools are the agents. It acts as the caller itself, so it is asked by `request_as`."""

    id = ID

    def __init__(self, registry: Registry, new_id: Callable[[], str]) -> None:
        self._registry = registry
        self._new_id = new_id
        self.doors: Doors | None = None  # given once the gateway, which has this among its tools, is made

    async def face(self) -> Face:
        return Face(Era.MODERN, "", {"tools": {"listChanged": True}}, {"name": ID})

    async def list(self, kind: Kind) -> Listing:
        return Listing(tuple(self._trees()) if kind is Kind.TOOL else ())

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "Agents are only asked by somebody")

    def overhear(self, told: Callable[[Change], None]) -> None:
        """Nothing of it is said elsewhere."""

    async def changes(self, uris: frozenset[str]) -> AsyncIterator[Change]:
        yield Change(ACKNOWLEDGED, {})
        before = list(self._trees())
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = list(self._trees())
            if now != before:
                before = now
                yield Change("notifications/tools/list_changed", {})

    async def aclose(self) -> None:
        """Nothing is open here."""

    async def request_as(self, who: Principal, method: str, params: Tree, caller: Caller) -> Tree:
        """The result of one call: the task, ended unless the caller asks after it itself, or the message that was all
        there is; of `tasks/*` what the extension has for it. `params` name the agent, as `name`."""
        if method == "tools/call":
            arguments = params.get("arguments") or {}
            if arguments.keys() == {"taskId"} and isinstance(arguments["taskId"], str):
                return await self._looked(who, params["name"], arguments["taskId"])
            message = self._message(arguments)
            if takes_tasks(caller.capabilities):
                return await self._begun(who, params["name"], message)
            return await self._ended(who, params["name"], message, caller)
        verb: Callable[[Principal, TaskRow, Tree], Awaitable[Tree]] | None = {
            "tasks/get": self._shown,
            "tasks/update": self._updated,
            "tasks/cancel": self._canceled,
        }.get(method)
        if verb is None:
            raise GatewayError(Reason.METHOD_NOT_FOUND, "Agents have tools and nothing else")
        assert self.doors is not None
        row = await self.doors.tasks.row(who, params["taskId"], params["name"])
        return {"resultType": "complete", **await verb(who, row, params)}

    async def follow(self, who: Principal, agent: str, task_id: str) -> AsyncIterator[Tree]:
        """The task as `tasks/get` shows it, now and whenever it has changed, to its end."""
        assert self.doors is not None
        tasks = self.doors.tasks
        row = await tasks.row(who, task_id, agent)
        watch = await tasks.watch(row, until_pause=False)
        before: Tree = {}
        try:
            async for group in watch:
                if group and (now := agent_tasks.detailed(await tasks.row(who, task_id, agent))) != before:
                    yield now
                    before = now
        finally:
            await watch.aclose()

    async def _begun(self, who: Principal, agent: str, message: Message) -> Tree:
        """The task as soon as it is there to be asked after; the message of an agent that makes no task."""
        assert self.doors is not None
        answer = await self.doors.handle(SendMessage(agent, message, digest=b"", return_immediately=True), who)
        if isinstance(answer, Message):
            return result(None, answer.context_id, answer.parts)
        return {"resultType": "task", **agent_tasks.created(await self.doors.tasks.row(who, answer.id, agent))}

    async def _shown(self, who: Principal, row: TaskRow, params: Tree) -> Tree:
        return agent_tasks.detailed(row)

    async def _updated(self, who: Principal, row: TaskRow, params: Tree) -> Tree:
        """An answer to what the task waits for goes to the agent; to anything else it is ignored. Who will not answer
        ends the task: its agent cannot go on."""
        status = row.task.status
        asks = status.state.interrupted and not agent_tasks.waits_for_others(status)
        said = params["inputResponses"].get(agent_tasks.key(row.task)) if asks else None
        if not isinstance(said, dict):
            return {}
        parts = agent_tasks.answer(said, row.task)
        if parts is None:
            return await self._canceled(who, row, params)
        # Sent twice it is still one answer: its id follows from the question's.
        message = self._said(parts, row.task.context_id, row.id, f"answer-{agent_tasks.key(row.task)}")
        assert self.doors is not None
        await self.doors.handle(SendMessage(row.agent, message, digest=b"", return_immediately=True), who)
        return {}

    async def _canceled(self, who: Principal, row: TaskRow, params: Tree) -> Tree:
        assert self.doors is not None
        try:
            await self.doors.handle(CancelTask(row.agent, row.id), who)
        except GatewayError as error:
            # Acknowledged all the same: whether the work stops is the agent's to say (task cancellation).
            if error.reason is not Reason.TASK_NOT_CANCELABLE:
                raise
        return {}

    async def _looked(self, who: Principal, agent: str, task_id: str) -> Tree:
        """The task as it is when it has come to rest, or after HOLD_SECONDS (consents.py)."""
        assert self.doors is not None
        tasks = self.doors.tasks
        try:
            row = await tasks.row(who, task_id, agent)
        except GatewayError as error:
            if error.reason is not Reason.TASK_NOT_FOUND:
                raise
            # Whether its owner lets the caller read it is for the door to say. It is shown as it stands.
            return of_task(await self.doors.handle(GetTask(agent, task_id), who))
        watch = await tasks.watch(row, until_pause=True)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(consents.HOLD_SECONDS):
                    async for _ in watch:
                        pass
        finally:
            await watch.aclose()
        return of_task((await tasks.row(who, task_id, agent)).task)

    async def _ended(self, who: Principal, agent: str, message: Message, caller: Caller) -> Tree:
        turn = 0
        while True:
            answer = await self._turn(who, agent, message, caller, turn)
            turn += 1
            if isinstance(answer, Message):
                return result(None, answer.context_id, answer.parts)
            if answer.status.state is not TaskState.INPUT_REQUIRED or turn == MAX_TURNS:
                return of_task(answer)
            reply = await self._asked(answer, caller)
            if reply is None:
                return of_task(answer)
            message = reply

    async def _turn(self, who: Principal, agent: str, message: Message, caller: Caller, turn: int) -> Task | Message:
        """Send one message and watch until its turn is over."""
        assert self.doors is not None
        call = SendMessage(agent, message, digest=b"", stream=True, trail=_trail(caller))
        watch = await self.doors.open(call, who)
        task: Task | Message | None = None
        steps = 0
        try:
            async with asyncio.timeout(None) as patience:
                async for group in watch:
                    for record in group:
                        event = record.event
                        task = _applied(task, event)
                        if isinstance(event, StatusUpdate):
                            steps += 1
                            await caller.notify("notifications/progress", _progress(turn, steps, event))
                    patience.reschedule(_until(task, patience.when()))
        except TimeoutError:
            pass  # the task waits for somebody who may come tomorrow, and goes on by itself
        except asyncio.CancelledError:
            if isinstance(task, Task) and not task.at_rest:
                with contextlib.suppress(GatewayError):
                    await self.doors.handle(CancelTask(agent, task.id), who)
            raise
        finally:
            await watch.aclose()
        if task is None:
            raise GatewayError(Reason.INTERNAL_ERROR, "The agent's turn left nothing")
        return task

    async def _asked(self, task: Task, caller: Caller) -> Message | None:
        """The agent's question put to the caller. None when it cannot be asked: then it answers with `taskId` later."""
        try:
            said = agent_tasks.answer(await caller.ask("elicitation/create", agent_tasks.question(task)), task)
        except CannotAsk:
            return None
        return None if said is None else self._said(said, task.context_id, task.id)

    def _message(self, arguments: Tree) -> Message:
        parts: list[Part] = []
        for name in ("message", "contextId", "taskId"):
            if name in arguments and not isinstance(arguments[name], str):
                raise invalid(f"arguments.{name}", "must be a text")
        if arguments.get("message"):
            parts.append(Part(text=arguments["message"]))
        if "data" in arguments:
            parts.append(Part(data=arguments["data"]))
        if not parts:
            raise invalid("arguments", "say something: message, data, or both")
        return self._said(tuple(parts), arguments.get("contextId"), arguments.get("taskId"))

    def _said(
        self, parts: tuple[Part, ...], context_id: str | None, task_id: str | None, id: str | None = None
    ) -> Message:
        given = {name: each for name, each in (("context_id", context_id), ("task_id", task_id)) if each}
        return Message(message_id=id or self._new_id(), role=Role.USER, parts=parts, **given)  # type: ignore[arg-type]

    def _trees(self) -> Iterable[Tree]:
        return (_tree(entry) for entry in sorted(self._registry.all(), key=lambda entry: entry.id))


def _tree(entry: Registered) -> Tree:
    """An agent as a tool definition: its card in words that a model can choose by."""
    card = entry.card
    if card is None:
        return {"name": entry.id, "inputSchema": _SCHEMA, "outputSchema": _OUTPUT}
    skills = "".join(f"\n- {skill.name}: {skill.description}" for skill in card.skills[:20])
    return {
        "name": entry.id,
        "title": card.name,
        "description": f"{card.description}{skills}",
        "inputSchema": _SCHEMA,
        "outputSchema": _OUTPUT,
    }


def _until(task: Task | Message | None, before: float | None) -> float | None:
    """By the loop's clock: how long a caller is kept while its task waits for other people's approval."""
    if not isinstance(task, Task) or not agent_tasks.waits_for_others(task.status):
        return None
    return before or asyncio.get_running_loop().time() + consents.HOLD_SECONDS


def _trail(caller: Caller) -> Trail | None:
    return caller.trail if isinstance(caller, Silent) else None


def _applied(task: Task | Message | None, event: Any) -> Task | Message:
    if isinstance(task, Task) and not isinstance(event, Task | Message):
        return task.apply(event)
    found: Task | Message = event
    return found


def _progress(turn: int, steps: int, update: StatusUpdate) -> Tree:
    """Progress only grows (basic/patterns/progress); what is ahead nobody knows."""
    words = update.status.message.text if update.status.message is not None else ""
    return {"progress": turn * 1_000_000 + steps, "message": words or update.status.state.name}
