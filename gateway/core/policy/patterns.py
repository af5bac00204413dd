"""How a pattern covers an address."""

from __future__ import annotations

from fnmatch import fnmatchcase

AGENTS = "agents"


def matches(pattern: str, address: str) -> bool:
    """`docs` and `docs/*` mean all of a server, `docs/read_*` some of it. A pattern never reaches into another
    server's name: the part before the slash is compared by itself. `agents/NAME` means all skills of that agent."""
    server, _, name = pattern.partition("/")
    their_server, _, their_name = address.partition("/")
    if not fnmatchcase(their_server, server):
        return False
    if fnmatchcase(their_name, name or "*"):
        return True
    return their_server == AGENTS and fnmatchcase(their_name, f"{name}/*")
