"""People with a password here, and what people have allowed to clients."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gateway.core.attempts import Attempts
from gateway.core.clients import Clients
from gateway.core.keys import fingerprint, random_word
from gateway.model.changes import Change, EndGrant, PutUser
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.operation import AddUser
from gateway.model.people import USER, GrantRecord, Passwords, PeopleStore, Person, UserRecord
from gateway.model.ports import Write
from gateway.model.value import value

SHORTEST_PASSWORD = 12
"""Characters. NIST SP 800-63B-4 §3.1.1.2 wants 15 where nothing else protects; attempts are limited here."""

LONGEST_PASSWORD = 256
"""Characters; no rule says which (NIST SP 800-63B-4 §3.1.1.2)."""

LONGEST_TOKEN = 3_600
"""Seconds that a token of a grant that ends may still be good: the most that `token_seconds` may be, as the token may
be from before a restart that made it less."""

MAX_ROLES = 32
"""Roles of one user."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_ROLE = re.compile(r"[!-~]{1,128}")


@value
class Rotation:
    """A grant and the refresh token that is good for it from now on, shown this one time."""

    grant: GrantRecord
    refresh_token: str


class People:
    """Users in memory for questions and in the store for the next start; what people allowed only in the store.

    A refresh token is `ID.SECRET`: the grant's id, and what only its last holder knows. One that names a grant and is
    not its last was used before or stolen; nobody can tell which, so the grant ends (RFC 9700 §4.14.2).

    `tenanted` is the provider each of whose people has a tenant."""

    def __init__(
        self,
        store: PeopleStore,
        write: Write,
        clients: Clients,
        passwords: Passwords,
        attempts: Attempts,
        now: Callable[[], int],
        *,
        on_removed: Callable[[], None],
        tenanted: str | None = None,
    ) -> None:
        self._store = store
        self._write = write
        self._clients = clients
        self._passwords = passwords
        self._attempts = attempts
        self._now = now
        self._on_removed = on_removed
        self._tenanted = tenanted
        self._users: dict[str, UserRecord] = {}

    async def start(self) -> None:
        self._users = {user.name: user for user in await self._store.users()}

    def all(self) -> Sequence[UserRecord]:
        return tuple(self._users.values())

    @property
    def present(self) -> bool:
        """Whether anybody has a password here."""
        return any(user.removed is None for user in self._users.values())

    def is_active(self, subject: str) -> bool:
        """Whether tokens of this subject are still good. Those whom somebody else vouches for are theirs to remove."""
        if not subject.startswith(USER):
            return True
        user = self._users.get(subject.removeprefix(USER))
        return user is not None and user.removed is None

    def is_here(self, person: Person) -> bool:
        """Whether what somebody logged in for may go on: not once they are removed, or have another password."""
        user = self._users.get(person.subject.removeprefix(USER)) if person.subject.startswith(USER) else None
        return self.may_go_on(person) and person.stamp == ("" if user is None else _stamp(user))

    def may_go_on(self, person: Person) -> bool:
        """Whether what somebody has allowed goes on: not once they are removed, and not what was allowed in no tenant
        when everybody of their provider must have one."""
        placed = bool(person.tenant) or self._tenanted is None or not person.subject.startswith(f"{self._tenanted}#")
        return placed and self.is_active(person.subject)

    async def add(self, call: AddUser, write: Write) -> UserRecord:
        """A new user. A name is given once, or somebody else would find the tasks of the old one."""
        if not _NAME.fullmatch(call.name):
            raise invalid("name", "must be 1 to 63 small letters, digits, dots, hyphens, underscores or @")
        if len(call.roles) > MAX_ROLES or not all(map(_ROLE.fullmatch, call.roles)):
            raise invalid("roles", f"must be at most {MAX_ROLES} words of visible ASCII")
        if call.name in self._users:
            raise GatewayError(Reason.ALREADY_EXISTS, f"There is a user {call.name} already, perhaps a removed one")
        hash = await self._passwords.make(_password(call.password))
        user = UserRecord(call.name, hash, tuple(dict.fromkeys(call.roles)), self._now())
        await write(PutUser(user))
        self._users[user.name] = user
        return user

    async def set_password(self, name: str, password: str, write: Write) -> None:
        """Whatever the old one opened is closed: somebody else may have had it."""
        user = self._user(name)
        await self._change(replace(user, hash=await self._passwords.make(_password(password))), write)

    async def remove(self, name: str, write: Write) -> None:
        """The user logs in no more, and every token with their name is refused from now on."""
        await self._change(replace(self._user(name), removed=self._now()), write)
        self._on_removed()

    async def _change(self, user: UserRecord, write: Write) -> None:
        """The new state of a user, and the end of all that the old one has allowed."""
        grants = await self._store.grants_of(subject=user.subject)
        await write(PutUser(user), *self.ending(grants))
        self._users[user.name] = user
        self.ended(grants)
        # What was allowed in between, by the state that is over now.
        await self.end_grants(await self._store.grants_of(subject=user.subject))

    async def login(self, name: str, password: str, peer: str) -> Person | None:
        """The person with this name and password. A name that nobody has costs the same work as a wrong password.
        Raises OVERLOADED when there were too many wrong ones."""
        name = name.strip().lower()
        self._attempts.check(name, peer)
        user = self._users.get(name)
        active = user is not None and user.removed is None
        good = await self._passwords.holds(password[:LONGEST_PASSWORD], user.hash if user and active else None)
        if not good or user is None:
            self._attempts.failed(name, peer)
            return None
        self._attempts.succeeded(name, peer)
        return Person(user.subject, user.roles, user.name, _stamp(user))

    # What people have allowed.

    async def allow(
        self,
        id: str,
        client: str,
        person: Person,
        scopes: Sequence[str],
        audience: str,
        until: int,
        *,
        refreshable: bool,
        key: str | None = None,
    ) -> Rotation:
        """Keep a new grant. Without `refreshable` there is no refresh token; the grant is only there to be ended."""
        secret = random_word() if refreshable else ""
        mark = fingerprint(secret.encode()) if secret else b""
        grant = GrantRecord(id, mark, client, person, tuple(scopes), audience, self._now(), until, key)
        await self._store.put_grant(grant)
        return Rotation(grant, f"{id}.{secret}" if secret else "")

    async def named(self, refresh_token: str) -> GrantRecord | None:
        """The grant that a refresh token names, whether or not the token is good for it."""
        grant = await self._store.grant(refresh_token.partition(".")[0])
        return grant if grant is not None and grant.until > self._now() else None

    async def rotate(self, grant: GrantRecord) -> Rotation | None:
        """The next refresh token; None when somebody else was faster with the same one, which ends the grant."""
        secret = random_word()
        mark = fingerprint(secret.encode())
        if not await self._store.rotate(grant.id, grant.mark, mark):
            await self.end_grant(grant.id)
            return None
        return Rotation(replace(grant, mark=mark), f"{grant.id}.{secret}")

    async def end_grant(self, id: str) -> None:
        """The grant and every access token that came of it."""
        await self._write(EndGrant(id), self._clients.revoking(session(id), self._now() + LONGEST_TOKEN * 1000))
        self._clients.revoked((session(id),), self._now() + LONGEST_TOKEN * 1000)

    async def end_grants(self, grants: Sequence[GrantRecord], write: Write | None = None) -> None:
        if grants:
            await (write or self._write)(*self.ending(grants))
            self.ended(grants)

    async def grants_of(self, *, subject: str | None = None, client: str | None = None) -> Sequence[GrantRecord]:
        """What stands allowed, by whom or to whom; with neither, all of it."""
        now = self._now()
        return [each for each in await self._store.grants_of(subject=subject, client=client) if each.until > now]

    def ending(self, grants: Sequence[GrantRecord]) -> Iterator[Change]:
        """The changes that end grants and every access token that came of them; `ended` says that they are made."""
        until = self._now() + LONGEST_TOKEN * 1000
        for grant in grants:
            yield EndGrant(grant.id)
            yield self._clients.revoking(session(grant.id), until)

    def ended(self, grants: Sequence[GrantRecord]) -> None:
        if grants:
            self._clients.revoked((session(grant.id) for grant in grants), self._now() + LONGEST_TOKEN * 1000)

    def _user(self, name: str) -> UserRecord:
        user = self._users.get(name)
        if user is None or user.removed is not None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no user {name!r}; `gateway users list` shows them")
        return user


def _stamp(user: UserRecord) -> str:
    """Another one with each password. It leads to neither."""
    return fingerprint(b"login\0" + user.hash.encode()).hex()[:32]


def session(grant: str) -> str:
    """What the tokens of a grant have in common (`sid`). It leads to no grant: others read it in tokens."""
    return fingerprint(grant.encode()).hex()[:32]


def is_last(grant: GrantRecord, refresh_token: str) -> bool:
    secret = refresh_token.partition(".")[2]
    return bool(grant.mark) and grant.mark == fingerprint(secret.encode())


def _password(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise invalid("password", f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return password
