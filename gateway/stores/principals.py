"""Principals as JSON, in rows of tasks and approvals: who it was, with the roles, scopes and client of that moment.
Never what it showed for it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from gateway.model.principal import Kind, Principal

# Callers whose text and principal are at hand: those of the last tasks, each a kilobyte or two.
MAX_AT_HAND = 512


@lru_cache(MAX_AT_HAND)
def written(who: Principal | None) -> str | None:
    return None if who is None else orjson.dumps(tree(who)).decode()


@lru_cache(MAX_AT_HAND)
def read(text: str | None) -> Principal | None:
    return None if text is None else principal(orjson.loads(text))


def needle(id: str) -> str:
    """What stands in the text of every principal in whose chain the one with this id stands."""
    who = Principal.of(id, "")
    return orjson.dumps({"kind": who.kind.value, "name": who.name}).decode()[1:-1]


def tree(who: Principal) -> dict[str, Any]:
    return {
        "kind": who.kind.value,
        "name": who.name,
        "tenant": who.tenant,
        "behalf": None if who.on_behalf_of is None else tree(who.on_behalf_of),
        "hops": who.hops,
        "roles": sorted(who.roles),
        "scopes": sorted(who.scopes),
        "client": who.client,
    }


def principal(tree: dict[str, Any]) -> Principal:
    behalf = None if tree["behalf"] is None else principal(tree["behalf"])
    hops = tree.get("hops", 0 if behalf is None else behalf.hops + 1)  # approvals of before have none
    roles, scopes = frozenset(tree["roles"]), frozenset(tree["scopes"])
    client = tree.get("client")
    return Principal(Kind(tree["kind"]), tree["name"], tree["tenant"], behalf, hops, roles, scopes, client)
