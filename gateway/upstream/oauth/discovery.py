"""Finding out who gives tokens for a server. Every address here was written by a stranger, and is judged like one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import BadUrl, origin_of
from gateway.upstream.egress import Egress
from gateway.upstream.oauth.challenge import Challenge
from gateway.upstream.oauth.metadata import (
    Resource,
    Server,
    covers,
    refused,
    resource,
    resource_places,
    secure,
    server,
    server_places,
)

# The largest metadata document seen has 10 kB.
DOCUMENT_LIMIT = 256 * 1024
# For one document. A caller waits for it.
DOCUMENT_SECONDS = 10.0


class Discovery:
    """`url` is the tool server's. What is at its origin, or at that of the issuer that the operator pinned, is the
    operator's own choice; everything else must be an address that the egress admits to anybody. `otherwise`,
    `metadata` and `scopes` are what a card says of who gives tokens: an issuer, or a server of which nothing more is
    known; where a server's metadata is; and what to ask it for. `home` is the way to the server's own origin, where
    that wants to see a certificate."""

    def __init__(
        self,
        url: str,
        issuer: str | None,
        egress: Egress,
        *,
        seconds: float = DOCUMENT_SECONDS,
        otherwise: Server | str | None = None,
        metadata: str | None = None,
        scopes: tuple[str, ...] = (),
        home: Egress | None = None,
    ) -> None:
        self._url = url
        self._issuer = issuer
        self._egress = egress
        self._home = home or egress
        self._seconds = seconds
        self._otherwise = otherwise
        self._metadata = metadata
        self._scopes = scopes or None
        self._own = {origin_of(each) for each in (url, issuer) if each is not None}

    async def resource(self, challenge: Challenge) -> Resource:
        """The server's own word on who gives tokens for it (RFC 9728). Raises GatewayError."""
        named = challenge.resource_metadata
        tree = await self._first([named] if named else resource_places(self._url))
        if tree is not None:
            return resource(tree, self._url)
        issuer = self._issuer or await self._described() or self._otherwise
        if issuer is None:
            what = "The server asks for a token and does not say who gives one (no resource metadata); set oauth.issuer"
            raise refused(what)
        return Resource(self._url, (issuer if isinstance(issuer, str) else issuer.issuer,), self._scopes)

    async def _described(self) -> str | None:
        """The issuer of the metadata that the card names, if that is where the issuer has it (RFC 8414 §3.1)."""
        if self._metadata is None or not secure(self._metadata):
            return None
        tree = await self._first([self._metadata])
        issuer = tree.get("issuer") if isinstance(tree, dict) else None
        if not isinstance(issuer, str) or not secure(issuer) or self._metadata not in server_places(issuer):
            raise refused("The card's oauth2MetadataUrl leads to no metadata of an authorization server at its place")
        return issuer

    def choose(self, found: Resource, before: str | None) -> str:
        """The issuer to go to: the pinned one, else the one that we have been with, else the first."""
        if self._issuer is not None:
            if self._issuer not in found.issuers:
                raise refused("The server names another authorization server than the one that oauth.issuer pins")
            return self._issuer
        return before if before in found.issuers else found.issuers[0]

    async def server(self, issuer: str) -> Server:
        """The metadata of an authorization server (RFC 8414 §3). Raises GatewayError."""
        if isinstance(self._otherwise, Server) and issuer == self._otherwise.issuer:
            return self._otherwise
        if not secure(issuer):
            raise refused("The authorization server's issuer is no https URL")
        tree = await self._first(server_places(issuer))
        if tree is None:
            raise refused("The authorization server has no metadata")
        return server(tree, issuer)

    def reaches(self, resource: str) -> bool:
        """Whether a token for this resource is one for our server."""
        return covers(resource, self._url)

    def trusts(self, url: str) -> bool:
        """Whether the operator named the origin of this URL."""
        try:
            return origin_of(url) in self._own
        except BadUrl:
            return False

    def _way(self, url: str) -> Egress:
        try:
            return self._home if origin_of(url) == origin_of(self._url) else self._egress
        except BadUrl:
            return self._egress

    async def _first(self, urls: Iterable[str]) -> JSON | None:
        """The first of the documents that is there. A redirect leads away from the name that was asked, so none is
        followed: it counts as not there."""
        for url in urls:
            try:
                async with asyncio.timeout(self._seconds):
                    answer = await self._way(url).request(
                        "GET",
                        url,
                        None,
                        {"accept": "application/json"},
                        timeout=self._seconds,
                        limit=DOCUMENT_LIMIT,
                        trusted=self.trusts(url),
                    )
            except TimeoutError as error:
                raise GatewayError(Reason.UPSTREAM_TIMEOUT, "OAuth metadata did not come in time") from error
            if answer.status == 200:
                try:
                    return read(answer.body)
                except GatewayError as error:
                    raise refused(f"OAuth metadata is not strict JSON ({error.message})") from error
        return None
