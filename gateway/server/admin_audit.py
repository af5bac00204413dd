"""The audit log over the admin API: a page, one entry, and entries as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.core.gateway import Gateway
from gateway.core.replay import Replayed
from gateway.dialects.sse import COMMENT, frame
from gateway.model.audit import AuditEntry, AuditPage, AuditQuery
from gateway.model.base import milliseconds, timestamp
from gateway.model.call import EraseSubject, ReadAudit, ReplayTask, RotateAuditKey, RotateVaultKey
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Principal
from gateway.server.admin_json import json_answer, json_bytes, json_object, text
from gateway.server.request import STREAM_HEADERS

MAX_PAGE = 1_000  # entries of one answer: 600 KB
LOOK_SECONDS = 1.0  # between looks for new entries
COMMENTS = 15  # looks without news before a sign of life

_WORDS = {
    "actor": "principal",
    "action": "verb",
    "object": "target",
    "outcome": "outcome",
    "effect": "verdict",
    "rule": "rule",
    "task": "task_id",
    "request": "request_id",
    "correlation": "correlation",
}

# What a page of it may be asked by.
FILTERS = ("before", "limit", "since", "until", *_WORDS)


class AdminAudit:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def page(self, request: Request, who: Principal) -> Response:
        page = await self._gateway.handle(ReadAudit(_query(request)), who)
        before = None if page.before is None else page.before - 1
        return json_answer({"entries": [shown(number, entry) for number, entry in page.entries], "before": before})

    async def entry(self, request: Request, who: Principal) -> Response:
        index = _number(request.path_params["index"], "index")
        page: AuditPage = await self._gateway.handle(ReadAudit(AuditQuery(1, before=index + 2)), who)
        for number, entry in page.entries:
            if number == index + 1:
                return json_answer(shown(number, entry))
        raise GatewayError(Reason.NOT_FOUND, f"There is no entry {index}")

    async def replay(self, request: Request, who: Principal) -> Response:
        """A task as it was, and the events that led there."""
        asked = dict(request.query_params)
        seq = _number(asked["event"], "event") if "event" in asked else None
        at = _time(asked["at"], "at") if "at" in asked else None
        past: Replayed = await self._gateway.handle(ReplayTask(request.path_params["id"], seq, at), who)
        events = [
            {"event": each.seq, "time": timestamp(each.at) if each.at else None, "body": orjson.Fragment(each.body)}
            for each in past.events
        ]
        task = orjson.Fragment(past.task.wire())
        return json_answer({"agent": past.agent, "task": task, "events": events, "later": past.later})

    async def erase(self, request: Request, who: Principal) -> Response:
        principal = text(await json_object(request, "principal"), "principal")
        return json_answer({"pseudonym": await self._gateway.handle(EraseSubject(principal), who)})

    async def rotate(self, request: Request, who: Principal) -> Response:
        return json_answer({"keys": await self._gateway.handle(RotateAuditKey(), who)})

    async def rotate_vault(self, request: Request, who: Principal) -> Response:
        return json_answer({"sealed": await self._gateway.handle(RotateVaultKey(), who)})

    async def watch(self, request: Request, who: Principal) -> Response:
        """The newest entries, then each as it is written. Reading is recorded once, when it begins."""
        query = _query(request)
        page: AuditPage = await self._gateway.handle(ReadAudit(query), who)
        last = await self._gateway.auditing.end()
        headers = {name.decode(): value.decode() for name, value in STREAM_HEADERS}
        return StreamingResponse(self._frames(query, page, last), headers=headers)

    async def _frames(self, query: AuditQuery, page: AuditPage, last: int) -> AsyncIterator[bytes]:
        quiet = 0
        for number, entry in reversed(page.entries):
            yield frame(json_bytes(shown(number, entry)))
            last = max(last, number)
        while not await self._drained():
            fresh = await self._gateway.auditing.after(last, MAX_PAGE)
            last = fresh[-1][0] if fresh else last
            quiet = 0 if fresh else quiet + 1
            for number, entry in fresh:
                if query.matches(entry):
                    yield frame(json_bytes(shown(number, entry)))
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


def shown(number: int, entry: AuditEntry) -> dict[str, Any]:
    """An entry as the API shows it; what is not there is left out. `index` counts from zero, like leaves of a tree."""
    tree = {
        "index": number - 1,
        "time": timestamp(entry.at),
        "action": entry.verb,
        "actor": entry.principal,
        "chain": list(entry.chain) or None,
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
    }
    return {name: value for name, value in tree.items() if value is not None}


def _query(request: Request) -> AuditQuery:
    asked = dict(request.query_params)
    limit = _number(asked.pop("limit", "50"), "limit")
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("limit", f"must be 1 to {MAX_PAGE}")
    before = asked.pop("before", None)
    times: dict[str, Any] = {name: _time(asked.pop(name), name) for name in ("since", "until") if name in asked}
    words: dict[str, Any] = {_WORDS[name]: value for name, value in asked.items()}
    return AuditQuery(limit, None if before is None else _number(before, "before") + 1, **words, **times)


def _number(word: str, name: str) -> int:
    if not word.isascii() or not word.isdecimal() or len(word) > 15:
        raise invalid(name, "must be a number")
    return int(word)


def _time(word: str, name: str) -> int:
    if word.isascii() and word.isdecimal() and len(word) <= 15:
        return int(word)
    moment = milliseconds(word)
    if moment is None:
        raise invalid(name, "must be a time, for example 2026-11-21T08:00:00Z, or milliseconds")
    return moment
