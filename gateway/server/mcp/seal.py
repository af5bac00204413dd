"""What the gateway hands out and takes back, sealed: AES-256-GCM over JSON, the nonce in front."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING, Any

import orjson

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError
from gateway.model.tool import Tree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12  # bytes, as GCM wants them; random ones stay safe for 2^32 states under one key (NIST SP 800-38D §8.3)


class Seal:
    """`secret` may have any length; `purpose` keeps what is sealed for one thing from being opened for another."""

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        self._key = hashlib.sha256(purpose + b"\0" + secret).digest()
        self._purpose = purpose
        self._cipher: AESGCM | None = None

    def seal(self, tree: Tree) -> str:
        nonce = os.urandom(_NONCE)
        sealed = self._aead().encrypt(nonce, orjson.dumps(tree), self._purpose)
        return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def open(self, text: str) -> Tree | None:
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
            tree: Any = read(self._aead().decrypt(raw[:_NONCE], raw[_NONCE:], self._purpose))
        except (binascii.Error, ValueError, InvalidTag, GatewayError):
            return None
        return tree if isinstance(tree, dict) else None

    def _aead(self) -> AESGCM:
        if self._cipher is None:
            # At first use: a gateway without MCP servers never needs the library.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self._key)
        return self._cipher
