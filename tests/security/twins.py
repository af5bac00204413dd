"""What the tests of advisories are made of. An attack fails here in all its forms, and succeeds in all of them against
its broken twin: the same gateway without the one defence, so that the test is known to see the attack.

The fixtures `attempt` and `broken`, which put the twin in place, are in `conftest.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import pytest

from gateway.model.principal import Principal
from gateway.server.mcp.sessions import Session, Sessions
from gateway.stores.sqlite import SqliteStore

P = TypeVar("P")  # where it is tried: a running gateway with what belongs to it, or a folder for one

Twin: TypeAlias = Callable[[pytest.MonkeyPatch], None]
Attack: TypeAlias = Callable[[P], Awaitable[list[bool]]]  # of all its forms whether they got what they must not get
Attacks: TypeAlias = dict[str, tuple[Attack[P], Twin]]
Attempt: TypeAlias = Callable[[P], Awaitable[None]]  # makes the attack, and asserts what is to come of it

WAYS = {"sound": False, "twin": True}


def each_of(attacks: Mapping[str, tuple[Attack[P], Twin]]) -> pytest.MarkDecorator:
    """The test's `attempt` is each of these attacks, on the sound gateway and on its broken twin."""
    cases = [
        pytest.param((attack, twin if broken else None), id=f"{name}-{way}")
        for name, (attack, twin) in attacks.items()
        for way, broken in WAYS.items()
    ]
    return pytest.mark.parametrize("attempt", cases, indirect=True)


def broken_by(twin: Twin) -> pytest.MarkDecorator:
    """The test runs with the sound gateway and with this twin; its `broken` says which."""
    return pytest.mark.parametrize("broken", [None, twin], ids=[*WAYS], indirect=True)


# For tests that put the twin in place themselves, in the middle of what happens.
by_itself = pytest.mark.parametrize("broken", WAYS.values(), ids=[*WAYS])


# Twins that more than one advisory needs.


def asks_for_no_owner(patch: pytest.MonkeyPatch) -> None:
    """A task is anybody's."""
    whole = SqliteStore.task

    async def task(self: SqliteStore, tenant: str, task_id: str, **filters: Any) -> Any:
        return await whole(self, tenant, task_id)

    patch.setattr(SqliteStore, "task", task)


def asks_for_no_principal(patch: pytest.MonkeyPatch) -> None:
    """A session is whoever's that knows its id."""

    def get(self: Sessions, id: str, who: Principal, mount: str) -> Session | None:
        return self._sessions.get(id)

    patch.setattr(Sessions, "get", get)
