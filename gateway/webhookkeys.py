"""The gateway's own key for webhooks, by which a receiver knows that it was us without having a secret.

Not the key of access tokens: whoever takes tokens by a key set must not find a key there that signs what callers send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.stores.keyfolder import KeyFolder

if TYPE_CHECKING:
    from gateway.server.oauth.signing import SigningKeys

FOLDER = "webhook-keys"
ROTATE_DAYS = 90


class WebhookKeys:
    """Read, or made, when something is to be signed or checked for the first time: until then it brings no library.
    `now` gives milliseconds. Raises BadKeys, StoreProblem."""

    def __init__(self, data: Path, now: Callable[[], int]) -> None:
        self._folder = data / FOLDER
        self._now = now
        self._keys: SigningKeys | None = None
        self._one = asyncio.Lock()  # two that come first must not make two keys

    async def sign(self, message: bytes) -> bytes:
        return (await self._loaded()).signature(message)

    async def published(self) -> bytes:
        return (await self._loaded()).published()

    async def _loaded(self) -> SigningKeys:
        async with self._one:
            if self._keys is None:
                # In a thread: the library takes a tenth of a second to load.
                self._keys = await asyncio.to_thread(self._load)
            return self._keys

    def _load(self) -> SigningKeys:
        # Imported at first use: joserfc only where something is signed.
        from gateway.server.oauth.signing import SigningKeys

        return SigningKeys(KeyFolder(self._folder), "EdDSA", ROTATE_DAYS, self._now)
