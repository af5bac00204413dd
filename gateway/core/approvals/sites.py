"""Where a call that waits goes: whoever approves it means that place.

An operator may give an agent or a tool server another address while a call waits, and a card may come to lead
elsewhere. What was approved for the one place is not for the other one. Where a card or a list has not been read again
since the start, nobody can tell yet: the approval stands, and the call is not made before that is known.
"""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from gateway.core.policy.actions import AGENT_VERBS
from gateway.core.policy.patterns import AGENTS
from gateway.core.registry import Registered, Registry, Source
from gateway.core.tools.servers import Servers
from gateway.model.approval import Approval, Site
from gateway.model.principal import Principal
from gateway.model.tool import Kind, digest

ELSEWHERE = "it would go somewhere else than when it was asked"
OTHER_WORDS = "the card or the definition that it relies on is another one since it was asked"

_KINDS = {"tools/call": Kind.TOOL, "prompts/get": Kind.PROMPT}  # what has a definition that is relied on


class Sites:
    def __init__(self, registry: Registry, servers: Servers) -> None:
        self._registry = registry
        self._servers = servers

    def of(self, verb: str, target: str, who: Principal) -> tuple[Site, ...]:
        """Of the target of a call, as it is now for this caller; none while nothing goes by that name."""
        if verb in AGENT_VERBS:
            entry = self._registry.get(target.removeprefix(f"{AGENTS}/").partition("/")[0])
            return () if entry is None else self._of_agent(entry)
        id, _, key = target.partition("/")
        served = self._servers.get(id)
        if served is None:
            return ()
        kind, lists = _KINDS.get(verb), served.known(who)
        definition = None if kind is None or lists is None else lists.find(kind, key)
        return (Site(shown(served.at), hash="" if definition is None else definition.hash),)

    def moved(self, approval: Approval) -> str:
        """Why what was approved is not what would be called now; "" while it is, or nobody can tell."""
        asked = approval.asked
        now, before = self.of(asked.verb, asked.target, asked.principal), approval.sites
        if now and site(now) != asked.site:
            return ELSEWHERE
        return OTHER_WORDS if any(each.hash and each not in before for each in now) else ""

    def _of_agent(self, entry: Registered) -> tuple[Site, ...]:
        if entry.sources:
            return tuple(_of_source(source) for source in entry.sources)
        behind = [self._servers.get(id) for id in entry.behind]
        if None in behind:  # the operator's file is being read again
            return ()
        return (Site(entry.at), *(Site(shown(served.at)) for served in behind if served is not None))


def site(sites: tuple[Site, ...]) -> str:
    """SHA-256 (hex) over where the operator says that a call goes, in whatever order."""
    return digest(sorted(each.at for each in sites))


def _of_source(source: Source) -> Site:
    if (card := source.card) is None:
        return Site(shown(source.url))
    unsigned = card.model_copy(update={"signatures": None})  # who signs anew says nothing else
    leads = tuple(dict.fromkeys(shown(each.url) for each in card.supported_interfaces))
    return Site(shown(source.url), leads, hashlib.sha256(unsigned.wire()).hexdigest())


def shown(at: str) -> str:
    """A URL without its query, which is where keys stand: of that only a hash. A command is as it is."""
    if not at.startswith(("http://", "https://")) or not (query := urlsplit(at).query):
        return at
    return f"{at.partition('?')[0]}?[sha256 {hashlib.sha256(query.encode()).hexdigest()[:16]}]"
