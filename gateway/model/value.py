"""Small values: frozen for the type checker, cheap at run time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass whose fields mypy lets nobody assign.

    Freezing at run time makes each construction three times as dear (13 fields: 2.1 µs against 0.6), and a call
    makes some twenty of them. They compare and hash by their fields, as frozen ones do.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
