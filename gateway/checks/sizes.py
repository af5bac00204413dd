"""How much may pass, and of what kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from gateway.model.compliance import Finding, Subject

_TYPES = ("mediaType", "mimeType")  # of a part of A2A, of contents of MCP
_PARTS = ("parts", "content", "contents", "messages")  # of a message, of a tool's, resource's and prompt's result


class Sizes:
    """`max_bytes`: of all texts and numbers, as UTF-8. `media_types`: patterns for what parts say they are; one that
    says nothing is `text/plain` if it is text, and `application/json` if it is data."""

    def __init__(
        self, max_bytes: int | None = None, max_parts: int | None = None, media_types: tuple[str, ...] = ()
    ) -> None:
        self._max_bytes = max_bytes
        self._max_parts = max_parts
        self._media_types = tuple(pattern.lower() for pattern in media_types)

    async def find(self, subject: Subject) -> Iterable[Finding]:
        return list(self._all(subject.content))

    def _all(self, content: Any) -> Iterator[Finding]:
        if self._max_bytes is not None and weight(content) > self._max_bytes:
            yield Finding(f"more than {self._max_bytes} bytes", "")
        for name, parts in _lists(content):
            if self._max_parts is not None and len(parts) > self._max_parts:
                yield Finding(f"more than {self._max_parts} parts", f"/{name}")
            for index, part in enumerate(parts):
                if self._media_types and not self._admits(said := media_type(part)):
                    yield Finding(f"media type {said[:80]}", f"/{name}/{index}")

    def _admits(self, said: str) -> bool:
        return any(fnmatchcase(said, pattern) for pattern in self._media_types)


def _lists(content: Any) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(content, dict):
        for name in _PARTS:
            if isinstance(parts := content.get(name), list | tuple):
                yield name, list(parts)


def media_type(part: Any) -> str:
    """What a part says it is, without parameters and in lower case; else what its members say."""
    if not isinstance(part, dict):
        return "application/json"
    said = next((part[name] for name in _TYPES if isinstance(part.get(name), str) and part[name]), None)
    if said is not None:
        return str(said).partition(";")[0].strip().lower()
    if isinstance(inner := part.get("resource", part.get("content")), dict):
        return media_type(inner)
    return "text/plain" if isinstance(part.get("text"), str) else "application/json"


def weight(content: Any) -> int:
    """Bytes of what is said in a tree, without the signs that hold it together."""
    if isinstance(content, str):
        return len(content.encode())
    if isinstance(content, dict):
        return sum(len(name.encode()) + weight(item) for name, item in content.items())
    if isinstance(content, list | tuple):
        return sum(map(weight, content))
    return len(str(content))
