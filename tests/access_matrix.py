"""Who gets what answer where: every route and method, nine kinds of caller, one status each.

`python -m tests.access_matrix` writes docs/reference/access.md; a test compares. The rows come from the code that
serves them, so a route without a row cannot be.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from starlette.routing import Route

from gateway.dialects import a2a, tasks
from gateway.dialects.a2a_v03 import paths as paths_v03
from gateway.dialects.a2a_v1 import paths
from gateway.dialects.a2a_v1.errors import BY_CODE, CODES
from gateway.dialects.acp import paths as acp
from gateway.dialects.mcp import headers
from gateway.dialects.strict_json import read
from gateway.server.mcp.calls import LISTS, TASK_USES, USES
from tests.mcp import MODERN, configured, modern, scripted, tool
from tests.serving import ROOT, Gateway, running

PAGE = ROOT / "docs" / "reference" / "access.md"

KINDS = {
    "operator": "the machine's own credential",
    "owner": "a key that may use `shut` by a rule, and whose task it is",
    "granted": "a key that may use `shut` by the same rule, and the tool by a grant",
    "stranger": "a key that nothing is said about",
    "worker": "the key of the worker of `pull`",
    "client": "an access token of the gateway's own authorization server",
    "anonymous": "no credential, where the gateway lets anonymous callers in",
    "revoked": "a key that was taken back",
    "wrong": "a credential that the gateway never gave out",
}

CARD = f"card: {ROOT}/agent_cards/echo.json"
CONFIG = f"""
server: {{default_agent: echo}}
agents:
  echo: {{run: "agents.echo:Echo", {CARD}, public: true}}
  shut: {{run: "agents.echo:Echo", {CARD}}}
  pull: {{tasks_url: pull, worker: worker}}
grants: [{{to: granted, tools: [docs]}}]
"""
POLICY = "rules: [{rule: shut, who: [owner, granted], do: use, on: agents/shut, verdict: PASS}]"
HOOK = "https://example.com/hook"

LISTEN = "subscriptions/listen"

# What the admin API needs to hear to have something to decide. None of it does harm: what it names is not there.
BODIES: dict[str, Any] = {
    "/admin/agents": {"cardUrl": "http://127.0.0.1:9/card"},
    "/admin/agents/{id}": {"replicas": []},
    "/admin/keys": {"name": "made"},
    "/admin/clients": {"id": "made"},
    "/admin/clients:revoke": {"id": "nosuch"},
    "/admin/users": {"name": "made", "password": "a long pass phrase"},
    "/admin/users/{name}:password": {"password": "a long pass phrase"},
    "/admin/tools:approve": {"address": "nosuch"},
    "/admin/tools:login": {"server": "nosuch", "redirectUri": "http://127.0.0.1:9/back"},
    "/admin/tools:authorized": {"server": "nosuch", "response": "http://127.0.0.1:9/back"},
    "/admin/tools:logout": {"server": "nosuch"},
    "/admin/tools:call": {"name": "docs/read"},
    "/admin/policy:explain": {"principal": "x", "action": "call", "target": "echo"},
    "/admin/policy:replay": {"text": "{}", "last": 1},
    "/admin/audit:erase": {"principal": "key:nosuch"},
    "/admin/cards:verify": {"cardUrl": "http://127.0.0.1:9/card"},
    "/admin/approvals/{id}:edit": {"arguments": {}},
    "/admin/tasks/{id}:share": {"reader": "nosuch"},
    "/admin/tasks/{id}:unshare": {"reader": "nosuch"},
    "/admin/frozen": {"kind": "agent", "name": "nosuch"},
    "/admin/frozen:thaw": {"kind": "agent", "name": "nosuch"},
}
# The same for what takes forms. Nobody shows a client's secret: a credential that opens the gateway is none there.
FORMS: dict[str, dict[str, str]] = {
    "/oauth/token": {"grant_type": "client_credentials"},
    "/oauth/revoke": {"token": "nosuch"},
    "/oauth/introspect": {"token": "nosuch"},
    "/oauth/device_authorization": {"client_id": "nosuch"},
    **{f"/oauth/{page}": {} for page in ("authorize", "login", "consent", "device", "approval")},
}
# What each method of MCP needs to hear. A method that is new needs an entry.
MCP_PARAMS: dict[str, Any] = {
    **{method: {} for method in ("server/discover", *LISTS)},
    "tools/call": {"name": "docs__read", "arguments": {}},
    "prompts/get": {"name": "docs__nosuch"},
    "resources/read": {"uri": "nosuch:x"},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "docs__nosuch"}, "argument": {}},
    LISTEN: {"notifications": {"toolsListChanged": True}},
    "tasks/get": {"taskId": "nosuch"},
    "tasks/update": {"taskId": "nosuch", "inputResponses": {}},
    "tasks/cancel": {"taskId": "nosuch"},
}

_numbers = itertools.count(1)


@dataclass
class Row:
    """One thing to ask. `name` is its first cell."""

    name: str
    verb: str
    path: str
    body: Any = None
    headers: dict[str, str] | None = None
    form: dict[str, str] | None = None


@dataclass
class Town:
    """A gateway with nine callers, and the owner's task on each of two agents."""

    gateway: Gateway
    credentials: dict[str, str | None]
    tasks: dict[str, str]


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "secret").write_text("of the gateway at the provider")
    login = f"{{issuer: 'http://127.0.0.1:9', client_id: gateway, client_secret_file: {folder}/secret}}"
    auth = f"auth: {{authorization_server: {{users: true, login: {login}}}}}\n"
    async with scripted(tool("read")) as docs:
        config = f"{CONFIG}{auth}policy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config, anonymous=True) as gateway:
            credentials: dict[str, str | None] = {kind: await gateway.key(kind) for kind in KINDS if kind != "operator"}
            credentials |= {"operator": gateway.token, "anonymous": None, "wrong": "gw_" + "A" * 43}
            credentials["client"] = await _token(gateway)
            await _revoke(gateway, "revoked")
            owned = {}
            for agent in ("echo", "shut"):
                answer = await gateway.task("count 1", agent=agent, who=credentials["owner"])
                owned[agent] = answer["id"]
            await gateway.app.tools.servers.settled()
            yield Town(gateway, credentials, owned)


async def _token(gateway: Gateway) -> str:
    made = await gateway.client.post("/admin/clients", json={"id": "robot"}, headers=gateway.bearer(None))
    auth = httpx2.BasicAuth("robot", made.json()["secret"])
    answer = await gateway.client.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=auth)
    token: str = answer.json()["access_token"]
    return token


async def _revoke(gateway: Gateway, name: str) -> None:
    keys = (await gateway.client.get("/admin/keys", headers=gateway.bearer(None))).json()["keys"]
    id = next(key["id"] for key in keys if key["name"] == name)
    await gateway.client.delete(f"/admin/keys/{id}", headers=gateway.bearer(None))


# The rows.


def rows(town: Town) -> Iterable[Row]:
    yield from _routes(town)
    for agent in ("echo", "shut"):
        yield from _http_json(town, agent)
        yield from _json_rpc(town, agent)
    yield from _older()
    yield from _acp(town)
    yield from _mcp()


def _routes(town: Town) -> Iterable[Row]:
    """What Starlette serves, as it stands in the application."""
    routes = town.gateway.app.asgi._inside._rest.routes  # type: ignore[attr-defined]
    for route in routes:
        assert isinstance(route, Route)
        for verb in sorted((route.methods or set()) - {"HEAD"}):
            for agent in ("echo", "shut") if route.path.startswith("/agents/{id}") else ("nosuch",):
                id = town.tasks["echo"] if "/tasks/" in route.path else "7" if "{id:int}" in route.path else agent
                path = re.sub(
                    r"\{(\w+)(?::\w+)?\}", partial(_value, {"id": id, "index": "7", "kind": "agent"}), route.path
                )
                shown = route.path.replace("{id}", agent) if agent != "nosuch" else route.path
                form = FORMS.get(route.path) if verb == "POST" else None
                body = BODIES.get(route.path, {}) if verb in ("PATCH", "POST") and form is None else None
                yield Row(f"{verb} {shown}", verb, path, body, form=form)


def _value(values: dict[str, str], found: re.Match[str]) -> str:
    return values.get(found[1], "nosuch")


def _message() -> dict[str, Any]:
    return {"messageId": f"matrix-{next(_numbers)}", "role": "ROLE_USER", "parts": [{"text": "hi"}]}


def _params(operation: str, task: str) -> dict[str, Any]:
    """What an operation of 1.0 needs to hear, about this task."""
    if operation in ("SendMessage", "SendStreamingMessage"):
        return {"message": _message()}
    if operation == "CreateTaskPushNotificationConfig":
        return {"taskId": task, "url": HOOK, "id": "c"}
    if "PushNotificationConfig" in operation:
        return {"taskId": task, "id": "nosuch"} if "List" not in operation else {"taskId": task}
    return {"id": task} if operation in ("GetTask", "CancelTask", "SubscribeToTask") else {}


def _http_json(town: Town, agent: str) -> Iterable[Row]:
    for version, table in (("1.0", paths.TABLE), ("0.3", paths_v03.TABLE)):
        for verb, pattern, operation, _ in table.rows:
            path = re.sub(r"\(\?P<\w+>[^)]*\)|\([^)]*\)", "{id}", pattern)
            there = path.replace("{id}", town.tasks[agent], 1).replace("{id}", "nosuch")
            body = None
            if verb == "POST":
                body = _body(operation, version)
            yield Row(f"{verb} /agents/{agent}{path}", verb, f"/agents/{agent}{there}", body, {"A2A-Version": version})


def _body(operation: str, version: str) -> Any:
    if operation in ("SendMessage", "SendStreamingMessage"):
        message = _message()
        if version == "0.3":
            message = {**message, "content": message.pop("parts")}
        return {"message": message}
    if operation == "CreateTaskPushNotificationConfig":
        if version == "0.3":
            return {"config": {"name": "x", "pushNotificationConfig": {"url": HOOK, "id": "c"}}}
        return {"url": HOOK, "id": "c"}
    return {}


def _json_rpc(town: Town, agent: str) -> Iterable[Row]:
    for method, face in sorted(a2a.METHODS.items()):
        params = (_params if face.version == "1.0" else _older_params)(method, town.tasks[agent])
        yield _call(agent, method, params, face.version)
    yield _call(agent, "nosuch", {}, "1.0")
    if agent == "echo":
        yield _call("", "SendMessage", {"message": _message()}, "1.0")


def _older_params(method: str, task: str) -> dict[str, Any]:
    if method.startswith("message/"):
        parts = [{"kind": "text", "text": "hi"}]
        message = {"kind": "message", "messageId": f"matrix-{next(_numbers)}", "role": "user", "parts": parts}
        return {"message": message}
    if method.endswith("pushNotificationConfig/set"):
        return {"taskId": task, "pushNotificationConfig": {"url": HOOK, "id": "c"}}
    if "pushNotificationConfig" in method:
        return {"id": task, "pushNotificationConfigId": "nosuch"}
    return {"id": task}


def _call(agent: str, method: str, params: Any, version: str) -> Row:
    path = f"/agents/{agent}" if agent else "/"
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return Row(f"POST {path} {method}", "POST", path, body, {"A2A-Version": version})


def _older() -> Iterable[Row]:
    """The older messages, at the agent whose work a worker fetches. A result is waited for by nobody."""
    params: dict[str, Any] = {
        "agents/tasks/create": {"task": {"id": "matrix-older", "type": "x", "description": "hi"}, "wait": 0},
        "agents/tasks/result": {"task_id": "nosuch"},
        "agents/tasks/pending": {"limit": 1, "wait": 0},
    }
    for method in sorted(tasks.METHODS):
        yield _call("pull", method, params.get(method, {}), "1.0")


def _acp(town: Town) -> Iterable[Row]:
    for agent in ("echo", "shut"):
        run = str(uuid.UUID(town.tasks[agent]))
        said = [{"role": "user", "parts": [{"content_type": "text/plain", "content": "hi"}]}]
        bodies: dict[str, Any] = {
            "create": {"agent_name": agent, "input": said, "mode": "sync"},
            "resume": {"run_id": run, "await_resume": {"type": "message", "message": said[0]}, "mode": "sync"},
        }
        for verb, pattern, operation, _ in acp.TABLE.rows:
            path = re.sub(r"\(\?P<\w+>[^)]*\)|\([^)]*\)", "{id}", pattern)
            named = "/agents/" in path or "/runs" in path
            if named or agent == "echo":
                there = path.replace("{id}", agent if "/agents/" in path else run)
                shown = f" of {agent}" if named else ""
                yield Row(f"{verb} /acp{path}{shown}", verb, f"/acp{there}", bodies.get(operation))


def _mcp() -> Iterable[Row]:
    for method in sorted({*USES, *TASK_USES, *LISTS, "server/discover", LISTEN}):
        asked = modern(MCP_PARAMS[method])
        sent = {**headers.make(method, asked, MODERN), "Accept": "application/json, text/event-stream"}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": asked}
        yield Row(f"POST /mcp {method}", "POST", "/mcp", body, sent)
    accept = {"Accept": "application/json, text/event-stream"}
    for verb in ("GET", "DELETE"):
        yield Row(f"{verb} /mcp", verb, "/mcp", None, {**accept, "Mcp-Session-Id": "nosuch"})
    offer = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": offer}
    yield Row("POST /mcp initialize", "POST", "/mcp", body, accept)


# Asking.


async def made(folder: Path) -> str:
    """The rows of the table, asked anew."""
    async with town(folder) as there:
        lines = [await _line(there, row) for row in rows(there)]
    return "\n".join(lines) + "\n"


async def _line(town: Town, row: Row) -> str:
    cells = [await _status(town, row, town.credentials[kind]) for kind in KINDS]
    return f"| `{row.name}` | {' | '.join(cells)} |"


async def _status(town: Town, row: Row, credential: str | None) -> str:
    sent = {**(row.headers or {}), **({} if credential is None else {"Authorization": f"Bearer {credential}"})}
    body = _fresh(row.body)
    async with town.gateway.client.stream(row.verb, row.path, headers=sent, json=body, data=row.form) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return str(answer.status_code)
        content = await answer.aread()
    return str(_told(content) or answer.status_code)


def _fresh(body: Any) -> Any:
    """With a message id of its own: a repeat would be the same task."""
    if isinstance(body, dict):
        return {name: _fresh(value) for name, value in body.items()}
    return f"matrix-{next(_numbers)}" if isinstance(body, str) and body.startswith("matrix-") else body


def _told(content: bytes) -> int | None:
    """The status that a JSON-RPC error inside a 200 stands for."""
    tree: Any = read(content) if content.startswith(b"{") else None
    error = tree.get("error") if isinstance(tree, dict) and "jsonrpc" in tree else None
    if not isinstance(error, dict) or error.get("code") not in BY_CODE:
        return None
    return CODES[BY_CODE[error["code"]]].http


def page(rows: str) -> str:
    kinds = "\n".join(f"| {name} | {about} |" for name, about in KINDS.items())
    return f"""# Who gets what

<!-- Made by `python -m tests.access_matrix`; a test keeps it current. -->

Every route and method, asked by nine kinds of caller in a gateway with a public agent `echo`, an agent `shut` that one
rule of the policy opens, and an agent `pull` with a worker. A cell is the HTTP status; for JSON-RPC errors inside a 200
the one that the error stands for on HTTP+JSON. 401 means: who are you; 403: not you; 404: there is no such thing, for
you; another refusal is about what was sent, and comes after these. Below `/oauth` that 401 is a client's that shows no
secret of its own: what opens the gateway is none there.

With `server.admin` set, the routes below `/admin` answer so on the listener of their own, which has nothing else but
`/livez` and `/readyz`; on the public one they are 404 for everybody.

| caller | who that is |
|---|---|
{kinds}

| route | {" | ".join(KINDS)} |
|---|{"---|" * len(KINDS)}
{rows}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(asyncio.run(made(Path(folder)))), encoding="utf-8")


if __name__ == "__main__":
    os.umask(0o077)
    main()
