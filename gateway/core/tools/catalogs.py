"""Reading everything that an MCP server lists, as definitions that can be told apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Catalog, Definition, Kind, ToolServer, Tree

log = logging.getLogger(__name__)

READ_SECONDS = 30  # for a whole catalogue, connecting included; a package runner may have to unpack one first
POLL_SECONDS = 60  # between looks at a server that sends no changes and says no `ttlMs`
MIN_POLL_SECONDS = 5  # however short a `ttlMs` is: lists are shared, and a server that says 0 means "ask me"
MAX_DEFINITIONS = 5_000  # of one kind of one server; 300 tools are many


async def read(id: str, server: ToolServer, now: Callable[[], int]) -> Catalog:
    """The whole catalogue of the server with this id, as it is reached by `server`. Raises GatewayError, and
    TimeoutError after READ_SECONDS."""
    async with asyncio.timeout(READ_SECONDS):
        return await _read(id, server, now)


async def _read(id: str, server: ToolServer, now: Callable[[], int]) -> Catalog:
    face = await server.face()
    definitions: dict[Kind, tuple[Definition, ...]] = {}
    ttls: list[int] = []
    private = False
    for kind in Kind:
        if not face.offers(kind):
            continue
        listing = await server.list(kind)
        definitions[kind] = tuple(_definitions(id, kind, listing.trees))
        ttls += [] if listing.ttl_ms is None else [listing.ttl_ms]
        private = private or listing.private
    return Catalog(id, face, definitions, now(), min(ttls, default=None), private)


def seconds_good(ttl_ms: int | None) -> float:
    """How long lists are used before they are read again, by what their server says of that."""
    return POLL_SECONDS if ttl_ms is None else max(MIN_POLL_SECONDS, ttl_ms / 1000)


def _definitions(server: str, kind: Kind, trees: Iterable[Tree]) -> Iterable[Definition]:
    """A list without what names nothing and without what is there twice; of two of one name neither can be meant."""
    found: dict[str, Definition] = {}
    twice: set[str] = set()
    for tree in trees:
        try:
            definition = Definition.of(server, kind, tree)
        except ValueError as error:
            log.warning("MCP server %s lists one of its %s without a name: %s", server, kind, error)
            continue
        if definition.key in found:
            twice.add(definition.key)
        found[definition.key] = definition
    if len(found) > MAX_DEFINITIONS:
        raise GatewayError(Reason.UPSTREAM_TOO_LARGE, f"lists more than {MAX_DEFINITIONS} {kind}")
    for key in twice:
        log.warning("MCP server %s lists %r twice among its %s; neither is offered", server, key, kind)
    return [definition for key, definition in found.items() if key not in twice]
