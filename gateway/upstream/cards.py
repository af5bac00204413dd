"""Fetching agent cards: other people's documents, from URLs that may lead anywhere."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

import httpx2

from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import BadUrl, locate, origin_of
from gateway.upstream.httpx2_transport import gateway_error

# The largest real card seen has 60 kB; a mebibyte leaves room for skills with long examples.
CARD_LIMIT = 1024 * 1024
# Seconds for everything, redirects included: somebody is waiting at a prompt or a registry is refreshing.
CARD_TIMEOUT = 10.0
# http to https, bare name to www, old path to new: that is all an honest host needs.
MAX_REDIRECTS = 3

# A2A 1.0 and 0.3 (RFC 8615), then the name it had until 0.2.
WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchedCard(NamedTuple):
    """A card as it came. The caller validates `tree`: a JSON object, strictly read, not yet trusted.

    With `not_modified` there is nothing new: body and tree are empty. `final_url` is where the answer came
    from.
    """

    tree: dict[str, JSON]
    body: bytes
    etag: str | None
    last_modified: str | None
    not_modified: bool
    final_url: str


class ClientFor(Protocol):
    def __call__(self, *, trusted: bool) -> httpx2.AsyncClient: ...


class CardFetcher:
    """GET for cards. `client_for(trusted=…)` gives the client to use: in the program `control_client`."""

    def __init__(self, client_for: ClientFor) -> None:
        self._client_for = client_for

    async def fetch(self, url: str, *, etag: str | None = None, trusted: bool) -> FetchedCard:
        """The card at `url`, or at the well-known place below it when `url` is an agent's address.

        Raises GatewayError: EGRESS_REFUSED, UPSTREAM_TIMEOUT, UPSTREAM_FAILED (unreachable, or a status
        that is no card), UPSTREAM_TOO_LARGE, INVALID_AGENT_RESPONSE (not a JSON object). The message is a
        sentence.
        """
        try:
            location = locate(url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, str(error)) from None
        try:
            async with asyncio.timeout(CARD_TIMEOUT):
                if location.target == "/":
                    return await self._discover(str(location.origin), etag, trusted)
                try:
                    return await self._follow(str(location), etag, trusted)
                except _Status as error:
                    # 405: an address that takes messages and no GET.
                    if error.status not in (404, 405) or location.target.endswith(".json") or "?" in location.target:
                        raise
                    return await self._below(str(location), error, etag, trusted)
        except TimeoutError as error:
            message = f"{location.origin} did not answer the card request within {CARD_TIMEOUT:g} s"
            raise GatewayError(Reason.UPSTREAM_TIMEOUT, message) from error

    async def _below(self, url: str, first: _Status, etag: str | None, trusted: bool) -> FetchedCard:
        """The card below an agent's address with a path; there is no older place for it."""
        try:
            return await self._follow(url.rstrip("/") + WELL_KNOWN[0], etag, trusted)
        except _Status:
            raise first from None

    async def _discover(self, origin: str, etag: str | None, trusted: bool) -> FetchedCard:
        newest, older = WELL_KNOWN
        try:
            return await self._follow(origin + newest, etag, trusted)
        except _Status as error:
            if error.status != 404:
                raise
            try:
                return await self._follow(origin + older, etag, trusted)
            except _Status:
                raise error from None  # the caller should read about the name that is current

    async def _follow(self, url: str, etag: str | None, trusted: bool) -> FetchedCard:
        """Redirects by hand: the operator's trust reaches as far as the origin they named, and no further."""
        first = origin_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            still_trusted = trusted and origin_of(url) == first
            try:
                answer = await self._get(url, etag, still_trusted)
            except GatewayError as error:
                if error.reason is Reason.EGRESS_REFUSED and origin_of(url) != first:
                    message = f"{first} redirected the card request: {error.message}"
                    raise GatewayError(error.reason, message) from error
                raise
            if isinstance(answer, FetchedCard):
                return answer
            url = _next(url, answer)
        raise GatewayError(
            Reason.UPSTREAM_FAILED, f"{first} redirected the card request more than {MAX_REDIRECTS} times"
        )

    async def _get(self, url: str, etag: str | None, trusted: bool) -> FetchedCard | str:
        """The card, or the Location of a redirect."""
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if etag is not None:
            headers["if-none-match"] = etag
        try:
            async with self._client_for(trusted=trusted).stream("GET", url, headers=headers) as response:
                status = response.status_code
                if status in _REDIRECTS and "location" in response.headers:
                    return response.headers["location"]
                if status == 304 and etag is not None:
                    return _card(response, {}, b"", url)
                if status != 200:
                    raise _Status(url, status)
                body = await _body(response, url)
        except httpx2.HTTPError as error:
            raise _failure(error, url) from error
        return _card(response, _tree(body, url), body, url)


class _Status(GatewayError):
    def __init__(self, url: str, status: int) -> None:
        super().__init__(Reason.UPSTREAM_FAILED, f"{url} answered the card request with status {status}")
        self.status = status


async def _body(response: httpx2.Response, url: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > CARD_LIMIT:
            message = f"the card at {url} has more than {CARD_LIMIT // 1024} KiB, the most that is read"
            raise GatewayError(Reason.UPSTREAM_TOO_LARGE, message)
    return bytes(body)


def _tree(body: bytes, url: str) -> dict[str, JSON]:
    """By content alone: many hosts serve cards from static files as text/plain or octet-stream."""
    try:
        tree = read(body)
    except GatewayError as error:
        raise GatewayError(Reason.INVALID_AGENT_RESPONSE, f"the card at {url}: {error.message}") from error
    if not isinstance(tree, dict):
        raise GatewayError(Reason.INVALID_AGENT_RESPONSE, f"the card at {url} is not a JSON object")
    return tree


def _card(response: httpx2.Response, tree: dict[str, JSON], body: bytes, url: str) -> FetchedCard:
    headers = response.headers
    unchanged = response.status_code == 304
    return FetchedCard(tree, body, headers.get("etag"), headers.get("last-modified"), unchanged, url)


def _next(url: str, location: str) -> str:
    """Where a redirect leads; raises EGRESS_REFUSED for what is no plain URL, and for https to http."""
    here = locate(url)
    try:
        # httpx2 resolves relative references; locate then reads the result the way the egress will.
        there = locate(str(httpx2.URL(url).join(location.partition("#")[0])))
    except (BadUrl, httpx2.InvalidURL) as error:
        message = f"{here.origin} redirected the card request to a URL that is not called: {error}"
        raise GatewayError(Reason.EGRESS_REFUSED, message) from None
    if here.origin.scheme == "https" and there.origin.scheme == "http":
        message = f"{here.origin} redirected the card request from https to http, which is not followed"
        raise GatewayError(Reason.EGRESS_REFUSED, message)
    return str(there)


def _failure(error: httpx2.HTTPError, url: str) -> GatewayError:
    """Ours if the egress raised it, else the plain httpx2 error in our words."""
    if ours := gateway_error(error):
        return ours
    host = origin_of(url).authority
    if isinstance(error, httpx2.TimeoutException):
        return GatewayError(Reason.UPSTREAM_TIMEOUT, f"{host} did not answer the card request in time")
    if isinstance(error, httpx2.ConnectError):
        return GatewayError(Reason.UPSTREAM_FAILED, f"{host} could not be reached")
    return GatewayError(Reason.UPSTREAM_FAILED, f"{host} broke off its answer to the card request")
