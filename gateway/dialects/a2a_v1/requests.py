"""Parameters of the eleven operations -> calls. One decoder per method; the table below is the dialect.

The shapes are those of `a2a.proto`; both bindings decode through them, so a rule is written once. Unknown fields
are ignored (§5.7), but stay in the message that is passed on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar

import orjson
from pydantic import BeforeValidator, Field, ValidationError

from gateway.dialects.lookalikes import Members
from gateway.dialects.standard_webhooks import MAX_SECRET_BYTES, MIN_SECRET_BYTES, BadSecret, secret
from gateway.model.base import Model, milliseconds
from gateway.model.call import (
    Call,
    CancelTask,
    CreatePushConfig,
    DeletePushConfig,
    GetExtendedCard,
    GetPushConfig,
    GetTask,
    ListPushConfigs,
    ListTasks,
    SendMessage,
    SubscribeToTask,
)
from gateway.model.errors import GatewayError, Reason, Violation, invalid
from gateway.model.message import Message, Part, Role
from gateway.model.push import PushAuthentication, PushConfig
from gateway.model.task import TaskState

Params: TypeAlias = dict[str, Any]


def _number(value: Any) -> Any:
    """ProtoJSON's integers: numbers, or texts of them; `true` is not 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


def _truth(value: Any) -> Any:
    """ProtoJSON's bool: `true` and `false`, as the words in a query; neither 1 nor "yes"."""
    known = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(known, bool):
        raise ValueError("Input should be true or false")
    return known


Number: TypeAlias = Annotated[int, BeforeValidator(_number)]
Truth: TypeAlias = Annotated[bool, BeforeValidator(_truth)]
# ProtoJSON's int32. A history is never longer than its task, so the upper bound of the type is bound enough.
Int32 = Annotated[Number, Field(ge=0, le=2**31 - 1)]
M = TypeVar("M", bound=Model)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_FIELD_VALUE = re.compile(r"[!-~]([ -~]{0,8190}[!-~])?")  # RFC 9110 §5.5; 8 KiB is what servers take

CONTENT = frozenset({"text", "raw", "url", "data"})
_OPTIONAL = frozenset(
    name
    for model in (Message, Part, PushConfig, PushAuthentication)
    for name, field in model.model_fields.items()
    if not field.is_required() and name != "data"
)


_OLDER = frozenset({"kind", "file", "content"})  # of messages and parts in 0.3, whose agents get the same
_FILE = Members(("bytes", "uri", "fileWithBytes", "fileWithUri", "mimeType", "name"))  # of a part there

# So many elements make sense in a message, and hardly cost anything.
MAX_LENGTHS = {"parts": 1000, "extensions": 64, "referenceTaskIds": 64, "reference_task_ids": 64}
MAX_MODES = 64  # media types that a caller may ask for; a real client names a handful


class _Configuration(Model):
    accepted_output_modes: Annotated[tuple[str, ...], Field(max_length=MAX_MODES)] | None = None
    task_push_notification_config: PushConfig | None = None
    history_length: Int32 | None = None
    return_immediately: Truth | None = None


_PLAIN = _Configuration()


class _Send(Model):
    message: Message
    configuration: _Configuration | None = None
    metadata: dict[str, Any] | None = None


class _TaskId(Model):
    id: str = Field(min_length=1)
    history_length: Int32 | None = None
    metadata: dict[str, Any] | None = None


class _List(Model):
    context_id: str | None = None
    status: str | None = None
    page_size: Annotated[Number, Field(ge=1, le=100)] | None = None
    page_token: str | None = None
    history_length: Int32 | None = None
    status_timestamp_after: str | None = None
    include_artifacts: Truth | None = None


def list_tasks() -> dict[str, dict[str, Any]]:
    """The parameters of ListTasks as they are written in JSON and in a query, each with its schema."""
    bounds = {"ge": "minimum", "le": "maximum"}
    found = {}
    for name, said in _List.model_json_schema()["properties"].items():
        schema = next(each for each in said["anyOf"] if each != {"type": "null"})
        found[name] = {bounds.get(word, word): value for word, value in schema.items()}
    return found | {"status": {"type": "string", "enum": [state.value for state in TaskState]}}


class _PushId(Model):
    task_id: str = Field(min_length=1)
    id: str = Field(min_length=1)


class _PushList(Model):
    task_id: str = Field(min_length=1)
    page_size: Annotated[Number, Field(ge=0, le=100)] | None = None
    page_token: str | None = None


def _send(agent: str, params: Params, extensions: tuple[str, ...], *, stream: bool = False) -> SendMessage:
    _check_lengths(params.get("message"))
    request = _read(_Send, params)
    _tidy(request.message, "message")
    for index, part in enumerate(request.message.parts):
        _tidy(part, f"message.parts.{index}")
    _check_parts(request.message)
    configuration = request.configuration or _PLAIN
    push = configuration.task_push_notification_config
    if push is not None:
        _check_push(push, _IN_MESSAGE)
        if push.task_id:
            raise invalid(f"{_IN_MESSAGE}taskId", "must be empty: the task is made by this call")
    said = canonical(params["message"])
    return SendMessage(
        agent=agent,
        message=request.message,
        digest=hashlib.sha256(said).digest(),
        size=len(said),
        return_immediately=bool(configuration.return_immediately),
        history_length=configuration.history_length,
        accepted_output_modes=configuration.accepted_output_modes or (),
        push=push,
        metadata=request.metadata,
        extensions=extensions,
        stream=stream,
    )


def _stream(agent: str, params: Params, extensions: tuple[str, ...]) -> SendMessage:
    return _send(agent, params, extensions, stream=True)


def _get(agent: str, params: Params, extensions: tuple[str, ...]) -> GetTask:
    request = _read(_TaskId, params)
    return GetTask(agent, request.id, request.history_length)


def _list(agent: str, params: Params, extensions: tuple[str, ...]) -> ListTasks:
    request = _read(_List, params)
    since = None
    if request.status_timestamp_after:
        since = milliseconds(request.status_timestamp_after)
        if since is None:
            raise invalid("statusTimestampAfter", "must be an RFC 3339 timestamp such as 2026-11-21T08:00:00.000Z")
    return ListTasks(
        agent,
        context_id=request.context_id or None,
        status=_state(request.status),
        page_size=request.page_size or 50,
        page_token=request.page_token or "",
        history_length=request.history_length,
        status_timestamp_after=since,
        include_artifacts=bool(request.include_artifacts),
    )


def _cancel(agent: str, params: Params, extensions: tuple[str, ...]) -> CancelTask:
    request = _read(_TaskId, params)
    return CancelTask(agent, request.id, request.metadata)


def _subscribe(agent: str, params: Params, extensions: tuple[str, ...]) -> SubscribeToTask:
    return SubscribeToTask(agent, _read(_TaskId, params).id)


def _create_push(agent: str, params: Params, extensions: tuple[str, ...]) -> CreatePushConfig:
    config = _read(PushConfig, params)
    if not config.task_id:
        raise invalid("taskId", "is required")
    _check_push(config)
    return CreatePushConfig(agent, config.task_id, config)


def _get_push(agent: str, params: Params, extensions: tuple[str, ...]) -> GetPushConfig:
    request = _read(_PushId, params)
    return GetPushConfig(agent, request.task_id, request.id)


def _list_push(agent: str, params: Params, extensions: tuple[str, ...]) -> ListPushConfigs:
    request = _read(_PushList, params)
    return ListPushConfigs(agent, request.task_id, request.page_size or 50, request.page_token or "")


def _delete_push(agent: str, params: Params, extensions: tuple[str, ...]) -> DeletePushConfig:
    request = _read(_PushId, params)
    return DeletePushConfig(agent, request.task_id, request.id)


def _extended_card(agent: str, params: Params, extensions: tuple[str, ...]) -> GetExtendedCard:
    return GetExtendedCard(agent)


DECODE: dict[str, Callable[[str, Params, tuple[str, ...]], Call]] = {
    "SendMessage": _send,
    "SendStreamingMessage": _stream,
    "GetTask": _get,
    "ListTasks": _list,
    "CancelTask": _cancel,
    "SubscribeToTask": _subscribe,
    "CreateTaskPushNotificationConfig": _create_push,
    "GetTaskPushNotificationConfig": _get_push,
    "ListTaskPushNotificationConfigs": _list_push,
    "DeleteTaskPushNotificationConfig": _delete_push,
    "GetExtendedAgentCard": _extended_card,
}
STREAMING = frozenset({"SendStreamingMessage", "SubscribeToTask"})


def decode(method: str, params: Params, agent: str, extensions: tuple[str, ...] = ()) -> Call:
    """The call that `method` with `params` means on the endpoint of `agent`.

    Raises GatewayError: METHOD_NOT_FOUND, or INVALID_PARAMS with a violation per wrong field.
    """
    decoder = DECODE.get(method)
    if decoder is None:
        raise GatewayError(Reason.METHOD_NOT_FOUND, "There is no such method in A2A 1.0")
    return decoder(agent, params, extensions)


def canonical(message: Any) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_SORT_KEYS)


def violations(error: ValidationError) -> tuple[Violation, ...]:
    """Where and what, without echoing the caller's values."""
    return tuple(
        Violation(".".join(str(step) for step in problem["loc"]) or "params", problem["msg"])
        for problem in error.errors(include_url=False, include_input=False, include_context=False)[:20]
    )


def _read(shape: type[M], params: Params) -> M:
    try:
        return shape.model_validate(params)
    except ValidationError as error:
        found = violations(error)
        sentence = "; ".join(f"{violation.field}: {violation.description}" for violation in found[:3])
        raise GatewayError(Reason.INVALID_PARAMS, sentence, violations=found) from None


def _tidy(value: Model, where: str) -> None:
    """ProtoJSON: null is "not given", and what was not given is not written (model/base.py). Only in `data`, which
    is any JSON, it is a value. A field under both of its names is given twice."""
    # The plain attributes: pydantic's properties for them are measurable at this place.
    given, fields = value.__pydantic_fields_set__, value.__dict__
    if nulls := [name for name in given if name in _OPTIONAL and fields[name] is None]:
        given.difference_update(nulls)
    if extra := value.__pydantic_extra__:
        if not extra.keys().isdisjoint(type(value).model_fields):
            raise invalid(where or "params", "has a field under both of its names")
        check_members(type(value), extra, f"{where}." if where else "")


def check_members(shape: type[Model], unknown: Params, where: str) -> None:
    """What is passed on without being known must not read like what is. Raises INVALID_PARAMS."""
    _members(shape).check(unknown, where)
    if isinstance(file := unknown.get("file"), dict):
        _FILE.check(file, f"{where}file.")


@cache
def _members(shape: type[Model]) -> Members:
    aliases = {field.alias for field in shape.model_fields.values() if field.alias}
    return Members({*shape.model_fields, *aliases, *_OLDER})


def _check_lengths(message: Any) -> None:
    """Before the message becomes values: a mebibyte of empty parts would be a hundred of them."""
    if not isinstance(message, dict):
        return
    for name in message.keys() & MAX_LENGTHS.keys():
        given, most = message[name], MAX_LENGTHS[name]
        if isinstance(given, list) and len(given) > most:
            raise invalid(f"message.{name}", f"has more than {most} elements")


def _check_parts(message: Message) -> None:
    if message.role is not Role.USER:
        # A caller must not put words into the agent's mouth: history would show them as its own (§4.1.5).
        raise invalid("message.role", "must be ROLE_USER in a message to an agent")
    if not message.parts:
        raise invalid("message.parts", "must have at least one part")
    for index, part in enumerate(message.parts):
        if len(CONTENT & part.__pydantic_fields_set__) != 1:
            raise invalid(f"message.parts.{index}", "must have exactly one of text, raw, url, data")
        if part.raw is not None:
            _check_base64(index, part)


_IN_MESSAGE = "configuration.taskPushNotificationConfig."


def _check_push(config: PushConfig, where: str = "") -> None:
    """What is to stand in a header of the delivery must be able to."""
    _tidy(config, where[:-1])
    if config.protocol_version is not None:
        # Ours, and so an unknown field of the caller's, which is ignored (§5.7).
        config.__pydantic_fields_set__.discard("protocol_version")
        config.__dict__["protocol_version"] = None
    if config.token and not _FIELD_VALUE.fullmatch(config.token):
        raise invalid(f"{where}token", "must be visible ASCII characters")
    try:
        secret(config.token)
    except BadSecret as error:
        what = f"{error}; after whsec_ come {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in base64"
        raise invalid(f"{where}token", what) from None
    if (authentication := config.authentication) is None:
        return
    _tidy(authentication, f"{where}authentication")
    if not _TOKEN.fullmatch(authentication.scheme):
        raise invalid(f"{where}authentication.scheme", "must be the name of an HTTP authentication scheme")
    if authentication.credentials and not _FIELD_VALUE.fullmatch(authentication.credentials):
        raise invalid(f"{where}authentication.credentials", "must be visible ASCII characters")


def _check_base64(index: int, part: Part) -> None:
    # ProtoJSON takes both alphabets, padded or not.
    text = (part.raw or "").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise invalid(f"message.parts.{index}.raw", "is not base64") from None


def _state(status: str | None) -> TaskState | None:
    if not status or status == "TASK_STATE_UNSPECIFIED":
        return None
    try:
        return TaskState(status)
    except ValueError:
        raise invalid("status", f"must be one of {', '.join(TaskState)}") from None
