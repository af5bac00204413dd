"""The same message again: the same task, the same Message, or a clear no."""

from __future__ import annotations

from gateway.core.answers import Answer, used_otherwise
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Store
from gateway.model.rows import Reservation


async def known(store: Store, held: Reservation, digest: bytes) -> Answer:
    """What came of the message that holds the key. `digest` is that of the message which asks."""
    if held.digest != digest:
        return used_otherwise(held.key.message_id)
    if held.reply is not None:
        return held.reply
    row = await store.task(held.key.tenant, held.task_id, owner=held.key.principal)
    if row is not None:
        return row.task
    return GatewayError(Reason.UNAVAILABLE, "This message is being worked on; ask again in a moment", retry_after=1)
