"""What a server says with 401 and 403: the challenge of its WWW-Authenticate (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9449
§7.1)."""

from __future__ import annotations

import re

from gateway.model.value import value

# A challenge is a few hundred characters; what is longer is not read.
LONGEST = 8192
# A person is to read them all before saying yes.
MOST_SCOPES = 100

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# One scheme or one parameter. A quoted string may hold commas, and names of schemes, without being one. Blanks are
# taken once and for all: 8 KiB of them would be tried for a second, in front of a comma and behind it.
_PART = re.compile(rf'\s*+,?\s*+(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))|({_TOKEN}[A-Za-z0-9+/]*=*))')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # scope-token (RFC 6749 §3.3)


@value
class Challenge:
    """`scopes` None: the server named none. `resource_metadata` is text of a stranger. `proofs`: it takes tokens that
    are bound to a key; `wants_nonce`: and wants its nonce in the proof."""

    scopes: tuple[str, ...] | None = None
    resource_metadata: str | None = None
    error: str | None = None
    proofs: bool = False
    wants_nonce: bool = False


NOTHING = Challenge()


def bearer(header: str) -> Challenge:
    """The first Bearer challenge; without one, the first for bound tokens (DPoP). A header without either, or one that
    cannot be read, says nothing."""
    said: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    at = 0
    while (part := _PART.match(header[:LONGEST], at)) is not None and part.end() > at:
        at = part.end()
        name, quoted, plain, scheme = part.groups()
        if scheme is not None:
            parameters = {}
            said.setdefault(scheme.lower(), parameters)
        else:
            # The first one counts: a second would be read differently by somebody else.
            parameters.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted or ""))
    bound = said.get("dpop")
    chosen = said.get("bearer", bound) or {}
    return Challenge(
        scopes_of(chosen["scope"]) if "scope" in chosen else None,
        chosen.get("resource_metadata"),
        chosen.get("error"),
        bound is not None,
        bound is not None and bound.get("error") == "use_dpop_nonce",
    )


def scopes_of(text: str) -> tuple[str, ...] | None:
    """The words of a scope, each once; None for what is no scope."""
    words = tuple(dict.fromkeys(text.split()))
    return words if 0 < len(words) <= MOST_SCOPES and all(map(_SCOPE.fullmatch, words)) else None
