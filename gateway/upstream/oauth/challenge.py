"""What a server says with 401 and 403: the Bearer challenge of its WWW-Authenticate (RFC 9110 §11.6.1, RFC 6750 §3)."""

from __future__ import annotations

import re

from gateway.model.value import value

# A challenge is a few hundred characters; what is longer is not read.
LONGEST = 8192
# A person is to read them all before saying yes.
MOST_SCOPES = 100

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# One scheme or one parameter. A quoted string may hold commas, and names of schemes, without being one.
_PART = re.compile(rf'\s*,?\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))|({_TOKEN}[A-Za-z0-9+/]*=*))')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # scope-token (RFC 6749 §3.3)


@value
class Challenge:
    """`scopes` None: the server named none. `resource_metadata` is text of a stranger."""

    scopes: tuple[str, ...] | None = None
    resource_metadata: str | None = None
    error: str | None = None


NOTHING = Challenge()


def bearer(header: str) -> Challenge:
    """The first Bearer challenge. A header without one, or one that cannot be read, says nothing."""
    parameters: dict[str, str] | None = None
    at = 0
    while (part := _PART.match(header[:LONGEST], at)) is not None and part.end() > at:
        at = part.end()
        name, quoted, plain, scheme = part.groups()
        if scheme is not None:
            if parameters is not None:
                break
            parameters = {} if scheme.lower() == "bearer" else None
        elif parameters is not None:
            # The first one counts: a second would be read differently by somebody else.
            parameters.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted or ""))
    if not parameters:
        return NOTHING
    return Challenge(
        scopes_of(parameters["scope"]) if "scope" in parameters else None,
        parameters.get("resource_metadata"),
        parameters.get("error"),
    )


def scopes_of(text: str) -> tuple[str, ...] | None:
    """The words of a scope, each once; None for what is no scope."""
    words = tuple(dict.fromkeys(text.split()))
    return words if 0 < len(words) <= MOST_SCOPES and all(map(_SCOPE.fullmatch, words)) else None
