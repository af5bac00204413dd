"""The revisions of A2A that are spoken, and which of them a request means (A2A 1.0 §3.2.6, §3.6).

A revision is spoken exactly when it has a row in these tables. On JSON-RPC the method names it (no name is in two), on
HTTP+JSON the path (0.3 begins with `/v1`). The `A2A-Version` that was sent must agree; none at all means 0.3, and where
the method or path says so already, none is needed.
"""

from __future__ import annotations

from gateway.dialects.a2a_v03 import faces as v03
from gateway.dialects.a2a_v03.paths import PREFIX
from gateway.dialects.a2a_v1 import faces as v1
from gateway.dialects.face import HttpJson, JsonRpc
from gateway.model.card import VERSIONS
from gateway.model.errors import GatewayError, Reason

UNSAID = "0.3"  # §3.6.2: an empty version is this one
NO_SUCH_METHOD = f"There is no such method in A2A {' or '.join(VERSIONS)}"

_JSONRPC: tuple[JsonRpc, ...] = (v1.JSONRPC, v03.JSONRPC)
METHODS: dict[str, JsonRpc] = {method: face for face in _JSONRPC for method in face.methods}
STREAMING: frozenset[str] = frozenset(method for face in _JSONRPC for method in face.streaming)
_BY_PREFIX: dict[str, HttpJson] = {PREFIX + "/": v03.HTTP_JSON}


def jsonrpc(method: str, version: str | None) -> JsonRpc:
    """The revision that `method` is of, if `version` agrees. Raises METHOD_NOT_FOUND or VERSION_NOT_SUPPORTED."""
    face = METHODS.get(method)
    if face is None:
        raise GatewayError(Reason.METHOD_NOT_FOUND, NO_SUCH_METHOD)
    if version != face.version:
        agree(face.version, version, method)
    return face


def http_json(path: str) -> HttpJson:
    """The revision that a path, relative to an interface's URL, is of."""
    for prefix, face in _BY_PREFIX.items():
        if path.startswith(prefix):
            return face
    return v1.HTTP_JSON


def agree(spoken: str, version: str | None, what: str) -> None:
    """`version` is as the caller sent it; patch numbers do not count. Raises VERSION_NOT_SUPPORTED for one that is
    not spoken here, METHOD_NOT_FOUND for one that has no such method or path."""
    asked = (version or "").strip() or UNSAID
    wanted = ".".join(asked.split(".")[:2])
    if wanted == spoken:
        return
    known = ", ".join(VERSIONS)
    if wanted not in VERSIONS:
        # Only what is a version is repeated: anything else may be there by mistake, and a secret.
        named = f"A2A {asked[:16]}" if asked.replace(".", "").isdecimal() else "What A2A-Version says"
        raise GatewayError(
            Reason.VERSION_NOT_SUPPORTED,
            f"{named} is not spoken here; send A2A-Version: {known.replace(', ', ' or ')}",
            metadata={"supportedVersions": known},
        )
    unsaid = " (no A2A-Version was sent, which means 0.3)" if not version else ""
    raise GatewayError(Reason.METHOD_NOT_FOUND, f"A2A {wanted} has no {what}{unsaid}; send A2A-Version: {spoken}")


def extensions(header: str | None) -> tuple[str, ...]:
    """The URIs that the caller activates; unknown ones are nobody's fault and are ignored later."""
    if not header:
        return ()
    return tuple(uri for part in header.split(",") if (uri := part.strip()))
