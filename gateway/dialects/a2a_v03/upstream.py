"""Speaking A2A 0.3 to somebody else's agent: 1.0's requests in 0.3's words, and 0.3's answers as 1.0's. Pure.

Renaming ids, carrying errors and judging events is 1.0's (`a2a_v1.upstream`), before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.a2a_v03 import errors, objects, pushes
from gateway.dialects.a2a_v03.objects import JSON, PROTO
from gateway.dialects.a2a_v03.requests import METHODS, VERSION
from gateway.dialects.a2a_v03.stowed import Tree
from gateway.dialects.a2a_v1 import upstream as newer
from gateway.dialects.a2a_v1.upstream import PLAIN, TASKS, Outgoing, carried
from gateway.dialects.paths import segment
from gateway.model.card import JSONRPC, AgentInterface

HEADERS: Mapping[str, str] = {**newer.HEADERS, "a2a-version": VERSION, "accept": "application/json"}
STREAM_HEADERS: Mapping[str, str] = {**newer.STREAM_HEADERS, "a2a-version": VERSION}
_NAMES = {operation: method for method, (operation, _) in METHODS.items()}
_HTTP: dict[str, tuple[str, str]] = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
    "CreateTaskPushNotificationConfig": ("POST", "/tasks/{id}/pushNotificationConfigs"),
}
_BY_ID = frozenset({"GetTask", "CancelTask", "SubscribeToTask", *PLAIN})


def outgoing(
    interface: AgentInterface, operation: str, params: bytes, id: str | None = None, extensions: tuple[str, ...] = ()
) -> Outgoing:
    """`operation` on an interface. `params` are 1.0's JSON parameters without the task id, which is `id`."""
    headers = STREAM_HEADERS if operation in newer.STREAMING else HEADERS
    if extensions:
        headers = {**headers, "x-a2a-extensions": ", ".join(extensions)}
    tree: Tree = orjson.loads(params)
    if interface.protocol_binding == JSONRPC:
        said = pushes.nested({**tree, "id": id}) if operation in PLAIN else written(JSON, tree)
        if id and operation not in PLAIN:
            said["id"] = id
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": _NAMES[operation], "params": said})
        return Outgoing("POST", interface.url, body, headers, operation)
    method, path = _HTTP[operation]
    # Cards give the address with and without the version in it.
    base = interface.url.rstrip("/").removesuffix("/v1") + "/v1"
    url = base + (path if id is None else path.replace("{id}", segment(id)))
    said = pushes.request({**tree, "id": id}) if operation in PLAIN else written(PROTO, tree)
    content = orjson.dumps(said) if method == "POST" else None
    # The text says POST, the proto (and a2a-sdk 0.3) GET.
    return Outgoing(method, url, content, headers, operation, "GET" if operation == "SubscribeToTask" else None)


def written(form: objects.Form, tree: Tree) -> Tree:
    made = dict(tree)
    if "message" in made:
        made["message"] = objects.write_message(form, made["message"])
    if (configuration := made.get("configuration")) is not None:
        configuration = dict(configuration)
        configuration["blocking"] = not configuration.pop("returnImmediately", False)
        made["configuration"] = configuration
    return made


def result(interface: AgentInterface, operation: str, status: int, tree: Any, names: Mapping[str, str]) -> Any:
    """The answer as 1.0's StreamResponse. Raises GatewayError for an error or for what is neither."""
    if interface.protocol_binding == JSONRPC:
        plain = newer.unwrapped(interface, status, tree, names)
        return plain if operation in PLAIN else objects.read_event(JSON, plain)
    if (error := errors.found(status, tree, task=operation in _BY_ID)) is not None:
        raise carried(error, names)
    plain = newer.unwrapped(interface, status, tree, names)
    if operation in PLAIN:
        return plain
    return {"task": objects.read_task(PROTO, plain)} if operation in TASKS else objects.read_event(PROTO, plain)
