"""Tokens at rest: one sealed file per owner and server, which holds what each issuer has given.

The key lies beside them, unless the operator's file names another place. It keeps tokens out of backups, greps and
mistaken copies of single files; whoever reads the whole data folder as its owner can read them, as with any key on the
same disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError
from gateway.model.tool import Tree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger(__name__)

_NONCE = 12  # bytes, as GCM wants them; a file is written a few thousand times, far from where random ones repeat
KEY_BYTES = 32
SHARED = "shared"
"""The owner of what all callers use together."""
CALLERS = "callers"
"""The owner of what the gateway is to issuers when it acts for its callers, each with a token of their own."""

_CHECK = ".check"  # sealed with the key in force: tells a wrong key from a file that somebody has changed
_TURN = 50  # files that are sealed anew before others have a turn


class BadKey(Exception):
    """A key that cannot be had or does not fit, as a sentence; and what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class KeySource(Protocol):
    """Where keys come from (vault_keys.py). Raises BadKey."""

    path: Path | None  # of the key itself, where it lies as it is

    async def load(self) -> list[bytes]:
        """The key in force, and behind it the one before while they change; nothing as long as there is none."""
        ...

    async def make(self) -> bytes:
        """The key that follows, kept so that it is not lost before `finish`."""
        ...

    def finish(self) -> None:
        """Everything is sealed with the one that was made; what was before is not needed."""
        ...


class Vault:
    """`folder` is made when something is first kept. Files are blocking, and small enough not to matter. `start` before
    anything else; `spare` are keys that the operator has replaced and that may still be needed."""

    def __init__(self, folder: Path, keys: KeySource) -> None:
        self._folder = folder
        self._keys = keys
        self._ring: list[AESGCM] = []  # the one in force first
        self._key = b""
        self.removals = 0  # how often something was forgotten: who has read a file before that reads it again

    # Keys.

    async def start(self, spare: Iterable[bytes] = ()) -> None:
        """Open what is here. Raises BadKey when the key is not the one, and nothing has changed then."""
        keys, sealed = await self._keys.load(), self._sealed()
        others = [*keys[1:], *spare, *self._left_here()]
        made = not keys
        if made:
            if sealed and not others:
                raise BadKey(f"the key of what is sealed in {self._folder} is gone", _BACK)
            keys = [await self._keys.make()]
        self._ring, self._key = [_cipher(key) for key in (keys[0], *others)], keys[0]
        if sealed and not self._fits(sealed):
            raise BadKey(f"is not the key of what is sealed in {self._folder}", _BACK)
        if sealed and others:
            for _ in self._resealed(sealed):
                pass
        self._keys.finish()

    def uses(self, key: bytes) -> bool:
        """Whether this is the key in force."""
        return key == self._key

    async def rotate(self, key: bytes) -> int:
        """Seal everything with `key` from now on; how many files that were."""
        self._ring, self._key = [_cipher(key), *self._ring], key
        count = 0
        for count in self._resealed(self._sealed()):
            if count % _TURN == 0:
                await asyncio.sleep(0)
        return count

    def rotated(self) -> None:
        """The keys before are needed no more."""
        self._ring = self._ring[:1]

    def _left_here(self) -> list[bytes]:
        """The key of the time before the operator named another place."""
        own = self._folder / "key"
        return [own.read_bytes()] if own != self._keys.path and own.exists() else []

    def _fits(self, sealed: list[Path]) -> bool:
        check = self._folder / _CHECK
        if check.exists():
            return self._open(check.read_bytes(), [_CHECK.encode()]) is not None
        # From before there was one. The check is whether anything opens: single files may have been changed.
        return any(self._open(path.read_bytes(), self._names(path)) is not None for path in sealed)

    def _resealed(self, sealed: list[Path]) -> Iterable[int]:
        """Each file once, whole or not at all. What no key opens stays as it is."""
        stuck = 0
        for count, path in enumerate(sealed, 1):
            data, names = path.read_bytes(), self._names(path)
            if self._ring[0] is not self._opener(data, names[:1]):
                tree = self._open(data, names)
                stuck += tree is None
                if tree is not None:
                    write(path, self._closed(tree, names[0]))
            yield count
        write(self._folder / _CHECK, self._closed({}, _CHECK.encode()))
        own = self._folder / "key"
        if stuck:
            log.warning("%d files in %s are sealed with no key that is known, and stay so", stuck, self._folder)
        elif own != self._keys.path:
            own.unlink(missing_ok=True)

    # What is kept.

    def load(self, server: str, owner: str = SHARED) -> Tree:
        """What was kept; nothing for a file that is not there, was changed, or was moved here from elsewhere."""
        path = self._file(server, owner)
        try:
            sealed = path.read_bytes()
        except OSError:
            return {}
        return self._open(sealed, [path.name.encode(), f"{owner}\0{server}".encode()]) or {}

    def has(self, server: str, owner: str = SHARED) -> bool:
        return self._file(server, owner).exists()

    def keep(self, server: str, tree: Tree, owner: str = SHARED) -> None:
        """Whole or not at all. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self._folder / _CHECK).exists():
            write(self._folder / _CHECK, self._closed({}, _CHECK.encode()))
        path = self._file(server, owner)
        write(path, self._closed(tree, path.name.encode()))

    def forget(self, server: str, owner: str = SHARED) -> None:
        self.forget_file(self._file(server, owner).name)

    def forget_file(self, name: str) -> None:
        """One of `callers`."""
        (self._folder / name).unlink(missing_ok=True)
        self.removals += 1

    def forget_callers(self, server: str) -> None:
        """What is kept for any owner but the operator."""
        for path in self._folder.glob(f"{server}.*"):  # a server's name has no dot (RFC 1123 label)
            if path != self._file(server, SHARED):
                path.unlink(missing_ok=True)
        self.removals += 1

    async def owners(self, server: str) -> list[str | None]:
        """Of whom something is kept for one server; None for what no key opens."""
        return [_text(tree.get("owner")) for _, tree in await self.callers(f"{server}.")]

    async def callers(self, begins: str = "") -> list[tuple[str, Tree]]:
        """What is kept for single callers, by the name of its file; nothing in it where no key opens it."""
        found: list[tuple[str, Tree]] = []
        sealed = (path for path in self._sealed() if path.name.startswith(begins))
        for count, path in enumerate(sealed, 1):
            server = path.name.partition(".")[0]
            if path not in (self._file(server, SHARED), self._file(server, CALLERS)):
                with contextlib.suppress(OSError):  # it was removed just now
                    found.append((path.name, self._open(path.read_bytes(), self._names(path)) or {}))
            if count % _TURN == 0:
                await asyncio.sleep(0)
        return found

    def _file(self, server: str, owner: str) -> Path:
        # An owner's name may hold what no file name can.
        who = owner if owner == SHARED else hashlib.sha256(owner.encode()).hexdigest()[:32]
        return self._folder / f"{server}.{who}"

    def _sealed(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("[!.]*.*") if path.name != "key.next")

    def _names(self, path: Path) -> list[bytes]:
        """What a file may be bound to: its name; before, owner and server, of which a name tells only these two."""
        server = path.name.partition(".")[0]
        owners = [owner for owner in (SHARED, CALLERS) if self._file(server, owner) == path]
        return [path.name.encode(), *(f"{owner}\0{server}".encode() for owner in owners)]

    def _opener(self, sealed: bytes, names: Iterable[bytes]) -> AESGCM | None:
        return next((cipher for cipher in self._ring for name in names if _decrypted(cipher, sealed, name)), None)

    def _open(self, sealed: bytes, names: Iterable[bytes]) -> Tree | None:
        for cipher in self._ring:
            for name in names:
                if (found := _decrypted(cipher, sealed, name)) is not None:
                    return _tree(found)
        return None

    def _closed(self, tree: Tree, name: bytes) -> bytes:
        """Sealed for one owner and server, it opens for no other."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ring[0].encrypt(nonce, orjson.dumps(tree), name)


_BACK = (
    "give the key back that sealed it, or name that one under vault.previous; "
    "to give up every authorization that is kept there, remove the folder"
)


def _cipher(key: bytes) -> AESGCM:
    # Where something is kept: a gateway whose servers ask for no token never needs the library.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(key) != KEY_BYTES:
        raise BadKey(f"a key has {KEY_BYTES} bytes, and not {len(key)}", _BACK)
    return AESGCM(key)


def _decrypted(cipher: AESGCM, sealed: bytes, name: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], name)
    except (ValueError, InvalidTag):
        return None


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None


def _tree(data: bytes) -> Tree | None:
    try:
        tree = read(data)
    except GatewayError:
        return None
    return tree if isinstance(tree, dict) else None


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for a moment. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
