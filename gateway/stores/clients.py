"""Clients and revoked tokens: a small table each, in memory or in the store's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from gateway.model.clients import ClientRecord, Origin, RevokedToken
from gateway.stores.named_sql import SQL


class MemoryClients:
    def __init__(self) -> None:
        self._clients: dict[str, ClientRecord] = {}
        self._revoked: dict[str, int] = {}

    async def put(self, client: ClientRecord) -> None:
        self._clients[client.id] = client

    async def all(self) -> list[ClientRecord]:
        return [self._clients[id] for id in sorted(self._clients)]

    async def revoke(self, token: RevokedToken, now: int) -> None:
        self._revoked = {jti: until for jti, until in self._revoked.items() if until > now} | {token.jti: token.until}

    async def revoked(self) -> list[RevokedToken]:
        return [RevokedToken(jti, self._revoked[jti]) for jti in sorted(self._revoked)]


class SqliteClients:
    """`submit` runs work in the next transaction, `read` runs a function with a connection of its own (sqlite.py)."""

    def __init__(
        self, submit: Callable[[Callable[[sqlite3.Cursor], Any]], Awaitable[Any]], read: Callable[..., Awaitable[Any]]
    ) -> None:
        self._submit = submit
        self._read = read

    async def put(self, client: ClientRecord) -> None:
        await self._submit(partial(_put, client))

    async def all(self) -> list[ClientRecord]:
        found: list[ClientRecord] = await self._read(_clients)
        return found

    async def revoke(self, token: RevokedToken, now: int) -> None:
        await self._submit(partial(_revoke, token, now))

    async def revoked(self) -> list[RevokedToken]:
        found: list[RevokedToken] = await self._read(_revoked)
        return found


def _put(client: ClientRecord, cursor: sqlite3.Cursor) -> None:
    about = {"grants": client.grants, "redirects": client.redirects, "name": client.name, "origin": client.origin}
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
    return replace(record, grants=grants, redirects=redirects, name=said["name"], origin=Origin(said["origin"]))


def _revoke(token: RevokedToken, now: int, cursor: sqlite3.Cursor) -> None:
    cursor.execute(SQL["forget_revoked"], (now,))
    cursor.execute(SQL["revoke_token"], (token.jti, token.until))


def _revoked(db: sqlite3.Connection) -> list[RevokedToken]:
    return [RevokedToken(*row) for row in db.execute(SQL["revoked_tokens"])]
