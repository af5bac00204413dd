"""People and what they have allowed, in memory or in the store's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from gateway.model.changes import EndGrant, PutUser
from gateway.model.people import GrantRecord, Person, UserRecord
from gateway.stores.named_sql import SQL


class MemoryPeople:
    def __init__(self, users: dict[str, UserRecord], grants: dict[str, GrantRecord]) -> None:
        self._users = users
        self._grants = grants

    async def users(self) -> list[UserRecord]:
        return [self._users[name] for name in sorted(self._users)]

    async def put_grant(self, grant: GrantRecord) -> None:
        for id in [id for id, each in self._grants.items() if each.until <= grant.began]:
            del self._grants[id]
        self._grants[grant.id] = grant

    async def grant(self, id: str) -> GrantRecord | None:
        return self._grants.get(id)

    async def rotate(self, id: str, old: bytes, new: bytes) -> bool:
        grant = self._grants.get(id)
        if grant is None or grant.mark != old:
            return False
        self._grants[id] = replace(grant, mark=new)
        return True

    async def grants_of(self, *, subject: str | None = None, client: str | None = None) -> list[GrantRecord]:
        return [
            grant
            for _, grant in sorted(self._grants.items())
            if subject in (None, grant.person.subject) and client in (None, grant.client)
        ]


class SqlitePeople:
    """`submit` runs work in the next transaction, `read` runs a function with a connection of its own (sqlite.py)."""

    def __init__(
        self, submit: Callable[[Callable[[sqlite3.Cursor], Any]], Awaitable[Any]], read: Callable[..., Awaitable[Any]]
    ) -> None:
        self._submit = submit
        self._read = read

    async def users(self) -> list[UserRecord]:
        found: list[UserRecord] = await self._read(_users)
        return found

    async def put_grant(self, grant: GrantRecord) -> None:
        await self._submit(partial(_put_grant, grant))

    async def grant(self, id: str) -> GrantRecord | None:
        found: GrantRecord | None = await self._read(_grant, id)
        return found

    async def rotate(self, id: str, old: bytes, new: bytes) -> bool:
        done: bool = await self._submit(partial(_rotate, id, old, new))
        return done

    async def grants_of(self, *, subject: str | None = None, client: str | None = None) -> list[GrantRecord]:
        found: list[GrantRecord] = await self._read(_grants_of, subject, client)
        return found


def put_user(cursor: sqlite3.Cursor, change: PutUser) -> None:
    user = change.record
    row = (user.name, user.hash, orjson.dumps(user.roles).decode(), user.created, user.removed)
    cursor.execute(SQL["put_user"], row)


def _users(db: sqlite3.Connection) -> list[UserRecord]:
    return [
        UserRecord(name, hash, tuple(orjson.loads(roles)), created, removed)
        for name, hash, roles, created, removed in db.execute(SQL["users"])
    ]


def _put_grant(grant: GrantRecord, cursor: sqlite3.Cursor) -> None:
    cursor.execute(SQL["forget_grants"], (grant.began,))
    about, scopes, subject = grant.person, " ".join(grant.scopes), grant.person.subject
    said = {"roles": about.roles, "name": about.name, "key": grant.key, "tenant": about.tenant}
    person = orjson.dumps(said).decode()
    row = (grant.id, grant.mark, grant.client, subject, person, scopes, grant.audience, grant.began, grant.until)
    cursor.execute(SQL["put_grant"], row)


def _grant(db: sqlite3.Connection, id: str) -> GrantRecord | None:
    row = db.execute(SQL["grant"], (id,)).fetchone()
    return None if row is None else _grant_of(*row)


def _grant_of(*row: Any) -> GrantRecord:
    id, mark, client, subject, about, scopes, audience, began, until = row
    said = orjson.loads(about)
    person = Person(subject, tuple(said["roles"]), said["name"], tenant=said.get("tenant", ""))
    return GrantRecord(id, mark, client, person, tuple(scopes.split()), audience, began, until, said.get("key"))


def _rotate(id: str, old: bytes, new: bytes, cursor: sqlite3.Cursor) -> bool:
    return cursor.execute(SQL["rotate_grant"], (new, id, old)).rowcount == 1


def end_grant(cursor: sqlite3.Cursor, change: EndGrant) -> None:
    cursor.execute(SQL["end_grant"], (change.id,))


def _grants_of(db: sqlite3.Connection, subject: str | None, client: str | None) -> list[GrantRecord]:
    if subject is None and client is None:
        rows = db.execute(SQL["grants"])
    elif subject is None:
        rows = db.execute(SQL["grants_to"], (client,))
    else:
        rows = db.execute(SQL["grants_by"], (subject,))
    return [grant for row in rows if client in (None, (grant := _grant_of(*row)).client)]
