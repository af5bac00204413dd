"""Clients of the built-in authorization server: who may ask it for tokens. Only hashes of their secrets are kept."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.keys import fingerprint, make_secret
from gateway.model.clients import ClientRecord, ClientStore, RevokedToken
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.value import value

MAX_SCOPES = 32
"""Scopes of one client. Who needs more wants a role."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")


@value
class NewClient:
    record: ClientRecord
    secret: str


class Clients:
    """Clients and revoked tokens, in memory for questions and in the store for the next start. `on_revoked` is called
    when something that was good is good no longer."""

    def __init__(self, store: ClientStore, now: Callable[[], int], on_revoked: Callable[[], None]) -> None:
        self._store = store
        self._now = now
        self._on_revoked = on_revoked
        self._records: dict[str, ClientRecord] = {}
        self._revoked: dict[str, int] = {}

    async def start(self) -> None:
        self._records = {record.id: record for record in await self._store.all()}
        self._revoked = {token.jti: token.until for token in await self._store.revoked()}

    def active(self, id: str) -> ClientRecord | None:
        record = self._records.get(id)
        return record if record is not None and record.revoked is None else None

    def authenticate(self, id: str, secret: str) -> ClientRecord | None:
        """The client with this id and secret. A missing one costs the same work as a wrong secret."""
        record = self.active(id)
        kept = b"" if record is None else record.hash
        return record if hmac.compare_digest(kept, fingerprint(secret.encode())) else None

    def is_revoked(self, client: str, jti: str) -> bool:
        return jti in self._revoked or self.active(client) is None

    def all(self) -> Sequence[ClientRecord]:
        return tuple(self._records.values())

    async def add(self, id: str, scopes: Sequence[str]) -> NewClient:
        """A new client and its secret, shown this one time. An id is used once, or a new client would find the tasks
        of the old one."""
        if not _ID.fullmatch(id):
            raise invalid("id", "must be 1 to 63 letters, digits, dots, hyphens or underscores")
        if len(scopes) > MAX_SCOPES or not all(_SCOPE.fullmatch(scope) for scope in scopes):
            raise invalid("scopes", f"must be at most {MAX_SCOPES} words of visible ASCII without quotes")
        if id in self._records:
            raise GatewayError(Reason.ALREADY_EXISTS, f"There is a client {id} already, perhaps a revoked one")
        secret = make_secret()
        hash = fingerprint(secret.encode())
        record = ClientRecord(id, hash, tuple(dict.fromkeys(scopes)), self._now())
        await self._put(record)
        return NewClient(record, secret)

    async def revoke(self, id: str) -> None:
        """The client gets no more tokens, and those that it has are refused from now on."""
        record = self._records.get(id)
        if record is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no client {id!r}; `gateway clients list` shows them")
        if record.revoked is None:
            await self._put(replace(record, revoked=self._now()))
            self._on_revoked()

    async def revoke_token(self, jti: str, until: int) -> None:
        now = self._now()
        await self._store.revoke(RevokedToken(jti, until), now)
        self._revoked = {jti: end for jti, end in self._revoked.items() if end > now} | {jti: until}
        self._on_revoked()

    async def _put(self, record: ClientRecord) -> None:
        await self._store.put(record)
        self._records[record.id] = record
