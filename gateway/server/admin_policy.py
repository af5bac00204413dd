"""The admin API about policy: what holds, why, and reading its file again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeAlias, TypedDict

from gateway.core.gateway import Gateway
from gateway.core.governance import Screened, Shaded, Shown
from gateway.core.policy import Explanation, Weighed
from gateway.core.policy.labels import LABELS
from gateway.core.policy.replay import Replayed
from gateway.core.policy.shadow import Flip
from gateway.model.audit import Verdict
from gateway.model.base import timestamp
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
from gateway.server.admin_fields import Field, Wrong, choice, text, texts, tree, whole
from gateway.server.admin_operation import Asked, Moment, Operation, Tree

LAST = 100_000
"""Entries that another policy decides again, where the caller does not say how many."""

Rules: TypeAlias = list[Tree]


class Policy(TypedDict):
    """As a file would have it. `problem` says why a changed file was not taken over."""

    hash: str
    file: str | None
    problem: str | None
    rules: Rules
    limits: list[Tree]
    labels: Tree
    people: Tree
    roles: Tree
    costs: list[Tree]
    approvals: Tree


class Profile(TypedDict):
    """The compliance profile. `problem` says why a changed file was not taken over."""

    file: str | None
    problem: str | None
    rules: Rules


class Otherwise(TypedDict):
    """One kind of decision that would be another, and how often."""

    principal: str
    action: str
    target: str
    verdict: Verdict
    rule: str
    wouldBe: Verdict
    byRule: str
    count: int


class Shadow(TypedDict):
    """`leftOut` kinds were too many to be counted."""

    file: str | None
    problem: str | None
    flips: list[Otherwise]
    leftOut: int


class Replay(TypedDict):
    """`same` calls would be decided alike, `unsure` ones cannot be told."""

    calls: int
    same: int
    unsure: int
    flips: list[Otherwise]


class LookedAt(TypedDict):
    """Nothing `missing` means that the rule holds."""

    rule: str
    where: str
    verdict: Verdict
    missing: list[str]


class Why(TypedDict):
    """`inputs` are what the rules saw. `change` says what would have to be otherwise, `newRule` is a rule that would do
    it. `approval` is for whom it would wait, `limit` the one that refuses it just now though the rules do not."""

    verdict: Verdict
    rule: str
    reason: str
    scopes: list[str]
    policy: str
    inputs: Tree
    lookedAt: list[LookedAt]
    change: str | None
    newRule: Tree | None
    approval: Tree | None
    limit: Tree | None


class Stopped(TypedDict):
    kind: Cold
    name: str
    by: str
    at: Moment
    reason: str


class AllStopped(TypedDict):
    frozen: list[Stopped]


def _labels(sent: Any) -> tuple[str, ...]:
    if not isinstance(sent, list) or not all(isinstance(each, str) and each in LABELS for each in sent):
        raise Wrong(f"must be of {', '.join(sorted(LABELS))}")
    return tuple(sent)


_LABELS = Field(
    "labels",
    "What the conversation has met.",
    {"type": "array", "items": {"enum": sorted(LABELS)}},
    _labels,
    default=(),
)


class AdminPolicy:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        return (*self._of_policy(), *self._of_compliance(), *self._of_frozen())

    def _of_policy(self) -> Iterator[Operation]:
        policy = "/admin/policy"
        question = (
            text("principal", "Who asks: a key's name, agent:NAME, user:NAME, oauth:ISSUER#SUBJECT, local, and so on."),
            text("action", "What they do: `call`, or an action."),
            text("target", "What with: an agent, `server/tool`."),
            tree("arguments", "The arguments of the call.", required=False),
            texts("roles", "The roles that they have."),
            text("for", "On whose behalf an agent asks.", required=False),
            Field("at", "When; now without it.", {"type": ["string", "null"], "format": "date-time"}, _moment),
            texts("scopes", "The scopes of their access token."),
            _LABELS,
        )
        other = (
            text("text", "The other policy, as its file would be."),
            text("name", "What it is called.", required=False, default="policy"),
            whole("last", "How many of the newest entries.", LAST),
        )
        yield Operation("GET", policy, ShowPolicy.verb, "Show the rules that hold", self.show, Policy)
        yield Operation(
            "GET",
            policy + "/shadow",
            ShadePolicy.verb,
            "Show what the policy that is tried out would have decided otherwise",
            self.shadow,
            Shadow,
        )
        yield Operation(
            "POST", policy + ":explain", ExplainPolicy.verb, "Explain a decision", self.explain, Why, body=question
        )
        yield Operation(
            "POST",
            policy + ":replay",
            ReplayPolicy.verb,
            "Decide recorded calls by another policy",
            self.replay,
            Replay,
            body=other,
        )
        yield Operation("POST", policy + ":reload", ReloadPolicy.verb, "Read the policy file now", self.reload, Policy)

    def _of_compliance(self) -> Iterator[Operation]:
        compliance = "/admin/compliance"
        yield Operation(
            "GET", compliance, ShowCompliance.verb, "Show the compliance profile that holds", self.compliance, Profile
        )
        yield Operation(
            "POST",
            compliance + ":reload",
            ReloadCompliance.verb,
            "Read the compliance profile now",
            self.reload_compliance,
            Profile,
        )

    def _of_frozen(self) -> Iterator[Operation]:
        frozen = "/admin/frozen"
        named = (choice("kind", "What is frozen.", Cold), text("name", "The agent's id, or the principal as in rules."))
        fields = (*named, text("reason", "Why, for the record.", required=False, default=""))
        yield Operation("GET", frozen, ListFrozen.verb, "List what is frozen", self.frozen, AllStopped)
        yield Operation(
            "POST", frozen, Freeze.verb, "Freeze an agent or a principal", self.freeze, Stopped, 201, body=fields
        )
        # By a body and not by a path: a name may be a URL.
        yield Operation("POST", frozen + ":thaw", Thaw.verb, "Thaw an agent or a principal", self.thaw, body=named)

    async def show(self, asked: Asked, who: Principal) -> Policy:
        return _shown(await self._gateway.handle(ShowPolicy(), who))

    async def reload(self, asked: Asked, who: Principal) -> Policy:
        return _shown(await self._gateway.handle(ReloadPolicy(), who))

    async def shadow(self, asked: Asked, who: Principal) -> Shadow:
        return _shaded(await self._gateway.handle(ShadePolicy(), who))

    async def explain(self, asked: Asked, who: Principal) -> Why:
        body = asked.body
        call = ExplainPolicy(
            body["principal"],
            body["action"],
            body["target"],
            body["arguments"],
            body["roles"],
            body["for"],
            body["at"],
            body["scopes"],
            body["labels"],
        )
        return _explained(await self._gateway.handle(call, who))

    async def replay(self, asked: Asked, who: Principal) -> Replay:
        call = ReplayPolicy(asked.body["text"], asked.body["name"], asked.body["last"])
        return _replayed(await self._gateway.handle(call, who))

    async def compliance(self, asked: Asked, who: Principal) -> Profile:
        return _screened(await self._gateway.handle(ShowCompliance(), who))

    async def reload_compliance(self, asked: Asked, who: Principal) -> Profile:
        return _screened(await self._gateway.handle(ReloadCompliance(), who))

    async def frozen(self, asked: Asked, who: Principal) -> AllStopped:
        return {"frozen": [_frozen(each) for each in await self._gateway.handle(ListFrozen(), who)]}

    async def freeze(self, asked: Asked, who: Principal) -> Stopped:
        call = Freeze(asked.body["kind"], asked.body["name"], asked.body["reason"])
        return _frozen(await self._gateway.handle(call, who))

    async def thaw(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(Thaw(asked.body["kind"], asked.body["name"]), who)


def _frozen(frozen: Frozen) -> Stopped:
    return {
        "kind": frozen.kind,
        "name": frozen.name,
        "by": frozen.by,
        "at": timestamp(frozen.at),
        "reason": frozen.reason,
    }


def _moment(sent: Any) -> int | None:
    if sent is None:
        return None
    try:
        found = datetime.fromisoformat(sent)
    except (TypeError, ValueError):
        raise Wrong("must be a time like 2026-11-26T09:30:00Z") from None
    if found.tzinfo is None:
        raise Wrong("must say its time zone, like 2026-11-26T09:30:00Z")
    return int(found.timestamp() * 1000)


def _shown(shown: Shown) -> Policy:
    return {
        "hash": shown.hash,
        "file": shown.file,
        "problem": shown.problem,
        "rules": [*shown.rules],
        "limits": [*shown.limits],
        "labels": shown.labels,
        "people": shown.people,
        "roles": shown.roles,
        "costs": [*shown.costs],
        "approvals": shown.approvals,
    }


def _screened(screened: Screened) -> Profile:
    return {"file": screened.file, "problem": screened.problem, "rules": [*screened.rules]}


def _shaded(shaded: Shaded) -> Shadow:
    flips = [_flip(flip, count) for flip, count in shaded.flips.seen.items()]
    return {"file": shaded.file, "problem": shaded.problem, "flips": flips, "leftOut": shaded.flips.left_out}


def _replayed(replayed: Replayed) -> Replay:
    flips = [_flip(flip, count) for flip, count in replayed.flips.items()]
    return {"calls": replayed.calls, "same": replayed.same, "unsure": replayed.unsure, "flips": flips}


def _flip(flip: Flip, count: int) -> Otherwise:
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


def _explained(explanation: Explanation) -> Why:
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
        "limit": explanation.limit,
    }


def _weighed(weighed: Weighed) -> LookedAt:
    return {
        "rule": weighed.rule,
        "where": weighed.where,
        "verdict": weighed.verdict,
        "missing": [*weighed.missing],
    }
