"""The audit record: one row per transaction, one entry per line.

The entries of a transaction are gathered in memory and become one row just before COMMIT: a statement and a cell
for each of them would cost 6 µs a call. A line is the entry's canonical form, byte for byte: it is what is hashed
(`tree.py`), later and elsewhere, so that no caller waits for it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeAlias

import orjson

from gateway.model.audit import AuditEntry, AuditPage, AuditQuery, Stamp, Verdict
from gateway.model.principal import Kind, is_client, subject
from gateway.stores.named_sql import SQL
from gateway.stores.sequence import SqliteSequence
from gateway.stores.subjects import MARK, PERSON, PERSONAL, PSEUDONYM, Named, clients_of, names, pseudonym_of

FORMAT = 2
"""`v` of an entry. In 1 there was no `log_id`, `replica`, `mono`, and of the actor no `iss` and `client`; those of the
first releases have no `v` and other names. An entry keeps the form that it was written in."""

# Entries that the tree has not taken yet are kept as they were written, not read back: what somebody changes in the
# file meanwhile does not get signed. Beyond this many (it takes them every few seconds) memory would grow.
MAX_FRESH = 65_536
# Entries that one page of a search looks at: 30 to 60 ms of a reader.
MAX_LOOK = 20_000

Rows: TypeAlias = list[tuple[int, bytes]]
"""The number of the first entry, and the lines."""


class Place:
    """Where this life of the process writes entries: the log, by its name, and the `replica`. `mono` gives the
    microseconds since it began, and never the same twice: so no entry of it can stand in the log twice."""

    def __init__(self, log: str, replica: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.log = log
        self.replica = replica
        self._clock = clock
        self._began = clock()
        self._last = -1

    def mono(self) -> int:
        now = (self._clock() - self._began) // 1000
        self._last = now = now if now > self._last else self._last + 1
        return now


def name_of(db: sqlite3.Connection, host: str) -> str:
    """What the log is called, by every entry and every checkpoint: `HOST/audit-…`, from its first day on."""
    (name,) = db.execute(SQL["log_name"]).fetchone()
    if name is None:
        db.execute(SQL["name_log"], (f"{host}/audit-{os.urandom(6).hex()}",))
        (name,) = db.execute(SQL["log_name"]).fetchone()
    return str(name)


class AuditLog:
    """The end of the record that `connection` writes. Takes it over: who wrote to it before is refused from now on.
    `replica` is the id of this life of the process; `host` goes into the name of a new log."""

    def __init__(self, connection: sqlite3.Connection, replica: str, host: str) -> None:
        self.name = name_of(connection, host)
        self.place = Place(self.name, replica)
        self._sequence = SqliteSequence(connection)
        self._turn = self._ahead = self._sequence.take_over()  # `_ahead`: with what is not durable yet
        self._lines: list[bytes] = []
        self.began = self._turn.end  # where this life of the process took over
        self._row = b""
        self._fresh: Rows | None = None  # None: read them from the file
        self._taken = self._turn.end
        self.full: Callable[[], None] = _nothing  # called when the tree should take what is there
        self.room = MAX_FRESH

    @property
    def last(self) -> int:
        """The number of the newest entry that is durable; they count from one."""
        return self._turn.end

    def add(self, lines: Iterable[bytes]) -> None:
        """Entries (`line`) of a request that has succeeded."""
        self._lines += lines

    def finish(self) -> None:
        """Raises Deposed."""
        if self._lines:
            self._row = b"\n".join(self._lines)
            self._ahead = self._sequence.append(self._turn, self._row)
        else:
            self._sequence.hold(self._turn)

    def durable(self) -> None:
        if self._lines:
            if self._fresh is not None:
                self._fresh.append((self._turn.end + 1, self._row))
                if self._ahead.end - self._taken > MAX_FRESH:
                    self._fresh = None
            self._turn = self._ahead
            self._lines.clear()
            if self._turn.end - self._taken >= self.room:
                self.full()

    def undone(self) -> None:
        self._ahead = self._turn
        self._lines.clear()

    def take(self, room: int) -> Rows | None:
        """What has become durable since the last time, and `full` is called again `room` entries from now. None: it is
        in the file only."""
        taken, self._fresh, self._taken, self.room = self._fresh, [], self._turn.end, room
        return taken

    def lose(self) -> None:
        """What was taken came to nothing: the next time it is read from the file."""
        self._fresh = None


def _nothing() -> None:
    """Nobody makes a tree of what is written."""


# Entries as bytes.


def line(entry: AuditEntry, place: Place, pseudonym: Named = str) -> bytes:
    """The canonical form (RFC 8785): keys in their order, nothing that is not there, no layout. People stand in it
    under their pseudonyms. Written in the order in which entries are appended: `mono` only grows."""
    who, chain = entry.principal, entry.chain
    tree: dict[str, Any] = {
        "action": entry.verb,
        "actor": _actor(pseudonym(who), chain and tuple(map(pseudonym, chain)), who, chain, entry.client),
        "at": entry.at,
    }
    if entry.cause is not None:
        tree["cause"] = entry.cause
    if entry.change is not None:
        tree["change"] = orjson.Fragment(
            orjson.dumps(_changed(entry.change, partial(_masked, pseudonym)), option=orjson.OPT_SORT_KEYS)
        )
    if entry.correlation is not None:
        tree["correlation"] = entry.correlation
    reason = None if entry.reason is None else _masked(pseudonym, entry.reason)
    tree["decision"] = _decision(entry.verdict, entry.policy, reason, entry.rule)
    tree["log_id"] = place.log
    if entry.marks is not None:
        tree["marks"] = dict(sorted(entry.marks.items()))
    tree["mono"] = place.mono()
    tree["object"] = pseudonym(entry.target)
    tree["outcome"] = entry.outcome
    tree["phase"] = entry.phase
    tree["replica"] = place.replica
    request: dict[str, Any] = {}
    if entry.digest is not None:
        request["digest"] = entry.digest
    request["id"] = entry.request_id
    if entry.length is not None:
        request["length"] = entry.length
    tree["request"] = request
    if entry.task_id is not None:
        tree["task"] = entry.task_id
    tree["tenant"] = entry.tenant
    if entry.trace is not None:
        tree["trace"] = entry.trace
    if entry.upstream_hash is not None:
        tree["upstream"] = {"hash": entry.upstream_hash}
    tree["v"] = FORMAT
    return orjson.dumps(tree)


@lru_cache(maxsize=4096)
def _actor(sub: str, chain: tuple[str, ...], who: str, behalf: tuple[str, ...], client: str | None) -> orjson.Fragment:
    """Who asks and on whose behalf, as they stand in the log and by name. `iss` says that the caller at the outer end
    is who it is: a pseudonym does not tell. A client is a program, and stands there by its id; but one that asks for
    itself by what stands for it as a caller, or its id would tell who that is."""
    if client is not None:
        shown = zip((sub, *chain), (who, *behalf), strict=True)
        client = next((there for there, each in shown if is_client(each, client)), client)
    kind, _, name = (who, *behalf)[-1].partition(":")
    forgotten = name.startswith("~")
    issuer = name.partition("#")[0] if kind == Kind.OAUTH and not forgotten else None
    tree = {"chain": list(chain) or None, "client": client, "iss": issuer, "sub": sub}
    return orjson.Fragment(orjson.dumps({name: each for name, each in tree.items() if each is not None}))


def _changed(tree: Any, other: Named) -> Any:
    """What was changed, with other words for people wherever one is named."""
    if isinstance(tree, dict):
        return {name: _changed(each, other) for name, each in tree.items()}
    if isinstance(tree, list):
        return [_changed(each, other) for each in tree]
    return other(tree) if isinstance(tree, str) else tree


def _masked(pseudonym: Named, text: str) -> str:
    """A name, or a sentence with names in it."""
    if text.startswith(PERSONAL) and " " not in text:
        return pseudonym(text)
    return PERSON.sub(lambda found: pseudonym(found[0]), text)


def _shown(named: Named, text: str) -> str:
    return PSEUDONYM.sub(lambda found: named(found[0]), text) if MARK in text else text


@lru_cache(maxsize=1024)
def _decision(verdict: Verdict, policy: str | None, reason: str | None, rule: str) -> orjson.Fragment:
    tree = {"effect": verdict.value, "policy": policy, "reason": reason, "rule": rule}
    return orjson.Fragment(orjson.dumps({name: each for name, each in tree.items() if each is not None}))


def entry_of(body: bytes, named: Named = str) -> AuditEntry:
    """The entry that a line holds."""
    tree = orjson.loads(body)
    if "v" not in tree:
        return _first_format(tree)
    actor, decision, request = tree["actor"], tree["decision"], tree["request"]
    return AuditEntry(
        at=tree["at"],
        outcome=tree["outcome"],
        phase=tree["phase"],
        principal=named(actor["sub"]),
        request_id=request["id"],
        rule=decision["rule"],
        target=named(tree["object"]),
        tenant=tree["tenant"],
        verb=tree["action"],
        verdict=Verdict(decision["effect"]),
        task_id=tree.get("task"),
        digest=request.get("digest"),
        length=request.get("length"),
        chain=tuple(map(named, actor.get("chain", ()))),
        correlation=tree.get("correlation"),
        cause=tree.get("cause"),
        trace=tree.get("trace"),
        policy=decision.get("policy"),
        reason=None if "reason" not in decision else _shown(named, decision["reason"]),
        upstream_hash=tree.get("upstream", {}).get("hash"),
        change=_changed(tree.get("change"), partial(_shown, named)),
        marks=tree.get("marks"),
        client=_client_of(actor, named),
        stamp=Stamp(tree["log_id"], tree["replica"], tree["mono"]) if "log_id" in tree else None,
    )


def _client_of(actor: dict[str, Any], named: Named) -> str | None:
    client: str | None = actor.get("client")
    if client is None or client not in (actor["sub"], *actor.get("chain", ())):
        return client
    name = named(client)
    return client if name == client else subject(name)


def _first_format(tree: dict[str, Any]) -> AuditEntry:
    behalf = tree.pop("on_behalf_of")
    return AuditEntry(**{**tree, "verdict": Verdict(tree["verdict"])}, chain=() if behalf is None else (behalf,))


# Reading.


def read(db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, AuditEntry]]:
    named = names(db)
    return [(idx, entry_of(body, named)) for idx, body in lines(db, after, limit)]


def lines(db: sqlite3.Connection, after: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """At most `limit` entries after index `after`, each with its index."""
    # A row has at least one entry, so `limit` rows are enough.
    for first, bodies in db.execute(SQL["audit"], (after, limit)):
        for idx, body in enumerate(bodies.split(b"\n"), first):
            if limit <= 0:
                return
            if idx > after:
                limit -= 1
                yield idx, body


def rows_after(db: sqlite3.Connection, after: int, limit: int) -> Rows:
    """At most `limit` rows behind entry `after`."""
    return db.execute(SQL["audit"], (after, limit)).fetchall()


def search(db: sqlite3.Connection, query: AuditQuery) -> AuditPage:
    """One page: at most `query.limit` entries, fewer when many had to be looked at for them."""
    named = names(db)
    if query.principal is not None:  # whoever has an export has pseudonyms only
        query = replace(query, principal=named(query.principal))
    needles = _needles(db, query)
    before = query.before if query.before is not None else _EVER
    found: list[tuple[int, AuditEntry]] = []
    looked = 0
    for first, bodies in db.execute(SQL["audit_backwards"], {"before": before}):
        if all(any(each in bodies for each in needle) for needle in needles):
            for idx, body in reversed(list(enumerate(bodies.split(b"\n"), first))):
                if idx < before and all(any(each in body for each in needle) for needle in needles):
                    entry = entry_of(body, named)
                    if query.matches(entry):
                        found.append((idx, entry))
                        if len(found) == query.limit:
                            return AuditPage(found, idx if idx > 1 else None)
        looked += bodies.count(b"\n") + 1
        if looked >= MAX_LOOK:
            return AuditPage(found, first if first > 1 else None)
    return AuditPage(found, None)


def _needles(db: sqlite3.Connection, query: AuditQuery) -> list[list[bytes]]:
    """What stands in every entry that is wanted: of each of these, one at least."""
    wanted = [*(word for name, word in query.words() if name != "client"), query.principal]
    # Entries of the first releases have names as they are.
    found = [[pseudonym_of(db, word), word] for word in wanted if word is not None]
    if query.client is not None:
        found.append([query.client, *clients_of(db, query.client)])
    return [list(map(orjson.dumps, each)) for each in found]


_EVER = 2**63 - 1
