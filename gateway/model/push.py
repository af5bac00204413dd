"""Where a caller wants to be told about a task (A2A 1.0 §4.3)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import StringConstraints

from gateway.model.base import Id, Model


class PushAuthentication(Model):
    """What goes into the webhook's `Authorization` header: `{scheme} {credentials}`."""

    scheme: Id
    credentials: str | None = None


OPERATOR = "operator"


class PushConfig(Model):
    """`TaskPushNotificationConfig`.

    `protocol_version` is ours: the older version that its maker speaks, in which the webhook is told; None for 1.0, and
    OPERATOR for the operator's own webhook.
    """

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]  # signed webhook URLs are long
    id: str | None = None
    task_id: str | None = None
    tenant: str | None = None
    token: str | None = None
    authentication: PushAuthentication | None = None
    protocol_version: str | None = None

    @property
    def host(self) -> str:
        """Who answers for the webhook, with the port if it is named: what fails there fails for all its webhooks."""
        return urlsplit(self.url).netloc.rpartition("@")[2].lower()
