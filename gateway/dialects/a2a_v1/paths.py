"""HTTP+JSON of 1.0: which operation a method and path mean (§11.3)."""

from __future__ import annotations

from gateway.dialects.paths import LAST_TASK_ID, TASK_ID, Table

_CONFIGS = f"/tasks/{TASK_ID}/pushNotificationConfigs"
TABLE = Table(
    ("POST", "/message:send", "SendMessage", ()),
    ("POST", "/message:stream", "SendStreamingMessage", ()),
    ("GET", "/tasks", "ListTasks", ()),
    ("GET", f"/tasks/{TASK_ID}", "GetTask", ("id",)),
    ("POST", f"/tasks/{TASK_ID}:cancel", "CancelTask", ("id",)),
    # The prose says POST, the proto GET; both are served (A2A issue 1574).
    ("POST", f"/tasks/{TASK_ID}:subscribe", "SubscribeToTask", ("id",)),
    ("GET", f"/tasks/{TASK_ID}:subscribe", "SubscribeToTask", ("id",)),
    ("POST", _CONFIGS, "CreateTaskPushNotificationConfig", ("taskId",)),
    ("GET", _CONFIGS, "ListTaskPushNotificationConfigs", ("taskId",)),
    ("GET", f"{_CONFIGS}/{LAST_TASK_ID}", "GetTaskPushNotificationConfig", ("taskId", "id")),
    ("DELETE", f"{_CONFIGS}/{LAST_TASK_ID}", "DeleteTaskPushNotificationConfig", ("taskId", "id")),
    ("GET", "/extendedAgentCard", "GetExtendedAgentCard", ()),
)
match = TABLE.match
