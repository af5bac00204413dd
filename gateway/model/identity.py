"""The port to identity providers: fetching their documents, and nothing of what stands in them."""

from __future__ import annotations

from typing import Protocol


class Documents(Protocol):
    """Bodies of answers with status 200. Both raise GatewayError for every other outcome, and when the answer is too
    large or late. `trusted`: the operator named this origin (SURFACES: egress)."""

    async def get(self, url: str, *, trusted: bool) -> bytes:
        """The document at `url`."""
        ...

    async def post(self, url: str, form: bytes, authorization: str, *, trusted: bool) -> bytes:
        """The answer to a form, asked with the given `Authorization`, or with none where that is empty."""
        ...
