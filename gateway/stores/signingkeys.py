"""The keys that sign the audit log: files that only their owner can read, each an Ed25519 and an ML-DSA-44 key."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from gateway.stores.datafolder import problems
from gateway.verifier import COSIGNED_MLDSA44, ED25519, Checkpoint, Key, cosigned

CURRENT, NEXT = "signing-key", "signing-key.next"
PUBLIC = "keys"
"""The verifier keys of all times, for whoever verifies."""

_PRIVATE = "PRIVATE+KEY+"
_SEED = 32


@dataclass(frozen=True)
class Signer:
    """One private key."""

    key: Key
    seed: bytes

    def sign(self, checkpoint: Checkpoint, now: int) -> tuple[str, bytes, bytes]:
        """A line under the checkpoint; `now` in seconds."""
        if self.key.kind == ED25519:
            made = Ed25519PrivateKey.from_private_bytes(self.seed).sign(checkpoint.text)
        else:
            private = MLDSA44PrivateKey.from_seed_bytes(self.seed)
            made = now.to_bytes(8, "big") + private.sign(cosigned(self.key.name, now, checkpoint))
        return self.key.name, self.key.id, made


class KeyFiles:
    """Raises StoreProblem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, origin: str) -> list[Signer]:
        """The keys in force; made, for the log of that name, if there are none."""
        if not (self.folder / CURRENT).exists():
            self._make(CURRENT, origin)
            self.publish(self._read(CURRENT))
        return self._read(CURRENT)

    def following(self, origin: str) -> list[Signer]:
        """The keys that will follow, made if need be."""
        if not (self.folder / NEXT).exists():
            self._make(NEXT, origin)
        return self._read(NEXT)

    def advance(self) -> None:
        """The following keys are the ones in force."""
        signers = self._read(NEXT)
        self.publish(signers)
        with problems(self.folder):
            (self.folder / NEXT).replace(self.folder / CURRENT)

    def publish(self, signers: list[Signer]) -> None:
        path = self.folder / PUBLIC
        with problems(path):
            known = path.read_text() if path.exists() else ""
            fresh = [str(signer.key) for signer in signers if str(signer.key) not in known.splitlines()]
            write(path, (known + "".join(f"{key}\n" for key in fresh)).encode(), mode=0o644)

    def _make(self, name: str, origin: str) -> None:
        lines = []
        seed = os.urandom(_SEED)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        lines.append(_line(Key(origin, ED25519, public), seed))
        seed = os.urandom(_SEED)
        public = MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
        lines.append(_line(Key(origin, COSIGNED_MLDSA44, public), seed))
        with problems(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(self.folder / name, "".join(lines).encode())

    def _read(self, name: str) -> list[Signer]:
        path = self.folder / name
        with problems(path):
            return [_signer(line) for line in path.read_text().splitlines() if line]


def _line(key: Key, seed: bytes) -> str:
    return f"{_PRIVATE}{key.name}+{key.id.hex()}+{base64.b64encode(bytes([key.kind]) + seed).decode()}\n"


def _signer(line: str) -> Signer:
    name, mark, material = line.removeprefix(_PRIVATE).split("+", 2)
    raw = base64.b64decode(material, validate=True)
    kind, seed = raw[0], raw[1:]
    if kind == ED25519:
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    elif kind == COSIGNED_MLDSA44:
        public = MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    else:
        raise ValueError(f"a signing key of the unknown kind {kind}")
    key = Key(name, kind, public)
    if key.id.hex() != mark or not line.startswith(_PRIVATE):
        raise ValueError("a signing key that does not have the id it is given")
    return Signer(key, seed)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Whole or not at all, and durable."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
