"""The egress as one tool server's or one agent's requests use it: each carries what lets us in there, and a refusal of
a token is understood."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from gateway.upstream.answer import Answer, StreamAnswer
from gateway.upstream.egress import ANSWER_LIMIT, CONNECT_TIMEOUT, Outbound, Way
from gateway.upstream.oauth.challenge import bearer
from gateway.upstream.oauth.source import TokenSource

# A request may be refused once for each reason: for want of a token, of rights, and of the server's nonce.
_NONCE = 0
_REFUSALS = frozenset({401, 403, _NONCE})

# A URL and headers, with what else belongs to them. Raises GatewayError.
Dress = Callable[[str, Mapping[str, str]], tuple[str, dict[str, str]]]


class CredentialedEgress(Outbound):
    """`Way` with what `dress` adds and with a token of `source`, as far as there are such. A request that was refused
    with 401 or 403 was not worked on, so it may go again with another token."""

    def __init__(self, egress: Way, source: TokenSource | None, dress: Dress | None = None) -> None:
        self.rules = egress.rules
        self._egress = egress
        self._source = source
        self._dress = dress

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
            there, sent, token = await self._dressed(method, url, headers)
            answer = await self._egress.request(
                method, there, body, sent, timeout=timeout, limit=limit, trusted=trusted
            )
            if not await self._again(reasons, there, answer, token):
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
            there, sent, token = await self._dressed(method, url, headers)
            async with self._egress.stream(
                method, there, body, sent, connect_timeout=connect, idle_timeout=idle, trusted=trusted
            ) as answer:
                if not await self._again(reasons, there, answer, token):
                    yield answer
                    return

    async def _dressed(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[str, dict[str, str], str | None]:
        url, sent = (url, dict(headers)) if self._dress is None else self._dress(url, headers)
        if self._source is None:
            return url, sent, None
        return url, *await self._source.dressed(method, url, sent)

    async def _again(self, reasons: set[int], url: str, answer: Answer | StreamAnswer, token: str | None) -> bool:
        if self._source is None:
            return False
        nonce = self._source.heard(url, answer.headers)
        if answer.status not in reasons:
            return False
        challenge = bearer(answer.headers.get("www-authenticate", ""))
        if answer.status == 401 and challenge.wants_nonce and nonce and _NONCE in reasons:
            reasons.remove(_NONCE)
            return True
        reasons.remove(answer.status)
        return await self._source.refused(answer.status, challenge, token)
