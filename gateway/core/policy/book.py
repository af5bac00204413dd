"""All that holds at one time, as one value: a policy file is taken over whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from gateway.core.policy.checks import On
from gateway.core.policy.interceptors import Pauses
from gateway.core.policy.limits import Limit
from gateway.core.policy.persons import Persons
from gateway.core.policy.rules import Ruling
from gateway.model.value import value


@value
class Book:
    """`hash` names what it says; `name` is the file, "" where there is none. `labels` are what targets bring into a
    conversation, `costs` what calls of targets cost, `pauses` what a person sees first, `persons` who is who,
    `people` the same as the file has it, `roles` who has which."""

    rules: tuple[Ruling, ...]
    hash: str
    name: str = ""
    limits: tuple[Limit, ...] = ()
    costs: tuple[tuple[On, float], ...] = ()
    labels: tuple[tuple[str, On], ...] = ()
    pauses: Pauses | None = None
    persons: Persons = field(default_factory=Persons)
    people: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
