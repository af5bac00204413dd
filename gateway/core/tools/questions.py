"""What a server asks of its caller in the form of 2026-07-28 (`inputRequests`), and who may be asked it."""

from __future__ import annotations

from gateway.core.connections import URL_ELICITATION, takes_urls
from gateway.model.asking import ASKED_WITH, ELICIT, lacking
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, CannotAsk, PeerError, Tree

MISSING_CAPABILITY = -32021


def questions(result: Tree) -> dict[str, Tree]:
    """The questions of an `input_required` result. Raises UPSTREAM_FAILED for what cannot be asked."""
    found = result.get("inputRequests")
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(
        isinstance(each, dict) and each.get("method") in ASKED_WITH and isinstance(each.get("params", {}), dict)
        for each in found.values()
    ):
        raise GatewayError(Reason.UPSTREAM_FAILED, "The MCP server asked for something that MCP does not have")
    return found


def check_asked(result: Tree, caller: Caller) -> None:
    """Nothing is asked of a caller that did not say that it can answer."""
    required: Tree = {}
    for each in questions(result).values():
        for name, parts in lacking(each["method"], each.get("params", {}), caller.capabilities).items():
            required[name] = {**required.get(name, {}), **parts}
    if required:
        raise PeerError(
            MISSING_CAPABILITY,
            f"This needs a client with the capability {', '.join(required)}",
            {"requiredCapabilities": required},
        )


async def answer(question: Tree, caller: Caller) -> Tree:
    """What a caller with a session says. A refusal to be asked is an answer where the protocol has one for it."""
    method: str = question["method"]
    params: Tree = question.get("params", {})
    try:
        if lacking(method, params, caller.capabilities):
            raise CannotAsk(method)
        return await caller.ask(method, params)
    except PeerError:
        if method == ELICIT:
            return {"action": "cancel"}
        raise


def visits(error: PeerError, caller: Caller) -> Tree | None:
    """-32042 of a session server as questions with a URL, if the caller takes those."""
    if error.code != URL_ELICITATION or not isinstance(error.data, dict):
        return None
    asked_for = error.data.get("elicitations")
    if not takes_urls(caller) or not isinstance(asked_for, list):
        return None
    found = {
        f"visit-{number}": {
            "method": ELICIT,
            "params": {"mode": "url", "message": str(each.get("message", "")), "url": each["url"]},
        }
        for number, each in enumerate(asked_for, start=1)
        if isinstance(each, dict) and isinstance(each.get("url"), str)
    }
    return found or None
