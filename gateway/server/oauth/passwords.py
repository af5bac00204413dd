"""Passwords, kept as Argon2id (RFC 9106): slow and large on purpose, so a few at a time and never on the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from gateway.model.errors import GatewayError, Reason

T = TypeVar("T")
Words = TypeVarTuple("Words")

# RFC 9106 §4, the second recommended option: 64 MiB, 3 passes. One lane, as one thread works on it.
_MEMORY = 64 * 1024  # KiB
_PASSES = 3
_LANES = 1
_SALT = 16
_LENGTH = 32

AT_ONCE = 2
"""Hashes at one time: 128 MiB, and a core or two."""

WAITING = 16
"""Logins that may wait for their turn; some four seconds of work. More are asked to come again."""


class Argon2Passwords:
    """The port `Passwords`."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys: str | None = None

    async def make(self, password: str) -> str:
        return await self._alone(_make, password)

    async def holds(self, password: str, kept: str | None) -> bool:
        if self._nobodys is None:
            self._nobodys = await self._alone(_make, os.urandom(_SALT).hex())
        good = await self._alone(_holds, password, kept or self._nobodys)
        return good and kept is not None

    async def _alone(self, work: Callable[[*Words], T], *words: *Words) -> T:
        if self._waiting >= WAITING:
            raise GatewayError(Reason.OVERLOADED, "Too many people log in at this moment; try again", retry_after=5)
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(work, *words)
        finally:
            self._waiting -= 1


def _make(password: str) -> str:
    # At the first login: a gateway without users never needs the library.
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    kdf = Argon2id(salt=os.urandom(_SALT), length=_LENGTH, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY)
    return kdf.derive_phc_encoded(password.encode())


def _holds(password: str, kept: str) -> bool:
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        Argon2id.verify_phc_encoded(password.encode(), kept)
    except InvalidKey:
        return False
    return True
