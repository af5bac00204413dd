"""Clients whose id is the URL of a document about them, fetched when somebody comes with such an id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from gateway.dialects.oauth2.client_metadata import BadClient, document, is_client_id
from gateway.model.clients import ClientRecord, Origin
from gateway.model.errors import GatewayError, Reason
from gateway.model.identity import Documents
from gateway.model.value import value

log = logging.getLogger(__name__)

KEEP = 600.0
"""Seconds that a document is believed. A client that changes it waits so long; codes live for one minute."""

KEEP_BAD = 30.0
"""Seconds that a document which could not be used is not fetched again."""

STALE = 3600.0
"""Seconds since it was read that a document is believed while it cannot be read again: a host that is down for a moment
must not log out everybody who uses the program."""

MAX_KEPT = 1_000
"""Documents in memory, 16 KiB each at most. The oldest goes first."""

FETCHES = 8
"""Fetches at one time: anybody may name a URL, and it must not become a flood that others get from us."""


@value
class _Kept:
    client: ClientRecord | None
    problem: str
    read: float  # seconds since the epoch
    until: float


class ClientDocuments:
    """`hosts` are whose documents are taken, `*` for any. `now` gives milliseconds."""

    def __init__(self, documents: Documents, hosts: Iterable[str], now: Callable[[], int]) -> None:
        self._documents = documents
        self._hosts = frozenset(hosts)
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._places = asyncio.Semaphore(FETCHES)

    @property
    def taken(self) -> bool:
        """Whether any are."""
        return bool(self._hosts)

    async def find(self, id: str) -> ClientRecord:
        """Raises BadClient with a sentence for a person; GatewayError(OVERLOADED)."""
        if not is_client_id(id) or not {"*", urlsplit(id).netloc} & self._hosts:
            raise BadClient("This client is not known here, and documents of its host are not taken")
        kept = self._kept.get(id)
        if kept is None or kept.until <= self._now() / 1000:
            kept = await self._fetch(id)
        if kept.client is None:
            raise BadClient(kept.problem)
        return kept.client

    def kept(self, id: str) -> ClientRecord | None:
        """What was found a moment ago."""
        kept = self._kept.get(id)
        return kept.client if kept is not None and kept.until > self._now() / 1000 else None

    async def _fetch(self, id: str) -> _Kept:
        if self._places.locked():
            raise GatewayError(Reason.OVERLOADED, "Too many clients are being looked up; try again", retry_after=2)
        async with self._places:
            try:
                about = document(await self._documents.get(id, trusted=False), id)
            except GatewayError as error:
                log.info("the document of the client %s was not read: %s", id, error)
                return self._unread(id)
            except BadClient as error:
                return self._keep(id, None, f"The document of this client cannot be used. {error}")
        client = ClientRecord(
            id,
            b"",
            (),
            self._now(),
            grants=about.grants,
            redirects=about.redirects,
            name=about.name,
            origin=Origin.DOCUMENT,
        )
        return self._keep(id, client, "")

    def _unread(self, id: str) -> _Kept:
        before, now = self._kept.get(id), self._now() / 1000
        if before is None or before.client is None or before.read + STALE <= now:
            return self._keep(id, None, "The document of this client cannot be read")
        kept = self._kept[id] = replace(before, until=min(now + KEEP_BAD, before.read + STALE))
        return kept

    def _keep(self, id: str, client: ClientRecord | None, problem: str) -> _Kept:
        self._kept.pop(id, None)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        now = self._now() / 1000
        kept = self._kept[id] = _Kept(client, problem, now, now + (KEEP_BAD if client is None else KEEP))
        return kept
