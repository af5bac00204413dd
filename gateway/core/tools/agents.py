"""Agents as tools: each agent that the caller may use is a tool `agents/NAME`, and calling it is sending it a message.

The task is like any other: durable, owned by the caller, in the record, to be found again by its id. What happens to it
is told as progress, a question of the agent's becomes an elicitation, and a caller that leaves cancels it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol

from gateway.core.registry import Registered, Registry
from gateway.core.watch import Watch
from gateway.model.call import CancelTask, SendMessage
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message, Part, Role
from gateway.model.principal import Principal
from gateway.model.task import StatusUpdate, Task, TaskState
from gateway.model.tool import ACKNOWLEDGED, Caller, CannotAsk, Change, Era, Face, Kind, Listing, Tree

ID = "agents"  # reserved as a name of servers, so nobody else can be called so
LOOK_SECONDS = 2  # how often it is looked whether the cards have changed; a look at 100 of them costs microseconds
MAX_TURNS = 8  # questions of one agent in one call

_SCHEMA: Tree = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What to say to the agent."},
        "data": {"description": "Data for the agent beside the message: any JSON value."},
        "contextId": {"type": "string", "description": "Go on with this conversation."},
        "taskId": {"type": "string", "description": "Go on with this task, which waits for an answer."},
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


class Doors(Protocol):
    """The gateway's own two doors."""

    async def handle(self, call: SendMessage | CancelTask, who: Principal) -> Any: ...

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
        """The result of one call: the ended task, or the message that was all there is."""
        if method != "tools/call":
            raise GatewayError(Reason.METHOD_NOT_FOUND, "Agents have tools and nothing else")
        agent = params["name"]
        message = self._message(params.get("arguments") or {})
        turn = 0
        while True:
            answer = await self._turn(who, agent, message, caller, turn)
            turn += 1
            if isinstance(answer, Message):
                return _result(None, answer.context_id, answer.parts)
            if answer.status.state is not TaskState.INPUT_REQUIRED or turn == MAX_TURNS:
                return _of_task(answer)
            reply = await self._asked(answer, caller)
            if reply is None:
                return _of_task(answer)
            message = reply

    async def _turn(self, who: Principal, agent: str, message: Message, caller: Caller, turn: int) -> Task | Message:
        """Send one message and watch until its turn is over."""
        assert self.doors is not None
        call = SendMessage(agent, message, digest=b"", stream=True)
        watch = await self.doors.open(call, who)
        task: Task | Message | None = None
        steps = 0
        try:
            async for group in watch:
                for record in group:
                    event = record.event
                    task = _applied(task, event)
                    if isinstance(event, StatusUpdate):
                        steps += 1
                        await caller.notify("notifications/progress", _progress(turn, steps, event))
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
        question = task.status.message
        schema = (question.metadata or {}).get("schema") if question is not None else None
        if not isinstance(schema, dict) or schema.get("type") != "object":
            schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        asked = {"mode": "form", "message": question.text if question else "", "requestedSchema": schema}
        try:
            result = await caller.ask("elicitation/create", asked)
        except CannotAsk:
            return None
        content = result.get("content")
        if result.get("action") != "accept" or not isinstance(content, dict):
            return None
        simple = content.get("answer") if content.keys() == {"answer"} else None
        part = Part(text=simple) if isinstance(simple, str) else Part(data=content)
        return self._said((part,), task.context_id, task.id)

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

    def _said(self, parts: tuple[Part, ...], context_id: str | None, task_id: str | None) -> Message:
        given = {name: each for name, each in (("context_id", context_id), ("task_id", task_id)) if each}
        return Message(message_id=self._new_id(), role=Role.USER, parts=parts, **given)  # type: ignore[arg-type]

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


def _applied(task: Task | Message | None, event: Any) -> Task | Message:
    if isinstance(task, Task) and not isinstance(event, Task | Message):
        return task.apply(event)
    found: Task | Message = event
    return found


def _progress(turn: int, steps: int, update: StatusUpdate) -> Tree:
    """Progress only grows (basic/patterns/progress); what is ahead nobody knows."""
    words = update.status.message.text if update.status.message is not None else ""
    return {"progress": turn * 1_000_000 + steps, "message": words or update.status.state.name}


def _of_task(task: Task) -> Tree:
    parts = [part for artifact in task.artifacts or () for part in artifact.parts]
    if task.status.message is not None:
        parts += task.status.message.parts
    result = _result(task, task.context_id, tuple(parts))
    if task.status.state in (TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELED):
        result["isError"] = True
    return result


def _result(task: Task | None, context_id: str | None, parts: Iterable[Part]) -> Tree:
    structured: Tree = {} if context_id is None else {"contextId": context_id}
    if task is not None:
        artifacts = [each.model_dump(by_alias=True, exclude_unset=True, mode="json") for each in task.artifacts or ()]
        structured = {"taskId": task.id, **structured, "state": task.status.state.value, "artifacts": artifacts}
    else:
        structured["artifacts"] = [{"parts": [_dumped(part) for part in parts]}]
    return {
        "resultType": "complete",
        "content": [block for part in parts for block in _blocks(part)],
        "structuredContent": structured,
    }


def _dumped(part: Part) -> Tree:
    return part.model_dump(by_alias=True, exclude_unset=True, mode="json")


def _blocks(part: Part) -> Iterable[Tree]:
    """A part as content: text, an image or a sound as what it is, a link; data stands in structuredContent."""
    kind = (part.media_type or "").partition("/")[0]
    if part.text is not None:
        yield {"type": "text", "text": part.text}
    elif part.raw is not None and kind in ("image", "audio"):
        yield {"type": kind, "data": part.raw, "mimeType": part.media_type}
    elif part.raw is not None:
        name = part.filename or "file"
        resource = {"uri": f"a2a:{name}", "blob": part.raw, "mimeType": part.media_type or "application/octet-stream"}
        yield {"type": "resource", "resource": resource}
    elif part.url is not None:
        yield {"type": "resource_link", "uri": part.url, "name": part.filename or part.url}
