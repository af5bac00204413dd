"""What every turn needs and none owns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.compliance.compliance import Compliance
from gateway.core.live import Live
from gateway.model.ports import Store
from gateway.model.principal import Principal


def _all(who: Principal) -> Principal:
    return who


@dataclass(slots=True)
class Services:
    store: Store
    live: Live
    now: Callable[[], int]
    new_id: Callable[[], str]
    node: str
    pushed: Callable[[], None]  # wakes the push worker
    compliance: Compliance
    today: Callable[[Principal], Principal] = _all  # with what is left of its rights, where its work goes on without it
