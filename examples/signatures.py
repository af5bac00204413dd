"""Is this webhook from the gateway? Two ways to know, as Standard Webhooks has them.

by_secret   with the secret that went to the gateway as `token`; standard library only
by_key      with the gateway's published key, so without any secret; needs the package `cryptography`
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping

TOLERANCE = 300  # seconds; what is older may be somebody's recording


def by_secret(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    right = hmac.digest(key, signed(headers, body), hashlib.sha256)
    return fresh(headers) and any(hmac.compare_digest(right, found) for found in signatures(headers, "v1"))


def by_key(headers: Mapping[str, str], body: bytes, keys: list[dict[str, str]]) -> bool:
    """`keys` is the list in /.well-known/webhook-jwks.json: there are two while one takes over from the other."""
    return fresh(headers) and any(
        verifies(key, found, signed(headers, body)) for key in keys for found in signatures(headers, "v1a")
    )


def signed(headers: Mapping[str, str], body: bytes) -> bytes:
    return f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body


def signatures(headers: Mapping[str, str], version: str) -> Iterator[bytes]:
    for each in headers["webhook-signature"].split():
        name, _, signature = each.partition(",")
        if name == version:
            yield base64.b64decode(signature)


def fresh(headers: Mapping[str, str]) -> bool:
    return abs(time.time() - int(headers["webhook-timestamp"])) <= TOLERANCE


def verifies(key: dict[str, str], signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "==")).verify(signature, message)
    except InvalidSignature:
        return False
    return True
