"""Keys in the admin API: who has one, a new one, and one taken back."""

from __future__ import annotations

from typing import TypedDict

from gateway.core.gateway import Gateway
from gateway.model.base import timestamp
from gateway.model.operation import AddKey, ListKeys, RevokeKey
from gateway.model.principal import Principal
from gateway.model.rows import KeyRecord
from gateway.server.admin_fields import text
from gateway.server.admin_operation import Asked, Moment, Operation


class Key(TypedDict):
    id: str
    name: str
    prefix: str
    created: Moment
    revoked: Moment | None


class MadeKey(Key):
    """`key` is the credential itself, which is shown this once."""

    key: str


class Keys(TypedDict):
    keys: list[Key]


class AdminKeys:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        name = text("name", "Whose it is: the principal is called so.")
        return (
            Operation("GET", "/admin/keys", ListKeys.verb, "List keys", self.list, Keys),
            Operation("POST", "/admin/keys", AddKey.verb, "Make a key", self.add, MadeKey, 201, body=(name,)),
            Operation("DELETE", "/admin/keys/{id}", RevokeKey.verb, "Revoke a key", self.revoke),
        )

    async def list(self, asked: Asked, who: Principal) -> Keys:
        return {"keys": [_key(record) for record in await self._gateway.handle(ListKeys(), who)]}

    async def add(self, asked: Asked, who: Principal) -> MadeKey:
        made = await self._gateway.handle(AddKey(asked.body["name"]), who)
        return {**_key(made.record), "key": made.secret}

    async def revoke(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(RevokeKey(asked.path["id"]), who)


def _key(record: KeyRecord) -> Key:
    return {
        "id": record.id,
        "name": record.name,
        "prefix": record.prefix,
        "created": timestamp(record.created),
        "revoked": None if record.revoked is None else timestamp(record.revoked),
    }
