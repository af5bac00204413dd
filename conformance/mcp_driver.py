"""One scenario of the official MCP suite's client mode: `python -m conformance.mcp_driver URL`, as the suite starts it.

It starts a gateway whose only tool server is URL and whose only agent (caller.py) has a grant for it. The gateway lists
what is there by itself; then the agent is sent the calls in a message and makes them with `context.call_tool`, so each
is decided, recorded and limited like any agent's. Prompts and resources, which agents have no way to, are read in the
operator's name. Where the server wants an authorization, it does what `gateway tools login` and a browser do: opens the
URL and hands the redirect back.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import httpx2

from conformance.caller import example
from gateway.app import App, assemble
from gateway.config import Flags, parse, settle
from gateway.core.tools.silent import Silent
from gateway.model.call import SendMessage
from gateway.model.errors import GatewayError
from gateway.model.message import Message, Part, Role
from gateway.model.principal import LOCAL
from gateway.model.tool import Definition, Kind, Tree
from gateway.model.toolcall import BeginLogin, FinishLogin, UseServer
from gateway.stores.memory import MemoryStore

# What the suite serves nowhere and expects to see (auth/basic-cimd).
DOCUMENT = "https://conformance-test.local/client-metadata.json"
# It wants to see what has become of the first tool's schema on its way (json-schema-2020-12-preservation).
ECHO = "json_schema_echo"
REDIRECT = "http://127.0.0.1:7777/callback"
CARD = Path(__file__).parent / "cards" / "caller.json"
# A person would stop too.
MOST_LOGINS = 4
# All scenarios run at once, on however few cores.
LISTED_SECONDS = 100.0


class Scenario:
    def __init__(self, app: App, context: Tree) -> None:
        self._app = app
        served = app.tools.servers.get("suite")
        assert served is not None
        self._served = served
        self._context = context
        self._logins = 0

    async def run(self) -> None:
        await self._listed()
        await self._read()
        tools = self._served.offered.get(Kind.TOOL, ())
        calls = self._context.get("toolCalls") or [_call(each, tools) for each in tools]
        while calls:
            done = await self._told(calls)
            if not done["login"] or not await self._log_in():
                break
            calls = calls[done["made"] :]

    async def _listed(self) -> None:
        """Until the gateway knows what there is: with a person's help, or because it tries again by itself."""
        async with asyncio.timeout(LISTED_SECONDS):
            while self._served.catalog is None:
                problem = self._served.problem
                if problem is not None and "gateway tools login" in problem and not await self._log_in():
                    raise SystemExit(problem)
                await asyncio.sleep(0.02)

    async def _read(self) -> None:
        for prompt in self._served.offered.get(Kind.PROMPT, ()):
            await self._use("prompts/get", {"name": f"suite/{prompt.key}", "arguments": {}})
        for resource in self._served.offered.get(Kind.RESOURCE, ()):
            await self._use("resources/read", {"uri": f"suite/{resource.key}"})

    async def _use(self, method: str, params: Tree) -> None:
        await self._app.gateway.handle(UseServer(None, method, params, Silent.of(LOCAL)), LOCAL)

    async def _told(self, calls: list[Tree]) -> Tree:
        """What the agent says that it did."""
        message = Message.of(role=Role.USER, message_id=f"calls-{len(calls)}", parts=(Part(data={"calls": calls}),))
        task = await self._app.gateway.handle(SendMessage("caller", message, digest=b""), LOCAL)
        if not task.artifacts:
            raise SystemExit(f"The agent did not do it: {task.status}")
        done: Tree = task.artifacts[0].parts[0].data
        for note in done["notes"]:
            _note(note)
        return done

    async def _log_in(self) -> bool:
        """Whether a person would still go there."""
        self._logins += 1
        if self._logins > MOST_LOGINS:
            return False
        url = await self._app.gateway.handle(BeginLogin("suite", REDIRECT), LOCAL)
        async with httpx2.AsyncClient(follow_redirects=False, trust_env=False) as browser:
            answer = await browser.get(url)
        await self._app.gateway.handle(FinishLogin("suite", answer.headers["location"]), LOCAL)
        return True


def configuration(url: str, context: Tree) -> Tree:
    """The file of the gateway: the server, and what the suite says about our client."""
    oauth: Tree = {"client_metadata": DOCUMENT}
    if "client_id" in context:
        oauth = {"client_id": context["client_id"]}
        for name, given in (("client_secret", "client_secret"), ("client_key", "private_key_pem")):
            if given in context:
                oauth[name] = _kept(context[given])
    if "issuer" in context:
        oauth["issuer"] = context["issuer"]
    if "client-credentials" in os.environ.get("MCP_CONFORMANCE_SCENARIO", ""):
        oauth["grant"] = "client_credentials"
    if "valid_jwt" in context:
        oauth |= {"grant": "jwt_bearer", "assertion": _kept(context["valid_jwt"])}
    if "idp_issuer" in context:
        provider = {
            "issuer": context["idp_issuer"],
            "client_id": context["idp_client_id"],
            "subject": _kept(context["idp_id_token"]),
        }
        oauth |= {"grant": "id_jag", "identity_provider": provider}
    return {
        "tools": {"suite": {"url": url, "oauth": oauth, "quarantine": "off"}},
        "agents": {"caller": {"run": "conformance.caller:Caller", "card": str(CARD)}},
        "grants": [{"to": "agent:caller", "tools": ["suite"]}],
        "egress": {"allow_loopback": True},
    }


def _kept(secret: str) -> Tree:
    """As an operator has it: in the environment, and not in the file."""
    name = f"SECRET_{len(os.environ)}"
    os.environ[name] = secret
    return {"variable": name}


async def main(url: str) -> None:
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    with tempfile.TemporaryDirectory(prefix="conformance-client-") as folder:
        # JSON is YAML.
        config = parse(json.dumps(configuration(url, context)), base=Path(folder))
        settings = settle(config, Flags(data=Path(folder)), {}, cwd=Path(folder))
        app = await assemble(settings, store=MemoryStore())
        await app.start()
        try:
            await Scenario(app, context).run()
        finally:
            await app.drain()
            await app.aclose()


def _call(tool: Definition, all: tuple[Definition, ...]) -> Tree:
    if tool.key == ECHO:
        return {"name": ECHO, "arguments": {"schema": all[0].tree.get("inputSchema")}}
    properties = (tool.tree.get("inputSchema") or {}).get("properties", {})
    arguments = {name: example(schema) for name, schema in properties.items() if isinstance(schema, dict)}
    return {"name": tool.key, "arguments": arguments}


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[-1]))
    except GatewayError as error:
        sys.exit(error.message)
