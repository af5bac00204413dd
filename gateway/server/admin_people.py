"""The admin API of the built-in authorization server, its clients and its users; and of what people have authorized
the gateway for elsewhere."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.core.standing import grant
from gateway.dialects.oauth2.redirects import refusal
from gateway.model.base import timestamp
from gateway.model.call import (
    AddClient,
    AddUser,
    InviteClient,
    ListClients,
    ListConnections,
    ListGrants,
    ListUsers,
    RemoveConnection,
    RemoveGrant,
    RemoveUser,
    RevokeClient,
    SetPassword,
)
from gateway.model.clients import ClientRecord
from gateway.model.errors import invalid
from gateway.model.login import Connection, Ending
from gateway.model.people import GrantRecord, UserRecord
from gateway.model.principal import Principal
from gateway.server.admin_json import json_answer, json_object, text

HOUR = 3600


class AdminPeople:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def clients(self, request: Request, who: Principal) -> Response:
        return json_answer({"clients": [_client(record) for record in await self._gateway.handle(ListClients(), who)]})

    async def add_client(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "id", "scopes", "grants", "redirects", "name", "public")
        redirects = _texts(body, "redirects")
        for uri in redirects:
            if (why := refusal(uri)) is not None:
                raise invalid("redirects", f"a redirect URI {why}")
        call = AddClient(
            text(body, "id"),
            _texts(body, "scopes"),
            _texts(body, "grants") or ("client_credentials",),
            redirects,
            text(body, "name", required=False) or "",
            body.get("public") is True,
        )
        made = await self._gateway.handle(call, who)
        return json_answer({**_client(made.record), "secret": made.secret or None}, 201)

    async def invite_client(self, request: Request, who: Principal) -> Response:
        seconds = (await json_object(request, "seconds")).get("seconds", HOUR)
        if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
            raise invalid("seconds", "must be a whole number")
        return json_answer({"token": await self._gateway.handle(InviteClient(seconds), who)}, 201)

    async def revoke_client(self, request: Request, who: Principal) -> Response:
        await self._gateway.handle(RevokeClient(request.path_params["id"]), who)
        return Response(status_code=204)

    async def revoke_any_client(self, request: Request, who: Principal) -> Response:
        """The same for ids that are URLs, which no path can hold."""
        await self._gateway.handle(RevokeClient(text(await json_object(request, "id"), "id")), who)
        return Response(status_code=204)

    async def users(self, request: Request, who: Principal) -> Response:
        return json_answer({"users": [_user(record) for record in await self._gateway.handle(ListUsers(), who)]})

    async def add_user(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "name", "password", "roles")
        call = AddUser(text(body, "name"), text(body, "password"), _texts(body, "roles"))
        return json_answer(_user(await self._gateway.handle(call, who)), 201)

    async def remove_user(self, request: Request, who: Principal) -> Response:
        await self._gateway.handle(RemoveUser(request.path_params["name"]), who)
        return Response(status_code=204)

    async def grants(self, request: Request, who: Principal) -> Response:
        call = ListGrants(request.query_params.get("client"), request.query_params.get("person"))
        return json_answer({"grants": [_grant(record) for record in await self._gateway.handle(call, who)]})

    async def remove_grant(self, request: Request, who: Principal) -> Response:
        await self._gateway.handle(RemoveGrant(request.path_params["id"]), who)
        return Response(status_code=204)

    async def connections(self, request: Request, who: Principal) -> Response:
        call = ListConnections(request.query_params.get("of"), request.query_params.get("at"))
        return json_answer({"connections": [_connection(each) for each in await self._gateway.handle(call, who)]})

    async def remove_connection(self, request: Request, who: Principal) -> Response:
        ending: Ending = await self._gateway.handle(RemoveConnection(request.path_params["id"]), who)
        return json_answer({"issuer": ending})

    async def set_password(self, request: Request, who: Principal) -> Response:
        password = text(await json_object(request, "password"), "password")
        await self._gateway.handle(SetPassword(request.path_params["name"], password), who)
        return Response(status_code=204)


def _grant(record: GrantRecord) -> dict[str, Any]:
    return {
        **grant(record)[1],
        "person": record.person.subject,
        "name": record.person.name,
        "audience": record.audience,
        "began": timestamp(record.began),
        "until": timestamp(record.until),
    }


def _connection(found: Connection) -> dict[str, Any]:
    tenant, _, owner = (None, "", None) if found.owner is None else found.owner.partition("/")
    return {
        "id": found.id,
        "owner": owner,
        **({"tenant": tenant} if tenant else {}),
        "at": found.place,
        "issuer": found.issuer,
        "scopes": list(found.scopes),
        "since": None if found.since is None else timestamp(found.since),
        "expires": None if found.expires is None else timestamp(found.expires),
        "refreshable": found.refreshable,
    }


def _texts(body: dict[str, Any], name: str) -> tuple[str, ...]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid(name, "must be a list of texts")
    return tuple(found)


def _client(record: ClientRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "origin": record.origin,
        "public": record.public,
        "scopes": list(record.scopes),
        "grants": list(record.grants),
        "redirects": list(record.redirects),
        "created": timestamp(record.created),
        "revoked": None if record.revoked is None else timestamp(record.revoked),
    }


def _user(record: UserRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "principal": f"oauth:gateway#{record.subject}",
        "roles": list(record.roles),
        "created": timestamp(record.created),
        "removed": None if record.removed is None else timestamp(record.removed),
    }
