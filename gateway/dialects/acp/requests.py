"""Bodies of ACP -> what they ask for. Members that are not known are kept where a message goes on, and ignored else."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.dialects.a2a_v1.requests import MAX_MODES, violations
from gateway.dialects.acp.ids import plain
from gateway.dialects.acp.parts import A2A, Tree
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.value import value

# As many as a message of A2A may have parts; a real client sends a handful.
MAX_MESSAGES = 1000
MAX_PARTS = 1000  # in all messages of a run together, which become one message
MAX_HISTORY = 1000  # URLs of a session that is brought along

Mode: TypeAlias = Literal["sync", "async", "stream"]
M = TypeVar("M", bound=BaseModel)
Uuid = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}$")]
Url = Annotated[str, Field(max_length=4096)]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class PartMetadata(_Kept):
    kind: Literal["citation", "trajectory"]


class MessagePart(_Kept):
    name: str | None = None
    content_type: str | None = None
    content: str | None = None
    content_encoding: Literal["plain", "base64"] | None = None
    content_url: str | None = None
    metadata: PartMetadata | None = None

    @model_validator(mode="after")
    def _one_content(self) -> MessagePart:
        if self.content is not None and self.content_url is not None:
            raise ValueError("has content and content_url; send one of them")
        return self


class Message(_Kept):
    role: str = Field("user", pattern=r"^(user|agent(/[a-zA-Z0-9_-]+)?)$")
    parts: list[MessagePart] = Field(max_length=MAX_PARTS)
    created_at: str | None = None
    completed_at: str | None = None


class _Session(BaseModel):
    id: Uuid | None = None
    history: list[Url] = Field(default_factory=list, max_length=MAX_HISTORY)
    state: Url | None = None


class _Create(BaseModel):
    agent_name: str = Field(min_length=1)
    input: list[Message] = Field(max_length=MAX_MESSAGES)
    mode: Mode = "sync"
    session_id: Uuid | None = None
    session: _Session | None = None


class _Answer(BaseModel):
    type: Literal["message"] = "message"
    message: Message


class _Resume(BaseModel):
    await_resume: _Answer
    mode: Mode


@value
class CreateRun:
    """`session_id` is plain (ids.py), None for a new session; `session` what was brought along in it, if anything."""

    agent: str
    messages: list[Tree]
    mode: Mode
    session_id: str | None
    session: Tree | None


class _Beside(BaseModel):
    """What stands beside a message in A2A, as another gateway notes it."""

    metadata: dict[str, Any] | None = None
    acceptedOutputModes: list[str] = Field(default_factory=list, max_length=MAX_MODES)
    extensions: list[str] = Field(default_factory=list, max_length=MAX_MODES)


@value
class Beside:
    metadata: Tree | None = None
    accepted_output_modes: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()


def beside(message: Tree) -> Beside:
    """Raises INVALID_PARAMS."""
    said = message.get(A2A)
    request = said.get("request") if isinstance(said, dict) else None
    if request is None:
        return Beside()
    read = _read(_Beside, request)
    return Beside(read.metadata, tuple(read.acceptedOutputModes), tuple(read.extensions))


@value
class ResumeRun:
    message: Tree
    mode: Mode


def create(tree: Any) -> CreateRun:
    """Raises INVALID_PARAMS; INVALID_REQUEST for two sessions."""
    asked = _read(_Create, tree)
    session = asked.session
    named = {plain(id) for id in (asked.session_id, session.id if session else None) if id}
    if len(named) > 1:
        raise GatewayError(Reason.INVALID_REQUEST, "Session ID mismatch: session_id and session.id name two sessions")
    parts = [part for message in asked.input for part in message.parts]
    if not parts:
        raise invalid("input", "must have at least one part")
    if len(parts) > MAX_PARTS:
        raise invalid("input", f"has more than {MAX_PARTS} parts in all")
    for part in parts:
        _check(part)
    brought = None
    if session is not None and (session.history or session.state):
        brought = {"history": session.history, **({"state": session.state} if session.state else {})}
    return CreateRun(asked.agent_name, tree["input"], asked.mode, named.pop() if named else None, brought)


def resume(tree: Any) -> ResumeRun:
    asked = _read(_Resume, tree)
    if not asked.await_resume.message.parts:
        raise invalid("await_resume.message.parts", "must have at least one part")
    for part in asked.await_resume.message.parts:
        _check(part)
    return ResumeRun(tree["await_resume"]["message"], asked.mode)


def _check(part: MessagePart) -> None:
    if part.content_encoding != "base64":
        return
    try:
        base64.b64decode(part.content or "", validate=True)
    except (ValueError, binascii.Error):
        raise invalid("content", "is not base64, as content_encoding says") from None


def _read(shape: type[M], tree: Any) -> M:
    try:
        return shape.model_validate(tree)
    except ValidationError as error:
        found = violations(error)
        sentence = "; ".join(f"{violation.field}: {violation.description}" for violation in found[:3])
        raise GatewayError(Reason.INVALID_PARAMS, sentence, violations=found) from None
