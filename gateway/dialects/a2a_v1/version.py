"""Service parameters: `A2A-Version` and `A2A-Extensions` (§3.2.6, §3.6)."""

from __future__ import annotations

from gateway.model.errors import GatewayError, Reason

# Major.Minor -> the dialect that speaks it. A version is supported exactly when it is a key here.
DIALECTS = {"1.0": "a2a_v1"}


def select(version: str | None) -> str:
    """The dialect for a requested version. Patch numbers do not count; nothing at all means 0.3 (§3.6.2).

    Raises VERSION_NOT_SUPPORTED, naming the versions that are.
    """
    asked = (version or "").strip() or "0.3"
    dialect = DIALECTS.get(".".join(asked.split(".")[:2]))
    if dialect is None:
        known = ", ".join(DIALECTS)
        hint = "" if version else " (no A2A-Version was sent, which means 0.3)"
        raise GatewayError(
            Reason.VERSION_NOT_SUPPORTED,
            f"A2A {asked[:16]!r} is not spoken here{hint}; send A2A-Version: {known}",
            metadata={"supportedVersions": known},
        )
    return dialect


def extensions(header: str | None) -> tuple[str, ...]:
    """The URIs that the caller activates; unknown ones are nobody's fault and are ignored later."""
    if not header:
        return ()
    return tuple(uri for part in header.split(",") if (uri := part.strip()))
