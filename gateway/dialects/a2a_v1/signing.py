"""Signatures on cards (A2A 1.0.1 §8.4): what is signed, and whether it fits. Pure; keys come from outside.

The bytes to sign are the card without `signatures`, defaults removed by the rules of §8.4.1, in the one spelling of
RFC 8785. Signers differ in what they take for the card, so a reader has to try more than one form, and we say which
one fitted; and we sign each form that some reader would make of our card, where they differ.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.dialects.jcs import canonical
from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError

Tree = dict[str, Any]

ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256"})
MAX_SIGNATURES = 8  # of one card: a few keys in rotation, in the forms that readers make

# The fields of a card by message (a2a.proto). "!" is REQUIRED and always stays, "?" stays where it was set (`optional`,
# messages, members of a oneof), the others go when they have their default. Then the message of the field, if it is
# one, or a list of them; "*" before it: a map to them.
SHAPES: Mapping[str, Mapping[str, str]] = {
    "AgentCard": {
        "name": "!",
        "description": "!",
        "supportedInterfaces": "!AgentInterface",
        "provider": "?AgentProvider",
        "version": "!",
        "documentationUrl": "?",
        "capabilities": "!AgentCapabilities",
        "securitySchemes": "*SecurityScheme",
        "securityRequirements": "SecurityRequirement",
        "defaultInputModes": "!",
        "defaultOutputModes": "!",
        "skills": "!AgentSkill",
        "iconUrl": "?",
    },
    "AgentInterface": {"url": "!", "protocolBinding": "!", "tenant": "", "protocolVersion": "!"},
    "AgentProvider": {"url": "!", "organization": "!"},
    "AgentCapabilities": {
        "streaming": "?",
        "pushNotifications": "?",
        "extensions": "AgentExtension",
        "extendedAgentCard": "?",
    },
    "AgentExtension": {"uri": "", "description": "", "required": "", "params": "?"},
    "AgentSkill": {
        "id": "!",
        "name": "!",
        "description": "!",
        "tags": "!",
        "examples": "",
        "inputModes": "",
        "outputModes": "",
        "securityRequirements": "SecurityRequirement",
    },
    "SecurityRequirement": {"schemes": "*StringList"},
    "StringList": {"list": ""},
    "SecurityScheme": {
        "apiKeySecurityScheme": "?APIKeySecurityScheme",
        "httpAuthSecurityScheme": "?HTTPAuthSecurityScheme",
        "oauth2SecurityScheme": "?OAuth2SecurityScheme",
        "openIdConnectSecurityScheme": "?OpenIdConnectSecurityScheme",
        "mtlsSecurityScheme": "?MutualTlsSecurityScheme",
    },
    "APIKeySecurityScheme": {"description": "", "location": "!", "name": "!"},
    "HTTPAuthSecurityScheme": {"description": "", "scheme": "!", "bearerFormat": ""},
    "OAuth2SecurityScheme": {"description": "", "flows": "!OAuthFlows", "oauth2MetadataUrl": ""},
    "OpenIdConnectSecurityScheme": {"description": "", "openIdConnectUrl": "!"},
    "MutualTlsSecurityScheme": {"description": ""},
    "OAuthFlows": {
        "authorizationCode": "?AuthorizationCodeOAuthFlow",
        "clientCredentials": "?ClientCredentialsOAuthFlow",
        "implicit": "?ImplicitOAuthFlow",
        "password": "?PasswordOAuthFlow",
        "deviceCode": "?DeviceCodeOAuthFlow",
    },
    "AuthorizationCodeOAuthFlow": {
        "authorizationUrl": "!",
        "tokenUrl": "!",
        "refreshUrl": "",
        "scopes": "!",
        "pkceRequired": "",
    },
    "ClientCredentialsOAuthFlow": {"tokenUrl": "!", "refreshUrl": "", "scopes": "!"},
    "ImplicitOAuthFlow": {"authorizationUrl": "", "refreshUrl": "", "scopes": ""},
    "PasswordOAuthFlow": {"tokenUrl": "", "refreshUrl": "", "scopes": ""},
    "DeviceCodeOAuthFlow": {"deviceAuthorizationUrl": "!", "tokenUrl": "!", "refreshUrl": "", "scopes": "!"},
}

# Every form and what it means for whoever reads the report.
A2A, SENT, KNOWN, SDK, JS = "a2a", "as-sent", "a2a-known-fields", "a2a-sdk", "a2a-js"
FORMS: Mapping[str, str] = {
    A2A: "the card as §8.4.1 wants it",
    SENT: "the card as it was sent, defaults included, which §8.4.1 does not want",
    KNOWN: "the fields of A2A 1.0 as §8.4.1 wants them; its other fields are not signed and are not used",
    SDK: "the fields of A2A 1.0 without any empty value, as a2a-sdk signs, also where §8.4.1 wants the value kept; "
    "its other fields are not signed and are not used",
    JS: "the same without the security schemes, which @a2a-js/sdk loses on the way to a signature; they are not used",
}


class Form(NamedTuple):
    """A spelling of a card: what is signed, and the card that a reader of this form has."""

    name: str
    payload: bytes
    card: Tree


class Key(Protocol):
    """A public key (`dialects/oauth2/signature.py`)."""

    def verifies(self, alg: str, message: bytes, signature: bytes) -> bool: ...


class Header(NamedTuple):
    """The protected header, as far as it counts. What stands in an unprotected one counts for nothing."""

    alg: str
    kid: str | None
    jku: str | None


class BadSignature(ValueError):
    """No signature that can be checked; the sentence says why."""


# The forms.


def forms(card: Tree) -> Iterator[Form]:
    """The forms of a card in which somebody may have signed it, the right one first; equal ones once."""
    whole = {name: value for name, value in card.items() if name != "signatures"}
    made: list[tuple[str, Any, Tree]]
    if "supportedInterfaces" in card:
        known = _known(whole, "AgentCard")
        said = _present(known, "AgentCard")
        made = [(A2A, _present(whole, "AgentCard"), whole), (SENT, whole, whole), (KNOWN, said, known)]
        made.append((SDK, _without_empty(said), known))
        if "securitySchemes" in known:
            said, known = ({k: v for k, v in each.items() if k != "securitySchemes"} for each in (said, known))
            made.append((JS, _without_empty(said), known))
    else:
        # 0.3 has neither the fields nor the rules; its SDK leaves empty values out.
        made = [(SENT, whole, whole), (SDK, _without_empty(whole), whole)]
    seen: list[Any] = []
    for name, signed, read_as in made:
        if signed not in seen:  # to compare them is a fraction of writing one
            seen.append(signed)
            yield Form(name, canonical(signed), read_as)


def _present(value: Any, shape: str) -> Any:
    """§8.4.1, rule 1. Fields that the shape does not know stay as they are: what they default to nobody knows."""
    if isinstance(value, list):
        return [_present(each, shape) for each in value]
    if not isinstance(value, dict) or shape not in SHAPES:
        return value
    kept = {}
    for name, inner in value.items():
        rule = SHAPES[shape].get(name)
        if rule is None:
            kept[name] = inner
            continue
        made = _inside(inner, rule, _present)
        # null is ProtoJSON for "not set".
        if made is not None and (rule[:1] in ("!", "?") or not _default(made)):
            kept[name] = made
    return kept


def _known(value: Any, shape: str) -> Any:
    """The fields of the shape alone, at every depth: what a reader has that parses into messages."""
    if isinstance(value, list):
        return [_known(each, shape) for each in value]
    if not isinstance(value, dict) or shape not in SHAPES:
        return value
    rules = SHAPES[shape]
    # Either spelling of a name is read (ProtoJSON); where both are there, the one that is written counts.
    named = {_camel(name): inner for name, inner in value.items() if "_" in name}
    named |= {name: inner for name, inner in value.items() if "_" not in name}
    return {name: _inside(inner, rules[name], _known) for name, inner in named.items() if name in rules}


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def _inside(value: Any, rule: str, each: Any) -> Any:
    shape = rule.lstrip("!?*")
    if not shape:
        return value
    if "*" in rule:
        return {name: each(inner, shape) for name, inner in value.items()} if isinstance(value, dict) else value
    return each(value, shape)


def _default(value: Any) -> bool:
    return value in ("", [], {}) or value is False or (value == 0 and not isinstance(value, bool))


def _without_empty(value: Any) -> Any:
    """What a2a-sdk signs: no empty text, list or object anywhere. None for what is empty itself."""
    if isinstance(value, dict):
        return {k: kept for k, v in value.items() if (kept := _without_empty(v)) is not None} or None
    if isinstance(value, list):
        return [kept for v in value if (kept := _without_empty(v)) is not None] or None
    return None if value == "" else value


# Signing.


class Signer(Protocol):
    """A private key: the two parts of a detached JWS over `payload`, encoded."""

    def detached(self, header: Mapping[str, str], payload: bytes) -> tuple[str, str]: ...


def sign(card: Tree, signer: Signer, jku: str) -> tuple[dict[str, str], ...]:
    """The signatures of `card`, one for each form that readers make of it (§8.4.2)."""
    made = []
    for form in forms(card):
        if form.name != SENT:  # which nobody needs who knows the first one
            protected, signature = signer.detached({"typ": "JOSE", "jku": jku}, form.payload)
            made.append({"protected": protected, "signature": signature})
    return tuple(made)


# Reading.


def signatures(card: Tree) -> Sequence[Any]:
    """The signatures of a card as they stand there. Raises BadSignature when that is no list, or too long a one."""
    listed = card.get("signatures")
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise BadSignature("its signatures are not a list")
    if len(listed) > MAX_SIGNATURES:
        raise BadSignature(f"it has more than {MAX_SIGNATURES} signatures")
    return listed


def header(signature: Any) -> Header:
    """Raises BadSignature."""
    if not isinstance(signature, dict) or not isinstance(signature.get("protected"), str):
        raise BadSignature("it is no signature: there is no protected header")
    try:
        tree: JSON = read(_decoded(signature["protected"]))
    except GatewayError as error:
        raise BadSignature(f"its protected header is not strict JSON: {error.message}") from None
    if not isinstance(tree, dict):
        raise BadSignature("its protected header is not a JSON object")
    alg, kid, jku = tree.get("alg"), tree.get("kid"), tree.get("jku")
    if not isinstance(alg, str) or not isinstance(kid, str | None) or not isinstance(jku, str | None):
        raise BadSignature("its protected header has an alg, kid or jku that is no text")
    if alg not in ALGORITHMS:
        raise BadSignature(f"its algorithm {alg[:20]!r} is not one of {', '.join(sorted(ALGORITHMS))}")
    if "crit" in tree or "b64" in tree:
        raise BadSignature("its protected header asks for rules that we do not know (crit)")
    return Header(alg, kid, jku)


def fits(made: Iterable[Form], signature: Tree, alg: str, key: Key) -> Form | None:
    """The form of the card that the signature is for; None when it is for none. Raises BadSignature."""
    if not isinstance(signature.get("signature"), str):
        raise BadSignature("it is no signature: there is none in it")
    value = _decoded(signature["signature"])
    start = signature["protected"].encode() + b"."
    return next((form for form in made if key.verifies(alg, start + _encoded(form.payload), value)), None)


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(text: str) -> bytes:
    """base64url without padding (RFC 7515 §2), in its one spelling."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    if not data or _encoded(data).decode() != text:
        raise BadSignature("it is not encoded as base64url without padding")
    return data
