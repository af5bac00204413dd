"""The verbs about policy itself, and what is kept about it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

from gateway.model.value import value


@value
class ShowPolicy:
    """The rules that hold, and where they come from."""

    verb: ClassVar[str] = "ShowPolicy"
    agent: None = None


@value
class ExplainPolicy:
    """Why `principal` may or may not do `action` on `target`. Names are written as in the policy file; `behalf` is
    whom an agent asks for, `at` a time (milliseconds since the epoch, None: now), `scopes` those of the access token
    with which it began, `labels` what the conversation has met."""

    verb: ClassVar[str] = "ExplainPolicy"
    principal: str
    action: str
    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    roles: tuple[str, ...] = ()
    behalf: str | None = None
    at: int | None = None
    scopes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    agent: None = None


@value
class ReloadPolicy:
    """Read the policy file again now."""

    verb: ClassVar[str] = "ReloadPolicy"
    agent: None = None


@value
class ShadePolicy:
    """What the policy that is tried out would have decided otherwise."""

    verb: ClassVar[str] = "ShadePolicy"
    agent: None = None


@value
class ReplayPolicy:
    """What another policy (`text`, called `name`) would have decided about the last `last` recorded calls."""

    verb: ClassVar[str] = "ReplayPolicy"
    text: str
    name: str
    last: int
    agent: None = None


@value
class ShowCompliance:
    """The compliance profile that holds."""

    verb: ClassVar[str] = "ShowCompliance"
    agent: None = None


@value
class ReloadCompliance:
    """Read the compliance profile again now."""

    verb: ClassVar[str] = "ReloadCompliance"
    agent: None = None


class Cold(StrEnum):
    """What can be frozen."""

    AGENT = "agent"
    PRINCIPAL = "principal"


@value
class Freeze:
    """Let an agent or a principal do nothing more from now on, and stop what it has in hand."""

    verb: ClassVar[str] = "Freeze"
    kind: Cold
    name: str
    reason: str = ""
    agent: None = None


@value
class Thaw:
    verb: ClassVar[str] = "Thaw"
    kind: Cold
    name: str
    agent: None = None


@value
class ListFrozen:
    verb: ClassVar[str] = "ListFrozen"
    agent: None = None


GovernanceCall: TypeAlias = (
    ShowPolicy
    | ExplainPolicy
    | ReloadPolicy
    | ShadePolicy
    | ReplayPolicy
    | ShowCompliance
    | ReloadCompliance
    | Freeze
    | Thaw
    | ListFrozen
)


@value
class Frozen:
    """An agent by its id, or a principal by its whole id, that was frozen `at` (milliseconds) by the principal `by`."""

    kind: Cold
    name: str
    by: str
    at: int
    reason: str = ""


@value
class Halted:
    """A tree of tasks, by the outermost of them, of which a rule lets nothing go on."""

    tenant: str
    root: str
    rule: str
    reason: str


@value
class Usage:
    """How much of a limit is used under one of its keys, in the window that ends at `until` (milliseconds)."""

    limit: str
    key: str
    until: int
    used: float


@value
class Labelled:
    """The labels that a conversation has gathered, the last one `at` (milliseconds)."""

    conversation: str
    labels: frozenset[str]
    at: int


class GovernanceStore(Protocol):
    """Durable when awaited, and in the order of the calls; what is frozen or halted is written with the store's
    `commit`. Raises GatewayError(UNAVAILABLE) when the store cannot be written or read."""

    async def frozen(self) -> list[Frozen]: ...

    async def halted(self) -> list[Halted]:
        """Trees of which something may be left that is not at its end."""
        ...

    def spend(self, rows: Sequence[Usage], now: int) -> Awaitable[None]:
        """The new state of these windows; those that have ended by `now` are forgotten."""
        ...

    async def usage(self) -> list[Usage]: ...

    def label(self, row: Labelled, before: int) -> Awaitable[None]:
        """The new state of a conversation; those whose last label is from before `before` are forgotten."""
        ...

    async def labels(self) -> list[Labelled]: ...
