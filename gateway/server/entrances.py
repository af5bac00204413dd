"""What cards say of how callers are let in, as far as it is known: what an identity provider offers is in its own
metadata, which is read when the first card is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.dialects.a2a_v1.entrance import Entrance, Offer, entrance
from gateway.dialects.oauth2.metadata import BadMetadata
from gateway.model.errors import GatewayError

log = logging.getLogger(__name__)

# A card is asked for seldom, and its reader waits so long for a slow provider; then it says what is known.
LOOK_SECONDS = 2.0
# What a provider offers changes with its configuration.
FRESH_MS = 3_600_000
# After a look that failed. What was known is said on.
RETRY_MS = 60_000


class Metadata(Protocol):
    """The metadata of one issuer, kept until it is to be read again."""

    def forget(self) -> None: ...

    async def document(self) -> Mapping[str, Any]:
        """Raises GatewayError, BadMetadata."""
        ...


@dataclass(slots=True)
class Advertised:
    """An identity provider of the operator's file."""

    name: str
    issuer: str
    metadata: Metadata
    needed: tuple[str, ...] = ()
    bound: bool = False
    known: Mapping[str, Any] | None = None
    due: int = 0


class Entrances:
    """`own` is what the gateway's own authorization server offers, if there is one; `domains` the SPIFFE trust domains
    whose certificates are taken."""

    def __init__(
        self,
        now: Callable[[], int] = lambda: 0,
        *,
        own: Offer | None = None,
        advertised: Sequence[Advertised] = (),
        domains: Sequence[str] = (),
    ) -> None:
        self._now = now
        self._own = own
        self._advertised = advertised
        self._domains = domains
        self._looking: asyncio.Task[None] | None = None
        self.current = self._made()
        self.since = 0  # when it changed, in milliseconds since the epoch

    async def look(self) -> None:
        """Read what is due, once for all who wait."""
        now = self._now()
        if self._looking is None:
            late = [each for each in self._advertised if now >= each.due]
            if not late:
                return
            self._looking = asyncio.create_task(self._read(late), name="entrances")
            self._looking.add_done_callback(self._looked)
        await asyncio.wait({self._looking}, timeout=LOOK_SECONDS)

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None

    async def _read(self, late: Sequence[Advertised]) -> None:
        await asyncio.gather(*map(self._read_one, late))
        if (made := self._made()) != self.current:
            self.current, self.since = made, self._now()

    async def _read_one(self, provider: Advertised) -> None:
        provider.metadata.forget()
        try:
            provider.known = await provider.metadata.document()
            provider.due = self._now() + FRESH_MS
        except (GatewayError, BadMetadata) as error:
            provider.due = self._now() + RETRY_MS
            log.warning("cards do not say what %s offers: %s", provider.issuer, error)

    def _made(self) -> Entrance:
        offers = [] if self._own is None else [self._own]
        for each in self._advertised:
            if each.known is not None:
                offers.append(Offer(each.name, each.issuer, each.known, each.needed, each.bound))
        return entrance(offers, self._domains)
