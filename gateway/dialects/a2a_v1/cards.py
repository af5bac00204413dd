"""1.0 cards: what an agent's says, and the one that this gateway publishes for it: the agent's own words, the gateway's
doors (§8.2, §8.3)."""

from __future__ import annotations

from typing import Any

from gateway.dialects.a2a_v1.entrance import PLAIN, Entrance
from gateway.model.card import (
    GRPC,
    HTTP_JSON,
    JSONRPC,
    VERSION,
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
)


def published(
    card: AgentCard,
    url: str,
    *,
    streaming: bool,
    pushes: bool,
    extended: bool,
    anonymous: bool,
    entrance: Entrance = PLAIN,
    tenants: tuple[str, ...] = (),
    grpc: tuple[str, tuple[str, ...]] | None = None,
) -> AgentCard:
    """`card` as served at `url` (the agent's base URL here, without a trailing slash). `grpc` is where gRPC is served
    and the words that mean this agent there, "" for none; `entrance` is what callers have to show.

    Interfaces, security schemes and the capabilities that the gateway itself provides are replaced; signatures are
    dropped, because they would no longer be true.
    """
    interfaces = [
        AgentInterface(url=url, protocol_binding=binding, protocol_version=VERSION) for binding in (JSONRPC, HTTP_JSON)
    ] + [
        AgentInterface(url=url, protocol_binding=binding, protocol_version=VERSION, tenant=tenant)
        for tenant in tenants
        for binding in (JSONRPC, HTTP_JSON)
    ]
    if grpc is not None:
        interfaces += [_over_grpc(grpc[0], word) for word in grpc[1]]
    own: dict[str, Any] = {"streaming": streaming, "push_notifications": pushes, "extended_agent_card": extended}
    if card.capabilities.extensions:
        own["extensions"] = card.capabilities.extensions
    update: dict[str, Any] = {"supported_interfaces": tuple(interfaces), "capabilities": AgentCapabilities(**own)}
    # What takes a credential says which; what can be had without one does not require it (§7.4).
    if extended or not anonymous:
        update["security_schemes"] = dict(entrance.schemes)
    if not anonymous:
        update["security_requirements"] = entrance.requirements
    if any(skill.security_requirements for skill in card.skills):
        # They speak of the agent's own schemes, which are between it and the gateway.
        update["skills"] = tuple(map(_open, card.skills))
    view = card.model_copy(update=update)
    drop = {"signatures", "security_schemes", "security_requirements"} - update.keys() | _unsafe_links(card)
    view.__pydantic_fields_set__.difference_update(drop)
    return view


def _open(skill: AgentSkill) -> AgentSkill:
    view = skill.model_copy(update={"security_requirements": None})
    view.__pydantic_fields_set__.discard("security_requirements")
    return view


def _over_grpc(url: str, word: str) -> AgentInterface:
    said = {"tenant": word} if word else {}
    return AgentInterface(url=url, protocol_binding=GRPC, protocol_version=VERSION, **said)


# REQUIRED fields that ProtoJSON's writers leave out when they are empty (a2a-sdk 1.3 does), and what is meant then.
_EMPTY: dict[str, Any] = {"description": "", "defaultInputModes": [], "defaultOutputModes": [], "skills": []}
_EMPTY_SKILL: dict[str, Any] = {"description": "", "tags": []}


def complete(tree: dict[str, Any]) -> dict[str, Any]:
    """A 1.0 card with what was left out because it is empty; the same object where nothing was. A card without a name,
    a version or a place stays without, and is no card."""
    made = _filled(tree, _EMPTY)
    skills = made.get("skills")
    if not isinstance(skills, list):
        return made
    filled = [_filled(skill, _EMPTY_SKILL) if isinstance(skill, dict) else skill for skill in skills]
    if all(after is before for after, before in zip(filled, skills, strict=True)):
        return made
    return {**made, "skills": filled}


def _filled(tree: dict[str, Any], empty: dict[str, Any]) -> dict[str, Any]:
    missing = {name: value for name, value in empty.items() if name not in tree and _snake(name) not in tree}
    return {**tree, **missing} if missing else tree


def _snake(name: str) -> str:
    """The other spelling of a field that ProtoJSON's readers take."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


# Why a field of the card that is served differs from the one that was received, for people who compare the two.
_WHY = {
    "supportedInterfaces": "clients come to the gateway, in every binding and version that it speaks",
    "capabilities": "what the gateway does for the agent: streams, push, extended card",
    "securitySchemes": "how the gateway lets callers in; the agent's own are between it and the gateway",
    "securityRequirements": "the same",
    "signatures": "the gateway signs what it serves; the agent's signature would not fit it",
    "skills": "said once more for clients of 0.3, and without the agent's own security schemes",
}
_LINK = "not served: it is no http or https link"
_UNSIGNED = "not served: the agent's signature does not cover it"
_OLDER = "for clients of 0.3, which do not know the fields of 1.0"


def differences(received: dict[str, Any], served: dict[str, Any]) -> dict[str, str]:
    """The fields that differ between two cards, each with the reason."""
    told = {}
    for name in dict.fromkeys((*received, *served)):
        if received.get(name) == served.get(name) and (name in received) == (name in served):
            continue
        if name in _WHY:
            told[name] = _WHY[name]
        elif name in served:
            told[name] = _OLDER
        else:
            told[name] = _LINK if name in ("provider", "documentationUrl", "iconUrl") else _UNSIGNED
    return told


def _unsafe_links(card: AgentCard) -> set[str]:
    """Fields with a link that is no web address: a card is a stranger's text, and pages will show its links."""
    links = {
        "provider": card.provider.url if card.provider else None,
        "documentation_url": card.documentation_url,
        "icon_url": card.icon_url,
    }
    return {name for name, link in links.items() if link and not link.lower().startswith(("https://", "http://"))}
