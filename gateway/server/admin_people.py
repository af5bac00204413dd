"""The admin API of the built-in authorization server, its clients and its users; and of what people have authorized
the gateway for elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NotRequired, TypedDict

from gateway.core.gateway import Gateway
from gateway.core.standing import grant
from gateway.dialects.oauth2.redirects import refusal
from gateway.model.base import timestamp
from gateway.model.clients import ClientRecord
from gateway.model.errors import invalid
from gateway.model.login import Connection as Login
from gateway.model.login import Ending
from gateway.model.operation import (
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
    RotateClient,
    SetPassword,
)
from gateway.model.people import GrantRecord, UserRecord
from gateway.model.principal import Principal
from gateway.server.admin_fields import flag, text, texts, whole, word
from gateway.server.admin_operation import Asked, Moment, Operation

HOUR = 3600


class Client(TypedDict):
    id: str
    name: str
    origin: str
    public: bool
    scopes: list[str]
    grants: list[str]
    redirects: list[str]
    created: Moment
    revoked: Moment | None


class MadeClient(Client):
    """`secret` is shown this once; null for a public client."""

    secret: str | None


class Clients(TypedDict):
    clients: list[Client]


class Invitation(TypedDict):
    token: str


class User(TypedDict):
    name: str
    principal: str
    roles: list[str]
    created: Moment
    removed: Moment | None


class Users(TypedDict):
    users: list[User]


class Grant(TypedDict):
    id: str
    client: str
    principal: str
    scopes: list[str]
    person: str
    name: str
    audience: str
    began: Moment
    until: Moment


class Grants(TypedDict):
    grants: list[Grant]


class Connected(TypedDict):
    """`owner` and `issuer` are null for what cannot be read."""

    id: str
    owner: str | None
    tenant: NotRequired[str]
    at: str
    issuer: str | None
    scopes: list[str]
    since: Moment | None
    expires: Moment | None
    refreshable: bool


class Connections(TypedDict):
    connections: list[Connected]


class Ended(TypedDict):
    """What the issuer knows of the end."""

    issuer: Ending


class AdminPeople:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        return (*self._of_clients(), *self._of_users(), *self._of_grants())

    def _of_clients(self) -> Iterator[Operation]:
        clients, id = "/admin/clients", text("id", "What it is called: its client_id.")
        fields = (
            id,
            texts("scopes", "The scopes that it may ask for."),
            texts("grants", "The grants that it may use; client_credentials without it.", ("client_credentials",)),
            texts("redirects", "Its redirect URIs."),
            text("name", "What people are shown.", required=False, default=""),
            flag("public", "Whether it has no secret."),
        )
        seconds = whole("seconds", "How long the invitation is good.", HOUR)
        yield Operation("GET", clients, ListClients.verb, "List clients", self.clients, Clients)
        yield Operation("POST", clients, AddClient.verb, "Make a client", self.add_client, MadeClient, 201, body=fields)
        yield Operation(
            "POST",
            clients + ":invite",
            InviteClient.verb,
            "Make a token to register a client with",
            self.invite_client,
            Invitation,
            201,
            body=(seconds,),
        )
        yield Operation(
            "POST",
            clients + ":revoke",
            RevokeClient.verb,
            "Revoke a client whose id is a URL, with all its tokens",
            self.revoke_any_client,
            body=(id,),
            id="RevokeAnyClient",
        )
        yield Operation(
            "DELETE",
            clients + "/{id}",
            RevokeClient.verb,
            "Revoke a client, with all its tokens",
            self.revoke_client,
        )
        yield Operation(
            "POST",
            clients + "/{id}:rotate",
            RotateClient.verb,
            "Give a client a new secret; the old one and tokens that were got with it are refused",
            self.rotate_client,
            MadeClient,
        )

    def _of_users(self) -> Iterator[Operation]:
        users, one = "/admin/users", "/admin/users/{name}"
        password = text("password", "What they log in with.")
        fields = (text("name", "What they log in as."), password, texts("roles", "The roles that they have."))
        yield Operation("GET", users, ListUsers.verb, "List users", self.users, Users)
        yield Operation("POST", users, AddUser.verb, "Make a user", self.add_user, User, 201, body=fields)
        yield Operation(
            "DELETE", one, RemoveUser.verb, "Remove a user, and refuse tokens with their name", self.remove_user
        )
        yield Operation(
            "POST",
            one + ":password",
            SetPassword.verb,
            "Give a user a new password; what the old one opened is closed",
            self.set_password,
            body=(password,),
        )

    def _of_grants(self) -> Iterator[Operation]:
        by = (word("client", "Only those of this client."), word("person", "Only those of this person."))
        where = (word("of", "Only those of this principal."), word("at", "Only those at this place."))
        grants, connections = "/admin/grants", "/admin/connections"
        yield Operation(
            "GET", grants, ListGrants.verb, "List what people have allowed clients", self.grants, Grants, query=by
        )
        yield Operation(
            "DELETE", grants + "/{id}", RemoveGrant.verb, "End a grant, with every token of it", self.remove_grant
        )
        yield Operation(
            "GET",
            connections,
            ListConnections.verb,
            "List what callers let the gateway use in their own name",
            self.connections,
            Connections,
            query=where,
        )
        yield Operation(
            "DELETE",
            connections + "/{id}",
            RemoveConnection.verb,
            "Forget a connection, and give its tokens back",
            self.remove_connection,
            Ended,
        )

    async def clients(self, asked: Asked, who: Principal) -> Clients:
        return {"clients": [_client(record) for record in await self._gateway.handle(ListClients(), who)]}

    async def add_client(self, asked: Asked, who: Principal) -> MadeClient:
        body = asked.body
        for uri in body["redirects"]:
            if (why := refusal(uri)) is not None:
                raise invalid("redirects", f"a redirect URI {why}")
        call = AddClient(body["id"], body["scopes"], body["grants"], body["redirects"], body["name"], body["public"])
        made = await self._gateway.handle(call, who)
        return {**_client(made.record), "secret": made.secret or None}

    async def invite_client(self, asked: Asked, who: Principal) -> Invitation:
        return {"token": await self._gateway.handle(InviteClient(asked.body["seconds"]), who)}

    async def revoke_client(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(RevokeClient(asked.path["id"]), who)

    async def rotate_client(self, asked: Asked, who: Principal) -> MadeClient:
        made = await self._gateway.handle(RotateClient(asked.path["id"]), who)
        return {**_client(made.record), "secret": made.secret}

    async def revoke_any_client(self, asked: Asked, who: Principal) -> None:
        """The same for ids that are URLs, which no path can hold."""
        await self._gateway.handle(RevokeClient(asked.body["id"]), who)

    async def users(self, asked: Asked, who: Principal) -> Users:
        return {"users": [_user(record) for record in await self._gateway.handle(ListUsers(), who)]}

    async def add_user(self, asked: Asked, who: Principal) -> User:
        call = AddUser(asked.body["name"], asked.body["password"], asked.body["roles"])
        return _user(await self._gateway.handle(call, who))

    async def remove_user(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(RemoveUser(asked.path["name"]), who)

    async def set_password(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(SetPassword(asked.path["name"], asked.body["password"]), who)

    async def grants(self, asked: Asked, who: Principal) -> Grants:
        call = ListGrants(asked.query["client"], asked.query["person"])
        return {"grants": [_grant(record) for record in await self._gateway.handle(call, who)]}

    async def remove_grant(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(RemoveGrant(asked.path["id"]), who)

    async def connections(self, asked: Asked, who: Principal) -> Connections:
        call = ListConnections(asked.query["of"], asked.query["at"])
        return {"connections": [_connection(each) for each in await self._gateway.handle(call, who)]}

    async def remove_connection(self, asked: Asked, who: Principal) -> Ended:
        return {"issuer": await self._gateway.handle(RemoveConnection(asked.path["id"]), who)}


def _grant(record: GrantRecord) -> Grant:
    shown = grant(record)[1]
    return {
        "id": shown["id"],
        "client": shown["client"],
        "principal": shown["principal"],
        "scopes": shown["scopes"],
        "person": record.person.subject,
        "name": record.person.name,
        "audience": record.audience,
        "began": timestamp(record.began),
        "until": timestamp(record.until),
    }


def _connection(found: Login) -> Connected:
    tenant, _, owner = (None, "", None) if found.owner is None else found.owner.partition("/")
    shown: Connected = {
        "id": found.id,
        "owner": owner,
        "at": found.place,
        "issuer": found.issuer,
        "scopes": list(found.scopes),
        "since": None if found.since is None else timestamp(found.since),
        "expires": None if found.expires is None else timestamp(found.expires),
        "refreshable": found.refreshable,
    }
    return {**shown, "tenant": tenant} if tenant else shown


def _client(record: ClientRecord) -> Client:
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


def _user(record: UserRecord) -> User:
    return {
        "name": record.name,
        "principal": f"oauth:gateway#{record.subject}",
        "roles": list(record.roles),
        "created": timestamp(record.created),
        "removed": None if record.removed is None else timestamp(record.removed),
    }
