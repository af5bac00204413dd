"""Delivering one push: the event as `application/a2a+json`, with the credential that the caller configured (§4.3.3)."""

from __future__ import annotations

from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Delivery
from gateway.model.push import PushConfig
from gateway.upstream.egress import Egress

TIMEOUT_SECONDS = 15.0  # §4.3.3: 10 to 30
ANSWER_LIMIT = 64 * 1024  # a webhook's answer is its status


class WebhookNotifier:
    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def deliver(self, delivery: Delivery) -> None:
        url = delivery.config.url
        answer = await self._egress.post(
            url, delivery.body, _headers(delivery.config), timeout=TIMEOUT_SECONDS, limit=ANSWER_LIMIT
        )
        if not 200 <= answer.status < 300:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"the webhook answered with status {answer.status}")


def _headers(config: PushConfig) -> dict[str, str]:
    headers = {"content-type": "application/a2a+json"}
    if config.authentication is not None:
        credentials = config.authentication.credentials
        headers["authorization"] = " ".join(filter(None, (config.authentication.scheme, credentials)))
    if config.token:
        headers["x-a2a-notification-token"] = config.token
    return headers
