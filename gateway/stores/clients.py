"""Clients and revoked tokens: a small table each, in memory or in the store's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson

from gateway.model.changes import PutClient, RevokeToken
from gateway.model.clients import ClientRecord, Origin, RevokedToken
from gateway.stores.named_sql import SQL


class MemoryClients:
    def __init__(self, clients: dict[str, ClientRecord], revoked: dict[str, int]) -> None:
        self._clients = clients
        self._revoked = revoked

    async def all(self) -> list[ClientRecord]:
        return [self._clients[id] for id in sorted(self._clients)]

    async def revoked(self) -> list[RevokedToken]:
        return [RevokedToken(jti, self._revoked[jti]) for jti in sorted(self._revoked)]


class SqliteClients:
    """`read` runs a function with a connection of its own (sqlite.py)."""

    def __init__(self, read: Callable[..., Awaitable[Any]]) -> None:
        self._read = read

    async def all(self) -> list[ClientRecord]:
        found: list[ClientRecord] = await self._read(_clients)
        return found

    async def revoked(self) -> list[RevokedToken]:
        found: list[RevokedToken] = await self._read(_revoked)
        return found


def put_client(cursor: sqlite3.Cursor, change: PutClient) -> None:
    client = change.record
    about = {
        "grants": client.grants,
        "redirects": client.redirects,
        "name": client.name,
        "origin": client.origin,
        **({} if client.renewed is None else {"renewed": client.renewed}),
    }
    scopes = " ".join(client.scopes)
    row = (client.id, client.hash, scopes, client.created, client.revoked, orjson.dumps(about).decode())
    cursor.execute(SQL["put_client"], row)


def _clients(db: sqlite3.Connection) -> list[ClientRecord]:
    return [_client(*row) for row in db.execute(SQL["clients"])]


def _client(id: str, hash: bytes, scopes: str, created: int, revoked: int | None, about: str) -> ClientRecord:
    record = ClientRecord(id, hash, tuple(scopes.split()), created, revoked)
    said = orjson.loads(about)
    if not said:  # from before clients had more to say
        return record
    grants, redirects = tuple(said["grants"]), tuple(said["redirects"])
    origin, renewed = Origin(said["origin"]), said.get("renewed")
    return replace(record, grants=grants, redirects=redirects, name=said["name"], origin=origin, renewed=renewed)


def revoke_token(cursor: sqlite3.Cursor, change: RevokeToken) -> None:
    cursor.execute(SQL["forget_revoked"], (change.now,))
    cursor.execute(SQL["revoke_token"], (change.token.jti, change.token.until))


def _revoked(db: sqlite3.Connection) -> list[RevokedToken]:
    return [RevokedToken(*row) for row in db.execute(SQL["revoked_tokens"])]
