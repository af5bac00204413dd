"""Speaking A2A 1.0 to somebody else's agent: requests as bytes, answers as events under our ids. Pure.

An agent's task and context ids are unique only there; everything that comes in is renamed to ours before it is
validated, and what goes out carries the agent's own. To the agent all our callers are one, so message ids, which are
unique per caller only, are made unique on the way out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2s
from typing import Any, Protocol, TypeAlias

import orjson
from pydantic import ValidationError

from gateway.dialects.a2a_v1.errors import read_error
from gateway.dialects.paths import segment
from gateway.model.card import JSONRPC, VERSION, AgentInterface
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.task import EVENTS, Event
from gateway.model.value import value

HEADERS: Mapping[str, str] = {
    "content-type": "application/json",
    "accept": "application/json, application/a2a+json",
    "a2a-version": VERSION,
}
STREAM_HEADERS: Mapping[str, str] = {**HEADERS, "accept": "text/event-stream, application/json"}
STREAMING = frozenset({"SendStreamingMessage", "SubscribeToTask"})

MAX_PARTS = 1000  # in one message or artifact of an event: as many as we take from a caller
PLENTY = 3 * MAX_PARTS  # bytes; in less there is no room for more parts, and nobody counts them

# Reasons that mean to our caller what they meant to us. Any other is between the gateway and the agent: a caller
# can do nothing about an upstream's 401 or parse error, and must not take it for ours.
CARRIED = frozenset(
    {
        Reason.TASK_NOT_FOUND,
        Reason.TASK_NOT_CANCELABLE,
        Reason.UNSUPPORTED_OPERATION,
        Reason.CONTENT_TYPE_NOT_SUPPORTED,
        Reason.EXTENSION_SUPPORT_REQUIRED,
        Reason.INVALID_PARAMS,
        Reason.OVERLOADED,
        Reason.UNAVAILABLE,
    }
)

_HTTP: dict[str, tuple[str, str]] = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
    "CreateTaskPushNotificationConfig": ("POST", "/tasks/{id}/pushNotificationConfigs"),
}


@value
class Outgoing:
    """One HTTP request."""

    method: str
    url: str
    body: bytes | None
    headers: Mapping[str, str]
    operation: str  # 1.0's name of it
    other_method: str | None = None  # to be tried where this one is not served (405)


class Wire(Protocol):
    """What a revision has to give so that its agents can be called. This module is one."""

    def outgoing(
        self,
        interface: AgentInterface,
        operation: str,
        params: bytes,
        id: str | None = None,
        extensions: tuple[str, ...] = (),
    ) -> Outgoing: ...

    def result(
        self, interface: AgentInterface, operation: str, status: int, tree: Any, names: Mapping[str, str]
    ) -> Any: ...


def outgoing(
    interface: AgentInterface, operation: str, params: bytes, id: str | None = None, extensions: tuple[str, ...] = ()
) -> Outgoing:
    """`operation` on an interface. `params` are the JSON parameters without the task id, which is `id`."""
    headers = STREAM_HEADERS if operation in STREAMING else HEADERS
    if extensions:
        headers = {**headers, "a2a-extensions": ", ".join(extensions)}
    if interface.protocol_binding == JSONRPC:
        whole = _with(params, id=id, tenant=interface.tenant)
        body = b'{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}' % (operation.encode(), whole)
        return Outgoing("POST", interface.url, body, headers, operation)
    method, path = _HTTP[operation]
    base = interface.url.rstrip("/") + (f"/{segment(interface.tenant)}" if interface.tenant else "")
    url = base + (path if id is None else path.replace("{id}", segment(id)))
    return Outgoing(method, url, params if method == "POST" else None, headers, operation)


def _with(params: bytes, **members: str | None) -> bytes:
    """A JSON object with further members, as far as they are given."""
    given = [b'"%s":%s' % (name.encode(), orjson.dumps(value)) for name, value in members.items() if value]
    return params if not given else b"{%s}" % b",".join([*given, params[1:-1]] if params != b"{}" else given)


def message_params(
    message: Message,
    *,
    ours: str,
    task_id: str | None,
    context_id: str | None,
    accepted_output_modes: tuple[str, ...] = (),
    metadata: dict[str, Any] | None = None,
) -> bytes:
    """Parameters of SendMessage and SendStreamingMessage; `ours` is our task's id, which is not shown.

    Always `returnImmediately`: the waiting is ours, so that no idle timeout on the way can end it, and the agent's
    task id is known (and stored) from the start.
    """
    update = {"message_id": unique(message.message_id, ours), "task_id": task_id, "context_id": context_id}
    sent = message.model_copy(update=update)
    sent.__pydantic_fields_set__.difference_update(name for name, value in update.items() if value is None)
    more = b',"acceptedOutputModes":' + orjson.dumps(accepted_output_modes) if accepted_output_modes else b""
    body = b'{"message":%s,"configuration":{"returnImmediately":true%s}' % (sent.wire(), more)
    if metadata:
        body += b',"metadata":' + orjson.dumps(metadata)
    return body + b"}"


def unique(message_id: str, ours: str) -> str:
    """A message's id for the agent, to which all our callers are one; `ours` is our task's id, which is not shown."""
    return f"{message_id[:200]}-{blake2s(ours.encode(), digest_size=12).hexdigest()}"


def push_params(task_id: str, url: str, secret: str) -> bytes:
    """Parameters of CreateTaskPushNotificationConfig, where `task_id` (the agent's) is the configuration's id too: to
    make it twice leaves one. The secret comes back in whichever of the two ways the agent knows."""
    bearer = {"scheme": "Bearer", "credentials": secret}
    return orjson.dumps({"taskId": task_id, "url": url, "token": secret, "authentication": bearer})


# Their result is no event, and nobody looks at it.
PLAIN = frozenset({"CreateTaskPushNotificationConfig"})
# Their result is a bare task.
TASKS = frozenset({"GetTask", "CancelTask"})


def result(interface: AgentInterface, operation: str, status: int, tree: Any, names: Mapping[str, str]) -> Any:
    """The StreamResponse in an answer of either binding. Raises GatewayError for an error or for what is neither.

    `names` are the agent's own ids with ours for them: an error may speak of them.
    """
    plain = unwrapped(interface, status, tree, names)
    return {"task": plain} if operation in TASKS else plain


def unwrapped(interface: AgentInterface, status: int, tree: Any, names: Mapping[str, str]) -> Any:
    """The result as it stands in the answer."""
    if not isinstance(tree, dict):
        raise _nonsense("answered with something that is not an object")
    error = tree.get("error")
    if error is not None:
        raise carried(error, names)
    if interface.protocol_binding == JSONRPC:
        if tree.get("jsonrpc") != "2.0" or tree.get("id") != 1 or "result" not in tree:
            raise _nonsense("did not answer with a JSON-RPC 2.0 response to our request")
        return tree["result"]
    if status >= 400:
        raise GatewayError(Reason.UPSTREAM_FAILED, f"The agent answered with status {status}")
    return tree


@value
class Named:
    """An event under our ids, and the ids that the agent gave."""

    event: Event
    task_id: str | None
    context_id: str | None


def event(tree: Any, *, task_id: str, context_id: str, size: int = PLENTY) -> Named:
    """A StreamResponse or SendMessageResponse of the agent, renamed. `size` is the bytes that it came in.
    Raises INVALID_AGENT_RESPONSE."""
    if not isinstance(tree, dict):
        raise _nonsense("sent an event that is not an object")
    kind = next((kind for kind in _NAMES if kind in tree), None)
    if kind is None:
        raise _nonsense("sent an event without task, message, statusUpdate or artifactUpdate")
    holder = tree[kind]
    theirs = _NAMES[kind](holder, task_id, context_id) if isinstance(holder, dict) else (None, None)
    if size >= PLENTY and _most_parts(holder) > MAX_PARTS:
        raise _nonsense(f"sent an event with more than {MAX_PARTS} parts in one place")
    try:
        return Named(EVENTS[kind].model_validate(holder), *theirs)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _nonsense(f"sent an invalid event: {where}: {first['msg']}") from None


def _most_parts(holder: Any) -> int:
    """The longest `parts` of an event, before any of them becomes a value."""
    if not isinstance(holder, dict):
        return 0
    holders = [holder, holder.get("artifact"), _message_of(holder)]
    holders += [*_list(holder.get("artifacts")), *_list(holder.get("history"))]
    return max(len(_list(each.get("parts"))) for each in holders if isinstance(each, dict))


# What the agent calls its task and context; in their places stand ours afterwards.
Theirs: TypeAlias = tuple[str | None, str | None]


def _name_update(update: dict[str, Any], task_id: str, context_id: str) -> Theirs:
    theirs = _take(update, "taskId", "task_id"), _take(update, "contextId", "context_id")
    update["taskId"], update["contextId"] = task_id, context_id
    _rename_message(_message_of(update), task_id, context_id)
    return theirs


def _name_task(task: dict[str, Any], task_id: str, context_id: str) -> Theirs:
    theirs = _text(task.get("id")), _take(task, "contextId", "context_id")
    task["id"], task["contextId"] = task_id, context_id
    for message in (*_list(task.get("history")), _message_of(task)):
        _rename_message(message, task_id, context_id)
    return theirs


def _name_reply(message: dict[str, Any], task_id: str, context_id: str) -> Theirs:
    theirs = None, _take(message, "contextId", "context_id")
    _rename_message(message, task_id, context_id)
    del message["taskId"]  # it leaves no task
    return theirs


# The one kind that an event is taken for, should it claim to be several.
_NAMES: Mapping[str, Callable[[dict[str, Any], str, str], Theirs]] = {
    "artifactUpdate": _name_update,
    "statusUpdate": _name_update,
    "message": _name_reply,
    "task": _name_task,
}


def _rename_message(message: Any, task_id: str, context_id: str) -> None:
    if isinstance(message, dict):
        for name in ("task_id", "context_id", "referenceTaskIds", "reference_task_ids"):
            message.pop(name, None)
        message["taskId"], message["contextId"] = task_id, context_id


def _take(holder: dict[str, Any], name: str, proto_name: str) -> str | None:
    """The value under either of a field's two names (ProtoJSON); neither is left."""
    return _text(holder.pop(name, None)) or _text(holder.pop(proto_name, None))


def _message_of(holder: dict[str, Any]) -> Any:
    status = holder.get("status")
    return status.get("message") if isinstance(status, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def carried(error: Any, names: Mapping[str, str]) -> GatewayError:
    """An agent's error object as ours: by its reason, with our ids for its own."""
    reason, message, metadata = read_error(error)
    for theirs, ours in names.items():
        message = re.sub(rf"(?<![\w-]){re.escape(theirs)}(?![\w-])", ours, message)
    if reason in CARRIED:
        assert reason is not None
        shown = {
            name: names.get(value, value)
            for name, value in metadata.items()
            if name not in ("taskId", "contextId") or value in names
        }
        return GatewayError(reason, message[:500] or reason.value, metadata=shown)
    said = f": {message}" if message else ""
    return GatewayError(Reason.UPSTREAM_FAILED, f"The agent refused the call{said}"[:500])


def _nonsense(what: str) -> GatewayError:
    return GatewayError(Reason.INVALID_AGENT_RESPONSE, f"The agent {what}")
