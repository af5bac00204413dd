"""Request -> principal. The same object for every protocol; any failed credential is refused, nothing falls through."""

from __future__ import annotations

from gateway.core.keys import KeyRing
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import ANONYMOUS, Principal
from gateway.server.request import Headers

# RFC 6750 §3; the realm names no host and no product version.
CHALLENGE: Headers = ((b"www-authenticate", b'Bearer realm="gateway"'),)
INVALID: Headers = ((b"www-authenticate", b'Bearer realm="gateway", error="invalid_token"'),)


class Unauthenticated(GatewayError):
    """401, with the challenge that belongs to it."""

    def __init__(self, message: str, challenge: Headers) -> None:
        super().__init__(Reason.UNAUTHENTICATED, message)
        self.challenge = challenge


def challenge(error: GatewayError) -> Headers:
    """The `WWW-Authenticate` that goes with a 401; nothing for any other error."""
    if isinstance(error, Unauthenticated):
        return error.challenge
    return CHALLENGE if error.reason is Reason.UNAUTHENTICATED else ()


class Authenticator:
    """Bearer credentials against the key ring. `anonymous` lets a request without any credential in as nobody."""

    def __init__(self, keys: KeyRing, *, anonymous: bool) -> None:
        self._keys = keys
        self._anonymous = anonymous

    def principal(self, headers: dict[bytes, bytes]) -> Principal:
        """Raises Unauthenticated. A credential that is wrong is never treated as none."""
        authorization = headers.get(b"authorization")
        if authorization is None:
            if self._anonymous:
                return ANONYMOUS
            raise Unauthenticated("Send a credential: Authorization: Bearer …", CHALLENGE)
        scheme, _, secret = authorization.partition(b" ")
        found = self._keys.identify(secret) if scheme.lower() == b"bearer" else None
        if found is None:
            raise Unauthenticated("This credential is not known here", INVALID)
        return found
