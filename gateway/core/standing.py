"""How what an operator sets is shown in the audit log: what tells one thing from another, and no secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.core.people import session
from gateway.model.changes import (
    Change,
    DropAgent,
    DropFrozen,
    DropPin,
    DropPushConfig,
    DropShare,
    EndGrant,
    PutClient,
    PutFrozen,
    PutKey,
    PutPin,
    PutPushConfig,
    PutShare,
    PutUser,
)
from gateway.model.clients import ClientRecord
from gateway.model.governance import Cold, Frozen
from gateway.model.login import Connection
from gateway.model.people import GrantRecord, UserRecord
from gateway.model.principal import Kind
from gateway.model.push import PushConfig
from gateway.model.rows import KeyRecord, PinRecord
from gateway.model.sharing import Share

Tree = dict[str, Any]
Named = tuple[str, Tree]
"""A thing's name among all others, and what is shown of it."""


def key(record: KeyRecord) -> Named:
    principal = f"{Kind.KEY}:{record.name}"
    shown = {"created": record.created, "id": record.id, "principal": principal, "revoked": record.revoked}
    return f"key {record.id}", shown


def client(record: ClientRecord) -> Named:
    scopes = list(record.scopes)
    shown = {"created": record.created, "id": record.id, "revoked": record.revoked, "scopes": scopes}
    if record.renewed is not None:
        shown["renewed"] = record.renewed
    return f"client {record.id}", shown


def user(record: UserRecord) -> Named:
    roles = list(record.roles)
    shown = {
        "created": record.created,
        "principal": _own(record.subject),
        "removed": record.removed,
        "roles": roles,
    }
    return f"user {record.name}", shown


def grant(record: GrantRecord) -> Named:
    """Its id is half of a refresh token; what its tokens have in common is nobody's secret."""
    name = session(record.id)
    scopes = list(record.scopes)
    return f"grant {name}", {
        "client": record.client,
        "id": name,
        "principal": _own(record.person.subject),
        "scopes": scopes,
    }


def _own(subject: str) -> str:
    """Somebody whom the gateway's own authorization server knows."""
    return f"{Kind.OAUTH}:gateway#{subject}"


def connection(found: Connection) -> Named:
    owner = None if found.owner is None else found.owner.partition("/")[2]  # behind its tenant
    shown = {"at": found.place, "id": found.id, "issuer": found.issuer, "owner": owner}
    return f"connection {found.id}", {**shown, "scopes": list(found.scopes)}


def agent(id: str, card_url: str | None, trusted: bool, card: str | None, **settings: Any) -> Named:
    return f"agent {id}", {"card": card, "cardUrl": card_url, "id": id, "trusted": trusted, **settings}


def frozen(record: Frozen) -> Named:
    shown = {"at": record.at, "by": record.by, "kind": str(record.kind), "name": record.name, "reason": record.reason}
    return _frozen(record.kind, record.name), shown


def pin(record: PinRecord) -> Named:
    shown = {"hash": record.hash, "key": record.key, "kind": record.kind, "server": record.server}
    return _pin(record.server, record.kind, record.key), shown


def webhook(config: PushConfig) -> Named:
    """The URL may hold a secret of the receiver's."""
    shown = {"host": config.host, "id": config.id, "taskId": config.task_id}
    return _webhook(config.task_id, config.id), shown


def shared(share: Share) -> Named:
    shown = {"by": share.granted_by, "created": share.created, "owner": share.owner, "principal": share.principal}
    return _shared(share.task_id, share.principal), {**shown, "taskId": share.task_id, "until": share.until}


def standing(things: Iterable[Named]) -> Mapping[str, Tree]:
    return dict(things)


def after(before: Mapping[str, Tree], changes: Iterable[Change]) -> Mapping[str, Tree]:
    """What stands after the changes, in the order of `before`, what is new behind it."""
    found = dict(before)
    for change in changes:
        if (put := _PUT.get(type(change))) is not None:
            found.update([put(change)])
        elif (drop := _DROP.get(type(change))) is not None:
            found.pop(drop(change), None)
    return found


def _frozen(kind: Cold, name: str) -> str:
    return f"frozen {kind} {name}"


def _pin(server: str, kind: str, key: str) -> str:
    return f"pin {server} {kind} {key}"


def _webhook(task_id: str | None, id: str | None) -> str:
    return f"webhook {task_id} {id}"


def _shared(task_id: str, principal: str) -> str:
    return f"share {task_id} {principal}"


_PUT: dict[type[Any], Callable[[Any], Named]] = {
    PutKey: lambda change: key(change.record),
    PutClient: lambda change: client(change.record),
    PutUser: lambda change: user(change.record),
    PutFrozen: lambda change: frozen(change.record),
    PutPin: lambda change: pin(change.record),
    PutPushConfig: lambda change: webhook(change.config),
    PutShare: lambda change: shared(change.share),
}
_DROP: dict[type[Any], Callable[[Any], str]] = {
    DropAgent: lambda change: f"agent {change.id}",
    EndGrant: lambda change: f"grant {session(change.id)}",
    DropFrozen: lambda change: _frozen(change.kind, change.name),
    DropPin: lambda change: _pin(change.server, change.kind, change.key),
    DropPushConfig: lambda change: _webhook(change.task_id, change.id),
    DropShare: lambda change: _shared(change.task_id, change.principal),
}
