"""Who is asking."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple


class Kind(StrEnum):
    LOCAL = "local"  # the credential that the gateway generated for the machine it runs on
    KEY = "key"  # an API key made with `gateway keys add`
    OAUTH = "oauth"  # whom a trusted issuer says it is, by an access token; the name is `issuer#subject`
    SPIFFE = "spiffe"  # a workload by its certificate; its id is its SPIFFE ID
    ANONYMOUS = "anonymous"  # nobody; exists only where the operator switched it on
    AGENT = "agent"  # a local agent that asks another one, on behalf of the caller whose task it works on


class Principal(NamedTuple):
    """A verified identity. `tenant` comes from verification only, never from a message's routing field; so do
    `roles` and `scopes`, which only access tokens have, and `client`: the OAuth client that the token was given to.
    Who asks on behalf of somebody has the client that they came with."""

    kind: Kind
    name: str
    tenant: str = ""
    on_behalf_of: Principal | None = None
    hops: int = 0
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    client: str | None = None

    @property
    def id(self) -> str:
        """Unique in the tenant; kinds can never collide (`key:alice`, `agent:alice`)."""
        return _id(self.kind, self.name)

    @classmethod
    def of(cls, id: str, tenant: str) -> Principal:
        """The principal with this id."""
        kind, _, name = id.partition(":")
        return cls(Kind(kind), name, tenant)

    @property
    def identity(self) -> tuple[str, ...]:
        """Who it is, whatever it may do just now: the tenant, and the ids along the chain."""
        return (self.tenant, self.id) if self.on_behalf_of is None else (*self.on_behalf_of.identity, self.id)

    @property
    def owner(self) -> str:
        """Whose tasks and contexts this principal works on: those of the caller at the outer end of the chain."""
        return self.root.id

    @property
    def root(self) -> Principal:
        """The caller at the outer end of the delegation chain."""
        return self if self.on_behalf_of is None else self.on_behalf_of.root

    @property
    def caller(self) -> Principal:
        """Whoever came to the door: without the agents here that ask on its behalf."""
        return self if self.kind is not Kind.AGENT or self.on_behalf_of is None else self.on_behalf_of.caller

    @property
    def kept(self) -> Principal | None:
        """What a task keeps of its caller beside the owner: None where that says all. (Who acts for somebody has
        hops.)"""
        who = self.caller
        return who if who.roles or who.scopes or who.hops or who.client else None

    @property
    def bare(self) -> Principal:
        """The same chain without roles and scopes."""
        behalf = None if self.on_behalf_of is None else self.on_behalf_of.bare
        return self._replace(on_behalf_of=behalf, roles=frozenset(), scopes=frozenset())

    def delegate(self, agent: str) -> Principal:
        """The identity of `agent` when it asks on behalf of this principal, one hop deeper."""
        return Principal(Kind.AGENT, agent, self.tenant, self, self.hops + 1, client=self.client)


def is_client(id: str, client: str) -> bool:
    """Whether the principal with this id is an OAuth client itself, with a token that is about nobody else."""
    kind, _, name = id.partition(":")
    return kind == Kind.OAUTH and subject(name) == client


def subject(name: str) -> str:
    """What the issuer calls whom we call by this name (`Kind.OAUTH`); a client's has two marks before it."""
    return name.partition("#")[2].removeprefix("#")


@lru_cache(maxsize=4096)
def _id(kind: Kind, name: str) -> str:
    return f"{kind}:{name}"


LOCAL = Principal(Kind.LOCAL, "local")
MACHINE = Principal(Kind.LOCAL, "gateway")  # the gateway itself, in what it does although nobody asked; no credential
ANONYMOUS = Principal(Kind.ANONYMOUS, "anonymous")
