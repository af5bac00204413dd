"""The admin API about MCP servers: what there is, what waits, and a call for whoever wants to try a tool."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.core.tools.silent import Silent
from gateway.model.base import timestamp
from gateway.model.errors import invalid
from gateway.model.login import LoggedOut
from gateway.model.principal import Principal
from gateway.model.tool import Definition
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
from gateway.server.admin_json import json_answer, json_object, text


class AdminTools:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def servers(self, request: Request, who: Principal) -> Response:
        """Waits for servers that were never heard of, as a list at the door does."""
        await self._gateway.tools.servers.settled()
        found: Inventory = await self._gateway.handle(ListServers(), who)
        mounts = [_mount(id, collisions) for id, collisions in found.collisions.items()]
        return json_answer({"servers": [_server(each) for each in found.servers], "mounts": mounts})

    async def approve(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "address", "hash")
        call = ApproveTools(text(body, "address"), text(body, "hash", required=False) or "")
        approved: list[Definition] = await self._gateway.handle(call, who)
        return json_answer({"approved": [_definition(each) for each in approved]})

    async def reload(self, request: Request, who: Principal) -> Response:
        """The operator's file once more. Nothing in the request says what it holds: no call can add a command."""
        changed: list[str] = await self._gateway.handle(ReloadTools(), who)
        return json_answer({"changed": changed})

    async def login(self, request: Request, who: Principal) -> Response:
        """Where a person authorizes the gateway at a server. What comes back goes to `authorized`."""
        body = await json_object(request, "server", "redirectUri")
        call = BeginLogin(text(body, "server"), text(body, "redirectUri"))
        return json_answer({"authorizationUrl": await self._gateway.handle(call, who)})

    async def authorized(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "server", "response")
        call = FinishLogin(text(body, "server"), text(body, "response"))
        return json_answer({"up": await self._gateway.handle(call, who)})

    async def logout(self, request: Request, who: Principal) -> Response:
        call = ForgetLogin(text(await json_object(request, "server"), "server"))
        done: LoggedOut = await self._gateway.handle(call, who)
        forgotten = done.own is not None or bool(done.callers)
        callers = {ending.value: count for ending, count in done.callers.items()}
        return json_answer({"forgotten": forgotten, "issuer": done.own, "callers": callers})

    async def call(self, request: Request, who: Principal) -> Response:
        """The result as its server gave it. Nobody can be asked here: a tool that asks is told so."""
        body = await json_object(request, "name", "arguments")
        arguments = body.get("arguments", {})
        if not isinstance(arguments, dict):
            raise invalid("arguments", "must be an object")
        params = {"name": text(body, "name"), "arguments": arguments}
        result = await self._gateway.handle(UseServer(None, "tools/call", params, Silent.of(who)), who)
        return json_answer(result)


def _server(health: Health) -> dict[str, Any]:
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


def _mount(id: str, collisions: tuple[Collision, ...]) -> dict[str, Any]:
    shown = [{"kind": each.kind, "name": each.name, "addresses": list(each.addresses)} for each in collisions]
    return {"path": f"/mcp/{id}" if id else "/mcp", "collisions": shown}


def _definition(definition: Definition) -> dict[str, Any]:
    return {
        "address": definition.address,
        "kind": definition.kind,
        "hash": definition.hash,
        "definition": definition.tree,
    }


def _waiting(waiting: Waiting) -> dict[str, Any]:
    return {**_definition(waiting.definition), "why": waiting.why, "before": waiting.before}
