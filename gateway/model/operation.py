"""The verbs of whoever operates the gateway: agents, cards, keys, clients, people, what is pushed and what is recorded.

Those about rules stand in `model/governance.py`. None is about one agent's endpoint, so `agent` is always None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, TypeAlias

from gateway.model.audit import AuditQuery
from gateway.model.governance import GovernanceCall
from gateway.model.rows import RemoteSettings
from gateway.model.value import value


@value
class EraseSubject:
    """Forget who a principal of the audit log was. Its entries stay."""

    verb: ClassVar[str] = "EraseSubject"
    principal: str
    agent: None = None


@value
class RotateAuditKey:
    """Sign the audit log with new keys from now on."""

    verb: ClassVar[str] = "RotateAuditKey"
    agent: None = None


@value
class RotateVaultKey:
    """Seal what is kept of others' authorizations with a new key."""

    verb: ClassVar[str] = "RotateVaultKey"
    agent: None = None


@value
class ReadAudit:
    """One page of the audit log, the newest entries first."""

    verb: ClassVar[str] = "ReadAudit"
    query: AuditQuery
    agent: None = None


@value
class ListAgents:
    verb: ClassVar[str] = "ListAgents"
    agent: None = None


@value
class AddAgent:
    """Register a remote agent by its card."""

    verb: ClassVar[str] = "AddAgent"
    card_url: str
    id: str | None = None
    settings: RemoteSettings = RemoteSettings()
    agent: None = None


@value
class ChangeAgent:
    """Change what was said about a remote agent when it was registered: fields of RemoteSettings and their values."""

    verb: ClassVar[str] = "ChangeAgent"
    id: str
    changes: Mapping[str, Any] = field(hash=False)
    agent: None = None


@value
class RemoveAgent:
    verb: ClassVar[str] = "RemoveAgent"
    id: str
    agent: None = None


@value
class ShowCard:
    """The card of an agent: what was received, what its signatures are worth, what is served."""

    verb: ClassVar[str] = "ShowCard"
    id: str
    agent: None = None


@value
class VerifyCard:
    """The signatures of a card anywhere; `keys` is a JWK set that alone may have signed it, if it is given."""

    verb: ClassVar[str] = "VerifyCard"
    card_url: str
    keys: bytes | None = None
    agent: None = None


@value
class AcceptCard:
    """Take the card of a remote agent as it is now, though the one before was signed."""

    verb: ClassVar[str] = "AcceptCard"
    id: str
    agent: None = None


@value
class AddKey:
    verb: ClassVar[str] = "AddKey"
    name: str
    agent: None = None


@value
class ListKeys:
    verb: ClassVar[str] = "ListKeys"
    agent: None = None


@value
class RevokeKey:
    verb: ClassVar[str] = "RevokeKey"
    id: str
    agent: None = None


@value
class AddClient:
    """A client of the authorization server. `grants` are what it may ask for tokens with, as `core.clients.GRANTS`
    calls them; a public one has no secret."""

    verb: ClassVar[str] = "AddClient"
    id: str
    scopes: tuple[str, ...] = ()
    grants: tuple[str, ...] = ("client_credentials",)
    redirects: tuple[str, ...] = ()
    name: str = ""
    public: bool = False
    agent: None = None


@value
class ListClients:
    verb: ClassVar[str] = "ListClients"
    agent: None = None


@value
class RevokeClient:
    verb: ClassVar[str] = "RevokeClient"
    id: str
    agent: None = None


@value
class ShowPushes:
    """What waits for webhooks, at most `limit` queues."""

    verb: ClassVar[str] = "ShowPushes"
    limit: int = 100
    agent: None = None


@value
class ListDeadPushes:
    """What was given up, after the number `after`."""

    verb: ClassVar[str] = "ListDeadPushes"
    after: int = 0
    limit: int = 100
    agent: None = None


@value
class ReplayPushes:
    """Try again what was given up: the one with this number, or all."""

    verb: ClassVar[str] = "ReplayPushes"
    id: int | None = None
    agent: None = None


@value
class RotateClient:
    """A new secret for a client, and the end of the old one."""

    verb: ClassVar[str] = "RotateClient"
    id: str
    agent: None = None


@value
class InviteClient:
    """An initial access token: with it a client may register itself, for `seconds` from now."""

    verb: ClassVar[str] = "InviteClient"
    seconds: int
    agent: None = None


@value
class AddUser:
    """A person who may log in with a password."""

    verb: ClassVar[str] = "AddUser"
    name: str
    password: str
    roles: tuple[str, ...] = ()
    agent: None = None

    def __repr__(self) -> str:
        return f"AddUser({self.name!r})"


@value
class ListUsers:
    verb: ClassVar[str] = "ListUsers"
    agent: None = None


@value
class RemoveUser:
    verb: ClassVar[str] = "RemoveUser"
    name: str
    agent: None = None


@value
class ListGrants:
    """What people have allowed clients; `client` and `person` (a subject) as filters."""

    verb: ClassVar[str] = "ListGrants"
    client: str | None = None
    person: str | None = None
    agent: None = None


@value
class RemoveGrant:
    """End what a person has allowed a client, and every token that came of it."""

    verb: ClassVar[str] = "RemoveGrant"
    id: str
    agent: None = None


@value
class ListConnections:
    """What people have authorized the gateway for elsewhere; `of` (a principal) and `at` (`tools/docs`, or only its
    name) as filters."""

    verb: ClassVar[str] = "ListConnections"
    of: str | None = None
    at: str | None = None
    agent: None = None


@value
class RemoveConnection:
    """Forget one of them, and give its tokens back."""

    verb: ClassVar[str] = "RemoveConnection"
    id: str
    agent: None = None


@value
class SetPassword:
    """A new password; whatever the old one opened is closed."""

    verb: ClassVar[str] = "SetPassword"
    name: str
    password: str
    agent: None = None

    def __repr__(self) -> str:
        return f"SetPassword({self.name!r})"


OperatorCall: TypeAlias = (
    EraseSubject
    | RotateAuditKey
    | RotateVaultKey
    | ReadAudit
    | ListAgents
    | AddAgent
    | ChangeAgent
    | RemoveAgent
    | ShowCard
    | VerifyCard
    | AcceptCard
    | AddKey
    | ListKeys
    | RevokeKey
    | AddClient
    | ListClients
    | RevokeClient
    | RotateClient
    | ShowPushes
    | ListDeadPushes
    | ReplayPushes
    | InviteClient
    | AddUser
    | ListUsers
    | RemoveUser
    | ListGrants
    | RemoveGrant
    | ListConnections
    | RemoveConnection
    | SetPassword
    | GovernanceCall
)
