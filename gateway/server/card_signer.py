"""The key with which the gateway signs the cards that it serves. Brings joserfc: imported when the first is served.

It is not the key of the access tokens and is in no key set with it. A card is in part a stranger's text: signed with a
key that also vouches for tokens, a card with the right members would be a token that we never gave out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.dialects.a2a_v1.signing import sign
from gateway.dialects.oauth2.signature import BadKeys
from gateway.model.errors import GatewayError, Reason
from gateway.server.oauth.signing import KeyFiles, SigningKeys


class CardSigner:
    """`url` is where the public keys are. Raises UNAVAILABLE when a file in the folder holds no key."""

    def __init__(
        self, files: KeyFiles, algorithm: str, rotate_days: int, now: Callable[[], int], url: str, folder: str
    ) -> None:
        try:
            # A card has no end: whoever keeps one can check it as long as the key after it signs, and a while longer.
            self._keys = SigningKeys(files, algorithm, rotate_days, now, afterwards=rotate_days * 86_400)
        except (BadKeys, ValueError) as error:
            message = f"Cards cannot be signed: {folder} holds a file that is no signing key; remove it"
            raise GatewayError(Reason.UNAVAILABLE, message) from error
        self._url = url

    def current(self) -> tuple[str, int]:
        """The id of the key that signs now, and since when (milliseconds since the epoch)."""
        key, since = self._keys.signer()
        return key.kid, since * 1000

    def sign(self, card: dict[str, Any]) -> tuple[dict[str, str], ...]:
        return sign(card, self._keys.signer()[0], self._url)

    def published(self) -> bytes:
        """The JWK set."""
        return self._keys.published()
