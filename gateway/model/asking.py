"""What a server may ask of its caller, and whether the caller has said that it can be asked that.

Source: 2026-07-28, client/elicitation, client/sampling, client/roots (capabilities); the same in 2025-11-25.
"""

from __future__ import annotations

from gateway.model.tool import Tree

ELICIT = "elicitation/create"
ELICITED = "notifications/elicitation/complete"
"""A person has been at a URL (2025-11-25 only); `elicitationId` in its parameters says which."""

ASKED_WITH: dict[str, str] = {ELICIT: "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
"""Every question there is, and the capability with which a caller says that it can be asked."""


def lacking(method: str, params: Tree, capabilities: Tree) -> Tree:
    """The capability that a question needs and the caller has not, as it would have to declare it. Empty: it may be
    asked. `method` is one of ASKED_WITH."""
    name = ASKED_WITH[method]
    declared = capabilities.get(name)
    part = _part(method, params, declared if isinstance(declared, dict) else {})
    if part is not None:
        return {name: {part: {}}}
    return {} if isinstance(declared, dict) else {name: {}}


def visits_url(method: str, params: Tree) -> bool:
    """Whether a person is sent to a URL instead of being shown a form."""
    return method == ELICIT and params.get("mode") == "url"


def _part(method: str, params: Tree, declared: Tree) -> str | None:
    if visits_url(method, params):
        return None if "url" in declared else "url"
    if method == ELICIT:
        # An empty object means forms (client/elicitation, capabilities): so it was before there was anything else.
        return "form" if "url" in declared and "form" not in declared else None
    if method == "sampling/createMessage" and {"tools", "toolChoice"} & params.keys():
        return None if "tools" in declared else "tools"
    return None
