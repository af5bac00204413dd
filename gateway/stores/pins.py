"""Approved definitions of MCP servers, in SQLite."""

from __future__ import annotations

import sqlite3

import orjson

from gateway.model.changes import DropPin, PutPin
from gateway.model.rows import PinRecord


def put_pin(cursor: sqlite3.Cursor, change: PutPin) -> None:
    r = change.record
    cursor.execute(
        "INSERT OR REPLACE INTO tool_pin (server, kind, key, hash, tree, approved) VALUES (?, ?, ?, ?, ?, ?)",
        (r.server, r.kind, r.key, r.hash, orjson.dumps(r.tree), r.approved),
    )


def drop_pin(cursor: sqlite3.Cursor, change: DropPin) -> None:
    cursor.execute(
        "DELETE FROM tool_pin WHERE server = ? AND kind = ? AND key = ?", (change.server, change.kind, change.key)
    )


def pins(db: sqlite3.Connection) -> list[PinRecord]:
    rows = db.execute("SELECT server, kind, key, hash, tree, approved FROM tool_pin ORDER BY server, kind, key")
    return [
        PinRecord(server, kind, key, hash, orjson.loads(tree), approved)
        for server, kind, key, hash, tree, approved in rows
    ]
