"""Webhooks by their hosts: one that is slow gets few at a time, one that keeps failing rests for a while.

What is known is of this life of the process only; after a restart every host is tried afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.model.value import value

PER_HOST = 8  # deliveries in hand for one host: a slow one holds no more of the sender, and is not flooded
MAX_FAILURES = 5  # in a row, whichever webhooks they were; a single lost connection is everyday life
PAUSES = (5, 15, 60)  # seconds that a failing host rests; then one delivery tries whether it is back
MAX_HOSTS = 4096  # that are remembered though nothing is in hand for them


@value
class HostState:
    """`rests_until` is milliseconds since the epoch, None while the host is called as usual."""

    host: str
    in_hand: int
    failures: int
    rests_until: int | None


@dataclass(slots=True)
class _Host:
    in_hand: int = 0
    failures: int = 0
    until: int = 0

    @property
    def failing(self) -> bool:
        return self.failures >= MAX_FAILURES

    def room(self, now: int) -> int:
        if not self.failing:
            return PER_HOST - self.in_hand
        return 0 if self.in_hand or now < self.until else 1


class Hosts:
    """`enter` before an attempt, `leave` after it. `now` gives milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._hosts: dict[str, _Host] = {}

    def busy(self) -> dict[str, int]:
        """How much of PER_HOST is not free, for hosts where that is anything."""
        now = self._now()
        taken = ((host, PER_HOST - known.room(now)) for host, known in self._hosts.items())
        return {host: number for host, number in taken if number}

    def enter(self, host: str) -> None:
        self._hosts.setdefault(host, _Host()).in_hand += 1

    def leave(self, host: str, alive: bool | None) -> None:
        """`alive` says whether the host answered as one that works; None when the attempt does not tell."""
        known = self._hosts[host]
        known.in_hand -= 1
        if alive:
            known.failures = 0
        elif alive is False:
            known.failures += 1
            if known.failing:
                pause = PAUSES[min(known.failures - MAX_FAILURES, len(PAUSES) - 1)]
                known.until = self._now() + round(1000 * pause)
        if not known.in_hand and not known.failures:
            del self._hosts[host]
        elif len(self._hosts) > MAX_HOSTS:
            self._forget()

    def _forget(self) -> None:
        oldest = next((host for host, known in self._hosts.items() if not known.in_hand), None)
        if oldest is not None:
            del self._hosts[oldest]

    def state(self) -> tuple[HostState, ...]:
        return tuple(
            HostState(host, known.in_hand, known.failures, known.until if known.failing else None)
            for host, known in sorted(self._hosts.items())
        )
