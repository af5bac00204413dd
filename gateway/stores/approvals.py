"""Approvals, in memory or as rows of SQLite."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import orjson

from gateway.model.approval import (
    Approval,
    ApprovalPage,
    ApprovalQuery,
    ApprovalState,
    Asked,
    Outdated,
    Said,
    Site,
    Terms,
    Word,
    paged,
)
from gateway.model.changes import PutApproval
from gateway.stores import principals
from gateway.stores.named_sql import SQL


class MemoryApprovals:
    """`kept` is the table: id -> approval, written by the store's commits."""

    def __init__(self, kept: dict[str, Approval]) -> None:
        self._kept = kept

    async def open(self) -> list[Approval]:
        found = [each for each in self._kept.values() if each.state.open]
        return sorted(found, key=lambda each: (each.created, each.id))

    async def find(self, id: str) -> Approval | None:
        return self._kept.get(id)

    async def page(self, query: ApprovalQuery) -> ApprovalPage:
        found = sorted(filter(query.matches, self._kept.values()), key=lambda each: each.id, reverse=True)
        return paged(found, query.limit)

    async def targets(self) -> list[str]:
        return sorted({each.asked.target for each in self._kept.values()})

    async def forget(self, before: int, limit: int) -> int:
        over = [id for id, each in self._kept.items() if not each.state.open and each.until < before][:limit]
        for id in over:
            del self._kept[id]
        return len(over)


class SqliteApprovals:
    """`submit` runs work in the next transaction, `read` runs a function with a connection of its own (sqlite.py)."""

    def __init__(
        self, submit: Callable[[Callable[[sqlite3.Cursor], Any]], Awaitable[Any]], read: Callable[..., Awaitable[Any]]
    ) -> None:
        self._submit = submit
        self._read = read

    async def open(self) -> list[Approval]:
        found: list[Approval] = await self._read(_open)
        return found

    async def find(self, id: str) -> Approval | None:
        found: Approval | None = await self._read(_find, id)
        return found

    async def page(self, query: ApprovalQuery) -> ApprovalPage:
        found: ApprovalPage = await self._read(_page, query)
        return found

    async def targets(self) -> list[str]:
        found: list[str] = await self._read(_targets)
        return found

    async def forget(self, before: int, limit: int) -> int:
        gone: int = await self._submit(partial(_forget, before, limit))
        return gone


def put_approval(cursor: sqlite3.Cursor, change: PutApproval) -> None:
    """Raises Outdated."""
    it, doc = change.approval, orjson.dumps(_tree(change.approval))
    if not change.before:
        row = (it.id, it.state.value, it.revision, it.created, doc, it.until, it.tenant, it.owner, it.asked.target)
        cursor.execute(SQL["put_approval"], row)
        return
    moved = (it.state.value, it.revision, doc, it.id, change.before)
    if cursor.execute(SQL["move_approval"], moved).rowcount == 0:
        raise Outdated(f"approval {it.id} is not at revision {change.before}")


def _open(db: sqlite3.Connection) -> list[Approval]:
    return [_approval(row[0]) for row in db.execute(SQL["open_approvals"])]


def _find(db: sqlite3.Connection, id: str) -> Approval | None:
    row = db.execute(SQL["approval"], (id,)).fetchone()
    return None if row is None else _approval(row[0])


def _page(db: sqlite3.Connection, query: ApprovalQuery) -> ApprovalPage:
    asked = {"before": query.before or _END, "tenant": query.tenant, "limit": query.limit + 1}
    found = {id for (id,) in db.execute(SQL["approvals_of"], {**asked, "owner": query.owner})}
    for target in query.targets:
        found.update(id for (id,) in db.execute(SQL["approvals_for"], {**asked, "target": target}))
    newest = (_find(db, id) for id in heapq.nlargest(query.limit + 1, found))
    return paged([each for each in newest if each is not None], query.limit)


def _targets(db: sqlite3.Connection) -> list[str]:
    found, last = list[str](), ""
    while (row := db.execute(SQL["next_approval_target"], (last,)).fetchone())[0] is not None:
        found.append(last := row[0])
    return found


def _forget(before: int, limit: int, cursor: sqlite3.Cursor) -> int:
    return cursor.execute(SQL["forget_approvals"], (before, limit)).rowcount


_END = "~"  # behind every id: those are hexadecimal
_PLAIN = ("id", "digest", "rule", "reason", "created", "until", "revision", "edited", "agent", "held", "request", "why")


def _tree(it: Approval) -> dict[str, Any]:
    asked = it.asked
    return {
        **{name: getattr(it, name) for name in _PLAIN},
        "state": it.state.value,
        "asked": {
            "principal": principals.tree(asked.principal),
            "verb": asked.verb,
            "target": asked.target,
            "arguments": asked.arguments,
            "policy": asked.policy,
            "task": asked.task,
            "ground": asked.ground,
            "site": asked.site,
        },
        "terms": [it.terms.caller, it.terms.persons, it.terms.within_ms, it.terms.rule],
        "words": [_said(word) for word in it.words],
        "approvers": list(it.approvers),
        "tasks": list(it.tasks),
        "page": it.page,
        "sites": [[each.at, list(each.leads), each.hash] for each in it.sites],
    }


def _approval(doc: bytes) -> Approval:
    tree = orjson.loads(doc)
    asked = tree["asked"]
    return Approval(
        **{name: tree[name] for name in _PLAIN},
        state=ApprovalState(tree["state"]),
        asked=Asked(**{**asked, "principal": principals.principal(asked["principal"])}),
        terms=Terms(*tree["terms"]),
        words=tuple(_word(*word) for word in tree["words"]),
        approvers=tuple(tree["approvers"]),
        tasks=tuple(tree["tasks"]),
        page=tree.get("page", ""),
        sites=tuple(Site(at, tuple(leads), hash) for at, leads, hash in tree.get("sites", ())),
    )


def _said(word: Word) -> list[Any]:
    return [word.by, word.said.value, word.at, word.reason, sorted(word.roles), sorted(word.scopes)]


def _word(by: str, said: str, at: int, reason: str, roles: Sequence[str] = (), scopes: Sequence[str] = ()) -> Word:
    return Word(by, Said(said), at, reason, frozenset(roles), frozenset(scopes))
