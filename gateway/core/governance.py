"""Use cases about policy itself: what holds, why somebody may or may not, and reading the file again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gateway.core.act import Act, Standing
from gateway.core.audit import Ticket
from gateway.core.freezer import Freezer
from gateway.core.policy import Explanation, Target, address
from gateway.core.policy.actions import AGENT_VERBS, SERVER_VERBS, VERBS, WAITING
from gateway.core.policy.admission import Admission
from gateway.core.policy.approvers import approvers
from gateway.core.policy.book import Book
from gateway.core.policy.interceptors import PAUSED
from gateway.core.policy.labels import RULE as RULE_OF_TWO
from gateway.core.policy.labels import shown as labels_shown
from gateway.core.policy.patterns import AGENTS
from gateway.core.policy.replay import Replayed, replay
from gateway.core.policy.shadow import Flips
from gateway.core.registry import Registry
from gateway.core.standing import frozen, standing
from gateway.core.tools.servers import Servers
from gateway.model.approval import Terms
from gateway.model.audit import AuditEntry, AuditQuery, Verdict
from gateway.model.errors import GatewayError, Reason, invalid
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
from gateway.model.ports import Store
from gateway.model.principal import Kind, Principal
from gateway.model.tool import digest
from gateway.model.value import value
from gateway.model.whom import named

_HELD_BACK = {
    PAUSED: "leave it out of `approvals` in the policy file",
    RULE_OF_TWO: "ask in a conversation without these labels",
}
PAGE = 1_000  # entries of the record that are read at once
MAX_REPLAYED = 1_000_000  # entries; at 20 µs each the gateway is busy with it for 20 s, others in between


class Source(Protocol):
    """Where rules come from. `problem` says why the file, as it is now, was not taken over."""

    problem: str | None
    people: Mapping[str, Any]  # of the file, as it has them, and the next
    roles: Mapping[str, Any]

    @property
    def file(self) -> str | None: ...

    def book(self, text: str, name: str) -> Book:
        """The rules that another file would make. Raises INVALID_REQUEST with what is wrong with it."""
        ...

    async def reload(self) -> None:
        """Raises INVALID_REQUEST with what is wrong with the file."""
        ...


class Screen(Protocol):
    """Where the compliance profile comes from. `problem` says why the file, as it is now, was not taken over."""

    problem: str | None
    rules: tuple[Mapping[str, Any], ...]

    @property
    def file(self) -> str: ...

    def reload(self) -> None:
        """Raises INVALID_REQUEST with what is wrong with the file."""
        ...


@value
class Screened:
    """What must pass, as the file has it."""

    file: str | None
    problem: str | None
    rules: tuple[Mapping[str, Any], ...]


@value
class Shown:
    """The rules that hold, in their order and as a file would have them."""

    hash: str
    file: str | None
    problem: str | None
    rules: tuple[Mapping[str, Any], ...]
    limits: tuple[Mapping[str, Any], ...]
    labels: Mapping[str, Any]
    people: Mapping[str, Any]
    roles: Mapping[str, Any]
    costs: tuple[Mapping[str, Any], ...]
    approvals: Mapping[str, Any]


@value
class Shaded:
    """The file of the policy that is tried out, and where it would decide otherwise."""

    file: str | None
    problem: str | None
    flips: Flips


class Governance:
    """The first of `sources` is the policy's own; a second one is the shadow's."""

    def __init__(
        self,
        admission: Admission,
        registry: Registry,
        servers: Servers,
        freezer: Freezer,
        store: Store,
        sources: Sequence[Source] = (),
        screen: Screen | None = None,
    ) -> None:
        self._admission = admission
        self._policy = admission.policy
        self._store = store
        self._registry = registry
        self._servers = servers
        self._freezer = freezer
        self._sources = sources
        self._screen = screen

    async def show(self, call: ShowPolicy, ticket: Ticket, entry: None) -> Shown:
        rules = tuple(each for ruling in self._policy.rules for each in ruling.shown())
        source = self._sources[0] if self._sources else None
        return Shown(
            self._policy.hash,
            None if source is None else source.file,
            None if source is None else source.problem,
            rules,
            tuple(self._admission.limits.shown()),
            labels_shown(self._admission.labels),
            {} if source is None else source.people,
            {} if source is None else source.roles,
            tuple(self._admission.limits.costs()),
            {} if self._admission.interceptors.pauses is None else self._admission.interceptors.pauses.source,
        )

    async def shade(self, call: ShadePolicy, ticket: Ticket, entry: None) -> Shaded:
        shadow = self._policy.shadow
        if shadow is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "No policy is tried out; policy.shadow names its file")
        return Shaded(self._sources[1].file, self._sources[1].problem, shadow.flips)

    async def explain(self, call: ExplainPolicy, ticket: Ticket, entry: None) -> Explanation:
        who = _principal(call)
        verb, target = self.question(call.action, call.target)
        situation = replace(self._policy.situation(), labels=frozenset(call.labels))
        if call.at is not None:
            situation = replace(situation, at=call.at)
        found = self._policy.explain(who, verb, target, call.arguments, situation)
        if verb not in WAITING:
            return self._with_limit(found, who, verb, target)
        decision = self._admission.held_back(found.decision, who, verb, target, situation)
        if decision is not found.decision:
            change = _HELD_BACK[decision.rule]
            found = replace(found, decision=decision, change=f"{change}, or have it approved each time", new_rule=None)
        if decision.verdict is Verdict.ESCALATE:
            return self._with_approval(found, verb, target)
        return self._with_limit(found, who, verb, target)

    def _with_limit(self, found: Explanation, who: Principal, verb: str, target: Target) -> Explanation:
        """With what stops it although the rules do not."""
        refusal = self._admission.limits.refusal(who, verb, target) if found.decision.allowed else None
        if refusal is None:
            return found
        name, wait = refusal.metadata["limit"], refusal.retry_after
        change = f"change the limit {name}" if wait is None else f"ask in {wait:g} s, or change the limit {name}"
        limit = {"limit": name, "reason": refusal.message, "retryAfter": wait}
        return replace(found, change=change, limit=limit)

    def _with_approval(self, found: Explanation, verb: str, target: Target) -> Explanation:
        """Of a call that waits: for whom, and how long."""
        decision = found.decision
        terms = decision.terms or Terms()
        approval = {
            "approvers": list(approvers(self._policy.rules, address(verb, target))),
            "byCaller": terms.caller,
            "needed": terms.persons,
            "withinSeconds": terms.within_ms // 1000,
        }
        return replace(found, approval=approval)

    async def reload(self, call: ReloadPolicy, act: Act, entry: None) -> Shown:
        named = [source for source in self._sources if source.file is not None]
        if not named:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "No policy file is configured; policy.file names one")
        act.before = {"policy": {"policy": self._policy.hash}}
        await act.begin()
        for source in named:
            await source.reload()
        await act.ended("ok", {"policy": {"policy": self._policy.hash}})
        return await self.show(ShowPolicy(), act.ticket, entry)

    async def replay(self, call: ReplayPolicy, ticket: Ticket, entry: None) -> Replayed:
        """The newest entries of the record, under other rules."""
        if not self._sources:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This gateway reads no policy files")
        book = await asyncio.to_thread(self._sources[0].book, call.text, call.name)
        return await replay(book.rules, self._recorded(min(call.last, MAX_REPLAYED)), self._was)

    async def _recorded(self, last: int) -> AsyncIterator[AuditEntry]:
        newest = await self._store.search_audit(AuditQuery(1))
        after = max(0, newest.entries[0][0] - last) if newest.entries else 0
        while page := await self._store.audit(after, PAGE):
            for _, recorded in page:
                yield recorded
            after = page[-1][0]

    def _was(self, verb: str, id: str) -> Target:
        if verb in AGENT_VERBS:
            return self._agent(id)
        served = self._servers.get(id.partition("/")[0])
        if verb in SERVER_VERBS and served is not None:
            return served.question(verb, id.partition("/")[2])[1]
        return Target(id)

    async def show_compliance(self, call: ShowCompliance, ticket: Ticket, entry: None) -> Screened:
        screen = self._screen
        return Screened(None, None, ()) if screen is None else Screened(screen.file, screen.problem, screen.rules)

    async def reload_compliance(self, call: ReloadCompliance, act: Act, entry: None) -> Screened:
        if self._screen is None:
            message = "No compliance profile is configured; compliance.file names one"
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, message)
        act.before = _profile(self._screen)
        await act.begin()
        self._screen.reload()
        await act.ended("ok", _profile(self._screen))
        return await self.show_compliance(ShowCompliance(), act.ticket, entry)

    async def freeze(self, call: Freeze, act: Act, entry: None) -> Frozen:
        name = self._cold(call.kind, call.name)
        act.before = standing(map(frozen, self._freezer.stored(call.kind, name)))
        return await self._freezer.freeze(call.kind, name, act.ticket.principal, call.reason, act.commit)

    async def thaw(self, call: Thaw, act: Act, entry: None) -> None:
        name = call.name if call.kind is Cold.AGENT else _named("name", call.name).id
        act.before = standing(map(frozen, self._freezer.about(call.kind, name)))
        await self._freezer.thaw(call.kind, name, act.commit)

    async def frozen(self, call: ListFrozen, ticket: Ticket, entry: None) -> Sequence[Frozen]:
        return self._freezer.all()

    def _cold(self, kind: Cold, name: str) -> str:
        """The id of what is to be frozen. A slip must not look like success."""
        if kind is Cold.PRINCIPAL:
            return _named("name", name).id
        if self._registry.get(name) is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no agent {name[:80]!r}; `gateway agents list` shows them")
        return name

    def question(self, action: str, named: str) -> tuple[str, Target]:
        """The verb and the target that policy would be asked about. Raises INVALID_PARAMS."""
        agent = named.removeprefix(f"{AGENTS}/") if named.startswith(f"{AGENTS}/") else None
        if agent is None and "/" not in named and self._registry.get(named) is not None:
            agent = named
        verb = action
        if action == "call" or (action == "tools/call" and agent is not None):
            verb = "tools/call" if agent is None else "SendMessage"
        if verb not in VERBS:
            raise invalid("action", f"there is no action {action[:80]!r}; `call`, or one of {', '.join(sorted(VERBS))}")
        if verb in AGENT_VERBS:
            return verb, self._agent(named if agent is None else agent)
        server, _, key = named.partition("/")
        served = self._servers.get(server)
        if verb in SERVER_VERBS and served is not None:
            return served.question(verb, key)
        return verb, Target(named)

    def _agent(self, named: str) -> Target:
        id, _, skill = named.partition("/")
        entry = self._registry.get(id)
        return (Target(id) if entry is None else entry.target)._replace(skill=skill)


def _profile(screen: Screen) -> Standing:
    rules = list(map(dict, screen.rules))
    return {"profile": {"hash": digest(rules), "rules": [rule.get("rule") for rule in rules]}}


def _principal(call: ExplainPolicy) -> Principal:
    who = _named("principal", call.principal)._replace(roles=frozenset(call.roles))
    if call.behalf is None:
        return _holding(call.scopes, who)
    if who.kind is not Kind.AGENT:
        raise invalid("for", "is for agents: only they ask on somebody's behalf")
    return _holding(call.scopes, _named("for", call.behalf)).delegate(who.name)


def _holding(scopes: tuple[str, ...], who: Principal) -> Principal:
    if scopes and who.kind is not Kind.OAUTH:
        raise invalid("scopes", "are of access tokens, which only client:NAME and oauth:ISSUER#SUBJECT have")
    return who._replace(scopes=frozenset(scopes))


def _named(field: str, word: str) -> Principal:
    if (who := named(word)) is None:
        hint = (
            "must be a key's name, agent:NAME, client:NAME, user:NAME, oauth:ISSUER#SUBJECT, spiffe://DOMAIN/PATH, "
            "local or anonymous"
        )
        raise invalid(field, f"{word[:80]!r} {hint}")
    return who
