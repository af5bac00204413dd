"""What things are called on a mount, and back: names must be injective, and short enough for every client.

Three ways (docs/adr/0009). *Identity*: one server, its own names. *Prefix*: `server__name`; server ids have no
underscore, so the first `__` is always ours. *Alias*: only the listed ones, under the names given there.
Two things of one name are both left out and reported: choosing one silently would let a server take over another's
tool.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum

from gateway.core.policy import matches
from gateway.model.tool import Definition, Kind
from gateway.model.value import value

MAX_NAME = 64
"""Characters of a prefixed name: the smallest limit among the large model APIs; MCP itself allows 128."""

_SHORT = MAX_NAME - 9  # `-` and 8 hexadecimal digits follow
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_STRANGE = re.compile(r"[^A-Za-z0-9_-]")


class Naming(StrEnum):
    IDENTITY = "identity"
    PREFIX = "prefix"
    ALIAS = "alias"


@value
class Mount:
    """One endpoint: which servers or tools (`server` or `server/pattern`; empty: all), and how they are named.
    `aliases` is exposed name -> `server/name`; `search` lists tools to find tools with (search.py)."""

    id: str
    tools: tuple[str, ...] = ()
    naming: Naming = Naming.PREFIX
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    search: bool = False

    def holds(self, definition: Definition) -> bool:
        if self.naming is Naming.ALIAS and definition.kind in (Kind.TOOL, Kind.PROMPT):
            return definition.address in self.aliases.values()
        if definition.kind is Kind.TOOL:
            return not self.tools or any(matches(pattern, definition.address) for pattern in self.tools)
        return self.holds_server(definition.server)

    def holds_server(self, server: str) -> bool:
        """Whether all of a server is here, its prompts and resources too."""
        patterns = self.tools or (() if self.naming is Naming.ALIAS else ("*",))
        return any(matches(pattern, f"{server}/*") for pattern in patterns if pattern.partition("/")[2] in ("", "*"))

    @property
    def only(self) -> str | None:
        """The one server of an identity mount."""
        return self.tools[0].partition("/")[0] if self.naming is Naming.IDENTITY else None

    def name(self, definition: Definition) -> tuple[str, ...]:
        """What it is called here; several aliases are several names."""
        if definition.kind in (Kind.RESOURCE, Kind.TEMPLATE):
            return (self.uri(definition.server, definition.key),)
        if self.naming is Naming.IDENTITY:
            return (definition.key,)
        if self.naming is Naming.ALIAS:
            return tuple(alias for alias, address in self.aliases.items() if address == definition.address)
        return (prefixed(definition.server, definition.key),)

    def uri(self, server: str, uri: str) -> str:
        return uri if self.naming is Naming.IDENTITY else outer_uri(server, uri)

    def locate(self, uri: str) -> tuple[str, str] | None:
        """Server and its own URI; None for one that is nobody's here."""
        if self.only is not None:
            return self.only, uri
        return inner_uri(uri)


def prefixed(server: str, name: str) -> str:
    """`server__name`. What would be too long or hold characters that clients refuse ends in a digest of the whole, so
    two such names still differ."""
    whole = f"{server}__{name}"
    if len(whole) <= MAX_NAME and _PLAIN.fullmatch(whole):
        return whole
    mark = hashlib.sha256(f"{server}/{name}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_STRANGE.sub('_', whole)[:_SHORT]}-{mark}"


# A resource's server goes into the scheme (RFC 3986 §3.1: letters, digits, `+`, `-`, `.`, a letter first). `ui://` is
# told by its scheme (MCP Apps), so there it goes into the authority. Ids hold neither `+` nor `.`.
_OUTER = re.compile(r"(?:s\.)?([a-z0-9-]+)\+(.*)", re.DOTALL)
_OUTER_UI = re.compile(r"ui://([a-z0-9-]+)/(.*)", re.DOTALL)


def outer_uri(server: str, uri: str) -> str:
    if uri.startswith("ui://"):
        return f"ui://{server}/{uri[5:]}"
    return f"{'' if server[0].isalpha() else 's.'}{server}+{uri}"


def inner_uri(uri: str) -> tuple[str, str] | None:
    if ui := _OUTER_UI.fullmatch(uri):
        return ui[1], f"ui://{ui[2]}"
    found = _OUTER.fullmatch(uri)
    if found is None or outer_uri(found[1], found[2]) != uri:
        return None
    return found[1], found[2]


def folded(name: str) -> str:
    """The form in which two names must differ: what looks the same to a reader is the same (UAX #15)."""
    return unicodedata.normalize("NFKC", name).casefold()


@value
class Names:
    """One kind of one mount: exposed name -> definition, and what two or more of them would have been called."""

    named: Mapping[str, Definition] = field(hash=False)
    collisions: Mapping[str, tuple[str, ...]] = field(hash=False)


def expose(mount: Mount, definitions: Iterable[Definition]) -> Names:
    """Names for all of one kind, sorted by address so that the order never depends on who was quicker."""
    by_look: dict[str, list[tuple[str, Definition]]] = {}
    held = [each for each in definitions if mount.holds(each)]
    if mount.naming is not Naming.IDENTITY:  # there the one server's own order stays
        held.sort(key=lambda each: (each.server, each.key))
    for definition in held:
        for name in mount.name(definition):
            # URIs are compared as they are: they are addresses, not words.
            look = name if definition.kind in (Kind.RESOURCE, Kind.TEMPLATE) else folded(name)
            by_look.setdefault(look, []).append((name, definition))
    named = {each[0][0]: each[0][1] for each in by_look.values() if len(each) == 1}
    collisions = {
        each[0][0]: tuple(definition.address for _, definition in each) for each in by_look.values() if len(each) > 1
    }
    return Names(named, collisions)
