"""Use cases about policy itself: what holds, why somebody may or may not, and reading the file again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.core.audit import Ticket
from gateway.core.policy import Explanation, Policy, Situation, Target
from gateway.core.policy.actions import AGENT_VERBS, SERVER_VERBS, VERBS
from gateway.core.policy.patterns import AGENTS
from gateway.core.policy.people import whole
from gateway.core.policy.shadow import Flips
from gateway.core.registry import Registry
from gateway.core.tools.servers import Servers
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.governance import ExplainPolicy, ReloadPolicy, ShadePolicy, ShowPolicy
from gateway.model.principal import Kind, Principal
from gateway.model.value import value


class Source(Protocol):
    """Where rules come from. `problem` says why the file, as it is now, was not taken over."""

    problem: str | None

    @property
    def file(self) -> str | None: ...

    def reload(self) -> None:
        """Raises INVALID_REQUEST with what is wrong with the file."""
        ...


@value
class Shown:
    """The rules that hold, in their order and as a file would have them."""

    hash: str
    file: str | None
    problem: str | None
    rules: tuple[Mapping[str, Any], ...]


@value
class Shaded:
    """The file of the policy that is tried out, and where it would decide otherwise."""

    file: str | None
    problem: str | None
    flips: Flips


class Governance:
    """The first of `sources` is the policy's own; a second one is the shadow's."""

    def __init__(self, policy: Policy, registry: Registry, servers: Servers, sources: Sequence[Source] = ()) -> None:
        self._policy = policy
        self._registry = registry
        self._servers = servers
        self._sources = sources

    async def show(self, call: ShowPolicy, ticket: Ticket, entry: None) -> Shown:
        rules = tuple(each for ruling in self._policy.rules for each in ruling.shown())
        if not self._sources:
            return Shown(self._policy.hash, None, None, rules)
        source = self._sources[0]
        return Shown(self._policy.hash, source.file, source.problem, rules)

    async def shade(self, call: ShadePolicy, ticket: Ticket, entry: None) -> Shaded:
        shadow = self._policy.shadow
        if shadow is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "No policy is tried out; policy.shadow names its file")
        return Shaded(self._sources[1].file, self._sources[1].problem, shadow.flips)

    async def explain(self, call: ExplainPolicy, ticket: Ticket, entry: None) -> Explanation:
        who = _principal(call)
        verb, target = self._question(call.action, call.target)
        situation = None if call.at is None else Situation(call.at)
        return self._policy.explain(who, verb, target, call.arguments, situation)

    async def reload(self, call: ReloadPolicy, ticket: Ticket, entry: None) -> Shown:
        named = [source for source in self._sources if source.file is not None]
        if not named:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "No policy file is configured; policy.file names one")
        for source in named:
            source.reload()
        return await self.show(ShowPolicy(), ticket, entry)

    def _question(self, action: str, named: str) -> tuple[str, Target]:
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


def _principal(call: ExplainPolicy) -> Principal:
    who = _named("principal", call.principal)._replace(roles=frozenset(call.roles))
    if call.behalf is None:
        return who
    if who.kind is not Kind.AGENT:
        raise invalid("for", "is for agents: only they ask on somebody's behalf")
    return _named("for", call.behalf).delegate(who.name)


def _named(field: str, word: str) -> Principal:
    try:
        return Principal.of(whole(word), "")
    except ValueError:
        hint = "must be a key's name, agent:NAME, client:NAME, oauth:ISSUER#SUBJECT, local or anonymous"
        raise invalid(field, f"{word[:80]!r} {hint}") from None
