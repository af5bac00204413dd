"""The arithmetic: percentiles of latencies, ratios of rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A median with the range around it. On a shared machine the range says more than the median."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        return cls(ordered[0], statistics.median(ordered), ordered[-1])

    def rounded(self, digits: int) -> Spread:
        return Spread(*(round(value, digits) for value in self))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the ordered values lie; nearest rank, so always one that was seen."""
    if not ordered:
        raise ValueError("no values")
    rank = -int(-share * len(ordered) // 1)  # ceiling
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def ratios(a: Sequence[float], b: Sequence[float]) -> Spread:
    """Each round of A over the round of B beside it: what moves the machine's speed moves both."""
    return Spread.of(one / other for one, other in zip(a, b, strict=True))


def differences(a: Sequence[float], b: Sequence[float]) -> Spread:
    return Spread.of(one - other for one, other in zip(a, b, strict=True))
