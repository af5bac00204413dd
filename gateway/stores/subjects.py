"""Who is behind the names in the audit log.

People have a right to be forgotten, and a log that forgets proves nothing. So what stands in it is `key:~` or `oauth:~`
and a commitment: HMAC-SHA256 of the name under a random key of that person's own. Key and name lie beside the log.
Once both are gone (`erase`) nobody can say who it was, or prove that it was somebody; the log, its root and every proof
stay as they are. A plain hash would not do: names are few and can be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import sqlite3
from collections.abc import Callable

from gateway.stores.named_sql import SQL

MARK = ":~"
# The others are no people: the machine itself, agents, nobody.
PERSONAL = ("key:", "oauth:")
PERSON = re.compile(r"\b(?:key|oauth):[!-~]*[^\s,.:;]")  # in a sentence
PSEUDONYM = re.compile(r"\b(?:key|oauth):~[0-9a-f]{32}")
MAX_KNOWN = 50_000  # names in memory: 10 MB

_KEY = 32
_COMMITMENT = 16  # bytes that are shown: nobody finds a second name for them, 2^128 is out of reach

Named = Callable[[str], str]
"""What takes one name for another."""


class Subjects:
    """The names as the writer knows them (`writer.Aside`)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, str] = {}
        self._new: list[tuple[str, str, bytes]] = []

    def pseudonym(self, principal: str) -> str:
        """What stands for this principal in the log. A new one is written with the transaction that is open."""
        if not principal.startswith(PERSONAL):
            return principal
        known = self._known.get(principal)
        return known if known is not None else self._find(principal)

    def _find(self, principal: str) -> str:
        if PSEUDONYM.fullmatch(principal):  # no name begins so
            return principal
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
            self._known.update((name, pseudonym) for pseudonym, name, _ in self._new)
        row = self._connection.execute(SQL["subject"], (principal,)).fetchone()
        pseudonym = str(row[0]) if row is not None else self._make(principal)
        self._known[principal] = pseudonym
        return pseudonym

    def _make(self, principal: str) -> str:
        key = os.urandom(_KEY)
        pseudonym = committed(principal, key)
        self._new.append((pseudonym, principal, key))
        return pseudonym

    def finish(self, cursor: sqlite3.Cursor) -> None:
        if self._new:
            cursor.executemany(SQL["put_subject"], self._new)

    def durable(self) -> None:
        self._new.clear()

    def undone(self) -> None:
        for _, name, _ in self._new:
            self._known.pop(name, None)
        self._new.clear()

    def erase(self, cursor: sqlite3.Cursor, principal: str) -> str | None:
        """Forget who it was; the pseudonym that stays. None: nobody is known by that name."""
        row = cursor.execute(SQL["subject"], (principal,)).fetchone()
        if row is None:
            return None
        cursor.execute("PRAGMA secure_delete = ON")  # zeros over what was there
        cursor.execute(SQL["drop_subject"], (row[0],))
        cursor.execute("PRAGMA secure_delete = OFF")
        self._known.pop(principal, None)
        return str(row[0])


def committed(principal: str, key: bytes) -> str:
    """The commitment as it stands in the log. Who is given name and key can check that it is theirs."""
    kind = principal.partition(":")[0]
    return f"{kind}{MARK}{hmac.digest(key, principal.encode(), hashlib.sha256)[:_COMMITMENT].hex()}"


def names(db: sqlite3.Connection) -> Named:
    """Names for pseudonyms, as far as they are still known."""
    found: dict[str, str] = {}

    def named(pseudonym: str) -> str:
        if MARK not in pseudonym:
            return pseudonym
        if pseudonym not in found:
            row = db.execute(SQL["subject_name"], (pseudonym,)).fetchone()
            found[pseudonym] = pseudonym if row is None else str(row[0])
        return found[pseudonym]

    return named


def clients_of(db: sqlite3.Connection, client: str) -> list[str]:
    """The pseudonyms of a client that asks for itself, and maybe some that are somebody else's."""
    return [str(pseudonym) for (pseudonym,) in db.execute(SQL["subjects_ending"], {"end": f"#{client}"})]


def pseudonym_of(db: sqlite3.Connection, principal: str) -> str:
    if not principal.startswith(PERSONAL):
        return principal
    row = db.execute(SQL["subject"], (principal,)).fetchone()
    return principal if row is None else str(row[0])
