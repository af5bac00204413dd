"""The cards that this gateway publishes: made of an agent's own words and the gateway's doors, and signed.

Each is written and signed once per version of the agent's card and per key: a signature costs more than all the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from gateway.core.registry import Registered
from gateway.dialects.a2a_v03.cards import also
from gateway.dialects.a2a_v1.cards import published
from gateway.dialects.a2a_v1.entrance import Entrance
from gateway.dialects.strict_json import read
from gateway.model.card import AgentCard
from gateway.model.value import value
from gateway.server.entrances import Entrances

# Two documents for each agent, and what callers may see of extended cards; beyond this the oldest is made anew.
MAX_KEPT = 1024


class Signer(Protocol):
    """`server/card_signer.py`, which brings joserfc."""

    def current(self) -> tuple[str, int]: ...

    def sign(self, card: dict[str, Any]) -> tuple[dict[str, str], ...]: ...

    def published(self) -> bytes: ...


@value
class Published:
    """One document as it is served. `tag` is its entity tag, `changed` is in milliseconds since the epoch."""

    source: AgentCard
    entrance: Entrance
    kid: str
    card: AgentCard
    body: bytes
    tag: str
    changed: int


class PublishedCards:
    """`signer` is called when the first card is wanted; None where cards are not signed."""

    def __init__(
        self,
        public_url: str,
        *,
        anonymous: bool,
        signer: Callable[[], Signer] | None,
        entrances: Entrances | None = None,
        default_agent: str | None = None,
        grpc: str | None = None,
    ) -> None:
        self._url = public_url.rstrip("/")
        self._anonymous = anonymous
        self._entrances = entrances or Entrances()
        self._default = default_agent
        self._grpc = grpc  # host:port, where gRPC is served
        self._make_signer = signer
        self._signer: Signer | None = None
        self._kept: dict[tuple[str, bool, frozenset[str] | None, bool], Published] = {}

    @property
    def signer(self) -> Signer | None:
        if self._signer is None and self._make_signer is not None:
            self._signer = self._make_signer()
        return self._signer

    async def look(self) -> None:
        """Find out what cards have to say of how callers are let in."""
        await self._entrances.look()

    def card(self, entry: Registered, shown: AgentCard, *, older: bool = True) -> Published:
        """The card of one agent, with the skills of `shown`; with `older`, for clients of 0.3 as well."""
        assert entry.card is not None
        skills = None if shown is entry.card else frozenset(skill.id for skill in shown.skills)
        return self._published(entry, entry.card, older, skills)

    def extended(self, entry: Registered, skills: frozenset[str], *, older: bool = True) -> AgentCard:
        """The extended card with these of its skills."""
        assert entry.extended is not None
        return self._published(entry, entry.extended, older, skills).card

    def _published(self, entry: Registered, source: AgentCard, older: bool, skills: frozenset[str] | None) -> Published:
        signer, key = self.signer, (entry.id, older, skills, source is entry.extended)
        kid, since = ("", 0) if signer is None else signer.current()
        entrance, opened = self._entrances.current, self._entrances.since
        kept = self._kept.get(key)
        if kept is not None and kept.source is source and kept.entrance is entrance and kept.kid == kid:
            return kept
        card = self._made(entry, source, older, skills)
        body = card.wire()
        tag = f'"{hashlib.sha256(body + kid.encode()).hexdigest()[:32]}"'
        if signer is not None:
            tree = read(body)
            assert isinstance(tree, dict)
            card = card.model_copy(update={"signatures": signer.sign(tree)})
            # ECDSA signs the same thing differently each time, after a restart too: equal in meaning, not in bytes.
            body, tag = card.wire(), "W/" + tag
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        made = self._kept[key] = Published(source, entrance, kid, card, body, tag, max(entry.changed, since, opened))
        return made

    def _made(self, entry: Registered, source: AgentCard, older: bool, skills: frozenset[str] | None) -> AgentCard:
        url = f"{self._url}/agents/{entry.id}"
        if skills is not None:
            seen = tuple(skill for skill in source.skills if skill.id in skills)
            source = source if len(seen) == len(source.skills) else source.model_copy(update={"skills": seen})
        shown = published(
            source,
            url,
            streaming=entry.streaming,
            pushes=entry.pushes,
            extended=entry.extended is not None,
            anonymous=self._anonymous,
            entrance=self._entrances.current,
            tenants=entry.tenants,
            grpc=None if self._grpc is None else (self._grpc, self._words(entry)),
        )
        # 0.3 has no word that could name an agent on a port for many.
        return also(shown, url, fields=older, grpc=self._grpc if entry.id == self._default else None)

    def _words(self, entry: Registered) -> tuple[str, ...]:
        """What stands in `tenant` where one port serves all agents (a2a_grpc.py); the default agent needs no word."""
        own = "" if entry.id == self._default else entry.id
        return (own, *(f"{entry.id}/{tenant}" for tenant in entry.tenants))
