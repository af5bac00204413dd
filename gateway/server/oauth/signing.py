"""The keys that the gateway signs its own tokens and cards with, and their rotation.

A new key is published a day before it signs, so that whoever keeps our key set for a while knows it by then; an old one
is published until the last token that it signed has ended, or the last card that it signed will have been forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from gateway.dialects.oauth2.signature import SignKey, VerifyKey
from gateway.model.value import value

AHEAD = 86_400
"""Seconds between a key's publication and its first signature: longer than anybody keeps a key set."""

AFTERWARDS = 3_600 + 60
"""Seconds that a key is published after its last signature: the longest life of a token, and clocks that differ."""


class KeyFiles(Protocol):
    def read(self) -> dict[str, bytes]: ...

    def write(self, name: str, content: bytes) -> None: ...

    def drop(self, name: str) -> None: ...


@value
class _Dated:
    name: str
    made: int  # seconds since the epoch
    key: SignKey


class SigningKeys:
    """`now` gives milliseconds; `afterwards` are the seconds that a key is published after its last signature. Raises
    BadKeys when a file holds no key, and what the files raise."""

    def __init__(
        self,
        files: KeyFiles,
        algorithm: str,
        rotate_days: int,
        now: Callable[[], int],
        *,
        afterwards: int = AFTERWARDS,
    ) -> None:
        self._files = files
        self._algorithm = algorithm
        self._period = rotate_days * 86_400
        self._afterwards = afterwards
        self._now = now
        self._keys = sorted(
            (_Dated(name, int(name.partition("-")[0]), SignKey.read(kept)) for name, kept in files.read().items()),
            key=lambda dated: dated.made,
        )
        self._rotate()

    def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        self._rotate()
        return self._signer().key.sign(typ, claims)

    def signature(self, message: bytes) -> bytes:
        """A bare signature by the key whose turn it is."""
        self._rotate()
        return self._signer().key.signature(message)

    def signer(self) -> tuple[SignKey, int]:
        """The key that signs now, and since when, in seconds since the epoch; 0 while no key before it is known."""
        self._rotate()
        dated = self._signer()
        return dated.key, 0 if dated is self._keys[0] else dated.made + AHEAD

    def find(self, kid: str | None, alg: str) -> VerifyKey | None:
        dated = next((each for each in self._keys if each.key.kid == kid and each.key.alg == alg), None)
        return None if dated is None else dated.key.verifier()

    def published(self) -> bytes:
        """The JWK set (RFC 7517 §5)."""
        self._rotate()
        return orjson.dumps({"keys": [dated.key.public() for dated in self._keys]})

    def _seconds(self) -> int:
        return self._now() // 1000

    def _signer(self) -> _Dated:
        """The newest key that has been published long enough; at the very beginning the only one there is."""
        ready = [dated for dated in self._keys if dated.made <= self._seconds() - AHEAD]
        return ready[-1] if ready else self._keys[0]

    def _rotate(self) -> None:
        now = self._seconds()
        if not self._keys or now - self._keys[-1].made >= self._period or self._keys[-1].key.alg != self._algorithm:
            self._make(now)
        signer = self._signer()
        enough = AHEAD + self._afterwards
        over = [dated for dated in self._keys if dated.made < signer.made and now - signer.made > enough]
        for dated in over:
            self._files.drop(dated.name)
            self._keys.remove(dated)

    def _make(self, now: int) -> None:
        key = SignKey.make(self._algorithm)
        dated = _Dated(f"{now}-{key.kid[:8]}", now, key)
        self._files.write(dated.name, key.kept())
        self._keys.append(dated)
