"""Which scopes the rules ask for, by the part of the gateway that a token may be for.

What is told here is told to everybody, so it must not tell which agents there are: of one that is not public, and of
one that is not there, it is what the rules ask for at any such agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.core.policy import Policy, Question, Rule, Situation, Target
from gateway.core.policy.actions import AGENT_VERBS
from gateway.core.policy.checks import On
from gateway.core.registry import Registry
from gateway.core.tools.naming import Mount
from gateway.core.tools.served import Served
from gateway.core.tools.servers import Servers
from gateway.core.tools.views import USED_BY, Views
from gateway.model.principal import ANONYMOUS
from gateway.model.tool import Kind

READ = USED_BY[Kind.RESOURCE]
_NOWHERE = Situation()


class ScopesInUse:
    """Of what holds now: other rules and other tools are seen at once."""

    def __init__(self, policy: Policy, registry: Registry, servers: Servers, views: Views) -> None:
        self._policy = policy
        self._registry = registry
        self._servers = servers
        self._views = views
        self._stamp: object = None
        self._mounts: dict[str, frozenset[str]] = {}  # a mount may have a thousand tools, and anybody may ask

    def whole(self) -> frozenset[str]:
        """Of everything that a rule of the policy is about."""
        return _scopes(self._policy.scoped)

    def of_agent(self, id: str) -> frozenset[str]:
        entry = self._registry.get(id)
        named = id if entry is not None and entry.public else None
        return _scopes(rule for rule in self._policy.scoped if _about_agent(rule, named))

    def of_mount(self, id: str) -> frozenset[str]:
        """A mount that is not there is taken for that of everything."""
        mount = self._views.mounts.get(id) or self._views.mounts.get("")
        if mount is None or not self._policy.scoped:
            return frozenset()
        stamp = (self._policy.rules, self._servers.generation, self._views.mounts)
        if stamp != self._stamp:
            self._stamp = stamp
            self._mounts.clear()
        found = self._mounts.get(mount.id)
        if found is None:
            things = list(self._things(mount))
            found = self._mounts[mount.id] = _scopes(
                rule for rule in self._policy.scoped if any(_about(rule, *each) for each in things)
            )
        return found

    def _things(self, mount: Mount) -> Iterator[tuple[str, Target]]:
        """What may be asked for there. Of a server whose resources are all here, and of one that is not known yet, it
        may be anything."""
        for served in self._views.served(mount):
            if served.catalog is None:
                yield from ((verb, Target(f"{served.id}/*")) for verb in dict.fromkeys(USED_BY.values()))
            elif mount.holds_server(served.id) and served.judged is None:
                yield READ, Target(f"{served.id}/*")
        for kind in Kind:
            for definition in self._views.names(mount, kind).named.values():
                served_by: Served | None = self._servers.get(definition.server)
                if served_by is not None:
                    yield served_by.question(USED_BY[kind], definition.key)


def _about(rule: Rule, verb: str, target: Target) -> bool:
    if verb in AGENT_VERBS:
        return (rule.verbs is None or verb in rule.verbs) and _on_agent(rule, target.id, target.public)
    if rule.verbs is not None and verb not in rule.verbs:
        return False
    server, _, name = target.id.partition("/")
    if name == "*":
        return all(on.reaches(server) for on in _places(rule))
    question = Question(ANONYMOUS, verb, target, {}, _NOWHERE)
    return all(on.holds(question) for on in _places(rule))


def _about_agent(rule: Rule, id: str | None) -> bool:
    return (rule.verbs is None or not rule.verbs.isdisjoint(AGENT_VERBS)) and _on_agent(rule, id, id is not None)


def _on_agent(rule: Rule, id: str | None, public: bool) -> bool:
    return all(on.reaches_agent(id, public=public) for on in _places(rule))


def _places(rule: Rule) -> Iterable[On]:
    return (check for check in rule.checks if isinstance(check, On))


def _scopes(rules: Iterable[Rule]) -> frozenset[str]:
    return frozenset(scope for rule in rules for scope in rule.scopes)
