"""Key services of tests. What they wrap only they unwrap; none of them is a cipher to copy."""

from __future__ import annotations

import hashlib
from pathlib import Path


class Kms:
    """Under the master key in `folder/master`: a mask with a digest behind it."""

    def __init__(self, folder: str) -> None:
        self._master = Path(folder) / "master"

    def wrap(self, key: bytes) -> bytes:
        masked = bytes(a ^ b for a, b in zip(key, self._mask(), strict=True))
        return masked + hashlib.sha256(self._mask() + masked).digest()

    def unwrap(self, wrapped: bytes) -> bytes:
        masked, digest = wrapped[:32], wrapped[32:]
        if digest != hashlib.sha256(self._mask() + masked).digest():
            raise ValueError(f"this is not of mine: {masked.hex()}")
        return bytes(a ^ b for a, b in zip(masked, self._mask(), strict=True))

    def _mask(self) -> bytes:
        return hashlib.sha256(self._master.read_bytes()).digest()


class Lazy:
    """Gives the key back as it is."""

    async def wrap(self, key: bytes) -> bytes:
        return key

    async def unwrap(self, wrapped: bytes) -> bytes:
        return wrapped
