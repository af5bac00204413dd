"""The routes of ACP 0.2, below `/acp`: those of its OpenAPI document and of acp-sdk's server."""

from __future__ import annotations

from gateway.dialects.paths import LAST_TASK_ID, Table

PREFIX = "/acp"
_ID = r"([^/]+)"
TABLE = Table(
    ("GET", "/ping", "ping", ()),
    ("GET", "/agents", "agents", ()),
    ("GET", f"/agents/{_ID}", "agent", ("id",)),
    ("POST", "/runs", "create", ()),
    ("GET", f"/runs/{_ID}", "run", ("id",)),
    ("POST", f"/runs/{_ID}", "resume", ("id",)),
    ("POST", f"/runs/{_ID}/cancel", "cancel", ("id",)),
    ("GET", f"/runs/{_ID}/events", "events", ("id",)),
    # The document says `session`, the server and every client `sessions`.
    ("GET", f"/sessions/{_ID}", "session", ("id",)),
    ("GET", f"/session/{_ID}", "session", ("id",)),
    ("GET", f"/resources/{LAST_TASK_ID}", "resource", ("id",)),
)
match = TABLE.match
