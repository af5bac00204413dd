"""One scenario of the official MCP suite's client mode: `python -m conformance.mcp_driver URL`, as the suite starts it.

It assembles a gateway whose only tool server is URL, then lists and calls what is there the way an agent's calls go:
through the connector of the configured server, with a caller that can be asked. Where the server wants an
authorization, it does what `gateway tools login` and a browser do: opens the URL and hands the redirect back.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from gateway.app import assemble
from gateway.config import Flags, parse, settle
from gateway.core.tools.servers import Served
from gateway.model.errors import GatewayError
from gateway.model.tool import Kind, Tree
from gateway.stores.memory import MemoryStore

# What the suite serves nowhere and expects to see (auth/basic-cimd).
DOCUMENT = "https://conformance-test.local/client-metadata.json"
# It wants to see what has become of the first tool's schema on its way (json-schema-2020-12-preservation).
ECHO = "json_schema_echo"
REDIRECT = "http://127.0.0.1:7777/callback"
# A person would stop too.
MOST_LOGINS = 4
MOST_ROUNDS = 6
_EXAMPLES: dict[str, Any] = {"number": 5, "integer": 5, "boolean": True, "array": [], "object": {}}

T = TypeVar("T")


class Agent:
    """A caller that says yes to everything, with defaults where there are some."""

    def __init__(self) -> None:
        self.principal = "agent:conformance"
        self.capabilities: Tree = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
        self.client: Tree | None = None
        self.log_level: str | None = None
        self.progress = True
        self.meta: Tree = {}

    async def notify(self, method: str, params: Tree) -> None:
        """What happens on the way is of no interest here."""

    async def ask(self, method: str, params: Tree) -> Tree:
        if method == "roots/list":
            return {"roots": []}
        if method == "sampling/createMessage":
            return {"role": "assistant", "model": "none", "content": {"type": "text", "text": "x"}}
        properties = (params.get("requestedSchema") or {}).get("properties", {})
        return {"action": "accept", "content": {name: _example(schema) for name, schema in properties.items()}}


class Scenario:
    def __init__(self, served: Served, context: Tree) -> None:
        self._served = served
        self._context = context
        self._agent = Agent()
        self._logins = 0

    async def run(self) -> None:
        tools = await self._authorized(lambda: self._served.server.list(Kind.TOOL))
        await self._read()
        for call in self._context.get("toolCalls") or [_call(tree, tools.trees) for tree in tools.trees]:
            try:
                await self._authorized(lambda call=call: self._called(call))  # type: ignore[misc]
            except GatewayError as error:
                _note(f"{call['name']}: {error.message}")

    async def _read(self) -> None:
        server = self._served.server
        for prompt in await self._listed(Kind.PROMPT):
            await server.request("prompts/get", {"name": prompt["name"], "arguments": {}}, self._agent)
        for resource in await self._listed(Kind.RESOURCE):
            await server.request("resources/read", {"uri": resource["uri"]}, self._agent)

    async def _listed(self, kind: Kind) -> tuple[Tree, ...]:
        try:
            return (await self._served.server.list(kind)).trees
        except GatewayError as error:
            _note(f"{kind}: {error.message}")
            return ()

    async def _called(self, call: Tree) -> Tree:
        """A tool's result, after as many rounds of questions as it wants."""
        params = {"name": call["name"], "arguments": call.get("arguments", {})}
        server = self._served.server
        result = await server.request("tools/call", params, self._agent)
        for _ in range(MOST_ROUNDS):
            if result.get("resultType") != "input_required":
                break
            result = await server.request("tools/call", {**params, **await self._answered(result)}, self._agent)
        return result

    async def _answered(self, result: Tree) -> Tree:
        asked = result.get("inputRequests") or {}
        answers = {id: await self._agent.ask(one["method"], one.get("params", {})) for id, one in asked.items()}
        state = {"requestState": result["requestState"]} if "requestState" in result else {}
        return {**({"inputResponses": answers} if asked else {}), **state}

    async def _authorized(self, use: Callable[[], Awaitable[T]]) -> T:
        """Whatever was refused for want of a person is tried again after the person has been there."""
        while True:
            try:
                return await use()
            except GatewayError as error:
                _note(error.message)
                if "login" not in error.metadata or self._logins >= MOST_LOGINS:
                    raise
            self._logins += 1
            await self._log_in()

    async def _log_in(self) -> None:
        login = self._served.login
        assert login is not None
        url = await login.begin(REDIRECT)
        async with httpx2.AsyncClient(follow_redirects=False, trust_env=False) as browser:
            answer = await browser.get(url)
        await login.finish(answer.headers["location"])


def configuration(url: str, context: Tree) -> Tree:
    """The file of the gateway: the server, and what the suite says about our client."""
    oauth: Tree = {"client_metadata": DOCUMENT}
    if "client_id" in context:
        oauth = {"client_id": context["client_id"], "client_secret": {"variable": "CLIENT_SECRET"}}
        os.environ["CLIENT_SECRET"] = context["client_secret"]
    if "issuer" in context:
        oauth["issuer"] = context["issuer"]
    if "client-credentials" in os.environ.get("MCP_CONFORMANCE_SCENARIO", ""):
        oauth["grant"] = "client_credentials"
    tools = {"suite": {"url": url, "oauth": oauth, "quarantine": "off"}}
    return {"tools": tools, "egress": {"allow_loopback": True}}


async def main(url: str) -> None:
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    with tempfile.TemporaryDirectory(prefix="conformance-client-") as folder:
        # JSON is YAML.
        config = parse(json.dumps(configuration(url, context)), base=Path(folder))
        settings = settle(config, Flags(data=Path(folder)), {}, cwd=Path(folder))
        app = await assemble(settings, store=MemoryStore())
        served = app.tools.servers.get("suite")
        assert served is not None
        try:
            await Scenario(served, context).run()
        finally:
            await app.aclose()


def _call(tool: Tree, all: tuple[Tree, ...]) -> Tree:
    if tool["name"] == ECHO:
        return {"name": ECHO, "arguments": {"schema": all[0].get("inputSchema")}}
    properties = (tool.get("inputSchema") or {}).get("properties", {})
    arguments = {name: _example(schema) for name, schema in properties.items() if isinstance(schema, dict)}
    return {"name": tool["name"], "arguments": arguments}


def _example(schema: Tree) -> Any:
    return schema["default"] if "default" in schema else _EXAMPLES.get(str(schema.get("type")), "x")


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[-1]))
    except GatewayError as error:
        sys.exit(error.message)
