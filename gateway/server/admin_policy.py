"""The admin API about policy: what holds, why, and reading its file again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.core.governance import Screened, Shaded, Shown
from gateway.core.policy import Explanation, Weighed
from gateway.core.policy.replay import Replayed
from gateway.core.policy.shadow import Flip
from gateway.model.base import timestamp
from gateway.model.errors import invalid
from gateway.model.governance import (
    Cold,
    ExplainPolicy,
    Freeze,
    Frozen,
    ListFrozen,
    ReloadCompliance,
    ReloadPolicy,
    ReplayPolicy,
    ShadePolicy,
    ShowCompliance,
    ShowPolicy,
    Thaw,
)
from gateway.model.principal import Principal
from gateway.server.admin_json import json_answer, json_object, text

_EXPLAINED = ("principal", "action", "target", "arguments", "roles", "for", "at", "scopes")


class AdminPolicy:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, request: Request, who: Principal) -> Response:
        return json_answer(_shown(await self._gateway.handle(ShowPolicy(), who)))

    async def reload(self, request: Request, who: Principal) -> Response:
        return json_answer(_shown(await self._gateway.handle(ReloadPolicy(), who)))

    async def shadow(self, request: Request, who: Principal) -> Response:
        """What the policy that is tried out would have decided otherwise, and how often."""
        return json_answer(_shaded(await self._gateway.handle(ShadePolicy(), who)))

    async def explain(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, *_EXPLAINED)
        arguments = body.get("arguments", {})
        if not isinstance(arguments, dict):
            raise invalid("arguments", "must be an object")
        call = ExplainPolicy(
            text(body, "principal"),
            text(body, "action"),
            text(body, "target"),
            arguments,
            _texts(body, "roles"),
            text(body, "for", required=False),
            _moment(text(body, "at", required=False)),
            _texts(body, "scopes"),
        )
        return json_answer(_explained(await self._gateway.handle(call, who)))

    async def replay(self, request: Request, who: Principal) -> Response:
        """The newest recorded calls under another policy: those that it would have decided otherwise."""
        body = await json_object(request, "text", "name", "last")
        last = body.get("last", 100_000)
        if not isinstance(last, int) or isinstance(last, bool) or last < 1:
            raise invalid("last", "must be a number of entries, at least 1")
        call = ReplayPolicy(text(body, "text"), text(body, "name", required=False) or "policy", last)
        return json_answer(_replayed(await self._gateway.handle(call, who)))

    async def compliance(self, request: Request, who: Principal) -> Response:
        return json_answer(_screened(await self._gateway.handle(ShowCompliance(), who)))

    async def reload_compliance(self, request: Request, who: Principal) -> Response:
        return json_answer(_screened(await self._gateway.handle(ReloadCompliance(), who)))

    async def frozen(self, request: Request, who: Principal) -> Response:
        return json_answer({"frozen": [_frozen(each) for each in await self._gateway.handle(ListFrozen(), who)]})

    async def freeze(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "kind", "name", "reason")
        reason = text(body, "reason", required=False) or ""
        call = Freeze(_kind(text(body, "kind")), text(body, "name"), reason)
        return json_answer(_frozen(await self._gateway.handle(call, who)), 201)

    async def thaw(self, request: Request, who: Principal) -> Response:
        call = Thaw(_kind(request.path_params["kind"]), request.path_params["name"])
        await self._gateway.handle(call, who)
        return Response(status_code=204)


def _texts(body: dict[str, Any], name: str) -> tuple[str, ...]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid(name, "must be a list of texts")
    return tuple(found)


def _kind(word: str) -> Cold:
    try:
        return Cold(word)
    except ValueError:
        raise invalid("kind", f"must be one of {', '.join(Cold)}") from None


def _frozen(frozen: Frozen) -> dict[str, Any]:
    return {
        "kind": frozen.kind,
        "name": frozen.name,
        "by": frozen.by,
        "at": timestamp(frozen.at),
        "reason": frozen.reason,
    }


def _moment(said: str | None) -> int | None:
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        raise invalid("at", "must be a time like 2026-11-26T09:30:00Z") from None
    if found.tzinfo is None:
        raise invalid("at", "must say its time zone, like 2026-11-26T09:30:00Z")
    return int(found.timestamp() * 1000)


def _shown(shown: Shown) -> dict[str, Any]:
    return {
        "hash": shown.hash,
        "file": shown.file,
        "problem": shown.problem,
        "rules": [*shown.rules],
        "limits": [*shown.limits],
        "labels": shown.labels,
        "approvals": shown.approvals,
    }


def _screened(screened: Screened) -> dict[str, Any]:
    return {"file": screened.file, "problem": screened.problem, "rules": [*screened.rules]}


def _shaded(shaded: Shaded) -> dict[str, Any]:
    flips = [_flip(flip, count) for flip, count in shaded.flips.seen.items()]
    return {"file": shaded.file, "problem": shaded.problem, "flips": flips, "leftOut": shaded.flips.left_out}


def _replayed(replayed: Replayed) -> dict[str, Any]:
    flips = [_flip(flip, count) for flip, count in replayed.flips.items()]
    return {"calls": replayed.calls, "same": replayed.same, "unsure": replayed.unsure, "flips": flips}


def _flip(flip: Flip, count: int) -> dict[str, Any]:
    return {
        "principal": flip.principal,
        "action": flip.verb,
        "target": flip.target,
        "verdict": flip.verdict,
        "rule": flip.rule,
        "wouldBe": flip.would_be,
        "byRule": flip.by_rule,
        "count": count,
    }


def _explained(explanation: Explanation) -> dict[str, Any]:
    decision = explanation.decision
    return {
        "verdict": decision.verdict,
        "rule": decision.rule,
        "reason": decision.reason,
        "scopes": [*decision.scopes],
        "policy": decision.policy,
        "inputs": {**explanation.inputs, "at": timestamp(explanation.inputs["at"])},
        "lookedAt": [_weighed(each) for each in explanation.looked_at],
        "change": explanation.change,
        "newRule": explanation.new_rule,
        "approval": explanation.approval,
    }


def _weighed(weighed: Weighed) -> dict[str, Any]:
    return {
        "rule": weighed.rule,
        "where": weighed.where,
        "verdict": weighed.verdict,
        "missing": [*weighed.missing],
    }
