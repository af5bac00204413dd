"""Use cases of the operator: which agents there are, and who has a key."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.act import Act, Standing
from gateway.core.audit import Ticket
from gateway.core.cardlog import told
from gateway.core.clients import Clients, NewClient
from gateway.core.kept import KeptConnections
from gateway.core.keys import KeyRing, NewKey
from gateway.core.people import People, session
from gateway.core.policy.checks import chain
from gateway.core.registry import Registered, Registry
from gateway.core.standing import Named, agent, client, grant, key, standing, user
from gateway.model.call import Call
from gateway.model.changes import Change
from gateway.model.clients import ClientRecord
from gateway.model.errors import GatewayError, Reason
from gateway.model.operation import (
    AcceptCard,
    AddAgent,
    AddClient,
    AddKey,
    AddUser,
    ChangeAgent,
    InviteClient,
    ListAgents,
    ListClients,
    ListGrants,
    ListKeys,
    ListUsers,
    RemoveAgent,
    RemoveGrant,
    RemoveUser,
    RevokeClient,
    RevokeKey,
    RotateClient,
    SetPassword,
    ShowCard,
    VerifyCard,
)
from gateway.model.people import GrantRecord, UserRecord
from gateway.model.principal import Kind, Principal
from gateway.model.provenance import CardKeys, CardRecord
from gateway.model.rows import KeyRecord


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`shadowed` are stored agents whose id the configuration file uses."""

    agents: tuple[Registered, ...]
    shadowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenServer:
    """The built-in authorization server as the rest of the gateway sees it. `invite` makes an initial access token that
    is good for so many seconds; `state` says to an issuer who a caller is, signed, for a minute; `name` is what its
    principals are called by."""

    clients: Clients
    people: People
    invite: Callable[[int], str]
    state: Callable[[str, str], str]
    name: str

    def today(self, who: Principal) -> Principal:
        """What is left of a caller's rights: neither roles nor scopes where a user or client of the chain is gone."""
        return who.bare if any(map(self._gone, chain(who))) else who

    def _gone(self, who: Principal) -> bool:
        issuer, _, subject = who.name.partition("#")
        ours = who.kind is Kind.OAUTH and issuer == self.name
        clients = (subject, who.client or "")
        return ours and (any(map(self.clients.is_blocked, clients)) or not self.people.is_active(subject))


class Administration:
    def __init__(
        self, registry: Registry, keys: KeyRing, server: TokenServer | None, connections: KeptConnections
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._server = server
        self.connections = connections
        self.list_connections = connections.list
        self.remove_connection = connections.remove
        self.rotate_vault = connections.rotate

    async def list_agents(self, call: ListAgents, ticket: Ticket, entry: None) -> Catalogue:
        return Catalogue(tuple(self._registry.all()), tuple(record.id for record in self._registry.shadowed()))

    async def add_agent(self, call: AddAgent, act: Act, entry: None) -> Registered:
        """An origin is trusted when the machine's own operator names it, and only then (SURFACES: egress)."""
        await act.begin()  # its card is read first
        trusted = act.ticket.principal.kind is Kind.LOCAL

        def write(*changes: Change) -> Awaitable[None]:
            return act.commit(*changes, standing=self.standing(call))  # it is in the registry by now

        return await self._registry.add(call.card_url, call.id, call.settings, trusted=trusted, write=write)

    async def change_agent(self, call: ChangeAgent, act: Act, entry: None) -> Registered:
        """Addresses are trusted with the agent, so only who may name trusted ones may add to those of such an agent."""
        found = self._registry.get(call.id)
        local = act.ticket.principal.kind is Kind.LOCAL
        if found is not None and found.trusted and not local and "replicas" in call.changes:
            what = f"The servers of {call.id!r} were named on the gateway's own machine; change them there"
            raise GatewayError(Reason.PERMISSION_DENIED, what)
        await act.begin()  # its cards are read first

        def write(*changes: Change) -> Awaitable[None]:
            return act.commit(*changes, standing=self.standing(call))

        return await self._registry.change(call.id, call.changes, write)

    async def remove_agent(self, call: RemoveAgent, act: Act, entry: None) -> None:
        await self._registry.remove(call.id, act.commit)

    async def show_card(self, call: ShowCard, ticket: Ticket, entry: None) -> Registered:
        found = self._registry.get(call.id)
        if found is None:
            known = ", ".join(sorted(each.id for each in self._registry.all())) or "none"
            raise GatewayError(Reason.NOT_FOUND, f"There is no agent {call.id!r}. Known: {known}")
        return found

    async def verify_card(self, call: VerifyCard, act: Act, entry: None) -> CardRecord:
        await act.begin()
        keys = None if call.keys is None else CardKeys(call.keys)
        return await self._registry.look(call.card_url, keys, trusted=act.ticket.principal.kind is Kind.LOCAL)

    async def accept_card(self, call: AcceptCard, act: Act, entry: None) -> Registered:
        await act.begin()
        return await self._registry.accept(call.id)

    async def add_key(self, call: AddKey, act: Act, entry: None) -> NewKey:
        return await self._keys.add(call.name, act.commit)

    async def list_keys(self, call: ListKeys, ticket: Ticket, entry: None) -> Sequence[KeyRecord]:
        return self._keys.all()

    async def revoke_key(self, call: RevokeKey, act: Act, entry: None) -> None:
        await self._keys.revoke(call.id, act.commit)

    async def add_client(self, call: AddClient, act: Act, entry: None) -> NewClient:
        return await self._own().clients.add(call, act.commit)

    async def list_clients(self, call: ListClients, ticket: Ticket, entry: None) -> Sequence[ClientRecord]:
        return self._own().clients.all()

    async def revoke_client(self, call: RevokeClient, act: Act, entry: None) -> None:
        clients, people = self._own().clients, self._own().people
        grants = await people.grants_of(client=call.id)
        await clients.revoke(call.id, act.commit, people.ending(grants))
        people.ended(grants)
        await people.end_grants(await people.grants_of(client=call.id))  # given while it was being revoked

    async def rotate_client(self, call: RotateClient, act: Act, entry: None) -> NewClient:
        return await self._own().clients.rotate(call.id, act.commit)

    async def invite_client(self, call: InviteClient, act: Act, entry: None) -> str:
        return self._own().invite(call.seconds)

    async def add_user(self, call: AddUser, act: Act, entry: None) -> UserRecord:
        return await self._own().people.add(call, act.commit)

    async def list_users(self, call: ListUsers, ticket: Ticket, entry: None) -> Sequence[UserRecord]:
        return self._own().people.all()

    async def remove_user(self, call: RemoveUser, act: Act, entry: None) -> None:
        await self._own().people.remove(call.name, act.commit)

    async def set_password(self, call: SetPassword, act: Act, entry: None) -> None:
        await self._own().people.set_password(call.name, call.password, act.commit)

    async def list_grants(self, call: ListGrants, ticket: Ticket, entry: None) -> Sequence[GrantRecord]:
        return await self._own().people.grants_of(subject=call.person, client=call.client)

    async def remove_grant(self, call: RemoveGrant, act: Act, entry: None) -> None:
        people = self._own().people
        found = [each for each in await people.grants_of() if session(each.id) == call.id]
        if not found:
            raise GatewayError(Reason.NOT_FOUND, f"There is no grant {call.id!r}; `gateway grants list` shows them")
        act.before = standing(map(grant, found))
        await people.end_grants(found, act.commit)

    def standing(self, call: Call) -> Standing:
        """What a call is about, as it stands: for the audit log, without secrets. Nothing for calls of other kinds."""
        look = _STANDING.get(type(call))
        return {} if look is None else standing(look(self, call))

    def keys_of(self, wanted: Callable[[KeyRecord], bool]) -> Iterable[Named]:
        return map(key, filter(wanted, self._keys.all()))

    def agents_of(self, wanted: Callable[[Registered], bool]) -> Iterable[Named]:
        for each in filter(wanted, self._registry.all()):
            yield agent(
                each.id,
                each.card_url,
                each.trusted,
                each.card_hash,
                balance=each.balance,
                cardKeys=named(each.card_keys),
                replicas=[source.url for source in each.sources[1:]],
                requireSignature=each.require_signature,
            )

    def cards_of(self, id: str) -> Iterable[Named]:
        entry = self._registry.get(id)
        for source in () if entry is None else entry.sources:
            if source.taken is not None:
                yield f"card {source.url}", told(source.taken)

    def clients_of(self, id: str) -> Iterable[Named]:
        every = () if self._server is None else self._server.clients.all()
        return (client(each) for each in every if each.id == id)

    def users_of(self, name: str) -> Iterable[Named]:
        every = () if self._server is None else self._server.people.all()
        return (user(each) for each in every if each.name == name)

    def _own(self) -> TokenServer:
        if self._server is None:
            message = "This gateway gives out no tokens; auth.authorization_server in its file would let it"
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, message)
        return self._server


def named(keys: CardKeys | None) -> str | None:
    """The keys that may sign a card: where they are, or the SHA-256 of those that were given."""
    if keys is None or keys.document is None:
        return None if keys is None else keys.url
    return hashlib.sha256(keys.document).hexdigest()


_STANDING: dict[type[Any], Callable[[Administration, Any], Iterable[Named]]] = {
    AddAgent: lambda all, call: all.agents_of(lambda entry: entry.card_url == call.card_url),
    ChangeAgent: lambda all, call: all.agents_of(lambda entry: entry.id == call.id),
    RemoveAgent: lambda all, call: all.agents_of(lambda entry: entry.id == call.id),
    AcceptCard: lambda all, call: all.cards_of(call.id),
    AddKey: lambda all, call: all.keys_of(lambda key: key.name == call.name),
    RevokeKey: lambda all, call: all.keys_of(lambda key: key.id == call.id),
    AddClient: lambda all, call: all.clients_of(call.id),
    RevokeClient: lambda all, call: all.clients_of(call.id),
    RotateClient: lambda all, call: all.clients_of(call.id),
    AddUser: lambda all, call: all.users_of(call.name),
    RemoveUser: lambda all, call: all.users_of(call.name),
    SetPassword: lambda all, call: all.users_of(call.name),
}
