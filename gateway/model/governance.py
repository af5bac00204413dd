"""The verbs about policy itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from gateway.model.value import value


@value
class ShowPolicy:
    """The rules that hold, and where they come from."""

    verb: ClassVar[str] = "ShowPolicy"
    agent: None = None


@value
class ExplainPolicy:
    """Why `principal` may or may not do `action` on `target`. Names are written as in the policy file; `behalf` is
    whom an agent asks for, `at` a time (milliseconds since the epoch, None: now)."""

    verb: ClassVar[str] = "ExplainPolicy"
    principal: str
    action: str
    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    roles: tuple[str, ...] = ()
    behalf: str | None = None
    at: int | None = None
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
