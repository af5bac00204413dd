"""The gateway's own key for webhooks, by which a receiver knows that it was us without having a secret.

Not the key of access tokens: whoever takes tokens by a key set must not find a key there that signs what callers send.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.stores.keyfolder import KeyFolder

if TYPE_CHECKING:
    from gateway.server.oauth.signing import SigningKeys

FOLDER = "webhook-keys"
ROTATE_DAYS = 90


class WebhookKeys:
    """Read, or made, when something is to be signed or checked for the first time: until then it brings no library.
    `now` gives milliseconds."""

    def __init__(self, data: Path, now: Callable[[], int]) -> None:
        self._folder = data / FOLDER
        self._now = now

    @cached_property
    def _keys(self) -> SigningKeys:
        # Imported at first use: joserfc only where something is signed.
        from gateway.server.oauth.signing import SigningKeys

        return SigningKeys(KeyFolder(self._folder), "EdDSA", ROTATE_DAYS, self._now)

    def sign(self, message: bytes) -> bytes:
        return self._keys.signature(message)

    def published(self) -> bytes:
        return self._keys.published()
