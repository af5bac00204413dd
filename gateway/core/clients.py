"""Clients of the built-in authorization server: who may ask it for tokens. Only hashes of their secrets are kept."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gateway.core.keys import fingerprint, make_secret
from gateway.model.changes import Change, PutClient, RevokeToken
from gateway.model.clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    TOKEN_EXCHANGE,
    ClientRecord,
    ClientStore,
    Origin,
    RevokedToken,
)
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.operation import AddClient
from gateway.model.ports import Write
from gateway.model.value import value

MAX_SCOPES = 32
"""Scopes of one client. Who needs more wants a role."""

MAX_REGISTERED = 1_000
"""Clients that registered themselves and are not revoked. A person has a few programs, each registers once or once a
year."""

# What a client may be made for, as the operator calls it.
GRANTS = {
    "client_credentials": CLIENT_CREDENTIALS,
    "authorization_code": AUTHORIZATION_CODE,
    "refresh_token": REFRESH_TOKEN,
    "device_code": DEVICE_CODE,
    "token_exchange": TOKEN_EXCHANGE,
}
_SECRET_NEEDED = frozenset({CLIENT_CREDENTIALS, TOKEN_EXCHANGE})

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")


@value
class NewClient:
    record: ClientRecord
    secret: str


def is_document(id: str) -> bool:
    """Whether the id is the URL of the client's metadata document. No other id has a colon."""
    return id.startswith("https://")


class Clients:
    """Clients and revoked tokens, in memory for questions and in the store for the next start. `on_revoked` is called
    when something that was good is good no longer."""

    def __init__(
        self, store: ClientStore, write: Write, now: Callable[[], int], on_revoked: Callable[[], None]
    ) -> None:
        self._store = store
        self._write = write
        self._now = now
        self._on_revoked = on_revoked
        self._records: dict[str, ClientRecord] = {}
        self._revoked: dict[str, int] = {}

    async def start(self) -> None:
        self._records = {record.id: record for record in await self._store.all()}
        self._revoked = {token.jti: token.until for token in await self._store.revoked()}

    def is_blocked(self, id: str) -> bool:
        record = self._records.get(id)
        return record is not None and record.revoked is not None

    def active(self, id: str) -> ClientRecord | None:
        record = self._records.get(id)
        return record if record is not None and record.revoked is None else None

    def authenticate(self, id: str, secret: str) -> ClientRecord | None:
        """The client with this id and secret. A missing one costs the same work as a wrong secret."""
        record = self.active(id)
        kept = b"" if record is None else record.hash  # a public client's is empty too, and equals no fingerprint
        return record if hmac.compare_digest(kept, fingerprint(secret.encode())) else None

    @property
    def acting(self) -> bool:
        """Whether any gets tokens for itself, without a person."""
        return any(each.revoked is None and CLIENT_CREDENTIALS in each.grants for each in self._records.values())

    def is_revoked(self, client: str, *ids: str) -> bool:
        """Whether the client is gone, or one of the ids (`jti`, `sid`) was taken back. A client that is a document
        of its own is gone only when the operator revoked its URL."""
        if any(id in self._revoked for id in ids):
            return True
        record = self._records.get(client)
        return record.revoked is not None if record is not None else not is_document(client)

    def is_stale(self, client: str, issued: float) -> bool:
        """Whether a token was given for a secret that is none any more. `issued` is whole seconds since the epoch."""
        record = self._records.get(client)
        return record is not None and record.renewed is not None and issued < record.renewed // 1000

    def all(self) -> Sequence[ClientRecord]:
        return tuple(self._records.values())

    async def add(self, call: AddClient, write: Write) -> NewClient:
        """A new client and its secret, shown this one time; "" for one that is public. An id is used once, or a new
        client would find the tasks of the old one."""
        if not _ID.fullmatch(call.id):
            raise invalid("id", "must be 1 to 63 letters, digits, dots, hyphens or underscores")
        if len(call.scopes) > MAX_SCOPES or not all(_SCOPE.fullmatch(scope) for scope in call.scopes):
            raise invalid("scopes", f"must be at most {MAX_SCOPES} words of visible ASCII without quotes")
        grants = tuple(dict.fromkeys(GRANTS.get(grant, "") for grant in call.grants))
        if "" in grants or not grants:
            raise invalid("grants", f"must be one or more of {', '.join(GRANTS)}")
        if call.public and not _SECRET_NEEDED.isdisjoint(grants):
            raise invalid("grants", "client_credentials and token_exchange need a client with a secret")
        if (AUTHORIZATION_CODE in grants) != bool(call.redirects):
            raise invalid("redirects", "authorization_code needs at least one, and only it uses any")
        if id_taken := self._records.get(call.id):
            raise GatewayError(Reason.ALREADY_EXISTS, f"There is a client {id_taken.id} already, perhaps a revoked one")
        return await self.make(
            ClientRecord(
                call.id,
                b"",
                tuple(dict.fromkeys(call.scopes)),
                self._now(),
                grants=grants,
                redirects=call.redirects,
                name=call.name,
            ),
            secret=not call.public,
            write=write,
        )

    async def make(self, record: ClientRecord, *, secret: bool, write: Write | None = None) -> NewClient:
        """Keep a client, with a new secret if it is to have one. Raises OVERLOADED when too many registered."""
        if record.origin is Origin.REGISTERED:
            there = (each for each in self._records.values() if each.revoked is None)
            registered = sum(each.origin is Origin.REGISTERED for each in there)
            if registered >= MAX_REGISTERED:
                message = f"{MAX_REGISTERED} clients have registered; the operator must revoke some first"
                raise GatewayError(Reason.OVERLOADED, message)
        made = make_secret() if secret else ""
        record = replace(record, hash=fingerprint(made.encode()) if made else b"")
        await (write or self._write)(PutClient(record))
        self._records[record.id] = record
        return NewClient(record, made)

    async def revoke(self, id: str, write: Write, ending: Iterable[Change] = ()) -> None:
        """The client gets no more tokens, and those that it has are refused from now on. `ending` goes with it."""
        record = self._records.get(id)
        if record is None and is_document(id):
            record = ClientRecord(id, b"", (), self._now(), grants=(), origin=Origin.DOCUMENT)
        if record is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no client {id!r}; `gateway clients list` shows them")
        if record.revoked is None:
            record = replace(record, revoked=self._now())
            await write(PutClient(record), *ending)
            self._records[record.id] = record
            self._on_revoked()

    async def rotate(self, id: str, write: Write) -> NewClient:
        """A new secret in the place of the old one; tokens that were got with that are refused from now on."""
        record = self.active(id)
        if record is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no client {id!r}; `gateway clients list` shows them")
        if record.public:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, f"{id} has no secret that another could take the place of")
        made = make_secret()
        record = replace(record, hash=fingerprint(made.encode()), renewed=self._now())
        await write(PutClient(record))
        self._records[record.id] = record
        self._on_revoked()
        return NewClient(record, made)

    def revoking(self, jti: str, until: int) -> RevokeToken:
        """The change that takes back what has this `jti` or `sid`; `revoked` says that it is made."""
        return RevokeToken(RevokedToken(jti, until), self._now())

    def revoked(self, ids: Iterable[str], until: int) -> None:
        now = self._now()
        self._revoked = {jti: end for jti, end in self._revoked.items() if end > now} | dict.fromkeys(ids, until)
        self._on_revoked()

    async def revoke_token(self, jti: str, until: int) -> None:
        await self._write(self.revoking(jti, until))
        self.revoked((jti,), until)
