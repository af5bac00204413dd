"""Which credential is whom. Only hashes are kept; a key is shown once, when it is made."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.model.changes import PutKey
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.ports import Store, Write
from gateway.model.principal import LOCAL, Kind, Principal
from gateway.model.rows import KeyRecord

PREFIX = "gw_"
VISIBLE = 10  # of the 46 characters: enough to tell keys apart in a list, 41 bits of 256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def make_secret() -> str:
    """A new credential: 256 random bits, with a prefix that secret scanners can look for."""
    return PREFIX + secrets.token_urlsafe(32)


def random_word(size: int = 32) -> str:
    """A word that nobody can guess, of so many random bytes."""
    return secrets.token_urlsafe(size)


def fingerprint(secret: bytes) -> bytes:
    """A plain SHA-256 is right for a secret of 256 random bits: there is nothing to guess slowly."""
    return hashlib.sha256(secret).digest()


@dataclass(frozen=True, slots=True)
class NewKey:
    record: KeyRecord
    secret: str


class KeyRing:
    """All credentials of this gateway: the machine's own one, and API keys from the store."""

    def __init__(self, store: Store, now: Callable[[], int], local: str | None) -> None:
        self._store = store
        self._now = now
        self._local = None if local is None else fingerprint(local.encode())
        self._records: dict[str, KeyRecord] = {}
        self._principals: dict[bytes, Principal] = {}
        self.on_revoked: Callable[[], None] = lambda: None
        self._rebuild()

    async def start(self) -> None:
        self._records = {record.id: record for record in await self._store.keys()}
        self._rebuild()

    def known(self, mark: bytes) -> Principal | None:
        """The principal behind the credential with this fingerprint. Looking up a hash leaks no timing about it."""
        return self._principals.get(mark)

    @property
    def shared(self) -> bool:
        """Whether anybody but the machine itself has a credential here."""
        return len(self._principals) > (self._local is not None)

    def all(self) -> Sequence[KeyRecord]:
        return tuple(self._records.values())

    async def add(self, name: str, write: Write) -> NewKey:
        """A further key for the principal `key:{name}`; several keys of one name are one principal (rotation)."""
        if not _NAME.fullmatch(name):
            raise invalid("name", "must be 1 to 63 letters, digits, dots, hyphens or underscores")
        secret = make_secret()
        record = KeyRecord(
            id=secrets.token_hex(4),
            tenant="",
            name=name,
            prefix=secret[:VISIBLE],
            hash=fingerprint(secret.encode()),
            created=self._now(),
        )
        await self._put(record, write)
        return NewKey(record, secret)

    async def revoke(self, id: str, write: Write) -> None:
        record = self._records.get(id)
        if record is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no key {id!r}; `gateway keys list` shows them")
        if record.revoked is None:
            await self._put(replace(record, revoked=self._now()), write)
            self.on_revoked()

    async def _put(self, record: KeyRecord, write: Write) -> None:
        await write(PutKey(record))
        self._records[record.id] = record
        self._rebuild()

    def _rebuild(self) -> None:
        self._principals = {
            record.hash: Principal(Kind.KEY, record.name, record.tenant)
            for record in self._records.values()
            if record.revoked is None
        }
        if self._local is not None:
            self._principals[self._local] = LOCAL
