"""Push configurations: nested and with several schemes in 0.3, flat and with one in 1.0 (0.3.0 §6.8 to §6.10)."""

from __future__ import annotations

from typing import Any

from gateway.dialects.a2a_v03.stowed import Tree
from gateway.model.errors import invalid

# Of the gateway or of the request around it, not of 0.3's PushNotificationConfig.
_OURS = frozenset({"taskId", "tenant", "protocolVersion"})


def read_config(tree: Any, where: str) -> Any:
    """A PushNotificationConfig in 1.0's shape. Of several schemes the first is used, and all of them are kept.

    Raises INVALID_PARAMS for credentials that go with no scheme.
    """
    if not isinstance(tree, dict):
        return tree
    made = {name: value for name, value in tree.items() if name not in _OURS}
    if not isinstance(authentication := made.get("authentication"), dict):
        return made
    authentication = dict(authentication)
    schemes = authentication.pop("schemes", None)
    if schemes and isinstance(schemes, list):
        authentication["scheme"] = schemes[0]
        if len(schemes) > 1:
            authentication["schemes"] = schemes
    elif schemes or authentication.get("credentials"):
        raise invalid(f"{where}authentication.schemes", "must name at least one scheme to go with the credentials")
    else:
        del made["authentication"]  # nobody is to be authenticated in no way
        return made
    made["authentication"] = authentication
    return made


def write_config(tree: Tree) -> Tree:
    """The PushNotificationConfig in a stored configuration."""
    made = {name: value for name, value in tree.items() if name not in _OURS}
    if (authentication := made.get("authentication")) is not None:
        authentication = dict(authentication)
        scheme = authentication.pop("scheme")
        made["authentication"] = {"schemes": [scheme], **authentication}
    return made


def nested(tree: Tree) -> Tree:
    """TaskPushNotificationConfig as JSON-RPC has it."""
    return {"taskId": tree["taskId"], "pushNotificationConfig": write_config(tree)}


def resource(tree: Tree) -> Tree:
    """And as HTTP+JSON has it: with a resource name."""
    name = f"tasks/{tree['taskId']}/pushNotificationConfigs/{tree['id']}"
    return {"name": name, "pushNotificationConfig": write_config(tree)}


def request(tree: Tree) -> Tree:
    """CreateTaskPushNotificationConfigRequest, whole: a2a-sdk takes no `config` alone, as the proto has it."""
    return {"parent": f"tasks/{tree['taskId']}", "configId": tree["id"], "config": resource(tree)}
