"""Speaking A2A 0.3 over gRPC to somebody else's agent: the forms of its HTTP+JSON, which are those of its proto, as
protobuf. Pure. What is not said here is as in `a2a_v1/grpc_upstream.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.a2a_v03 import objects, pushes
from gateway.dialects.a2a_v03.grpc import GRPC, RPCS, SCHEMA
from gateway.dialects.a2a_v03.objects import PROTO
from gateway.dialects.a2a_v03.requests import VERSION
from gateway.dialects.a2a_v03.upstream import written
from gateway.dialects.a2a_v1.grpc_upstream import read, refusal
from gateway.dialects.a2a_v1.upstream import PLAIN, TASKS, Outgoing
from gateway.model.card import AgentInterface

_RPCS = {rpc.operation: (name, rpc) for name, rpc in RPCS.items()}


def outgoing(
    interface: AgentInterface, operation: str, params: bytes, id: str | None = None, extensions: tuple[str, ...] = ()
) -> Outgoing:
    name, rpc = _RPCS[operation]
    tree = orjson.loads(params)
    said = pushes.request({**tree, "id": id}) if operation in PLAIN else written(PROTO, tree)
    body = SCHEMA.write(rpc.takes, {**said, "name": f"tasks/{id}"} if id else said)
    metadata = {"a2a-version": VERSION, **({"x-a2a-extensions": ", ".join(extensions)} if extensions else {})}
    return Outgoing(f"/{GRPC.service}/{name}", interface.url, body, metadata, operation)


def result(interface: AgentInterface, operation: str, status: int, tree: bytes, names: Mapping[str, str]) -> Any:
    said = read(SCHEMA, _RPCS[operation][1].gives, tree)
    if operation in PLAIN:
        return said
    return {"task": objects.read_task(PROTO, said)} if operation in TASKS else objects.read_event(PROTO, said)


__all__ = ["outgoing", "refusal", "result"]
