"""All the rules that hold at one time, as one value: a policy file is taken over whole or not at all."""

from __future__ import annotations

from gateway.core.policy.rules import Ruling
from gateway.model.value import value


@value
class Book:
    """`hash` names what it says; `name` is the file, "" where there is none."""

    rules: tuple[Ruling, ...]
    hash: str
    name: str = ""
