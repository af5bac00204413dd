"""Page tokens: opaque, bound to the caller and the question, impossible to make up.

A token carries only where to go on; the HMAC over it and over the caller's identity and filters is what keeps a
stranger from reading with somebody else's, or with another question's, token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from gateway.model.errors import invalid

_MAC = 16


class Cursors:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, position: str, bound_to: str) -> str:
        payload = position.encode()
        return base64.urlsafe_b64encode(self._mac(payload, bound_to) + payload).decode().rstrip("=")

    def open(self, token: str, bound_to: str) -> str:
        """The position in `token`. Raises INVALID_PARAMS for anything this gateway did not give out for it."""
        try:
            raw = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        except (ValueError, binascii.Error):
            raw = b""
        mac, payload = raw[:_MAC], raw[_MAC:]
        if not hmac.compare_digest(mac, self._mac(payload, bound_to)) or not payload:
            raise invalid("pageToken", "is not a token of this listing; begin again without one")
        return payload.decode()

    def _mac(self, payload: bytes, bound_to: str) -> bytes:
        return hmac.digest(self._key, bound_to.encode() + b"\0" + payload, hashlib.sha256)[:_MAC]
