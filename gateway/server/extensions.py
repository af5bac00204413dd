"""Which extensions that a caller named are active: those that the agent's card offers (docs/topics/extensions)."""

from __future__ import annotations

from gateway.core.registry import Registered
from gateway.server.request import Headers


def active(entry: Registered | None, named: tuple[str, ...], older: tuple[str, ...]) -> Headers:
    """The headers of the answer. `named` came in `A2A-Extensions`, `older` in the `X-A2A-Extensions` of 0.3."""
    offered = entry.card.extensions if entry is not None and entry.card is not None else ()
    pairs = ((b"a2a-extensions", named), (b"x-a2a-extensions", older))
    return tuple(
        (header, ",".join(uris).encode("latin-1"))
        for header, asked in pairs
        if (uris := [uri for uri in asked if uri in offered])
    )
