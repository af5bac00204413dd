"""HTTP+JSON of 0.3: which operation a method and path mean (0.3.0 §3.5.6), as one table. The operations are 1.0's.

Paths are relative to the interface's URL and begin with `/v1`. Both verbs of `:subscribe` are served: the text says
POST, the proto GET.
"""

from __future__ import annotations

from gateway.dialects.paths import LAST_TASK_ID, TASK_ID, Table

PREFIX = "/v1"
_CONFIGS = f"/v1/tasks/{TASK_ID}/pushNotificationConfigs"
TABLE = Table(
    ("POST", "/v1/message:send", "SendMessage", ()),
    ("POST", "/v1/message:stream", "SendStreamingMessage", ()),
    ("GET", "/v1/tasks", "ListTasks", ()),
    ("GET", f"/v1/tasks/{TASK_ID}", "GetTask", ("id",)),
    ("POST", f"/v1/tasks/{TASK_ID}:cancel", "CancelTask", ("id",)),
    ("POST", f"/v1/tasks/{TASK_ID}:subscribe", "SubscribeToTask", ("id",)),
    ("GET", f"/v1/tasks/{TASK_ID}:subscribe", "SubscribeToTask", ("id",)),
    ("POST", _CONFIGS, "CreateTaskPushNotificationConfig", ("taskId",)),
    ("GET", _CONFIGS, "ListTaskPushNotificationConfigs", ("taskId",)),
    ("GET", f"{_CONFIGS}/{LAST_TASK_ID}", "GetTaskPushNotificationConfig", ("taskId", "id")),
    ("DELETE", f"{_CONFIGS}/{LAST_TASK_ID}", "DeleteTaskPushNotificationConfig", ("taskId", "id")),
    ("GET", "/v1/card", "GetExtendedAgentCard", ()),
)

match = TABLE.match
