"""How people write down who is meant: in rules, in grants, at the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.model.people import USER
from gateway.model.principal import Kind, Principal

EVERYBODY = "*"  # with a credential
ANYBODY = "anybody"
ROLE = "role:"
CLIENT = "client:"
WORKER = "worker"

_NAMES: Mapping[str, re.Pattern[str]] = {
    Kind.KEY: re.compile(r"[A-Za-z0-9._-]{1,63}"),
    Kind.AGENT: re.compile(r"[A-Za-z0-9._-]{1,63}"),
    Kind.OAUTH: re.compile(r"[!-\"$-~]+#[!-~]+"),
    Kind.SPIFFE: re.compile(r"//[a-z0-9._-]+(/[A-Za-z0-9._-]+)+"),
    Kind.LOCAL: re.compile("local"),
    Kind.ANONYMOUS: re.compile("anonymous"),
}
_OURS = f"{Kind.OAUTH}:gateway#"
_WHOLE = (f"{Kind.KEY}:", f"{Kind.AGENT}:", f"{Kind.OAUTH}:", f"{Kind.SPIFFE}://", ROLE)


def whole(word: str) -> str:
    """The id that a word stands for, or the word itself where that is many: `ann` is the key of that name,
    `client:robot` and `user:ada` are of the gateway's own authorization server."""
    if word in (EVERYBODY, ANYBODY, WORKER) or word.startswith(_WHOLE):
        return word
    if word.startswith((CLIENT, USER)):
        return f"{_OURS}{word.removeprefix(CLIENT)}"
    return f"{word}:{word}" if word in (Kind.LOCAL, Kind.ANONYMOUS) else f"{Kind.KEY}:{word}"


def named(word: str) -> Principal | None:
    """The one principal that a word stands for; a slip stands for nobody."""
    kind, _, name = whole(word).partition(":")
    pattern = _NAMES.get(kind)
    return Principal(Kind(kind), name) if pattern is not None and pattern.fullmatch(name) else None


def short(who: Principal) -> str:
    """The shortest word for a principal."""
    if who.id.startswith(_OURS):
        name = who.id.removeprefix(_OURS)
        if name.startswith(USER):
            return name
        return who.id if ":" in name else CLIENT + name
    return who.name if who.kind in (Kind.KEY, Kind.LOCAL, Kind.ANONYMOUS) else who.id
