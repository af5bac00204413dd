"""Push configurations and the outbox as rows of SQLite: what waits for webhooks, what is due, what was given up."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import orjson

from gateway.model.push import PushConfig
from gateway.model.rows import DeadDelivery, Delivery, PushQueue
from gateway.stores.named_sql import SQL
from gateway.stores.rows import Row, split_bodies


def push_config(db: sqlite3.Connection, tenant: str, task_id: str, id: str) -> PushConfig | None:
    row = db.execute(SQL["push_config"], (tenant, task_id, id)).fetchone()
    return None if row is None else _push_config(row)


def push_configs(db: sqlite3.Connection, tenant: str, task_id: str, after: str, limit: int) -> list[PushConfig]:
    return [_push_config(row) for row in db.execute(SQL["push_configs"], (tenant, task_id, after, limit))]


def _push_config(row: Row) -> PushConfig:
    return PushConfig.model_validate(orjson.loads(row[0]))


@dataclass(frozen=True, slots=True)
class Taking:
    """One look for what is due; see `Store.due`."""

    now: int
    limit: int
    lease_ms: int
    per_host: int
    busy: Mapping[str, int]
    silent: Collection[str]

    def lease(self, cursor: sqlite3.Cursor) -> list[Row]:
        room = {host: self.per_host - taken for host, taken in self.busy.items()}
        leased: list[Row] = []
        while (wanted := self.limit - len(leased)) > 0:
            full = [host for host, left in room.items() if left <= 0]
            found = self._look(cursor, full, wanted)
            taken = [row for row in found if self._admit(room, row[-1])]
            cursor.executemany(SQL["lease_delivery"], [(self.now + self.lease_ms, *row[:4]) for row in taken])
            leased += taken
            if len(taken) == len(found):
                break  # else a host is full now: the next look passes over it
        return leased

    def _look(self, cursor: sqlite3.Cursor, full: list[str], wanted: int) -> list[Row]:
        but = _none("host", full) + _none("owner", self.silent)
        return cursor.execute(SQL["due"].format(but=but), (self.now, *full, *self.silent, wanted)).fetchall()

    def _admit(self, room: dict[str, int], host: str) -> bool:
        left = room.setdefault(host, self.per_host)
        room[host] = left - 1
        return left > 0


def _none(column: str, values: Collection[str]) -> str:
    return f" AND {column} NOT IN ({', '.join('?' * len(values))})" if values else ""


def deliveries(db: sqlite3.Connection, leased: list[Row]) -> list[Delivery]:
    """What the leased outbox rows stand for; rows whose configuration has just been deleted are left out."""
    found = (_delivery(db, *row) for row in leased)
    return [delivery for delivery in found if delivery is not None]


def _delivery(
    db: sqlite3.Connection,
    tenant: str,
    task_id: str,
    config_id: str,
    seq: int,
    attempts: int,
    queued: int,
    owner: str,
    host: str,
) -> Delivery | None:
    config = push_config(db, tenant, task_id, config_id)
    group = db.execute(SQL["event_group"], (tenant, task_id, seq)).fetchone()
    if config is None or group is None:
        return None
    return Delivery(tenant, task_id, owner, config, seq, dict(split_bodies(*group))[seq], attempts, queued)


def queues(db: sqlite3.Connection, limit: int, tenant: str | None, owner: str | None) -> list[PushQueue]:
    values = {"limit": limit, "tenant": tenant, "owner": owner}
    return [PushQueue(*row) for row in db.execute(SQL["queues"], values)]


def dead(
    db: sqlite3.Connection, after: int, limit: int, tenant: str | None, owner: str | None, id: int | None
) -> list[DeadDelivery]:
    values = {"after": after, "limit": limit, "tenant": tenant, "owner": owner, "id": id}
    return [DeadDelivery(*row) for row in db.execute(SQL["dead"], values)]
