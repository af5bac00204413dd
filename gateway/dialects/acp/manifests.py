"""What an agent says about itself: A2A's card and ACP's manifest, both ways.

A manifest's metadata beyond A2A's words travels as the parameters of an extension on the card.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote, unquote

from pydantic import AnyHttpUrl, TypeAdapter, ValidationError

from gateway.dialects.acp.parts import A2A, Tree
from gateway.model.base import timestamp
from gateway.model.card import AgentCard, AgentInterface

BINDING: Final = "ACP"
VERSION: Final = "0.2"  # of the OpenAPI document
EXTENSION: Final = "https://agentcommunicationprotocol.dev/core-concepts/agent-manifest"
ANY: Final = "*/*"

_URL = TypeAdapter(AnyHttpUrl)
_PLACE = re.compile(r"([^?#]+)/agents/([^/?#]+)")
_TYPES = ("input_content_types", "output_content_types")


def manifest(id: str, card: AgentCard, changed: int) -> Tree:
    """The manifest of the agent `id`. `changed` is when its card last did, in milliseconds since the epoch."""
    skills = card.skills
    inputs = [*card.default_input_modes, *(mode for skill in skills for mode in skill.input_modes or ())]
    outputs = [*card.default_output_modes, *(mode for skill in skills for mode in skill.output_modes or ())]
    kept = next((each.params for each in card.capabilities.extensions or () if each.uri == EXTENSION), None)
    return {
        "name": id,
        "description": card.description,
        "metadata": kept if kept is not None else _metadata(card, changed),
        "input_content_types": list(dict.fromkeys(inputs)),
        "output_content_types": list(dict.fromkeys(outputs)),
    }


def _metadata(card: AgentCard, changed: int) -> Tree:
    made: Tree = {
        "annotations": {A2A: {"name": card.name, "version": card.version}},
        "capabilities": [{"name": skill.name, "description": skill.description} for skill in card.skills],
        "tags": list(dict.fromkeys(tag for skill in card.skills for tag in skill.tags)),
        "updated_at": timestamp(changed),
    }
    # A reader of manifests takes none with an address that is no URL, and so would lose the whole list.
    if card.provider is not None:
        url = {"url": card.provider.url} if _is_url(card.provider.url) else {}
        made["author"] = {"name": card.provider.organization, **url}
    if card.documentation_url and _is_url(card.documentation_url):
        made["links"] = [{"type": "documentation", "url": card.documentation_url}]
    return made


def _is_url(text: str) -> bool:
    try:
        _URL.validate_python(text)
    except ValidationError:
        return False
    return True


def is_manifest(tree: Tree) -> bool:
    """Whether a document is a manifest. A card of A2A says in every version where its agent is; a manifest does not."""
    if not isinstance(tree.get("name"), str) or tree.keys() & {"url", "supportedInterfaces", "supported_interfaces"}:
        return False
    return any(isinstance(tree.get(name), list) for name in _TYPES) or isinstance(tree.get("metadata"), dict)


def card_tree(tree: Tree, url: str) -> Tree:
    """A card for the agent whose manifest is at `url`: its one interface is that very address. Not validated."""
    name, metadata = tree["name"], tree.get("metadata")
    about = {key: value for key, value in metadata.items() if value is not None} if isinstance(metadata, dict) else {}
    described = tree.get("description") or f"{name}, an agent that speaks ACP"
    annotations = about.get("annotations")
    said = annotations.get(A2A) if isinstance(annotations, dict) else None
    known: Tree = said if isinstance(said, dict) else {}
    made: Tree = {
        "name": known.get("name") or name,
        "description": described,
        "version": known.get("version") or "0",
        "supportedInterfaces": [{"url": url, "protocolBinding": BINDING, "protocolVersion": VERSION}],
        "capabilities": {
            "streaming": True,
            "extensions": [{"uri": EXTENSION, "description": "What the agent's ACP manifest says", "params": about}],
        },
        "defaultInputModes": _modes(tree.get("input_content_types")),
        "defaultOutputModes": _modes(tree.get("output_content_types")),
        "skills": _skills(name, described, about),
    }
    author = about.get("author")
    if isinstance(author, dict) and author.get("url"):
        made["provider"] = {"organization": author.get("name"), "url": author["url"]}
    links = about.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("type") == "documentation":
            made["documentationUrl"] = link.get("url")
    return made


def _modes(types: Any) -> list[Any]:
    return types if isinstance(types, list) and types else [ANY]


def _skills(name: str, described: str, about: Tree) -> list[Tree]:
    named, listed = about.get("tags"), about.get("capabilities")
    tags = [tag for tag in (named if isinstance(named, list) else ()) if isinstance(tag, str)] or ["acp"]
    skills = [
        {"id": _slug(each["name"]), "name": each["name"], "description": each.get("description") or "", "tags": tags}
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    ]
    return skills or [{"id": name, "name": name, "description": described, "tags": tags}]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "skill"


def place(url: str) -> tuple[str, str] | None:
    """Where the server is and what it calls the agent, by the address of a manifest; None for another address."""
    found = _PLACE.fullmatch(url)
    return (found[1], unquote(found[2])) if found else None


def addresses(tree: Tree, url: str) -> list[str]:
    """The addresses of the manifests in a server's list of agents, which is at `url`; none if it is no such list."""
    listed = tree.get("agents")
    names = [each.get("name") for each in (listed if isinstance(listed, list) else ()) if isinstance(each, dict)]
    return [f"{url}/{quote(name, safe='')}" for name in names if isinstance(name, str)]


def interface(card: AgentCard) -> AgentInterface | None:
    """Where an agent that speaks ACP is, if this is one."""
    return next((each for each in card.supported_interfaces if each.protocol_binding == BINDING), None)
