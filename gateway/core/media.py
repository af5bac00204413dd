"""Does an agent take what a message brings? Media types against the modes on its card (A2A §3.3.2)."""

from __future__ import annotations

from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message


def check_input_modes(message: Message, card: AgentCard) -> None:
    """Raises CONTENT_TYPE_NOT_SUPPORTED for a part that states a type which none of the card's modes takes.
    Parts that state none are the agent's to judge."""
    if all(part.media_type is None for part in message.parts):
        return
    modes = {mode for skill in card.skills for mode in skill.input_modes or ()} | set(card.default_input_modes)
    for part in message.parts:
        media_type = (part.media_type or "").partition(";")[0].strip().lower()
        if media_type and modes and not any(_takes(mode.lower(), media_type) for mode in modes):
            raise GatewayError(
                Reason.CONTENT_TYPE_NOT_SUPPORTED,
                f"This agent does not take the media type of a part; it takes {', '.join(sorted(modes))}",
                metadata={"mediaType": media_type},
            )


def _takes(mode: str, media_type: str) -> bool:
    """Cards write `text/plain`, `image/*`, `*/*` and, in the older fashion, `text`."""
    if mode in (media_type, "*/*", "*"):
        return True
    kind, slash, sub = mode.partition("/")
    return media_type.partition("/")[0] == kind and (not slash or sub == "*")
