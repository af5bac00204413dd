"""Cards: one document that serves both generations, and a 0.3 card as a 1.0 card (0.3.0 §5.5, §5.6).

The fields of the two have different names, with two exceptions where both shapes stand in one object: a security scheme
(`type` and its fields beside 1.0's wrapper) and `capabilities`.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, TypeVar

from gateway.dialects.a2a_v03.requests import VERSION
from gateway.dialects.a2a_v03.stowed import Tree
from gateway.model.base import Model
from gateway.model.card import GRPC, HTTP_JSON, JSONRPC, AgentCard, AgentInterface, AgentSkill

M = TypeVar("M", bound=Model)

PATCH = "0.3.0"  # 0.3 cards say all three numbers
BINDINGS = (JSONRPC, HTTP_JSON)

SCHEMES = {
    "apiKey": "apiKeySecurityScheme",
    "http": "httpAuthSecurityScheme",
    "oauth2": "oauth2SecurityScheme",
    "openIdConnect": "openIdConnectSecurityScheme",
    "mutualTLS": "mtlsSecurityScheme",
}
_RENAMED = {"location": "in"}  # of an API key
_CONNECTION = ("url", "preferredTransport", "additionalInterfaces", "protocolVersion")
_OLDER = frozenset({*_CONNECTION, "supportsAuthenticatedExtendedCard", "security"})


# Writing: what a 1.0 card says, said again for 0.3.


def also(card: AgentCard, url: str, *, fields: bool = True, grpc: str | None = None) -> AgentCard:
    """`card`, as it is published at `url` (and, if it is, over gRPC at `grpc`), with 0.3's interfaces and (with
    `fields`) 0.3's fields beside 1.0's. What it brought under 0.3's names is dropped in any case: it would lead past
    the gateway."""
    offered = [(url, binding) for binding in BINDINGS] + ([] if grpc is None else [(grpc, GRPC)])
    interfaces = tuple(AgentInterface(url=at, protocol_binding=b, protocol_version=VERSION) for at, b in offered)
    update: Tree = {"supported_interfaces": (*card.supported_interfaces, *interfaces)}
    if not fields:
        return _with(card.model_copy(update=update), {}, _OLDER)
    older: Tree = {
        "protocolVersion": PATCH,
        "url": url,
        "preferredTransport": BINDINGS[0],
        "additionalInterfaces": [{"url": at, "transport": binding} for at, binding in offered],
        "supportsAuthenticatedExtendedCard": bool(card.capabilities.extended_agent_card),
    }
    said = card.model_fields_set
    update["skills"] = tuple(map(_also_skill, card.skills))
    if card.security_requirements is not None and "security_requirements" in said:
        older["security"] = [_older_requirement(requirement) for requirement in card.security_requirements]
    if card.security_schemes is not None and "security_schemes" in said:
        update["security_schemes"] = {name: _both(scheme) for name, scheme in card.security_schemes.items()}
    return _with(card.model_copy(update=update), older, _OLDER)


def _also_skill(skill: AgentSkill) -> AgentSkill:
    if not skill.security_requirements:
        return skill
    return _with(skill, {"security": [_older_requirement(each) for each in skill.security_requirements]}, {"security"})


def _with(value: M, more: Tree, instead: Set[str]) -> M:
    """A copy with these unknown fields, which the model writes after its own."""
    kept = {name: said for name, said in (value.__pydantic_extra__ or {}).items() if name not in instead}
    copy = value.model_copy()
    object.__setattr__(copy, "__pydantic_extra__", {**kept, **more})
    return copy


def _older_requirement(requirement: Tree) -> Tree:
    """{schemes: {name: {list: [scope]}}} -> {name: [scope]}"""
    schemes = requirement.get("schemes")
    if not isinstance(schemes, dict):
        return {}
    return {name: list(scopes.get("list") or []) for name, scopes in schemes.items() if isinstance(scopes, dict)}


def _both(scheme: Any) -> Any:
    """1.0's wrapper with 0.3's fields beside it."""
    if not isinstance(scheme, dict):
        return scheme
    for type, wrapper in SCHEMES.items():
        if isinstance(inside := scheme.get(wrapper), dict):
            older = {_RENAMED.get(name, name): value for name, value in inside.items()}
            return {**scheme, **older, "type": type}
    return scheme


# Reading: a 0.3 card in 1.0's shape.


def read(tree: Tree) -> Tree:
    """A card of either generation as a 1.0 card; one that has 1.0's interfaces is one already. Its own fields of 0.3
    are used up, unknown ones stay."""
    if "supportedInterfaces" in tree or "supported_interfaces" in tree or "url" not in tree:
        return tree
    made = {name: value for name, value in tree.items() if name not in _OLDER}
    made["supportedInterfaces"] = _interfaces(tree)
    capabilities = tree.get("capabilities")
    if isinstance(capabilities, dict) and "supportsAuthenticatedExtendedCard" in tree:
        made["capabilities"] = {**capabilities, "extendedAgentCard": tree["supportsAuthenticatedExtendedCard"]}
    if isinstance(security := tree.get("security"), list):
        made["securityRequirements"] = [_newer_requirement(each) for each in security]
    if isinstance(schemes := tree.get("securitySchemes"), dict):
        made["securitySchemes"] = {name: _newer_scheme(scheme) for name, scheme in schemes.items()}
    if isinstance(skills := tree.get("skills"), list):
        made["skills"] = [_newer_skill(skill) for skill in skills]
    return made


def _interfaces(tree: Tree) -> list[Tree]:
    """The main one first; the others as often says it once more (0.3.0 §5.6.2)."""
    version = tree.get("protocolVersion") or PATCH
    listed = tree.get("additionalInterfaces")
    offered = [(tree["url"], tree.get("preferredTransport") or JSONRPC)]
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and (pair := (each.get("url"), each.get("transport"))) not in offered:
            offered.append(pair)
    return [{"url": url, "protocolBinding": binding, "protocolVersion": version} for url, binding in offered]


def _newer_requirement(requirement: Any) -> Any:
    if not isinstance(requirement, dict):
        return requirement
    return {"schemes": {name: {"list": scopes} for name, scopes in requirement.items()}}


def _newer_scheme(scheme: Any) -> Any:
    wrapper = SCHEMES.get(str(scheme.get("type"))) if isinstance(scheme, dict) else None
    if wrapper is None:
        return scheme
    back = {older: newer for newer, older in _RENAMED.items()} if wrapper == SCHEMES["apiKey"] else {}
    return {wrapper: {back.get(name, name): value for name, value in scheme.items() if name != "type"}}


def _newer_skill(skill: Any) -> Any:
    if not isinstance(skill, dict) or not isinstance(skill.get("security"), list):
        return skill
    rest = {name: value for name, value in skill.items() if name != "security"}
    return {**rest, "securityRequirements": [_newer_requirement(each) for each in skill["security"]]}
