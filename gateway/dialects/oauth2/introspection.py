"""Token introspection (RFC 7662): the question as a form, the answer as claims."""

from __future__ import annotations

from gateway.dialects.oauth2.access_token import (
    BAD_CLAIMS,
    BOUND,
    EXPIRED,
    LATEST,
    NOT_ACTIVE,
    BadToken,
    Rules,
    Verified,
    verified,
)
from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError


def question(token: bytes) -> dict[str, str]:
    return {"token": token.decode("latin-1"), "token_type_hint": "access_token"}


def answer(document: bytes, rules: Rules, now: float, keep: float) -> Verified:
    """What the issuer says about the token, true for at most `keep` seconds. Raises BadToken when the token is not
    good, ValueError when the answer is not one (and so says nothing: the token is not known to be bad)."""
    try:
        tree = read(document)
    except GatewayError as error:
        raise ValueError(error.message) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("active"), bool):
        raise ValueError("not an introspection response")
    if tree["active"] is not True:
        raise BadToken(NOT_ACTIVE)
    kind = str(tree.get("token_type", "Bearer")).lower()
    if tree.get("iss", rules.issuer) != rules.issuer or kind not in ("bearer", "dpop"):
        raise BadToken(NOT_ACTIVE)
    if kind == "dpop" and "cnf" not in tree:  # RFC 9449 §6.2: bound to a key, and not said to which
        raise BadToken(BOUND)
    exp = tree.get("exp", now + keep)
    if isinstance(exp, bool) or not isinstance(exp, int | float) or not 0 <= exp <= LATEST:
        raise BadToken(BAD_CLAIMS)
    if exp <= now:
        raise BadToken(EXPIRED)
    return verified(tree, rules, min(exp, now + keep))
