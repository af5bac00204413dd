"""The audit log over the admin API: a page, one entry, and entries as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NotRequired, TypedDict, cast

import orjson
from starlette.responses import Response, StreamingResponse

from gateway.core.gateway import Gateway
from gateway.core.replay import Replayed
from gateway.dialects.sse import COMMENT, frame
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery, Verdict
from gateway.model.base import timestamp
from gateway.model.call import ReplayTask
from gateway.model.errors import GatewayError, Reason
from gateway.model.operation import EraseSubject, ReadAudit, RotateAuditKey, RotateVaultKey
from gateway.model.principal import Principal
from gateway.server.admin_fields import Field, moment, number, text, word
from gateway.server.admin_operation import Asked, Events, Moment, Operation, Tree, json_bytes
from gateway.server.request import STREAM_HEADERS

MAX_PAGE = 1_000  # entries of one answer: 600 KB
LOOK_SECONDS = 1.0  # between looks for new entries
COMMENTS = 15  # looks without news before a sign of life

_WORDS = {
    "actor": "principal",
    "client": "client",
    "action": "verb",
    "object": "target",
    "outcome": "outcome",
    "effect": "verdict",
    "rule": "rule",
    "task": "task_id",
    "request": "request_id",
    "correlation": "correlation",
}


class Entry(TypedDict):
    """`index` counts from zero, like leaves of a tree. What is not there is left out."""

    index: int
    time: Moment
    action: str
    actor: str
    chain: NotRequired[list[str]]
    client: NotRequired[str]
    tenant: NotRequired[str]
    object: str
    phase: str
    outcome: str
    effect: Verdict
    rule: str
    policy: NotRequired[str]
    reason: NotRequired[str]
    task: NotRequired[str]
    request: str
    correlation: NotRequired[str]
    cause: NotRequired[str]
    trace: NotRequired[str]
    digest: NotRequired[str]
    length: NotRequired[int]
    upstreamHash: NotRequired[str]
    change: NotRequired[Tree]
    marks: NotRequired[dict[str, str]]
    log: NotRequired[str]
    replica: NotRequired[str]
    mono: NotRequired[int]


class Page(TypedDict):
    """The newest first. `before`, given back as that parameter, is where the next page begins."""

    entries: list[Entry]
    before: int | None


class Event(TypedDict):
    event: int
    time: Moment | None
    body: Tree


class Past(TypedDict):
    """A task as it was after the last of `events`; `later` more have come since."""

    agent: str
    task: Tree
    events: list[Event]
    later: int


class Pseudonym(TypedDict):
    pseudonym: str


class VerifierKeys(TypedDict):
    keys: list[str]


class Sealed(TypedDict):
    """How many files were sealed anew."""

    sealed: int


class AdminAudit:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        audit = "/admin/audit"
        index = number("index", "The entry's number, from zero.")
        past = (
            number("event", "The number of the last event that counts."),
            moment("at", "The time up to which events count."),
        )
        erased = text("principal", "Who: a key's name as `key:ann`, or another principal's id.")
        return (
            Operation("GET", audit, ReadAudit.verb, "Read the audit log", self.page, Page, query=_filters()),
            Operation(
                "GET",
                audit + ":watch",
                ReadAudit.verb,
                "Follow the audit log: its newest entries, then each as it is written",
                self.watch,
                Events(Entry),
                query=_filters(),
                id="WatchAudit",
            ),
            Operation(
                "POST",
                audit + ":rotate-key",
                RotateAuditKey.verb,
                "Let new keys sign the log",
                self.rotate,
                VerifierKeys,
            ),
            Operation(
                "POST",
                "/admin/vault:rotate-key",
                RotateVaultKey.verb,
                "Seal what is kept of others' authorizations with a new key",
                self.rotate_vault,
                Sealed,
            ),
            Operation(
                "POST",
                audit + ":erase",
                EraseSubject.verb,
                "Forget who somebody in the log was",
                self.erase,
                Pseudonym,
                body=(erased,),
            ),
            Operation(
                "GET",
                audit + "/{index}",
                ReadAudit.verb,
                "Show an entry of the audit log",
                self.entry,
                Entry,
                words=(index,),
                id="ReadAuditEntry",
            ),
            Operation(
                "GET",
                "/admin/tasks/{id}:replay",
                ReplayTask.verb,
                "Show any task as it was, with the events that led there",
                self.replay,
                Past,
                query=past,
            ),
        )

    async def page(self, asked: Asked, who: Principal) -> Page:
        page: AuditPage = await self._gateway.handle(ReadAudit(_query(asked)), who)
        before = None if page.before is None else page.before - 1
        return {"entries": [shown(place, entry) for place, entry in page.entries], "before": before}

    async def entry(self, asked: Asked, who: Principal) -> Entry:
        index = asked.path["index"]
        page: AuditPage = await self._gateway.handle(ReadAudit(AuditQuery(1, before=index + 2)), who)
        for place, entry in page.entries:
            if place == index + 1:
                return shown(place, entry)
        raise GatewayError(Reason.NOT_FOUND, f"There is no entry {index}")

    async def replay(self, asked: Asked, who: Principal) -> Past:
        call = ReplayTask(asked.path["id"], asked.query["event"], asked.query["at"])
        past: Replayed = await self._gateway.handle(call, who)
        events: list[Event] = [
            {"event": each.seq, "time": timestamp(each.at) if each.at else None, "body": orjson.Fragment(each.body)}
            for each in past.events
        ]
        task = orjson.Fragment(past.task.wire())
        return {"agent": past.agent, "task": task, "events": events, "later": past.later}

    async def erase(self, asked: Asked, who: Principal) -> Pseudonym:
        return {"pseudonym": await self._gateway.handle(EraseSubject(asked.body["principal"]), who)}

    async def rotate(self, asked: Asked, who: Principal) -> VerifierKeys:
        return {"keys": await self._gateway.handle(RotateAuditKey(), who)}

    async def rotate_vault(self, asked: Asked, who: Principal) -> Sealed:
        return {"sealed": await self._gateway.handle(RotateVaultKey(), who)}

    async def watch(self, asked: Asked, who: Principal) -> Response:
        """The newest entries, then each as it is written. Reading is recorded once, when it begins."""
        query = _query(asked)
        last = await self._gateway.auditing.end()  # first: what is written meanwhile is on the page, or comes after it
        page: AuditPage = await self._gateway.handle(ReadAudit(query), who)
        headers = {name.decode(): value.decode() for name, value in STREAM_HEADERS}
        return StreamingResponse(self._frames(query, page, last), headers=headers)

    async def _frames(self, query: AuditQuery, page: AuditPage, last: int) -> AsyncIterator[bytes]:
        quiet = 0
        for place, entry in reversed(page.entries):
            yield frame(json_bytes(shown(place, entry)))
            last = max(last, place)
        while not await self._drained():
            fresh = await self._gateway.auditing.after(last, MAX_PAGE)
            last = fresh[-1][0] if fresh else last
            quiet = 0 if fresh else quiet + 1
            for place, entry in fresh:
                if query.matches(entry):
                    yield frame(json_bytes(shown(place, entry)))
            if quiet == COMMENTS:
                yield COMMENT
                quiet = 0

    async def _drained(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._gateway.draining.wait()
        except TimeoutError:
            return False
        return True


def shown(place: int, entry: AuditEntry) -> Entry:
    stamp = entry.stamp
    tree: dict[str, Any] = {
        "index": place - 1,
        "time": timestamp(entry.at),
        "action": entry.verb,
        "actor": entry.principal,
        "chain": list(entry.chain) or None,
        "client": entry.client,
        "tenant": entry.tenant or None,
        "object": entry.target,
        "phase": entry.phase,
        "outcome": entry.outcome,
        "effect": entry.verdict,
        "rule": entry.rule,
        "policy": entry.policy,
        "reason": entry.reason,
        "task": entry.task_id,
        "request": entry.request_id,
        "correlation": entry.correlation,
        "cause": entry.cause,
        "trace": entry.trace,
        "digest": entry.digest,
        "length": entry.length,
        "upstreamHash": entry.upstream_hash,
        "change": entry.change,
        "marks": entry.marks,
        "log": None if stamp is None else stamp.log,
        "replica": None if stamp is None else stamp.replica,
        "mono": None if stamp is None else stamp.mono,
    }
    return cast(Entry, {name: value for name, value in tree.items() if value is not None})


def _filters() -> tuple[Field, ...]:
    """What a page of it may be asked by."""
    return (
        number("before", "The index before which the page ends."),
        number("limit", "Entries of one answer.", 50, least=1, most=MAX_PAGE),
        moment("since", "The time from which on."),
        moment("until", "The time up to which."),
        *(word(name, f"Only entries whose `{name}` is this.") for name in _WORDS),
    )


def _query(asked: Asked) -> AuditQuery:
    query = asked.query
    words = {field: query[name] for name, field in _WORDS.items()}
    before = None if query["before"] is None else query["before"] + 1
    return AuditQuery(query["limit"], before, since=query["since"], until=query["until"], **words)
