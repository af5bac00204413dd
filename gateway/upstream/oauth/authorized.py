"""The egress as one tool server's requests use it: each carries the server's token, and a refusal is understood."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from gateway.upstream.answer import Answer, StreamAnswer
from gateway.upstream.egress import ANSWER_LIMIT, CONNECT_TIMEOUT, Outbound
from gateway.upstream.oauth.challenge import bearer
from gateway.upstream.oauth.source import TokenSource

# A request may be refused once for each reason: for want of a token, and for want of rights.
_REFUSALS = frozenset({401, 403})


class AuthorizedEgress(Outbound):
    """`Outbound` with a token. A request that was refused with 401 or 403 was not worked on, so it may go again."""

    def __init__(self, egress: Outbound, source: TokenSource) -> None:
        self._egress = egress
        self._source = source

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        trusted: bool = False,
    ) -> Answer:
        reasons = set(_REFUSALS)
        while True:
            sent, token = await self._with_token(headers)
            answer = await self._egress.request(method, url, body, sent, timeout=timeout, limit=limit, trusted=trusted)
            if not await self._again(reasons, answer, token):
                return answer

    def stream(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_timeout: float,
        trusted: bool = False,
    ) -> AbstractAsyncContextManager[StreamAnswer]:
        return self._streamed(method, url, body, headers, connect_timeout, idle_timeout, trusted)

    @asynccontextmanager
    async def _streamed(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        connect: float,
        idle: float,
        trusted: bool,
    ) -> AsyncIterator[StreamAnswer]:
        reasons = set(_REFUSALS)
        while True:
            sent, token = await self._with_token(headers)
            async with self._egress.stream(
                method, url, body, sent, connect_timeout=connect, idle_timeout=idle, trusted=trusted
            ) as answer:
                if not await self._again(reasons, answer, token):
                    yield answer
                    return

    async def _with_token(self, headers: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
        token = await self._source.token()
        return ({**headers, "authorization": f"Bearer {token}"} if token else dict(headers)), token

    async def _again(self, reasons: set[int], answer: Answer | StreamAnswer, token: str | None) -> bool:
        if answer.status not in reasons:
            return False
        reasons.remove(answer.status)
        challenge = bearer(answer.headers.get("www-authenticate", ""))
        return await self._source.refused(answer.status, challenge, token)
