"""What A2A 0.3 gives the gRPC door: the forms of its HTTP+JSON, which are those of its proto, in protobuf (0.3.0 §3.5).

Its requests name tasks as resources: `tasks/{id}`, `tasks/{id}/pushNotificationConfigs/{id}`. Nothing in them can name
an agent, so on a port for many they mean the default one.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.dialects.a2a_v03 import objects, requests, responses, schema
from gateway.dialects.a2a_v03.objects import PROTO
from gateway.dialects.a2a_v03.stowed import Tree
from gateway.dialects.grpc import Grpc, Rpc, rpcs
from gateway.dialects.protobuf import Schema
from gateway.model.call import Call
from gateway.model.card import AgentCard
from gateway.model.errors import invalid
from gateway.model.rows import Record

SCHEMA = Schema(schema.FILE, schema.PACKAGE, schema.MESSAGES, schema.ENUMS, schema.METHODS, schema.SERVICE)
RPCS = rpcs(schema.METHODS, schema.OPERATIONS)

_TASK = re.compile(r"tasks/([^/]+)")
_CONFIG = re.compile(r"tasks/([^/]+)/pushNotificationConfigs/(.+)")
# What each operation names, and in which field.
_OF_TASKS = {"GetTask": "id", "CancelTask": "id", "SubscribeToTask": "id"}
_OF_PARENTS = ("CreateTaskPushNotificationConfig", "ListTaskPushNotificationConfigs")
_OF_CONFIGS = ("GetTaskPushNotificationConfig", "DeleteTaskPushNotificationConfig")


def decode(operation: str, params: Tree, agent: str, extensions: tuple[str, ...] = ()) -> Call:
    """Raises INVALID_PARAMS."""
    return requests.decode_proto(operation, {**params, **_ids(operation, params)}, agent, extensions)


def _ids(operation: str, params: Tree) -> Tree:
    if operation in _OF_TASKS:
        return {_OF_TASKS[operation]: _found(_TASK, "name", params)[0]}
    if operation in _OF_PARENTS:
        return {"taskId": _found(_TASK, "parent", params)[0]}
    if operation in _OF_CONFIGS:
        task, config = _found(_CONFIG, "name", params)
        return {"taskId": task, "id": config}
    return {}


def _found(pattern: re.Pattern[str], field: str, params: Tree) -> tuple[str, ...]:
    match = pattern.fullmatch(params.get(field, ""))
    if match is None:
        form = "tasks/{id}" if pattern is _TASK else "tasks/{id}/pushNotificationConfigs/{id}"
        raise invalid(field, f"must be {form}")
    return match.groups()


def encode(rpc: Rpc, call: Call, result: Any) -> bytes:
    tree = orjson.loads(responses.encode_proto(call, result))
    return SCHEMA.write(rpc.gives, _card(tree) if isinstance(result, AgentCard) else tree)


def event(record: Record) -> bytes:
    return SCHEMA.write("StreamResponse", objects.write_event(PROTO, orjson.loads(record.body)))


def _card(tree: Tree) -> Tree:
    """A card of both generations as 0.3's proto has it: what is required stands there under `schemes`."""
    made = {**tree, "skills": [_required(skill) for skill in tree.get("skills", ())]}
    return _required(made)


def _required(holder: Tree) -> Tree:
    if "security" not in holder:
        return holder
    listed = [{"schemes": {name: {"list": scopes} for name, scopes in each.items()}} for each in holder["security"]]
    return {**holder, "security": listed}


GRPC = Grpc(
    version=requests.VERSION,
    service=f"{schema.PACKAGE}.{schema.SERVICE}",
    schema=SCHEMA,
    rpcs=RPCS,
    decode=decode,
    encode=encode,
    event=event,
    ends=responses.ends,
    older_extensions=True,
)
