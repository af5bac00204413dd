"""Delivering one push, in the version that its configuration was made in, with the credential that the caller
configured (§4.3.3) and signed as Standard Webhooks has it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2s
from urllib.parse import urlencode, urlsplit, urlunsplit

from gateway.dialects import standard_webhooks as signatures
from gateway.dialects.a2a_v03 import responses as v03
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Told
from gateway.model.push import OPERATOR, PushConfig
from gateway.model.rows import Delivery, TaskRow
from gateway.model.task import Task
from gateway.upstream.egress import Egress

TIMEOUT_SECONDS = 15.0  # §4.3.3: 10 to 30
ANSWER_LIMIT = 64 * 1024  # a webhook's answer is its status
CHALLENGE_TIMEOUT = 10.0  # somebody waits for it
CHALLENGE_LIMIT = 1024  # bytes of the answer to a challenge: it is a token

# Versions whose webhooks are told the whole task, and how they write it. All others get the event.
WHOLE: dict[str, Callable[[Task], bytes]] = {"0.3": v03.webhook}
MEDIA_TYPES = {"0.3": "application/json"}  # 0.3.0 §9.5


class WebhookNotifier:
    """`find` gives a task by tenant and id, `sign` an Ed25519 signature by the gateway's key, `now` milliseconds."""

    def __init__(
        self,
        egress: Egress,
        find: Callable[[str, str], Awaitable[TaskRow | None]],
        sign: Callable[[bytes], Awaitable[bytes]],
        now: Callable[[], int],
    ) -> None:
        self._egress = egress
        self._find = find
        self._sign = sign
        self._now = now

    async def deliver(self, delivery: Delivery) -> Told:
        body = await self._body(delivery)
        headers = {**_headers(delivery.config), **await self._signed(delivery, body)}
        answer = await self._egress.post(
            delivery.config.url,
            body,
            headers,
            timeout=TIMEOUT_SECONDS,
            limit=ANSWER_LIMIT,
            trusted=delivery.config.protocol_version == OPERATOR,
        )
        return Told(answer.status, _seconds(answer.headers))

    async def challenge(self, url: str, token: str) -> bool:
        """A GET with `validationToken`, to be answered with just that: the way of A2A's own samples."""
        parts = urlsplit(url)
        query = "&".join(filter(None, (parts.query, urlencode({"validationToken": token}))))
        asked = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
        answer = await self._egress.request(
            "GET", asked, None, {"accept": "text/plain"}, timeout=CHALLENGE_TIMEOUT, limit=CHALLENGE_LIMIT
        )
        return answer.status == 200 and hmac.compare_digest(answer.body.strip(), token.encode())

    async def _body(self, delivery: Delivery) -> bytes:
        write = WHOLE.get(delivery.config.protocol_version or "")
        if write is None:
            return delivery.body
        # As it stands now, which is never older than the event.
        row = await self._find(delivery.tenant, delivery.task_id)
        if row is None:
            raise GatewayError(Reason.TASK_NOT_FOUND, "the task of which the webhook was to be told is gone")
        return write(row.task)

    async def _signed(self, delivery: Delivery, body: bytes) -> dict[str, str]:
        id, timestamp = message_id(delivery), self._now() // 1000
        content = signatures.content(id, timestamp, body)
        made = [signatures.asymmetric(await self._sign(content))]
        if (secret := signatures.secret(delivery.config.token)) is not None:
            made.insert(0, signatures.symmetric(secret, content))
        return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(made)}


def message_id(delivery: Delivery) -> str:
    """The same for every attempt, another for each configuration: the task, the event's number there, and whom it is
    for, in letters that need no quoting."""
    whom = blake2s(f"{delivery.tenant}\0{delivery.config.id}".encode(), digest_size=6).hexdigest()
    return f"{delivery.task_id}-{delivery.seq}-{whom}"


def _headers(config: PushConfig) -> dict[str, str]:
    headers = {"content-type": MEDIA_TYPES.get(config.protocol_version or "", "application/a2a+json")}
    if config.authentication is not None:
        credentials = config.authentication.credentials
        headers["authorization"] = " ".join(filter(None, (config.authentication.scheme, credentials)))
    # What a signature is made with is never sent along.
    if config.token and not config.token.startswith(signatures.SECRET):
        headers["x-a2a-notification-token"] = config.token
    return headers


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds; the date that it may also be is passed over."""
    said = headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdecimal() and len(said) < 10 else None
