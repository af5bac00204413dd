"""Sharing a task: the verbs, what is kept of it, and the port to where it is kept."""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeAlias

from gateway.model.value import value


@value
class ShareTask:
    """Let `reader` read one task: the word for a principal (model/whom.py), of the task's tenant. `until` is when that
    ends (milliseconds since the epoch), None: when it is taken back."""

    verb: ClassVar[str] = "ShareTask"
    task_id: str
    reader: str
    until: int | None = None
    agent: None = None


@value
class UnshareTask:
    verb: ClassVar[str] = "UnshareTask"
    task_id: str
    reader: str
    agent: None = None


@value
class ListShares:
    """Who may read a task beside its owner."""

    verb: ClassVar[str] = "ListShares"
    task_id: str
    agent: None = None


SharingCall: TypeAlias = ShareTask | UnshareTask | ListShares


@value
class Share:
    """`principal` may read a task of `owner`, because `granted_by` said so at `created`; up to `until`, or for good.
    Principals by their whole ids, times in milliseconds since the epoch."""

    tenant: str
    task_id: str
    principal: str
    owner: str
    granted_by: str
    created: int
    until: int | None = None

    def holds(self, at: int) -> bool:
        return self.until is None or at < self.until


class ShareStore(Protocol):
    """Read here, written with the store's `commit`; those whose time is over are read, too. Raises
    GatewayError(UNAVAILABLE) when it cannot be read."""

    async def given(self, tenant: str, task_id: str, principal: str) -> Share | None:
        """One look by the key, which is the same whether there is such a task or not."""
        ...

    async def of(self, tenant: str, task_id: str) -> list[Share]:
        """Those of one task, by principal."""
        ...
