"""The admin API about MCP servers: what there is, what waits, and a call for whoever wants to try a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from gateway.core.gateway import Gateway
from gateway.core.tools.silent import Silent
from gateway.model.base import timestamp
from gateway.model.login import Ending, LoggedOut
from gateway.model.principal import Principal
from gateway.model.tool import Definition, Era, Kind
from gateway.model.toolcall import (
    ApproveTools,
    BeginLogin,
    Collision,
    FinishLogin,
    ForgetLogin,
    Health,
    Inventory,
    ListServers,
    ReloadTools,
    UseServer,
    Waiting,
)
from gateway.server.admin_fields import text, tree
from gateway.server.admin_operation import Asked, Moment, Operation, Tree


class Offered(TypedDict):
    """`address` is `server/name`; `hash` changes with whatever its server changes in `definition`."""

    address: str
    kind: Kind
    hash: str
    definition: Tree


class Quarantined(Offered):
    """`before` is the definition that was approved before, null where none was."""

    why: str
    before: Tree | None


class Server(TypedDict):
    """`state` is `up`, `down`, `starting`, or `callers` where only they have lists. `refused` has by their names what
    was not taken, and why; `stderr` the last lines of a command that is down."""

    id: str
    state: str
    reason: str | None
    era: Era | None
    version: str | None
    info: Tree | None
    fetched: Moment | None
    definitions: list[Offered]
    waiting: list[Quarantined]
    refused: Mapping[str, str]
    stderr: Sequence[str]


class Clash(TypedDict):
    """Things that would all be called `name`; none of them is there."""

    kind: Kind
    name: str
    addresses: list[str]


class Mount(TypedDict):
    path: str
    collisions: list[Clash]


class Servers(TypedDict):
    servers: list[Server]
    mounts: list[Mount]


class Approved(TypedDict):
    approved: list[Offered]


class Changed(TypedDict):
    """The names of servers that are new, changed or gone."""

    changed: list[str]


class Begun(TypedDict):
    authorizationUrl: str


class Authorized(TypedDict):
    """Whether the server is up."""

    up: bool


class Forgotten(TypedDict):
    """What came of it at the issuer: of the operator's own authorization, and how often of those of callers."""

    forgotten: bool
    issuer: Ending | None
    callers: dict[str, int]


class AdminTools:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        tools = "/admin/tools"
        server = text("server", "The server's name in the configuration.")
        approve = (
            text("address", "`server/name`, or `server` for all that waits there."),
            text("hash", "How the hash begins of the form that is meant.", required=False, default=""),
        )
        redirect = text("redirectUri", "Where the server sends the person back: on loopback.")
        response = text("response", "The whole URL that came back there.")
        call = (text("name", "`server/name`."), tree("arguments", "What the tool takes.", required=False))
        return (
            Operation("GET", tools, ListServers.verb, "List the tool servers", self.servers, Servers),
            Operation(
                "POST",
                tools + ":approve",
                ApproveTools.verb,
                "Let definitions out of quarantine",
                self.approve,
                Approved,
                body=approve,
            ),
            Operation(
                "POST",
                tools + ":reload",
                ReloadTools.verb,
                "Read tools, mounts and grants of the configuration file again",
                self.reload,
                Changed,
            ),
            Operation(
                "POST",
                tools + ":login",
                BeginLogin.verb,
                "Say where a person authorizes the gateway at a server",
                self.login,
                Begun,
                body=(server, redirect),
            ),
            Operation(
                "POST",
                tools + ":authorized",
                FinishLogin.verb,
                "Take what came back from there",
                self.authorized,
                Authorized,
                body=(server, response),
            ),
            Operation(
                "POST",
                tools + ":logout",
                ForgetLogin.verb,
                "Forget all authorizations at a server, and give the tokens back",
                self.logout,
                Forgotten,
                body=(server,),
            ),
            Operation("POST", tools + ":call", "tools/call", "Call a tool", self.call, Tree, body=call, id="CallTool"),
        )

    async def servers(self, asked: Asked, who: Principal) -> Servers:
        """Waits for servers that were never heard of, as a list at the door does."""
        await self._gateway.tools.servers.settled()
        found: Inventory = await self._gateway.handle(ListServers(), who)
        mounts = [_mount(id, collisions) for id, collisions in found.collisions.items()]
        return {"servers": [_server(each) for each in found.servers], "mounts": mounts}

    async def approve(self, asked: Asked, who: Principal) -> Approved:
        call = ApproveTools(asked.body["address"], asked.body["hash"])
        approved: list[Definition] = await self._gateway.handle(call, who)
        return {"approved": [_definition(each) for each in approved]}

    async def reload(self, asked: Asked, who: Principal) -> Changed:
        """The operator's file once more. Nothing in the request says what it holds: no call can add a command."""
        return {"changed": await self._gateway.handle(ReloadTools(), who)}

    async def login(self, asked: Asked, who: Principal) -> Begun:
        """Where a person authorizes the gateway at a server. What comes back goes to `authorized`."""
        call = BeginLogin(asked.body["server"], asked.body["redirectUri"])
        return {"authorizationUrl": await self._gateway.handle(call, who)}

    async def authorized(self, asked: Asked, who: Principal) -> Authorized:
        return {"up": await self._gateway.handle(FinishLogin(asked.body["server"], asked.body["response"]), who)}

    async def logout(self, asked: Asked, who: Principal) -> Forgotten:
        done: LoggedOut = await self._gateway.handle(ForgetLogin(asked.body["server"]), who)
        forgotten = done.own is not None or bool(done.callers)
        callers = {ending.value: count for ending, count in done.callers.items()}
        return {"forgotten": forgotten, "issuer": done.own, "callers": callers}

    async def call(self, asked: Asked, who: Principal) -> Any:
        """The result as its server gave it. Nobody can be asked here: a tool that asks is told so."""
        params = {"name": asked.body["name"], "arguments": asked.body["arguments"]}
        return await self._gateway.handle(UseServer(None, "tools/call", params, Silent.of(who)), who)


def _server(health: Health) -> Server:
    face = health.face
    return {
        "id": health.server,
        "state": health.state,
        "reason": health.problem,
        "era": None if face is None else face.era,
        "version": None if face is None else face.version,
        "info": None if face is None else face.info,
        "fetched": None if health.fetched is None else timestamp(health.fetched),
        "definitions": [_definition(each) for each in health.definitions],
        "waiting": [_waiting(each) for each in health.waiting],
        "refused": health.refused,
        "stderr": health.said,
    }


def _mount(id: str, collisions: tuple[Collision, ...]) -> Mount:
    shown: list[Clash] = [
        {"kind": each.kind, "name": each.name, "addresses": list(each.addresses)} for each in collisions
    ]
    return {"path": f"/mcp/{id}" if id else "/mcp", "collisions": shown}


def _definition(definition: Definition) -> Offered:
    return {
        "address": definition.address,
        "kind": definition.kind,
        "hash": definition.hash,
        "definition": definition.tree,
    }


def _waiting(waiting: Waiting) -> Quarantined:
    return {**_definition(waiting.definition), "why": waiting.why, "before": waiting.before}
