"""How a pattern covers an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache

AGENTS = "agents"


Covers = tuple[Callable[[str], object], Callable[[str], object], Callable[[str], object]]


def matches(pattern: str, address: str) -> bool:
    """`docs` and `docs/*` mean all of a server, `docs/read_*` some of it. A pattern never reaches into another
    server's name: the part before the slash is compared by itself. `agents/NAME` means all skills of that agent."""
    server, _, name = address.partition("/")
    return covered((compiled(pattern),), server, name)


def covered(patterns: Iterable[Covers], server: str, name: str) -> bool:
    """Whether one of them covers the address `server/name`."""
    for is_server, is_name, is_skill in patterns:
        if is_server(server) and (is_name(name) or (server == AGENTS and is_skill(name))):
            return True
    return False


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Covers:
    """What a server, a name and the skill of an agent have to be."""
    server, _, name = pattern.partition("/")
    return _glob(server), _glob(name or "*"), _glob(f"{name}/*")


def is_plain(pattern: str) -> bool:
    """Whether it means one name of one server, and nothing else but the skills of an agent."""
    _, _, name = pattern.partition("/")
    return bool(name) and not any(sign in pattern for sign in "*?[")


@lru_cache(maxsize=4096)
def starred(pattern: str) -> Callable[[str], object]:
    """For texts that may have anything in them: only the star stands for something else."""
    return re.compile(translate(pattern.replace("[", "[[]").replace("?", "[?]"))).match


def _glob(pattern: str) -> Callable[[str], object]:
    return re.compile(translate(pattern)).match if any(sign in pattern for sign in "*?[") else pattern.__eq__
