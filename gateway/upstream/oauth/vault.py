"""Tokens at rest: one sealed file per owner and server, which holds what each issuer has given.

The key lies beside them. It keeps tokens out of backups, greps and mistaken copies of single files; whoever reads the
whole data folder as its owner can read them, as with any key on the same disk.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError
from gateway.model.tool import Tree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12  # bytes, as GCM wants them; a file is written a few thousand times, far from where random ones repeat
_KEY = 32
SHARED = "shared"
"""The owner of what all callers use together."""
CALLERS = "callers"
"""The owner of what the gateway is to issuers when it acts for its callers, each with a token of their own."""


class Vault:
    """`folder` is made when something is first kept. Files are blocking, and small enough not to matter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cipher: AESGCM | None = None

    def load(self, server: str, owner: str = SHARED) -> Tree:
        """What was kept; nothing for a file that is not there, was changed, or was moved here from elsewhere."""
        try:
            sealed = self._file(server, owner).read_bytes()
        except OSError:
            return {}
        return self._opened(sealed, _name(server, owner))

    def keep(self, server: str, tree: Tree, owner: str = SHARED) -> None:
        """Whole or not at all. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._aead().encrypt(nonce, orjson.dumps(tree), _name(server, owner))
        _write(self._file(server, owner), sealed)

    def forget(self, server: str, owner: str = SHARED) -> None:
        self._file(server, owner).unlink(missing_ok=True)

    def forget_all(self, server: str) -> int:
        """What is kept for any owner; how many files that were."""
        found = list(self._folder.glob(f"{server}.*"))  # a server's name has no dot (RFC 1123 label)
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def _file(self, server: str, owner: str) -> Path:
        # An owner's name may hold what no file name can.
        who = owner if owner == SHARED else hashlib.sha256(owner.encode()).hexdigest()[:32]
        return self._folder / f"{server}.{who}"

    def _opened(self, sealed: bytes, name: bytes) -> Tree:
        from cryptography.exceptions import InvalidTag

        try:
            tree = read(self._aead().decrypt(sealed[:_NONCE], sealed[_NONCE:], name))
        except (ValueError, InvalidTag, GatewayError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def _aead(self) -> AESGCM:
        if self._cipher is None:
            # At first use: a gateway whose servers ask for no token never needs the library.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self._key())
        return self._cipher

    def _key(self) -> bytes:
        path = self._folder / "key"
        if path.exists() and len(key := path.read_bytes()) == _KEY:
            return key
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = os.urandom(_KEY)
        _write(path, key)
        return key


def _name(server: str, owner: str) -> bytes:
    """What a file is bound to: sealed for one owner and server, it opens for no other."""
    return f"{owner}\0{server}".encode()


def _write(path: Path, data: bytes) -> None:
    """Never readable by others, not even for a moment."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
