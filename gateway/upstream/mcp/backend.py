"""What one way of talking to a server offers to `server.py`, which chooses between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from gateway.model.errors import GatewayError
from gateway.model.tool import Caller, Change, Face, Tree


class Stale(Exception):
    """The server refused a request in a way that says it is no longer of the kind it was found to be; nothing was
    done. `error` is what to say if it turns out that it still is."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(str(error))
        self.error = error


class Backend(Protocol):
    """See `ToolServer`, whose methods these are without finding the era out. `request` also takes the list methods,
    and raises Stale."""

    face: Face

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree: ...

    def changes(self, uris: frozenset[str]) -> AsyncGenerator[Change, None]: ...

    async def aclose(self) -> None: ...
