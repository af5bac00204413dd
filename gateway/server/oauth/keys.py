"""The keys of an issuer, fetched when they are needed and kept while they are good.

A stranger can make up key ids and signatures as fast as they can send, so an unknown id or a wrong signature (a key
without an id, or with one that was used before, may be a new one) asks the issuer at most once per `MIN_INTERVAL`,
however many come. An issuer that is down is believed for `STALE` seconds by the keys that we have;
after that nobody's token can be checked and the answer is 503, not a guess.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.dialects.oauth2.access_token import BAD_SIGNATURE, UNKNOWN_KEY, BadToken, Unverified
from gateway.dialects.oauth2.metadata import BadMetadata, endpoint, locations, read_metadata, same_origin
from gateway.dialects.oauth2.signature import BadKeys, VerifyKey, VerifyKeys, read_keys
from gateway.dialects.strict_json import JSON
from gateway.model.errors import GatewayError, Reason
from gateway.model.identity import Documents

log = logging.getLogger(__name__)

REFRESH = 600.0
"""Seconds after which keys are fetched anew, while the old ones still serve: how soon a withdrawn key is noticed."""

MIN_INTERVAL = 30.0
"""Seconds between two fetches for the sake of an unknown key id or a wrong signature."""

RETRY = 5.0
"""Seconds between two attempts to get the first keys, or new ones in place of old."""

STALE = 3600.0
"""Seconds that keys are used while the issuer cannot be reached."""


class IssuerMetadata:
    """Where the issuer's endpoints are (RFC 8414), found once and kept; asked again when a fetch fails."""

    def __init__(self, issuer: str, documents: Documents) -> None:
        self.issuer = issuer
        self._documents = documents
        self._found: dict[str, JSON] | None = None

    async def endpoint(self, name: str) -> str:
        """Raises GatewayError when no metadata can be had, BadMetadata when what is there is no good."""
        return endpoint(await self.document(), name, self.issuer)

    async def says(self, name: str) -> bool:
        """Whether the issuer says that it does this. Raises GatewayError, BadMetadata."""
        return (await self.document()).get(name) is True

    def forget(self) -> None:
        self._found = None

    async def document(self) -> dict[str, JSON]:
        """All of it. Raises GatewayError, BadMetadata."""
        if self._found is None:
            self._found = await self._fetch()
        return self._found

    async def _fetch(self) -> dict[str, JSON]:
        *first, last = locations(self.issuer)
        for url in first:
            try:
                return read_metadata(await self._documents.get(url, trusted=True), self.issuer)
            except (GatewayError, BadMetadata) as error:
                log.debug("no metadata of %s at %s: %s", self.issuer, url, error)
        return read_metadata(await self._documents.get(last, trusted=True), self.issuer)


class IssuerKeys:
    """`now` gives milliseconds. `on_removed` is called when a key is gone that tokens may have been checked with."""

    def __init__(
        self,
        issuer: str,
        algorithms: frozenset[str],
        documents: Documents,
        now: Callable[[], int],
        on_removed: Callable[[], None],
        *,
        jwks_uri: str | None = None,
    ) -> None:
        self._issuer = issuer
        self._algorithms = algorithms
        self._documents = documents
        self._now = now
        self._on_removed = on_removed
        self._jwks_uri = jwks_uri
        self._metadata = IssuerMetadata(issuer, documents)
        self._keys = VerifyKeys([])
        self._fetched = self._tried = float("-inf")
        self._flight: asyncio.Task[None] | None = None

    async def check(self, parsed: Unverified) -> None:
        """Raises BadToken where the signature is not the issuer's, GatewayError(UNAVAILABLE) when nobody can say."""
        key = await self.find(parsed.kid, parsed.alg)
        if key is None:
            raise BadToken(UNKNOWN_KEY)
        if key.verifies(parsed.alg, parsed.signed, parsed.signature):
            return
        await self._refresh(MIN_INTERVAL)
        newer = self._keys.find(parsed.kid, parsed.alg)
        if newer is None or newer is key or not newer.verifies(parsed.alg, parsed.signed, parsed.signature):
            raise BadToken(BAD_SIGNATURE)

    async def find(self, kid: str | None, alg: str) -> VerifyKey | None:
        """The key, or None when the issuer has none like it. Raises GatewayError(UNAVAILABLE) when nobody can say."""
        age = self._age()
        if age > STALE:
            await self._refresh(RETRY)
            if self._age() > STALE:
                raise GatewayError(
                    Reason.UNAVAILABLE, "The issuer's keys cannot be had now; try again", retry_after=RETRY
                )
        elif not self._keys.knows(kid):
            await self._refresh(MIN_INTERVAL)
        elif age > REFRESH:
            self._begin(RETRY)  # for the next ones; this caller is served by what is here
        return self._keys.find(kid, alg)

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    def _age(self) -> float:
        return self._now() / 1000 - self._fetched

    async def _refresh(self, interval: float) -> None:
        """Wait for the fetch that is under way, or for a new one if the last is `interval` ago. A waiter that goes
        away takes nothing from the others."""
        flight = self._begin(interval)
        if flight is not None:
            await asyncio.shield(flight)

    def _begin(self, interval: float) -> asyncio.Task[None] | None:
        now = self._now() / 1000
        # A clock that was set back must not keep us from asking until it has caught up.
        if self._flight is None and not 0 <= now - self._tried < interval:
            self._tried = now
            self._flight = asyncio.create_task(self._fetch())
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.error("reading the keys of %s failed", self._issuer, exc_info=error)

    async def _fetch(self) -> None:
        try:
            url = self._jwks_uri or await self._metadata.endpoint("jwks_uri")
            trusted = self._jwks_uri is not None or same_origin(url, self._issuer)
            keys = read_keys(await self._documents.get(url, trusted=trusted), self._algorithms)
        except (GatewayError, BadKeys, BadMetadata) as error:
            self._metadata.forget()
            log.warning("the keys of %s were not read: %s", self._issuer, error)
            return
        removed = self._keys.marks - keys.marks
        self._keys, self._fetched = keys, self._now() / 1000
        if removed:
            self._on_removed()
