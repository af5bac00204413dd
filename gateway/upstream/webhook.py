"""Delivering one push, in the version that its configuration was made in, with the credential that the caller
configured (§4.3.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.dialects.a2a_v03 import responses as v03
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Delivery, TaskRow
from gateway.model.push import PushConfig
from gateway.model.task import Task
from gateway.upstream.egress import Egress

TIMEOUT_SECONDS = 15.0  # §4.3.3: 10 to 30
ANSWER_LIMIT = 64 * 1024  # a webhook's answer is its status

# Versions whose webhooks are told the whole task, and how they write it. All others get the event.
WHOLE: dict[str, Callable[[Task], bytes]] = {"0.3": v03.webhook}
MEDIA_TYPES = {"0.3": "application/json"}  # 0.3.0 §9.5


class WebhookNotifier:
    """`find` gives a task by tenant and id."""

    def __init__(self, egress: Egress, find: Callable[[str, str], Awaitable[TaskRow | None]]) -> None:
        self._egress = egress
        self._find = find

    async def deliver(self, delivery: Delivery) -> None:
        url, body = delivery.config.url, await self._body(delivery)
        answer = await self._egress.post(
            url, body, _headers(delivery.config), timeout=TIMEOUT_SECONDS, limit=ANSWER_LIMIT
        )
        if not 200 <= answer.status < 300:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"the webhook answered with status {answer.status}")

    async def _body(self, delivery: Delivery) -> bytes:
        write = WHOLE.get(delivery.config.protocol_version or "")
        if write is None:
            return delivery.body
        # As it stands now, which is never older than the event.
        row = await self._find(delivery.tenant, delivery.task_id)
        if row is None:
            raise GatewayError(Reason.TASK_NOT_FOUND, "the task of which the webhook was to be told is gone")
        return write(row.task)


def _headers(config: PushConfig) -> dict[str, str]:
    headers = {"content-type": MEDIA_TYPES.get(config.protocol_version or "", "application/a2a+json")}
    if config.authentication is not None:
        credentials = config.authentication.credentials
        headers["authorization"] = " ".join(filter(None, (config.authentication.scheme, credentials)))
    if config.token:
        headers["x-a2a-notification-token"] = config.token
    return headers
