"""targets.toml: what a figure has to reach, and whether it did."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("targets.toml")


@dataclass(frozen=True, slots=True)
class Target:
    what: str
    of: str  # a pair
    figure: str  # where in its result, with dots
    now: float
    then: float
    more_is_better: bool

    def value(self, result: Mapping[str, Any]) -> float | None:
        """The figure in a pair's result; of a spread its median. None if it could not be measured."""
        found: Any = result
        for name in self.figure.split("."):
            found = found[name]
        if isinstance(found, Mapping):
            found = found["median"]
        return None if found is None else float(found)

    def reached(self, value: float) -> bool:
        return value >= self.now if self.more_is_better else value <= self.now


def load(text: str | None = None) -> list[Target]:
    return [_target(entry) for entry in tomllib.loads(FILE.read_text("utf-8") if text is None else text)["target"]]


def _target(entry: Mapping[str, Any]) -> Target:
    better = "at_least" if "at_least" in entry else "at_most"
    bound = entry[better]
    return Target(
        entry["what"], entry["of"], entry["figure"], float(bound["now"]), float(bound["then"]), better == "at_least"
    )
