"""Cards of remote agents as they came, in SQLite."""

from __future__ import annotations

import sqlite3

import orjson

from gateway.model.changes import DropCards, PutCard
from gateway.model.provenance import CardRecord, Finding, Standing


def put_card(cursor: sqlite3.Cursor, change: PutCard) -> None:
    r = change.record
    cursor.execute(
        "INSERT OR REPLACE INTO card (agent, card_url, source, fetched, body, verdict, findings, changed, changes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(r.agent, r.card_url, r.source, r.fetched, r.body, r.verdict),
            *(orjson.dumps(r.findings), r.changed, orjson.dumps(r.changes)),
        ),
    )


def drop_cards(cursor: sqlite3.Cursor, change: DropCards) -> None:
    cursor.execute("DELETE FROM card WHERE agent = ?", (change.agent,))


def cards(db: sqlite3.Connection) -> list[CardRecord]:
    rows = db.execute(
        "SELECT agent, card_url, source, fetched, body, verdict, findings, changed, changes FROM card "
        "ORDER BY agent, card_url"
    )
    return [
        CardRecord(
            *(agent, card_url, source, fetched, body, Standing(verdict)),
            tuple(_finding(**each) for each in orjson.loads(findings)),
            changed,
            tuple(orjson.loads(changes)),
        )
        for agent, card_url, source, fetched, body, verdict, findings, changed, changes in rows
    ]


def _finding(verdict: str, **rest: str | None) -> Finding:
    return Finding(Standing(verdict), **rest)  # type: ignore[arg-type]
