"""Message, Part, Artifact: what agents say and make (A2A 1.0 §4.1)."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar

from gateway.model.base import Id, Model, OptionalId


class Role(StrEnum):
    USER = "ROLE_USER"
    AGENT = "ROLE_AGENT"


class Part(Model):
    """One piece of content: exactly one of `text`, `raw` (base64), `url`, `data` (any JSON).

    "Exactly one" is checked where callers' messages come in; an upstream's newer kind of part passes through.
    """

    text: str | None = None
    raw: str | None = None
    url: str | None = None
    data: Any = None
    metadata: dict[str, Any] | None = None
    filename: str | None = None
    media_type: str | None = None


class Message(Model):
    KEY: ClassVar[str] = "message"

    message_id: Id
    role: Role
    parts: tuple[Part, ...]
    context_id: OptionalId | None = None
    task_id: OptionalId | None = None
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] | None = None
    reference_task_ids: tuple[str, ...] | None = None

    __slots__ = ("_wire",)

    def wire(self) -> bytes:
        """Written once: an agent's reply goes into the store and to its caller."""
        try:
            return _written(self)
        except AttributeError:
            body = super().wire()
            _write(self, body)
            return body

    @property
    def text(self) -> str:
        """All text parts, one under the other: what a person would read."""
        return "\n".join(part.text for part in self.parts if part.text is not None)


_written: Callable[[Message], bytes] = Message.__dict__["_wire"].__get__
_write: Callable[[Message, bytes], None] = Message.__dict__["_wire"].__set__


class Artifact(Model):
    artifact_id: Id
    parts: tuple[Part, ...]
    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] | None = None
