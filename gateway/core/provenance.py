"""Is a card taken, and what did it change: decided here, on values alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gateway.model.card import AgentCard
from gateway.model.provenance import CardRecord, Standing

MAX_CHANGES = 20  # sentences that are kept of one change; a card with more of them is a new card

_IS = {
    Standing.UNSIGNED: "has no signature",
    Standing.UNKNOWN: "has no signature that can be checked",
    Standing.INVALID: "has a signature that does not fit it",
}


def refusal(seen: CardRecord, before: CardRecord | None, *, required: bool) -> str | None:
    """Why a card is not taken, as a sentence; None when it is. `before` is the one that was taken last."""
    if seen.verdict is Standing.VERIFIED:
        return None
    first = next((f": {finding.says}" for finding in seen.findings if finding.verdict is seen.verdict), "")
    said = f"the card at {seen.card_url} {_IS[seen.verdict]}{first}"
    if required:
        return f"{said}; this agent's card has to be signed (require_signature, card_keys)"
    if seen.verdict is Standing.INVALID:
        return said
    if before is not None and before.verdict is Standing.VERIFIED:
        return f"{said}; it was signed before. If that is right: gateway cards accept {seen.agent}"
    return None


def changes(before: AgentCard, after: AgentCard) -> tuple[str, ...]:
    """What a new version of a card says differently, a sentence each."""
    told = [
        *_lists("interface", before.supported_interfaces, after.supported_interfaces, _where),
        *_lists("skill", before.skills, after.skills, lambda skill: skill.id),
        *_plain(before, after),
    ]
    return tuple(told[:MAX_CHANGES])


def _where(interface: Any) -> str:
    return f"{interface.protocol_binding} {interface.protocol_version} at {interface.url}"


def _lists(noun: str, before: Iterable[Any], after: Iterable[Any], name: Callable[[Any], str]) -> Iterable[str]:
    old, new = {name(each): each for each in before}, {name(each): each for each in after}
    yield from (f"new {noun}: {each}" for each in new if each not in old)
    yield from (f"{noun} gone: {each}" for each in old if each not in new)
    yield from (f"{noun} changed: {each}" for each in new if each in old and old[each] != new[each])


def _plain(before: AgentCard, after: AgentCard) -> Iterable[str]:
    told = {"supported_interfaces", "skills", "signatures"}
    old, new = ({**dict(card), **(card.model_extra or {})} for card in (before, after))
    for name in dict.fromkeys((*old, *new)):
        if name not in told and old.get(name) != new.get(name):
            yield f"{name} changed"
