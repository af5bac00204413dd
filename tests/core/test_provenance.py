"""Is a card taken: the whole table. And what a new one changes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.provenance import MAX_CHANGES, changes, refusal
from gateway.model.card import AgentCard
from gateway.model.provenance import CardRecord, Finding, Standing, best

UNSIGNED, UNKNOWN, VERIFIED, INVALID = Standing.UNSIGNED, Standing.UNKNOWN, Standing.VERIFIED, Standing.INVALID


def card(standing: Standing) -> CardRecord:
    findings = () if standing is UNSIGNED else (Finding(standing, "because"),)
    return CardRecord("far", "https://far.example/card", "https://far.example/card", 1, b"{}", standing, findings)


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("before", [None, *Standing])
@pytest.mark.parametrize("seen", Standing)
def test_a_card_is_taken_when_nothing_speaks_against_it(
    seen: Standing, before: Standing | None, required: bool
) -> None:
    why = refusal(card(seen), None if before is None else card(before), required=required)
    fell_behind = before is VERIFIED and seen is not VERIFIED
    assert (why is None) == (seen is VERIFIED or not (required or seen is INVALID or fell_behind))
    if why is not None and seen is not UNSIGNED:
        assert "because" in why
    if fell_behind and not required and seen is not INVALID:
        assert why is not None
        assert "gateway cards accept far" in why


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ((), UNSIGNED),
        ((UNKNOWN,), UNKNOWN),
        ((UNKNOWN, INVALID), INVALID),
        ((INVALID, VERIFIED, UNKNOWN), VERIFIED),
    ],
)
def test_one_signature_that_fits_is_enough(given: tuple[Standing, ...], verdict: Standing) -> None:
    assert best([Finding(standing, "") for standing in given]) is verdict


def agent(*skills: str, **more: Any) -> AgentCard:
    tree = {
        "name": "A", "description": "d", "version": "1", "capabilities": {}, "defaultInputModes": [],
        "defaultOutputModes": [], "supportedInterfaces": [
            {"url": "https://a.example", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "skills": [{"id": skill, "name": skill, "description": "d", "tags": []} for skill in skills],
    }  # fmt: skip
    return AgentCard.model_validate(tree | more)


def test_what_has_changed_is_said() -> None:
    assert changes(agent("a"), agent("a")) == ()
    moved = [{"url": "https://b.example", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
    newer = agent("b", supportedInterfaces=moved, version="2", hint=1, signatures=[{"protected": "x"}])
    assert changes(agent("a"), newer) == (
        "new interface: JSONRPC 1.0 at https://b.example",
        "interface gone: JSONRPC 1.0 at https://a.example",
        "new skill: b",
        "skill gone: a",
        "version changed",
        "hint changed",
    )
    other = agent("a", skills=[{"id": "a", "name": "Other", "description": "d", "tags": []}])
    assert changes(agent("a"), other) == ("skill changed: a",)
    assert len(changes(agent(), agent(*map(str, range(100))))) == MAX_CHANGES
