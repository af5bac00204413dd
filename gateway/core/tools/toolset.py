"""Tools as an agent: a set of tools behind an A2A card, each of them a skill.

A message chooses the tool and brings its arguments as data, `{"tool": "docs/search", "arguments": {…}}`; where there is
one tool, data is its arguments. The result is an artifact. A question of the tool's makes the task wait for input, and
the answer to it goes on where the tool stands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from gateway.core.policy import matches
from gateway.core.tools.servers import Servers
from gateway.model.agent import Context
from gateway.model.card import AgentCapabilities, AgentCard, AgentSkill
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.message import Message, Part
from gateway.model.task import Event
from gateway.model.tool import Definition, Kind, ToolRequest, ToolResult, Tree

_CARD = "the card of this agent has the tools that you may use, as skills"
"""Not their names: who asks is told on the card what it may use, and of nothing else here."""

MAX_SKILLS = 200  # of a card; a client that reads more of them would do better to ask for a tool by name


class Toolset:
    """An `Agent`. `tools` are servers or `server/pattern`."""

    resumable = False

    def __init__(self, id: str, tools: Iterable[str], servers: Servers) -> None:
        self.id = id
        self._patterns = tuple(tools)
        self._servers = servers

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        await self._servers.settled()
        waiting = context.resume
        if isinstance(waiting, dict):
            answers = {waiting["key"]: _answer(message, waiting["schema"])}
            request = ToolRequest(waiting["arguments"], True, {**waiting["answers"], **answers}, waiting["state"])
            name = waiting["name"]
        else:
            name, arguments = self._chosen(message)
            request = ToolRequest(arguments, asks=True)
        yield context.working(f"Calling {name}")
        result = await context.use_tool(name, request)
        for event in _events(context, name, request, result):
            yield event

    def follow(self, context: Context) -> AsyncIterator[Event]:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "A call of a tool ends with the process that made it")

    async def cancel(self, context: Context) -> Event | None:
        return None

    async def aclose(self) -> None:
        """The servers are the gateway's."""

    def card(self) -> AgentCard:
        """With a skill for each tool that there is just now."""
        skills = tuple(_skill(each) for each in self._definitions()[:MAX_SKILLS])
        nothing = AgentSkill(id="tools", name="tools", description="No tool is there just now", tags=("tools",))
        return AgentCard(
            name=self.id,
            description=f"The tools of {', '.join(self._patterns)}. Send data with tool and arguments.",
            version="1.0.0",
            supported_interfaces=(),
            capabilities=AgentCapabilities(),
            default_input_modes=("application/json", "text/plain"),
            default_output_modes=("application/json", "text/plain"),
            skills=skills or (nothing,),
        )

    def _definitions(self) -> list[Definition]:
        found = [
            each
            for served in self._servers.all()
            for each in served.offered.get(Kind.TOOL, ())
            if any(matches(pattern, each.address) for pattern in self._patterns)
        ]
        return sorted(found, key=lambda each: each.address)

    def _chosen(self, message: Message) -> tuple[str, Tree]:
        """The tool and its arguments. Raises INVALID_PARAMS with where to look for what there is."""
        data: Any = next((part.data for part in message.parts if part.data is not None), None)
        definitions = self._definitions()
        names = [each.address for each in definitions]
        if isinstance(data, dict) and isinstance(data.get("tool"), str):
            arguments = data.get("arguments", {})
            if data["tool"] not in names:
                raise invalid("tool", f"there is no {data['tool'][:200]!r} here; {_CARD}")
            if not isinstance(arguments, dict):
                raise invalid("arguments", "must be an object")
            return data["tool"], arguments
        if len(names) == 1:
            if isinstance(data, dict):
                return names[0], data
            if (only := _only_text(definitions[0])) is not None and message.text:
                return names[0], {only: message.text}
        raise invalid("message", f"send data with tool and arguments; {_CARD}")


def _events(context: Context, name: str, request: ToolRequest, result: ToolResult) -> Iterable[Event]:
    if result.questions:
        yield _question(context, name, request, result)
        return
    if result.failed:
        yield context.failed(result.text or f"{name} failed")
        return
    parts = tuple(_parts(result))
    if parts:
        yield context.artifact(parts, name=name)
    yield context.completed()


def _question(context: Context, name: str, request: ToolRequest, result: ToolResult) -> Event:
    """The first question that nobody has answered yet; the others come after it."""
    answers = request.responses or {}
    key = next((each for each in result.questions if each not in answers), "")
    asked: Tree = result.questions.get(key, {})
    params: Tree = asked.get("params") or {}
    if asked.get("method") != "elicitation/create":
        return context.failed(f"{name} asks for what only a model's own client has ({asked.get('method')})")
    resume = {
        "name": name,
        "arguments": request.arguments,
        "answers": answers,
        "key": key,
        "schema": params.get("requestedSchema"),
        "state": result.tree.get("requestState"),
    }
    words = params.get("message") or "Please answer."
    if params.get("mode") == "url" and isinstance(url := params.get("url"), str):
        # Whoever comes back with any message has been there, or is asked once more.
        return context.need_auth(f"{words}: {url}", url=url, resume=resume)
    return context.need_input(words, schema=params.get("requestedSchema"), resume=resume)


def _answer(message: Message, schema: Any) -> Tree:
    """A person's answer as the result of an elicitation: data as it is, words for the one field that there is."""
    data: Any = next((part.data for part in message.parts if part.data is not None), None)
    if isinstance(data, dict):
        return {"action": "accept", "content": data}
    fields = list((schema or {}).get("properties") or {}) if isinstance(schema, dict) else []
    return {"action": "accept", "content": {fields[0]: message.text} if fields else {}}


def _parts(result: ToolResult) -> Iterable[Part]:
    """Content as parts; `structuredContent` as data, unchanged."""
    if result.structured is not None:
        yield Part(data=result.structured, media_type="application/json")
    blocks = result.tree.get("content")
    for block in blocks if isinstance(blocks, list) else ():
        if not isinstance(block, dict):
            continue
        kind = block.get("type")
        if kind == "text" and isinstance(block.get("text"), str):
            yield Part(text=block["text"])
        elif kind in ("image", "audio") and isinstance(block.get("data"), str):
            yield Part(raw=block["data"], media_type=block.get("mimeType"))
        elif kind == "resource_link" and isinstance(block.get("uri"), str):
            yield Part(url=block["uri"], filename=block.get("name"), media_type=block.get("mimeType"))
        else:
            yield Part(data=block, media_type="application/json")


def _skill(definition: Definition) -> AgentSkill:
    tree = definition.tree
    return AgentSkill(
        id=definition.address,
        name=str(tree.get("title") or definition.key),
        description=str(tree.get("description") or definition.key),
        tags=(definition.server,),
    )


def _only_text(definition: Definition) -> str | None:
    """The name of the one argument that a tool needs, if that is a text."""
    schema = definition.tree.get("inputSchema") or {}
    fields = schema.get("properties") or {}
    required = schema.get("required") or list(fields)
    if len(required) == 1 and isinstance(fields.get(required[0]), dict) and fields[required[0]].get("type") == "string":
        return str(required[0])
    return None
