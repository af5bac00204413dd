"""Parameters of 0.3's methods -> calls: put into 1.0's shape, then decoded where all rules are (0.3.0 §7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from gateway.dialects.a2a_v03 import objects, parts, pushes, words
from gateway.dialects.a2a_v03.objects import JSON, PROTO
from gateway.dialects.a2a_v03.stowed import Tree
from gateway.dialects.a2a_v1 import requests as newer
from gateway.model.call import Call, CreatePushConfig, GetPushConfig, SendMessage
from gateway.model.errors import GatewayError, Reason, Violation, invalid
from gateway.model.push import PushConfig

VERSION = "0.3"
Params: TypeAlias = dict[str, Any]

MAX_CONFIGS = 100  # 0.3 lists without pages; more than any task may have
UNNAMED = "default"  # the id of a configuration that came without one


def _send(params: Params) -> Params:
    message = params.get("message")
    if isinstance(message, dict):
        if (role := message.get("role")) not in JSON.read_roles:
            raise invalid("message.role", f"must be one of {', '.join(JSON.read_roles)}, not {str(role)[:32]!r}")
        _check_parts(message.get("parts"))
    made = {**params, "message": objects.read_message(JSON, message)} if "message" in params else dict(params)
    if (configuration := params.get("configuration")) is not None:
        made["configuration"] = _configuration(configuration)
    return made


def _check_parts(given: Any) -> None:
    """Each part says what it is and holds that (0.3.0 §6.5)."""
    for index, part in enumerate(given[: newer.MAX_LENGTHS["parts"]] if isinstance(given, list) else ()):
        kind = part.get("kind") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in parts.KINDS:
            raise invalid(f"message.parts.{index}.kind", f"must be one of {', '.join(parts.KINDS)}")
        if not isinstance(part.get(kind), parts.KINDS[kind]):
            wanted = "a text" if parts.KINDS[kind] is str else "an object"
            raise invalid(f"message.parts.{index}.{kind}", f"must be {wanted}")


def _configuration(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = dict(tree)
    blocking = made.pop("blocking", None)
    if not isinstance(blocking, bool | None):
        raise invalid("configuration.blocking", "must be true or false")
    made["returnImmediately"] = blocking is False  # not said is: wait (a2a-sdk 0.3 and 1.3 read it so)
    return _with_push(made, "pushNotificationConfig")


def _with_push(configuration: Tree, name: str) -> Tree:
    if (push := configuration.pop(name, None)) is not None:
        configuration["taskPushNotificationConfig"] = pushes.read_config(push, f"configuration.{name}.")
    return configuration


def _set_push(params: Params) -> Params:
    config = params.get("pushNotificationConfig")
    if not isinstance(config, dict):
        raise invalid("pushNotificationConfig", "is required")
    return {**pushes.read_config(config, "pushNotificationConfig."), "taskId": params.get("taskId")}


def _push_id(params: Params) -> Params:
    """Without the configuration's id the first one is meant: 0.3.0 §7.6 takes a TaskIdParams, too."""
    return {"taskId": _task_id(params), "id": params.get("pushNotificationConfigId")}


def _list_push(params: Params) -> Params:
    return {"taskId": _task_id(params), "pageSize": MAX_CONFIGS}


def _task_id(params: Params) -> str:
    id = params.get("id")
    if not isinstance(id, str) or not id:
        raise invalid("id", "is required: the task's id")
    return id


def _same(params: Params) -> Params:
    return params


Converter: TypeAlias = Callable[[Params], Params]
METHODS: dict[str, tuple[str, Converter]] = {
    "message/send": ("SendMessage", _send),
    "message/stream": ("SendStreamingMessage", _send),
    "tasks/get": ("GetTask", _same),
    "tasks/cancel": ("CancelTask", _same),
    "tasks/resubscribe": ("SubscribeToTask", _same),
    "tasks/pushNotificationConfig/set": ("CreateTaskPushNotificationConfig", _set_push),
    "tasks/pushNotificationConfig/get": ("GetTaskPushNotificationConfig", _push_id),
    "tasks/pushNotificationConfig/list": ("ListTaskPushNotificationConfigs", _list_push),
    "tasks/pushNotificationConfig/delete": ("DeleteTaskPushNotificationConfig", _push_id),
    "agent/getAuthenticatedExtendedCard": ("GetExtendedAgentCard", _same),
}
STREAMING = frozenset({"message/stream", "tasks/resubscribe"})


def decode(method: str, params: Params, agent: str, extensions: tuple[str, ...] = ()) -> Call:
    """The call that a JSON-RPC method of 0.3 means. Raises INVALID_PARAMS."""
    name, convert = METHODS[method]
    return _decode(name, convert, params, agent, extensions)


# HTTP+JSON: messages of a2a.proto, under either of a field's two names. The operations are 1.0's (paths.py).


def _send_proto(params: Params) -> Params:
    tree = _camel(params, {"request": "message"})
    made = {**tree, "message": objects.read_message(PROTO, tree.get("message"))}
    if isinstance(given := tree.get("configuration"), dict):
        configuration = _camel(given, _CONFIGURATION_NAMES)
        # In the proto a bool that is not written is false, and false means: do not wait.
        blocking = configuration.pop("blocking", False)
        if not isinstance(blocking, bool):
            raise invalid("configuration.blocking", "must be true or false")
        configuration["returnImmediately"] = not blocking
        if configuration.get("historyLength") == 0:
            del configuration["historyLength"]  # "if 0, the history will be unlimited"
        made["configuration"] = _with_push(configuration, "pushNotification")
    return made


def _create_proto(params: Params) -> Params:
    """The whole request message, or its `config` alone, as `body: "config"` in the proto's annotation has it."""
    tree = _camel(params, _PUSH_NAMES)
    config = tree.get("config", tree)
    config = _camel(config, _PUSH_NAMES) if isinstance(config, dict) else {}
    push = config.get("pushNotificationConfig")
    if not isinstance(push, dict):
        raise invalid("config.pushNotificationConfig", "is required")
    made = pushes.read_config(push, "config.pushNotificationConfig.")
    id = made.get("id") or tree.get("configId")
    return {**made, **({"id": id} if id else {}), "taskId": params["taskId"]}


def _list_proto(params: Params) -> Params:
    """0.3.0 names no parameters here; those of 1.0 are taken, with a state in either version's word."""
    return {**params, "status": words.word(PROTO.read_states, params.get("status"))}


def _list_push_proto(params: Params) -> Params:
    return {"pageSize": MAX_CONFIGS, **params}


_CONFIGURATION_NAMES = {"push_notification": "pushNotification", "pushNotificationConfig": "pushNotification"}
_CONFIGURATION_NAMES |= {"history_length": "historyLength"}
_PUSH_NAMES = {"push_notification_config": "pushNotificationConfig", "config_id": "configId"}
_PROTO: dict[str, Converter] = {
    "SendMessage": _send_proto,
    "SendStreamingMessage": _send_proto,
    "ListTasks": _list_proto,
    "CreateTaskPushNotificationConfig": _create_proto,
    "ListTaskPushNotificationConfigs": _list_push_proto,
}


def decode_proto(operation: str, params: Params, agent: str, extensions: tuple[str, ...] = ()) -> Call:
    """The call that an operation of 0.3's HTTP+JSON means. Raises INVALID_PARAMS."""
    return _decode(operation, _PROTO.get(operation, _same), params, agent, extensions)


def _camel(tree: Tree, names: dict[str, str]) -> Tree:
    return {names.get(name, name): value for name, value in tree.items()}


# Both.


def _older(config: PushConfig) -> PushConfig:
    """0.3 sets or updates (§7.5): what brings no id is always the same one, so that setting it twice leaves one."""
    return config.model_copy(update={"id": config.id or UNNAMED, "protocol_version": VERSION})


# Fields that 0.3 calls otherwise: errors speak of them as the caller knows them.
_OLDER_NAMES = {"taskPushNotificationConfig": "pushNotificationConfig", "ROLE_USER": "user"}


def _decode(operation: str, convert: Converter, params: Params, agent: str, extensions: tuple[str, ...]) -> Call:
    made = convert(params)
    if operation == "GetTaskPushNotificationConfig" and made["id"] is None:
        return GetPushConfig(agent, made["taskId"], "")
    try:
        call = newer.decode(operation, made, agent, extensions)
    except GatewayError as error:
        raise _in_older_words(error) from None
    if isinstance(call, CreatePushConfig):
        return replace(call, config=_older(call.config))
    if isinstance(call, SendMessage) and call.push is not None:
        return replace(call, push=_older(call.push))
    return call


def _in_older_words(error: GatewayError) -> GatewayError:
    if error.reason is not Reason.INVALID_PARAMS:
        return error

    def said(text: str) -> str:
        for newer_name, name in _OLDER_NAMES.items():
            text = text.replace(newer_name, name)
        return text

    found = tuple(Violation(said(each.field), said(each.description)) for each in error.violations)
    return GatewayError(error.reason, said(error.message), metadata=error.metadata, violations=found)
