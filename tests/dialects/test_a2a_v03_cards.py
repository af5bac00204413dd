"""Cards of both generations: a 0.3 card in 1.0's shape, and a 1.0 card with 0.3's fields beside its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.a2a_v03.cards import also, read
from gateway.model.card import AgentCard

OLDER: dict[str, Any] = {
    "protocolVersion": "0.3.0",
    "name": "Older",
    "description": "Speaks 0.3.",
    "url": "https://a.example/rpc",
    "version": "7",
    "capabilities": {"streaming": True},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "s", "name": "S", "description": "Says it.", "tags": ["t"], "security": [{"o": ["read"]}]}],
}
SCHEMES: dict[str, Any] = {
    "key": {"type": "apiKey", "in": "header", "name": "x-key", "description": "d"},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "oauth": {
        "type": "oauth2",
        "flows": {"clientCredentials": {"tokenUrl": "https://a.example/t", "scopes": {"read": "r"}}},
    },
    "oidc": {"type": "openIdConnect", "openIdConnectUrl": "https://a.example/.well-known/openid-configuration"},
    "mtls": {"type": "mutualTLS"},
}


def interfaces(tree: Any) -> list[tuple[str, str, str]]:
    shown = read(tree)["supportedInterfaces"]
    return [(each["url"], each["protocolBinding"], each["protocolVersion"]) for each in shown]


@pytest.mark.requirement("a2a.v03.agent-is-called")
@pytest.mark.parametrize(
    ("about", "offered"),
    [
        ({}, [("https://a.example/rpc", "JSONRPC", "0.3.0")]),
        ({"preferredTransport": "HTTP+JSON"}, [("https://a.example/rpc", "HTTP+JSON", "0.3.0")]),
        ({"protocolVersion": "0.2.6"}, [("https://a.example/rpc", "JSONRPC", "0.2.6")]),
        (
            {
                "additionalInterfaces": [
                    {"url": "https://a.example/rpc", "transport": "JSONRPC"},  # the main one once more
                    {"url": "https://a.example/rest", "transport": "HTTP+JSON"},
                ]
            },
            [("https://a.example/rpc", "JSONRPC", "0.3.0"), ("https://a.example/rest", "HTTP+JSON", "0.3.0")],
        ),
    ],
)
def test_the_addresses_of_a_0_3_card_are_interfaces(about: Any, offered: Any) -> None:
    assert interfaces({**OLDER, **about}) == offered


def test_a_card_without_a_version_is_one_of_0_3() -> None:
    assert interfaces({name: value for name, value in OLDER.items() if name != "protocolVersion"})[0][2] == "0.3.0"


def test_a_card_with_interfaces_of_1_0_is_read_as_it_is() -> None:
    both = {**OLDER, "supportedInterfaces": []}
    assert read(both) is both


def test_the_newest_version_that_a_card_offers_is_spoken() -> None:
    offered = [
        {"url": "https://a.example/3", "protocolBinding": "JSONRPC", "protocolVersion": "0.3.0"},
        {"url": "https://a.example/1", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
    ]
    found = AgentCard.model_validate({**OLDER, "supportedInterfaces": offered}).interface()
    assert found is not None
    assert found.url == "https://a.example/1"


@pytest.mark.requirement("a2a.v03.card")
def test_security_comes_back_in_0_3s_words_beside_1_0s() -> None:
    security = [{"bearer": []}, {"oauth": ["read"], "mtls": []}]
    tree = read({**OLDER, "securitySchemes": SCHEMES, "security": security, "newer": {"kept": True}})
    assert tree["securityRequirements"][1] == {"schemes": {"oauth": {"list": ["read"]}, "mtls": {"list": []}}}
    assert tree["securitySchemes"]["key"] == {
        "apiKeySecurityScheme": {"location": "header", "name": "x-key", "description": "d"}
    }
    card = json.loads(also(AgentCard.model_validate(tree), "https://gw.example/agents/x").wire())
    assert card["security"] == security
    assert card["skills"][0]["security"] == OLDER["skills"][0]["security"]
    assert card["newer"] == {"kept": True}
    for name, scheme in SCHEMES.items():
        shown = card["securitySchemes"][name]
        assert scheme.items() <= shown.items(), name
        (wrapper,) = (inside for key, inside in shown.items() if key.endswith("SecurityScheme"))
        assert tree["securitySchemes"][name] == {key: wrapper for key in shown if key.endswith("SecurityScheme")}


@pytest.mark.requirement("a2a.v03.card")
def test_what_a_card_brought_under_0_3s_names_does_not_lead_past_the_gateway() -> None:
    leaky = {
        **read(OLDER),
        "url": "http://inside.example/",
        "additionalInterfaces": [{"url": "http://inside.example/", "transport": "GRPC"}],
        "security": [{"theirs": []}],
        "supportsAuthenticatedExtendedCard": True,
    }
    card = json.loads(also(AgentCard.model_validate(leaky), "https://gw.example/agents/x").wire())
    assert "inside.example" not in json.dumps(card)
    assert "theirs" not in json.dumps(card)
    assert card["supportsAuthenticatedExtendedCard"] is False
    assert {each["transport"] for each in card["additionalInterfaces"]} == {"JSONRPC", "HTTP+JSON"}


@pytest.mark.parametrize("broken", [{"securitySchemes": {"x": 1}, "security": [7], "skills": [None]}, {"url": 7}])
def test_a_broken_card_is_read_without_an_exception_and_refused_by_the_model(broken: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        AgentCard.model_validate(read({**OLDER, **broken}))
