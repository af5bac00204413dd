"""Clients and revoked tokens: a small table each, in memory or in the store's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from gateway.model.clients import ClientRecord, RevokedToken
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
    row = (client.id, client.hash, " ".join(client.scopes), client.created, client.revoked)
    cursor.execute(SQL["put_client"], row)


def _clients(db: sqlite3.Connection) -> list[ClientRecord]:
    return [
        ClientRecord(id, hash, tuple(scopes.split()), created, revoked)
        for id, hash, scopes, created, revoked in db.execute(SQL["clients"])
    ]


def _revoke(token: RevokedToken, now: int, cursor: sqlite3.Cursor) -> None:
    cursor.execute(SQL["forget_revoked"], (now,))
    cursor.execute(SQL["revoke_token"], (token.jti, token.until))


def _revoked(db: sqlite3.Connection) -> list[RevokedToken]:
    return [RevokedToken(*row) for row in db.execute(SQL["revoked_tokens"])]
