"""HTTP+JSON: which operation a method and path mean (§11.3), as one table.

Paths are relative to the interface's base URL and percent-decoded. A parameter never contains `/`, and a task id
never contains `:` (that is where the verb begins), so `/tasks/x:cancel` cannot be read as a task named `x:cancel`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    """`name` is the JSON-RPC method name; `ids` the parameters that the path gives."""

    name: str
    ids: dict[str, str]


_ID = r"([^/:]+)"
_LAST_ID = r"([^/]+)"  # a configuration's id is its client's choice, and no verb follows it
_TABLE: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("POST", "/message:send", "SendMessage", ()),
    ("POST", "/message:stream", "SendStreamingMessage", ()),
    ("GET", "/tasks", "ListTasks", ()),
    ("GET", f"/tasks/{_ID}", "GetTask", ("id",)),
    ("POST", f"/tasks/{_ID}:cancel", "CancelTask", ("id",)),
    # The prose says POST, the proto GET; both are served (A2A issue 1574).
    ("POST", f"/tasks/{_ID}:subscribe", "SubscribeToTask", ("id",)),
    ("GET", f"/tasks/{_ID}:subscribe", "SubscribeToTask", ("id",)),
    ("POST", f"/tasks/{_ID}/pushNotificationConfigs", "CreateTaskPushNotificationConfig", ("taskId",)),
    ("GET", f"/tasks/{_ID}/pushNotificationConfigs", "ListTaskPushNotificationConfigs", ("taskId",)),
    ("GET", f"/tasks/{_ID}/pushNotificationConfigs/{_LAST_ID}", "GetTaskPushNotificationConfig", ("taskId", "id")),
    (
        "DELETE",
        f"/tasks/{_ID}/pushNotificationConfigs/{_LAST_ID}",
        "DeleteTaskPushNotificationConfig",
        ("taskId", "id"),
    ),
    ("GET", "/extendedAgentCard", "GetExtendedAgentCard", ()),
)
_EXACT = {(verb, path): Operation(name, {}) for verb, path, name, ids in _TABLE if not ids}
_PATTERNS = tuple((verb, re.compile(path), name, ids) for verb, path, name, ids in _TABLE if ids)
_FIXED = frozenset(path for _, path, _, ids in _TABLE if not ids)


def match(verb: str, path: str) -> Operation | frozenset[str] | None:
    """The operation; or, when only the verb is wrong, the verbs that would be right; or None."""
    if (exact := _EXACT.get((verb, path))) is not None:
        return exact
    allowed = {known for known, fixed in _EXACT if fixed == path} if path in _FIXED else set()
    for known, pattern, name, ids in _PATTERNS:
        if (found := pattern.fullmatch(path)) is not None:
            if known == verb:
                return Operation(name, dict(zip(ids, found.groups(), strict=True)))
            allowed.add(known)
    return frozenset(allowed) or None
