"""Streamable HTTP of 2026-07-28: every request for itself, nothing kept between two of them.

Source: basic/transports/streamable-http, basic/patterns/subscriptions.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Mapping

from gateway.dialects.mcp import client as wire
from gateway.dialects.mcp import headers
from gateway.dialects.mcp.errors import Code
from gateway.dialects.mcp.message import SUBSCRIPTION_ID, Notification, request
from gateway.dialects.mcp.versions import NEWEST
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import ACKNOWLEDGED, Caller, Change, Era, Face, PeerError, Tree
from gateway.upstream.mcp.backend import Stale
from gateway.upstream.mcp.clock import Clock
from gateway.upstream.mcp.exchange import Exchange
from gateway.upstream.mcp.http import Endpoint, Refused, Unexpected, tree_of
from gateway.upstream.mcp.limits import NOBODY, Limits

# What a server of the old kind, put in the place of a modern one, says to a request without a session.
_FOREIGN = frozenset({400, 404, 405, 406, 415})
# The errors of a modern server that come with such a status.
_HOME = wire.MODERN_CODES | {Code.METHOD_NOT_FOUND, Code.INVALID_PARAMS, Code.PARSE_ERROR}

Annotated = Mapping[headers.Path, tuple[str, str]]

# What to listen to, and what the server must have declared for it (basic/patterns/subscriptions, notification filter).
_FILTERS = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}


class ModernHttp:
    """`face` came with `server/discover`. `annotated` gives the tools' header annotations as last listed."""

    def __init__(
        self, endpoint: Endpoint, face: Face, info: Tree, ids: itertools.count[int], annotated: dict[str, Annotated]
    ) -> None:
        self.face = face
        self._endpoint = endpoint
        self._limits: Limits = endpoint.limits
        self._info = info
        self._ids = ids
        self._annotated = annotated

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        try:
            return await self.sent(method, params, caller)
        except Refused as error:
            if error.code == Code.UNSUPPORTED_VERSION or (error.status in _FOREIGN and error.code not in _HOME):
                raise Stale(error) from error
            raise
        except Unexpected as error:
            if error.status in _FOREIGN:
                raise Stale(error) from error
            raise

    async def sent(self, method: str, params: Tree, caller: Caller, seconds: float | None = None) -> Tree:
        id, version = next(self._ids), self.face.version
        annotated = self._annotated.get(params.get("name", "")) if method == "tools/call" else None
        made = headers.make(method, params, version, annotated)
        body = request(id, method, wire.modern_params(params, caller, version, id, self._info))
        quiet = seconds is None and not caller.progress and caller.log_level is None
        total = self._limits.call_seconds if seconds is None else seconds
        clock = None if quiet and not self._endpoint.streams else Clock(total, self._limits.idle_seconds)
        return await self._endpoint.call(
            body, made, Exchange(id, method, caller, self.face.era, clock=clock), quiet=quiet
        )

    async def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]:
        wanted = listened(self.face, uris)
        id, version = next(self._ids), self.face.version
        params = wire.modern_params({"notifications": wanted}, NOBODY, version, id, self._info)
        body = request(id, "subscriptions/listen", params)
        made = headers.make("subscriptions/listen", params, version)
        async with self._endpoint.listening(made, self._limits.quiet_seconds, body=body) as (_, events):
            acknowledged = False
            async for event in events:
                for message in wire.messages(tree_of(event.data)) if event.data else ():
                    if not isinstance(message, Notification):
                        return  # the server ends the subscription (graceful closure)
                    acknowledged = ordered(message, acknowledged)
                    if subscription(message) == id:
                        yield change(message)

    async def aclose(self) -> None:
        """There is nothing to close."""


def listened(face: Face, uris: frozenset[str]) -> Tree:
    """The filter for `subscriptions/listen`. Raises UNSUPPORTED_OPERATION when the server would send nothing."""
    wanted: Tree = {name: True for name, list in _FILTERS.items() if declares(face, list, "listChanged")}
    if uris and declares(face, "resources", "subscribe"):
        wanted["resourceSubscriptions"] = sorted(uris)
    if not wanted:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "The server sends no notifications about changes")
    return wanted


def declares(face: Face, capability: str, part: str) -> bool:
    found = face.capabilities.get(capability)
    return isinstance(found, dict) and bool(found.get(part))


def subscription(message: Notification) -> object:
    meta = message.params.get("_meta")
    return meta.get(SUBSCRIPTION_ID) if isinstance(meta, dict) else None


def ordered(message: Notification, acknowledged: bool) -> bool:
    """The acknowledgement comes first (acknowledgment: MUST NOT send any notification before it)."""
    if message.method == ACKNOWLEDGED:
        return True
    if not acknowledged:
        raise wire.failed("sends changes before it has acknowledged the subscription")
    return True


def change(message: Notification) -> Change:
    """Without the id of our subscription, which means nothing to anybody else."""
    params = dict(message.params)
    meta = {name: each for name, each in (params.pop("_meta", None) or {}).items() if name != SUBSCRIPTION_ID}
    return Change(message.method, {**params, "_meta": meta} if meta else params)


async def discover(
    endpoint: Endpoint, info: Tree, ids: itertools.count[int], annotated: dict[str, Annotated]
) -> ModernHttp | None:
    """The modern backend if there is a modern server, None if there is not.

    Raises GatewayError when that cannot be known, and for a server that has only revisions we do not speak."""
    version: str | None = NEWEST
    no_older = False  # it has named what it speaks, and nothing of it has sessions
    for _ in range(2):
        assert version is not None
        probe = Face(Era.MODERN, version, {}, {})
        try:
            result = await ModernHttp(endpoint, probe, info, ids, annotated).sent(
                "server/discover", {}, NOBODY, endpoint.limits.probe_seconds
            )
        except PeerError as error:
            named = wire.supported(error)
            if named is None:
                if no_older or error.code in wire.MODERN_CODES:
                    raise
                return None
            version, no_older = wire.mutual(named), not any(each in wire.SESSIONS for each in named)
            if version is None:
                if not no_older:
                    return None
                raise wire.failed("speaks only revisions that the gateway does not") from error
            continue
        except Unexpected as error:
            if no_older or error.status in (401, 403, 429):
                raise
            return None
        except GatewayError as error:
            if no_older or not silent(error):
                raise
            return None
        face = wire.discovered(result)
        return ModernHttp(endpoint, face, info, ids, annotated) if face is not None else None
    raise wire.failed("names revisions that it then refuses")


def silent(error: GatewayError) -> bool:
    """Whether the server was there and did not understand: nothing, or nothing readable, came back."""
    reached = error.metadata.get("delivered") != "no"
    return reached and error.reason in (Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_FAILED)
