"""A manifest as a card, and a card as a manifest."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.acp import manifests
from gateway.model.card import AgentCard

URL = "https://agents.example/agents/writer"
MANIFEST: dict[str, Any] = {
    "name": "writer",
    "description": "Writes.",
    "metadata": {
        "license": "Apache-2.0",
        "capabilities": [{"name": "Write Prose", "description": "In whole sentences."}],
        "tags": ["text"],
        "author": {"name": "Ada", "url": "https://ada.example/"},
        "links": [
            {"type": "documentation", "url": "https://docs.example/"},
            {"type": "homepage", "url": "https://h.example/"},
        ],
        "annotations": {"beeai_ui": {"ui_type": "chat"}},
    },
    "input_content_types": ["text/plain"],
    "output_content_types": ["text/plain", "text/markdown"],
}


def card(manifest: Any = MANIFEST) -> AgentCard:
    return AgentCard.model_validate(manifests.card_tree(manifest, URL))


def test_a_manifest_becomes_a_card_that_says_the_same() -> None:
    made = card()
    assert (made.name, made.description, made.documentation_url) == ("writer", "Writes.", "https://docs.example/")
    assert made.provider is not None
    assert (made.provider.organization, made.provider.url) == ("Ada", "https://ada.example/")
    assert [(skill.id, skill.name, skill.tags) for skill in made.skills] == [("write-prose", "Write Prose", ("text",))]
    assert made.default_output_modes == ("text/plain", "text/markdown")
    found = manifests.interface(made)
    assert found is not None
    assert manifests.place(found.url) == ("https://agents.example", "writer")


def test_what_a_card_has_no_words_for_comes_back_in_the_manifest() -> None:
    assert manifests.manifest("writer", card(), 0) == MANIFEST


def test_a_manifest_that_says_nearly_nothing_will_do() -> None:
    made = card({"name": "w", "metadata": {}, "input_content_types": []})
    assert made.default_input_modes == ("*/*",)
    assert [skill.id for skill in made.skills] == ["w"]
    assert made.description


@pytest.mark.parametrize("url", ["not a url", "javascript:alert(1)", ""])
def test_an_address_that_is_none_stays_out_of_a_manifest(url: str) -> None:
    tree = manifests.card_tree({"name": "w", "input_content_types": []}, URL)
    tree["capabilities"] = {}
    tree |= {"provider": {"organization": "O", "url": url}, "documentationUrl": url}
    made = manifests.manifest("w", AgentCard.model_validate(tree), 0)
    assert made["metadata"]["author"] == {"name": "O"}
    assert "links" not in made["metadata"]


@pytest.mark.parametrize(
    ("tree", "is_one"),
    [
        (MANIFEST, True),
        ({"name": "w", "input_content_types": []}, True),
        ({"name": "w"}, False),
        ({"name": "w", "metadata": {}, "url": "https://a.example/"}, False),
        ({"name": "w", "metadata": {}, "supportedInterfaces": []}, False),
        ({"metadata": {}}, False),
    ],
)
def test_a_card_is_not_taken_for_a_manifest(tree: Any, is_one: bool) -> None:
    assert manifests.is_manifest(tree) is is_one


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h.example/agents/a", ("http://h.example", "a")),
        ("http://h.example/acp/agents/a%20b", ("http://h.example/acp", "a b")),
        ("http://h.example/agents/agents/a", ("http://h.example/agents", "a")),
        ("http://h.example/manifest.json", None),
        ("http://h.example/agents/", None),
        ("http://h.example/agents/a?x=1", None),
    ],
)
def test_the_server_and_the_name_are_in_the_address(url: str, found: object) -> None:
    assert manifests.place(url) == found
