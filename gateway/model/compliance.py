"""What a compliance check looks at, and what it may find there.

A check of your own needs nothing else from the gateway:

    async def no_shouting(subject: Subject) -> list[Finding]:
        return [Finding("shouting", where) for where, text in texts(subject.content) if text.isupper()]
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from gateway.model.value import value


class Place(StrEnum):
    """The four moments of a hop: before and after, of agents and of tools."""

    MESSAGE = "message"  # what a caller says to an agent
    ANSWER = "answer"  # what an agent says: messages, status texts, artifacts, each chunk of a stream
    ARGUMENTS = "arguments"  # what a tool, prompt or resource is asked with
    RESULT = "result"  # what comes back from it


@value
class Subject:
    """What passes at one place.

    `target` is the agent's id or `server/name`; `content` a JSON tree, not to be changed: A2A's `parts` and `metadata`
    of a message (for an artifact also `name` and `description`), the arguments of a call, MCP's result.
    `declared` is the JSON Schema that the tool itself declares for it, where it does. `beside` says that it is none of
    what schemas are about: answers to a tool's questions, a resource's URI, metadata of a request or an event.
    """

    place: Place
    target: str
    content: Any
    declared: Any = None
    beside: bool = False


@value
class Finding:
    """Something that should not be there.

    `what` is a short name for it, never the thing itself, since it is shown and recorded. `where` is a JSON Pointer
    (RFC 6901) into the content; with `#` behind it, the name of that member. `spans` are the first character and the
    one behind the last of each stretch of the text there; without any, all of the value is meant. `around` are the
    stretches by which it was told, where they are longer: a stream is not cut inside of those either.
    """

    what: str
    where: str
    spans: tuple[tuple[int, int], ...] = ()
    around: tuple[tuple[int, int], ...] = ()


class Check(Protocol):
    """One question to what passes. Failing and taking too long count as an answer too: see `on_failure`."""

    async def find(self, subject: Subject) -> Iterable[Finding]: ...


Rewrite: TypeAlias = Callable[[str, str], str]  # where, text -> the text that takes its place

# Base64 that holds text: the member with the bytes, and the one that says what they are. A2A's part, MCP's contents.
_ENCODED = {"raw": "mediaType", "blob": "mimeType"}
_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "application/x-ndjson")


def texts(content: Any) -> Iterator[tuple[str, str]]:
    """Every text of a JSON tree with its place: values, names of members, and text files sent as base64."""
    found: list[tuple[str, str]] = []

    def see(where: str, text: str) -> str:
        found.append((where, text))
        return text

    rewritten(content, see)
    yield from found


def numbers(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every number of a JSON tree with its place, as it is written: a card's number need not be a text. A whole one has
    no decimal point."""
    if isinstance(content, list | tuple):
        for index, item in enumerate(content):
            yield from numbers(item, f"{where}/{index}")
    elif isinstance(content, Mapping):
        for name, item in content.items():
            yield from numbers(item, _below(where, name))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield where, str(int(content) if content == content // 1 else content)


def _below(where: str, name: str) -> str:
    return f"{where}/{name.replace('~', '~0').replace('/', '~1')}"


def rewritten(content: Any, change: Rewrite, where: str = "") -> Any:
    """The tree with every text replaced by what `change` makes of it. Numbers stay the numbers they are."""
    if isinstance(content, str):
        return change(where, content)
    if isinstance(content, list | tuple):
        return [rewritten(item, change, f"{where}/{index}") for index, item in enumerate(content)]
    if isinstance(content, Mapping):
        return dict(_member(content, name, item, change, where) for name, item in content.items())
    return content


def _member(parent: Mapping[str, Any], name: str, item: Any, change: Rewrite, where: str) -> tuple[str, Any]:
    place = _below(where, name)
    if name in _ENCODED and isinstance(item, str) and (text := _decoded(item, parent.get(_ENCODED[name]))) is not None:
        changed = change(place, text)
        return name, item if changed == text else base64.b64encode(changed.encode()).decode()
    return change(f"{place}#", name), rewritten(item, change, place)


def _decoded(encoded: str, media_type: object) -> str | None:
    if not isinstance(media_type, str) or not media_type.lower().startswith(_TEXTUAL):
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
