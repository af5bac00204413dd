"""What the gateway says as a client of MCP servers, and how it reads what they answer. Both eras, pure.

Source: basic/index (`_meta`), basic/versioning, server/discover; 2025-11-25, basic/lifecycle (initialize).
"""

from __future__ import annotations

from typing import Any

from gateway.dialects.mcp.errors import Code
from gateway.dialects.mcp.message import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    LOG_LEVEL,
    PROTOCOL_VERSION,
    SERVER_INFO,
    Id,
    Message,
    Response,
    message,
)
from gateway.dialects.mcp.versions import LEGACY, MODERN, NEWEST_LEGACY
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, Era, Face, PeerError, Tree, takes_tasks

OLDEST = "2024-11-05"
"""Spoken as a client only: servers with the HTTP+SSE transport are still about, clients of them are not."""

SESSIONS = (*LEGACY, OLDEST)
"""Revisions that begin with `initialize`, newest first."""

VERSION_HEADER_SINCE = frozenset({"2025-11-25", "2025-06-18"})
"""Session revisions whose requests name their revision in a header."""

MODERN_CODES = frozenset({Code.HEADER_MISMATCH, Code.MISSING_CAPABILITY, Code.UNSUPPORTED_VERSION})
"""Errors that only a server of 2026-07-28 or later sends: whoever sends one needs no `initialize`."""

MAY_NEED_INPUT = frozenset({"tools/call", "prompts/get", "resources/read"})

# What a session's server may ask of its client, and the capability without which it may not.


def modern_params(params: Tree, caller: Caller, version: str, token: Id, info: Tree) -> Tree:
    """`params` with the `_meta` of 2026-07-28: the caller's own capabilities and wishes, our names for them."""
    meta: Tree = {
        **caller.meta,
        PROTOCOL_VERSION: version,
        CLIENT_INFO: caller.client or info,
        CLIENT_CAPABILITIES: caller.capabilities,
    }
    if caller.log_level is not None:
        meta[LOG_LEVEL] = caller.log_level
    if caller.progress:
        meta["progressToken"] = token
    return {**params, "_meta": meta}


def session_params(params: Tree, caller: Caller, token: Id) -> Tree:
    """`params` as a session has them: everything else about the caller was said in `initialize`."""
    meta = {**caller.meta, "progressToken": token} if caller.progress else caller.meta
    return {**params, "_meta": meta} if meta else params


def initialize_params(capabilities: Tree, info: Tree) -> Tree:
    """Extensions came with 2026-07-28; a session knows none."""
    declared = {name: each for name, each in capabilities.items() if name != "extensions"}
    return {"protocolVersion": NEWEST_LEGACY, "capabilities": declared, "clientInfo": info}


def discovered(result: Tree) -> Face | None:
    """What a `server/discover` result says; None when it is none or names no modern revision that we speak."""
    version = mutual(result.get("supportedVersions"))
    capabilities = result.get("capabilities")
    if version is None or not isinstance(capabilities, dict):
        return None
    meta = result.get("_meta")
    info = meta.get(SERVER_INFO) if isinstance(meta, dict) else None
    return Face(Era.MODERN, version, capabilities, info if isinstance(info, dict) else {}, _text(result))


def initialized(result: Tree) -> Face:
    """What an `initialize` result says. Raises GatewayError(UPSTREAM_FAILED) for an unknown revision."""
    version, capabilities, info = (result.get(key) for key in ("protocolVersion", "capabilities", "serverInfo"))
    if version not in SESSIONS:
        raise failed(f"wants to speak a revision that the gateway does not: {str(version)[:40]!r}")
    if not isinstance(capabilities, dict):
        raise failed("says nothing about its capabilities")
    return Face(Era.LEGACY, version, capabilities, info if isinstance(info, dict) else {}, _text(result))


def _text(result: Tree) -> str | None:
    said = result.get("instructions")
    return said if isinstance(said, str) else None


def supported(error: PeerError) -> list[Any] | None:
    """The revisions that an UnsupportedProtocolVersion error names."""
    named = error.data.get("supported") if isinstance(error.data, dict) else None
    return named if error.code == Code.UNSUPPORTED_VERSION and isinstance(named, list) else None


def mutual(named: object) -> str | None:
    """The newest modern revision among those that a server names."""
    return next((version for version in MODERN if version in named), None) if isinstance(named, list) else None


def messages(tree: Any) -> list[Message]:
    """What one body, event or line holds: a message, or an array of them (2025-03-26 and before).
    Raises GatewayError(UPSTREAM_FAILED)."""
    try:
        return [message(each) for each in (tree if type(tree) is list else (tree,))]
    except GatewayError as error:
        if (refusal := unnamed_error(tree)) is not None:
            raise refusal from error
        raise failed(f"sent what is no message ({error.message})") from error


def result(tree: Any, id: int) -> Tree | None:
    """The result when `tree` is nothing but the successful answer to request `id`: nearly always."""
    if (
        type(tree) is dict
        and type(tree.get("id")) is int
        and tree["id"] == id
        and tree.get("jsonrpc") == "2.0"
        and type(tree.get("result")) is dict
        and "error" not in tree
        and "method" not in tree
    ):
        found: Tree = tree["result"]
        return found
    return None


def answer(response: Response, id: int) -> Tree:
    """The result of request `id`. Raises PeerError, and GatewayError for an answer to something else."""
    if type(response.id) is not int or response.id != id:
        raise failed("answered a request that was not made")
    if response.error is not None:
        raise peer_error(response.error)
    return response.result


def peer_error(error: Tree) -> PeerError:
    text = error.get("message")
    return PeerError(error["code"], text if isinstance(text, str) else "", error.get("data"))


def unnamed_error(tree: Any) -> PeerError | None:
    """An error whose id is null, missing or made up: how servers refuse what they could not or would not read."""
    error = tree.get("error") if type(tree) is dict and not tree.keys() & {"result", "method"} else None
    if type(error) is dict and type(error.get("code")) is int:
        return peer_error(error)
    return None


def checked(result: Tree, method: str, caller: Caller) -> Tree:
    """A result of 2026-07-28 that says rightly of what type it is. None said means `complete` (basic/index); an unknown
    type is invalid. Raises GatewayError(UPSTREAM_FAILED)."""
    said = result.get("resultType")
    if said == "complete":
        return result
    if said is None and "resultType" not in result:
        return {"resultType": "complete", **result}
    if said == "input_required" and method in MAY_NEED_INPUT:
        requests, state = result.get("inputRequests"), result.get("requestState")
        whole = isinstance(requests, dict | None) and isinstance(state, str | None)
        if whole and (requests is not None or state is not None):
            return result
        raise failed("asks for input without saying which")
    if said == "task" and method == "tools/call" and takes_tasks(caller.capabilities):
        return result
    raise failed(f"gave a result of the wrong type {str(said)[:40]!r}")


def completed(result: Tree) -> Tree:
    """A session's result, which knows no types, in the form of 2026-07-28. Whatever it calls a type is none."""
    return {"resultType": "complete", **{name: each for name, each in result.items() if name != "resultType"}}


def failed(what: str, **metadata: str) -> GatewayError:
    """What a server did wrong, in half a sentence; whoever knows its name puts it in front (`named`)."""
    return GatewayError(Reason.UPSTREAM_FAILED, f"The server {what}", metadata=metadata)
