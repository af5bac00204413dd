"""What is signed of a card (A2A §8.4.1), signatures there and back with a2a-sdk, and what is no signature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from a2a.types.a2a_pb2 import AgentCard
from a2a.utils.signing import InvalidSignaturesError
from google.api import field_behavior_pb2  # type: ignore[import-untyped]

from gateway.dialects.a2a_v1 import signing
from gateway.dialects.a2a_v1.signing import A2A, KNOWN, SDK, SENT, SHAPES, BadSignature, fits, forms, header
from gateway.dialects.oauth2.signature import SignKey, read_keys
from tests.cardkeys import CardKey, encoded, jwks, sdk_verifies

CARD: dict[str, Any] = {
    "name": "Weather",
    "description": "Tells it.",
    "version": "1.0.0",
    "supportedInterfaces": [{"url": "https://w.example/a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    "capabilities": {"streaming": False, "extensions": [{"uri": "u", "required": False, "params": {"n": 1.0}}]},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "s", "name": "S", "description": "Grüße \u20ac \U0001f600", "tags": ["t"], "examples": []}],
}


def form(card: dict[str, Any], name: str) -> bytes:
    return next(form.payload for form in forms(card) if form.name == name)


def test_the_table_of_fields_is_that_of_the_proto() -> None:
    """Compared with the descriptors that a2a-sdk was built from."""
    shown: dict[str, dict[str, str]] = {}

    def take(message: Any) -> None:
        if message.name in shown:
            return
        rules = shown[message.name] = {}
        for field in message.fields:
            behaviour = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
            inner = field.message_type
            rule = "!" if field_behavior_pb2.REQUIRED in behaviour else "?" if field.has_presence else ""
            if inner is not None and inner.GetOptions().map_entry:
                rule, inner = rule + "*", inner.fields_by_name["value"].message_type
            ours = inner is not None and inner.file.package == "lf.a2a.v1"
            rules[field.json_name] = rule + (inner.name if ours else "") if ours else rule.rstrip("*")
            if ours:
                take(inner)

    take(AgentCard.DESCRIPTOR)
    del shown["AgentCard"]["signatures"]
    del shown["AgentCardSignature"]
    assert shown == SHAPES


@pytest.mark.requirement("a2a.card.canonical-form")
def test_the_example_of_the_specification() -> None:
    card = {
        "name": "Example Agent",
        "description": "",
        "capabilities": {"streaming": False, "pushNotifications": False, "extensions": []},
        "skills": [],
        "supportedInterfaces": [],
        "signatures": [{"protected": "x", "signature": "y"}],
    }
    assert form(card, A2A) == (
        b'{"capabilities":{"pushNotifications":false,"streaming":false},"description":"","name":"Example Agent",'
        b'"skills":[],"supportedInterfaces":[]}'
    )


@pytest.mark.requirement("a2a.card.canonical-form")
def test_defaults_go_and_what_is_required_or_was_set_stays() -> None:
    card = {
        **CARD,
        "iconUrl": "",  # optional and set
        "securityRequirements": [],
        "provider": {"url": "", "organization": ""},
        "documentationUrl": None,  # ProtoJSON: not set
        "supportedInterfaces": [{**CARD["supportedInterfaces"][0], "tenant": ""}],
        "newer": {"empty": ""},  # of no field that we know: nothing is known of its default
    }
    signed = json.loads(form(card, A2A))
    assert signed["iconUrl"] == ""
    assert signed["provider"] == {"url": "", "organization": ""}
    assert signed["newer"] == {"empty": ""}
    assert signed.keys().isdisjoint({"securityRequirements", "documentationUrl"})
    assert "tenant" not in signed["supportedInterfaces"][0]
    assert signed["capabilities"]["extensions"] == [{"uri": "u", "params": {"n": 1}}]
    assert "examples" not in signed["skills"][0]


def test_equal_forms_are_tried_once() -> None:
    plain = {**CARD, "capabilities": {"streaming": True}, "skills": [{**CARD["skills"][0], "examples": ["x"]}]}
    assert [each.name for each in forms(plain)] == [A2A]
    assert [each.name for each in forms({**plain, "more": 1})] == [A2A, KNOWN]
    assert [each.name for each in forms({**plain, "description": "", "more": ""})] == [A2A, KNOWN, SDK]
    assert [each.name for each in forms({**plain, "provider": None})] == [A2A, SENT]


# There and back with a2a-sdk.


@pytest.mark.requirement("a2a.card.verified")
@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
@pytest.mark.parametrize(
    ("changes", "wanted"), [({}, A2A), ({"more": 1}, KNOWN), ({"description": ""}, SDK), ({"skills": []}, SDK)]
)
def test_what_a2a_sdk_signed_fits_and_the_form_is_told(alg: str, changes: dict[str, Any], wanted: str) -> None:
    key = CardKey(alg=alg)
    card = key.sdk({**CARD, **changes})
    found = fits(forms(card), card["signatures"][0], alg, _key(key))
    assert found is not None
    assert found.name == wanted
    assert ("more" in found.card) == (wanted == A2A and "more" in changes)


@pytest.mark.requirement("a2a.card.signed")
@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
@pytest.mark.parametrize("changes", [{}, {"more": 1}, {"description": ""}, {"skills": []}])
def test_a2a_sdk_accepts_what_we_signed(alg: str, changes: dict[str, Any]) -> None:
    key, card = SignKey.make(alg), {**CARD, **changes}
    signed = {**card, "signatures": list(signing.sign(card, key, "https://gw.example/keys"))}
    sdk_verifies(signed, {"keys": [key.public()]}, jku="https://gw.example/keys")
    with pytest.raises(InvalidSignaturesError):
        sdk_verifies({**signed, "name": "Other"}, {"keys": [key.public()]})


# Made by @a2a-js/sdk 1.3.0: cards that it signed, the keys to them, and the form that it signs such a card in.
JS_CARDS = json.loads((Path(__file__).parents[1] / "corpus" / "cards" / "a2a-js.json").read_text(encoding="utf-8"))


@pytest.mark.requirement("a2a.card.verified")
@pytest.mark.parametrize("case", JS_CARDS, ids=lambda case: case["name"])
def test_what_the_javascript_sdk_signed_fits_and_the_form_is_told(case: dict[str, Any]) -> None:
    (signature,) = case["card"]["signatures"]
    claimed = header(signature)
    key = read_keys(json.dumps(case["keys"]).encode(), signing.ALGORITHMS).find(claimed.kid, claimed.alg)
    assert key is not None
    found = fits(forms(case["card"]), signature, claimed.alg, key)
    assert found is not None
    assert found.name == case["form"]
    assert ("securitySchemes" in found.card) == ("securitySchemes" in case["card"] and found.name != signing.JS)


# What is changed does not fit any more.


def mutants(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a tree with another in its place, every member left out, and one more in every object."""
    if isinstance(tree, dict):
        yield (*path, "evil"), "x"
        for name, inner in tree.items():
            yield (*path, name), KeyError
            yield from mutants(inner, (*path, name))
    elif isinstance(tree, list):
        yield (*path, len(tree)), "evil"
        for index, inner in enumerate(tree):
            yield from mutants(inner, (*path, index))
    else:
        yield path, (not tree if isinstance(tree, bool) else tree + 1 if isinstance(tree, float) else str(tree) + "x")


def changed(card: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(card))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    if value is KeyError:
        del holder[path[-1]]
    elif isinstance(holder, list) and path[-1] == len(holder):
        holder.append(value)
    else:
        holder[path[-1]] = value
    return copy  # type: ignore[no-any-return]


RICH: dict[str, Any] = {
    **CARD,
    "description": "",
    "provider": {"organization": "W", "url": "https://w.example"},
    "documentationUrl": "https://w.example/docs",
    "securitySchemes": {"k": {"apiKeySecurityScheme": {"name": "key", "location": "header"}}},
    "securityRequirements": [{"schemes": {"k": {"list": ["read"]}}}],
}


@pytest.mark.security
@pytest.mark.requirement("a2a.card.verified")
def test_no_mutant_of_a_signed_card_is_what_was_signed() -> None:
    """A signature may still fit one, where only what it does not cover has changed: the card that is then used is the
    one that was signed."""
    key = CardKey()
    public, signed = _key(key), key.sdk(RICH)
    unsigned = {name: value for name, value in signed.items() if name != "signatures"}
    refused = 0
    used = fits(forms(signed), signed["signatures"][0], "ES256", public)
    assert used is not None
    for path, value in mutants(unsigned):
        mutant = changed(unsigned, path, value)
        found = fits(forms(mutant), signed["signatures"][0], "ES256", public)
        if found is None:
            refused += 1
        else:
            assert _meaning(found.card) == _meaning(used.card), path
    assert refused >= 60


def _meaning(card: dict[str, Any]) -> bytes:
    return form(card, SDK if "supportedInterfaces" in card and SDK in {f.name for f in forms(card)} else A2A)


@pytest.mark.security
@pytest.mark.parametrize(
    ("header_", "says"),
    [
        ({"alg": "none"}, "is not one of"),
        ({"alg": "HS256"}, "is not one of"),
        ({"alg": None}, "no text"),
        ({"alg": 7}, "no text"),
        ({"kid": 7}, "no text"),
        ({"jku": ["https://x"]}, "no text"),
        ({"crit": ["exp"]}, "crit"),
        ({"b64": False}, "crit"),
    ],
)
def test_a_header_that_we_do_not_take(header_: dict[str, Any], says: str) -> None:
    named = {"alg": "ES256", "kid": "k1", **header_}
    with pytest.raises(BadSignature, match=says):
        header({"protected": encoded(json.dumps(named).encode()), "signature": "AA"})


@pytest.mark.security
@pytest.mark.parametrize(
    "protected",
    [
        "", "e30=", "e31", "not base64", "W10",  # padding, stray bits, other letters, a list
        encoded(b'{"alg":"ES256","alg":"none"}'), encoded(b"\xff"), None, 7, {},
    ],
)  # fmt: skip
def test_what_is_no_protected_header(protected: Any) -> None:
    with pytest.raises(BadSignature):
        header({"protected": protected, "signature": "AA"})


def test_unprotected_headers_are_not_read() -> None:
    told = {"protected": encoded(b'{"alg":"ES256"}'), "signature": "AA", "header": {"kid": "k", "jku": "https://e"}}
    assert header(told) == ("ES256", None, None)


@pytest.mark.parametrize("signatures", [{}, "x", 7, [{}] * 9])
def test_signatures_that_are_no_short_list(signatures: Any) -> None:
    with pytest.raises(BadSignature):
        signing.signatures({"signatures": signatures})


def _key(key: CardKey) -> Any:
    found = read_keys(json.dumps(jwks(key)).encode(), signing.ALGORITHMS).find(key.kid, key.alg)
    assert found is not None
    return found
