"""Client authentication with a key (`private_key_jwt`, RFC 7523 §2.2): a word of our own for each request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value
from gateway.upstream.oauth.metadata import Server, refused
from gateway.upstream.secret import Secret, settle

LIFE = 60
"""Seconds. It is made for one request; clocks differ, and RFC 7523 §3 lets a server refuse what is far ahead."""

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@value
class ClientKey:
    """The gateway's key at one authorization server. `now` gives epoch milliseconds, `random` so many random bytes."""

    place: Secret
    ours: Mapping[str, str]
    now: Callable[[], int]
    random: Callable[[int], bytes]

    def assertion(self, client_id: str, server: Server) -> str:
        """For one request. The audience is the issuer and nothing else, so that it is no use anywhere else. The key is
        read anew each time, as every secret. Raises GatewayError."""
        # joserfc, at the first of them.
        from gateway.dialects.oauth2.signature import BadKeys, SignKey

        text = settle(self.place, self.ours)
        try:
            key = SignKey.of(text)
        except BadKeys as error:
            raise GatewayError(Reason.UNAVAILABLE, f"What {self.place.place} holds {error}") from None
        if server.assertions and key.alg not in server.assertions:
            raise refused(f"The authorization server takes no assertion that is signed with {key.alg}")
        now = self.now() // 1000
        jti = base64.urlsafe_b64encode(self.random(18)).decode()
        claims = {"iss": client_id, "sub": client_id, "aud": server.issuer, "jti": jti, "iat": now, "exp": now + LIFE}
        return key.sign("JWT", claims, key.named)
