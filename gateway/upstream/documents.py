"""Keys, metadata and introspection answers of identity providers, through the one egress."""

from __future__ import annotations

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.egress import Answer, Egress

TIMEOUT_SECONDS = 5.0  # somebody waits at the door for it
DOCUMENT_LIMIT = 256 * 1024  # 64 keys with certificate chains have half of it


class IssuerDocuments:
    """The port `Documents`."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def get(self, url: str, *, trusted: bool) -> bytes:
        return await self._ask("GET", url, None, {"accept": "application/json"}, trusted)

    async def post(self, url: str, form: bytes, authorization: str, *, trusted: bool) -> bytes:
        headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        if authorization:
            headers["authorization"] = authorization
        return await self._ask("POST", url, form, headers, trusted)

    async def _ask(self, method: str, url: str, body: bytes | None, headers: dict[str, str], trusted: bool) -> bytes:
        answer: Answer = await self._egress.request(
            method, url, body, headers, timeout=TIMEOUT_SECONDS, limit=DOCUMENT_LIMIT, trusted=trusted
        )
        if answer.status != 200:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"answered with status {answer.status}")
        return answer.body
