"""A witness of the audit log over HTTP (c2sp.org/tlog-witness): what is sent and what comes back, as bytes."""

from __future__ import annotations

from collections.abc import Callable

import httpx2

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.httpx2_transport import gateway_error

ANSWER_LIMIT = 64 * 1024  # bytes of an answer: a few cosignatures of 3 KB


class HttpWitness:
    """`client_for` gives a client for the operator's own URL. Raises GatewayError when there is no answer."""

    def __init__(self, url: str, client_for: Callable[[], httpx2.AsyncClient]) -> None:
        self.url = url.rstrip("/")
        self._client_for = client_for

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
        """Status and text of the answer."""
        try:
            async with self._client_for() as client:
                answer = await client.post(f"{self.url}/add-checkpoint", content=body)
        except httpx2.HTTPError as error:
            known = gateway_error(error)
            raise known or GatewayError(Reason.UPSTREAM_FAILED, f"The witness at {self.url} does not answer") from error
        return answer.status_code, answer.text
