"""What one upstream's file in the vault holds, as values: who we are at each issuer, and the token of one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Connection
from gateway.model.tool import Tree
from gateway.model.value import value
from gateway.upstream.oauth.client import Client
from gateway.upstream.oauth.proofs import ProofKey
from gateway.upstream.oauth.token_endpoint import Token
from gateway.upstream.oauth.vault import SHARED, Vault

# Seconds before its end in which a token is renewed; of a short life, a tenth.
AHEAD = 60.0
# However short a server says that a token lives, it is used so long: else every call would fetch one.
SHORTEST_LIFE = 10.0

_PLAIN = ("issuer", "resource", "access", "refresh", "since", "expires", "key", "began")


@value
class Held:
    """A token and where it came from. `asked` are the scopes that were asked for; times are epoch milliseconds,
    `expires` None when nobody said. `key` is what the token is bound to, as it is kept; None for a bearer token.
    `began` is when somebody said yes, `given` the scopes that came of it, where the server says so."""

    issuer: str
    resource: str
    client: Client
    access: str
    refresh: str | None
    asked: tuple[str, ...]
    since: int
    expires: int | None
    key: str | None = None
    began: int | None = None
    given: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"Held({self.issuer})"

    @property
    def renew_at(self) -> float:
        """When it should be renewed."""
        if self.expires is None:
            return float("inf")
        life = (self.expires - self.since) / 1000
        return self.since + 1000 * max(life - min(AHEAD, life / 10), SHORTEST_LIFE)

    def renewed(self, token: Token, now: int, key: ProofKey | None) -> Held:
        """A refresh token that is not replaced stays (RFC 6749 §6)."""
        fresh = held(self.issuer, self.resource, self.client, token, self.asked, now, key, self.refresh)
        began = self.since if self.began is None else self.began
        return replace(fresh, began=began, given=self.given if fresh.given is None else fresh.given)


def held(
    issuer: str,
    resource: str,
    client: Client,
    token: Token,
    asked: tuple[str, ...],
    now: int,
    key: ProofKey | None = None,
    refresh: str | None = None,
) -> Held:
    expires = None if token.life is None else now + 1000 * token.life
    bound = key.kept if key is not None and token.bound else None
    refresh = token.refresh or refresh
    return Held(issuer, resource, client, token.access, refresh, asked, now, expires, bound, now, token.scopes)


@value
class Identity:
    """What an identity provider has said about a person who logged in there, until `expires` (epoch milliseconds)."""

    issuer: str
    client_id: str
    id_token: str
    refresh: str | None
    expires: int

    def __repr__(self) -> str:
        return f"Identity({self.issuer})"


_IDENTITY = ("issuer", "client_id", "id_token", "refresh", "expires")


class Grants:
    """The file of one upstream, read at first use. What changes is on disk before it is used; what cannot be kept there
    is UNAVAILABLE."""

    def __init__(self, upstream: str, vault: Vault, owner: str = SHARED) -> None:
        self._upstream = upstream
        self._vault = vault
        self._owner = owner
        self._tree: Tree | None = None
        self._held: Held | None = None
        self._removals = 0  # of the vault, when this was read

    @property
    def held(self) -> Held | None:
        """The same object as long as nothing has changed: every request asks for it."""
        self._loaded()
        return self._held

    def hold(self, token: Held | None) -> None:
        tree: Tree | None = None
        if token is not None:
            tree = {name: getattr(token, name) for name in _PLAIN}
            given = None if token.given is None else list(token.given)
            tree |= {"client": token.client.tree(), "asked": list(token.asked), "given": given}
        self._keep({**self._loaded(), "held": tree})

    @property
    def identity(self) -> Identity | None:
        """Who the owner is at the identity provider."""
        return identity_in(self._loaded())

    def identify(self, identity: Identity | None) -> None:
        tree = None if identity is None else {name: getattr(identity, name) for name in _IDENTITY}
        self._keep({**self._loaded(), "identity": tree})

    def client(self, issuer: str) -> Client | None:
        """As whom we are registered there; never an answer for another issuer."""
        return _client(self._clients().get(issuer))

    def register(self, issuer: str, client: Client) -> None:
        self._keep({**self._loaded(), "clients": {**self._clients(), issuer: client.tree()}})

    def unregister(self, issuer: str) -> None:
        clients = {name: tree for name, tree in self._clients().items() if name != issuer}
        self._keep({**self._loaded(), "clients": clients})

    def bound(self, client_id: str) -> str | None:
        """The issuer that a client id of the operator's belongs to: the first it was used with."""
        found = self._bindings().get(client_id)
        return found if isinstance(found, str) else None

    def bind(self, client_id: str, issuer: str) -> None:
        if self.bound(client_id) is None:
            self._keep({**self._loaded(), "bindings": {**self._bindings(), client_id: issuer}})

    def forget(self) -> bool:
        """Everything; whether there was a token, or what tokens are got by."""
        had = self.held is not None or self.identity is not None
        self._vault.forget(self._upstream, self._owner)
        self._tree, self._held = {}, None
        return had

    def _loaded(self) -> Tree:
        """Read again once anything was removed: what is gone from the disk is used by nobody."""
        if self._tree is None or self._removals != self._vault.removals:
            self._removals = self._vault.removals
            self._tree = self._vault.load(self._upstream, self._owner)
            self._held = held_in(self._tree)
        return self._tree

    def _keep(self, tree: Tree) -> None:
        tree = {**tree, "owner": self._owner}
        try:
            self._vault.keep(self._upstream, tree, self._owner)
        except OSError as error:
            # A refresh token that was rotated and is not on disk would be lost with the process: better to say so now.
            what = f"The token for {self._upstream} cannot be kept: {error.strerror or error}"
            raise GatewayError(Reason.UNAVAILABLE, what, metadata={"delivered": "no"}) from error
        self._tree = tree
        self._held = held_in(tree)

    def _clients(self) -> Tree:
        return _object(self._loaded().get("clients"))

    def _bindings(self) -> Tree:
        return _object(self._loaded().get("bindings"))


def _object(found: Any) -> Tree:
    return found if isinstance(found, dict) else {}


def _client(tree: Any) -> Client | None:
    return Client(tree["id"], tree["secret"], tree["method"], tree["redirect_uri"]) if isinstance(tree, dict) else None


def connection_in(kind: str, file: str, kept: Tree) -> Connection:
    """What may be shown of one caller's file. Somebody who has only logged in at an identity provider is connected
    there."""
    held, identity, owner = held_in(kept), identity_in(kept), kept.get("owner")
    place, issuer = f"{kind}/{file.partition('.')[0]}", None if identity is None else identity.issuer
    refreshable = identity is not None and identity.refresh is not None
    if held is None:
        return Connection(f"{kind}.{file}", place, owner, issuer, (), None, None, refreshable)
    return Connection(
        f"{kind}.{file}",
        place,
        owner,
        held.issuer,
        held.asked if held.given is None else held.given,
        held.since if held.began is None else held.began,
        held.expires,
        refreshable or held.refresh is not None,
    )


def identity_in(kept: Tree) -> Identity | None:
    tree = kept.get("identity")
    return Identity(**tree) if isinstance(tree, dict) else None


def held_in(kept: Tree) -> Held | None:
    """The token of one file, if there is one."""
    tree = kept.get("held")
    client = _client(tree.get("client")) if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or client is None:
        return None
    given = tree.get("given")
    return Held(
        tree["issuer"],
        tree["resource"],
        client,
        tree["access"],
        tree["refresh"],
        tuple(tree["asked"]),
        tree["since"],
        tree["expires"],
        tree.get("key"),
        tree.get("began"),
        None if given is None else tuple(given),
    )
