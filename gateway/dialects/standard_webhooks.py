"""Standard Webhooks 1.0.0: the three headers that say which message this is, when it was sent, and who sent it.

- `webhook-id`: the same at every attempt, so that a receiver can tell a repeat
- `webhook-timestamp`: seconds, of this attempt
- `webhook-signature`: one or more, each over `id.timestamp.body`: `v1,` HMAC-SHA256, `v1a,` Ed25519
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET = "whsec_"
# §"Secrets": 192 to 512 bits.
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


class BadSecret(ValueError):
    """A text that begins like a secret and is none."""


def secret(text: str | None) -> bytes | None:
    """The key in a secret as it is written; None for a text that is none. Raises BadSecret."""
    if text is None or not text.startswith(SECRET):
        return None
    try:
        key = base64.b64decode(text.removeprefix(SECRET), validate=True)
    except binascii.Error:
        raise BadSecret("is no base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise BadSecret(f"has {len(key)} bytes")
    return key


def content(id: str, timestamp: int, body: bytes) -> bytes:
    """What is signed."""
    return b"%s.%d.%s" % (id.encode(), timestamp, body)


def symmetric(key: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def asymmetric(signature: bytes) -> str:
    """An Ed25519 signature over the content, as it is written."""
    return "v1a," + base64.b64encode(signature).decode()
