"""A local agent that calls what it is told to and says yes to whatever a tool asks, with defaults where it has some.

    caller: {run: "conformance.caller:Caller"}

It is told in data, `{"calls": [{"name": …, "arguments": {…}}, …]}`, and stops at the first call for which a person
has to authorize the gateway. Its artifact says how many calls were made, and what went wrong with which.
"""

from collections.abc import AsyncIterator
from typing import Any

from gateway.model.agent import Context
from gateway.model.errors import GatewayError
from gateway.model.message import Message, Part
from gateway.model.task import Event

_EXAMPLES: dict[str, Any] = {"number": 5, "integer": 5, "boolean": True, "array": [], "object": {}}


class Caller:
    resumable = False

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        calls = next(part.data["calls"] for part in message.parts if part.data is not None)
        made, notes, login = 0, [], False
        for call in calls:
            try:
                await context.call_tool(f"suite/{call['name']}", call.get("arguments", {}), answer=yes)
            except GatewayError as error:
                notes.append(f"{call['name']}: {error.message}")
                if login := "login" in error.metadata:
                    break
            made += 1
        yield context.artifact([Part(data={"made": made, "notes": notes, "login": login})])


async def yes(question: dict[str, Any]) -> dict[str, Any]:
    properties = (question["params"].get("requestedSchema") or {}).get("properties", {})
    return {"action": "accept", "content": {name: example(schema) for name, schema in properties.items()}}


def example(schema: dict[str, Any]) -> Any:
    return schema["default"] if "default" in schema else _EXAMPLES.get(str(schema.get("type")), "x")
