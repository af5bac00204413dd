"""Messages both ways. A turn of A2A is one message; ACP hands over a list of them, an agent's earlier words included.

The parts of the list become the parts of one message, and `metadata.acp` remembers who said which of them, and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from gateway.dialects.a2a_v1.requests import check_members
from gateway.dialects.acp.parts import A2A, ACP, CONTENT, Tree, read_part, write_part
from gateway.model.base import Model
from gateway.model.errors import invalid
from gateway.model.message import Message, Part, Role

MAX_ID = 256  # characters of a message's id, as in the model
CLOSING = "a2a_state"  # of a message: what an agent of A2A said when it came to this state, and no result
_PLACE = frozenset({"role", "parts", "taskId", "contextId", "task_id", "context_id"})
_ENVELOPE = _PLACE | {"messageId"}


def tree_of(value: Model) -> Tree:
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


# What an agent says.


def write_message(message: Message, role: str, at: str | None) -> Tree:
    """ACP's Message for something that an agent of ours said at `at`."""
    tree = tree_of(message)
    said = {name: value for name, value in tree.items() if name not in _ENVELOPE}
    return {
        "role": role,
        "parts": [write_part(part) for part in tree["parts"]],
        "created_at": at,
        "completed_at": at,
        A2A: {"messageId": message.message_id, **said},
    }


def read_message(tree: Tree, *, message_id: str, task_id: str, context_id: str) -> Message:
    """Something that an ACP agent said; `message_id` is for one that brings no id of A2A's."""
    said = tree.get(A2A)
    more = {name: value for name, value in said.items() if name not in _PLACE} if isinstance(said, dict) else {}
    return Message.model_validate(
        {
            "messageId": message_id,
            **more,
            "role": Role.AGENT,
            "parts": [read_part(part) for part in tree["parts"]],
            "taskId": task_id,
            "contextId": context_id,
        }
    )


# What an agent is told.


def read_input(messages: Sequence[Tree], *, message_id: str, session: Tree | None = None, **ids: str) -> Message:
    """The one message that a run's input is. `message_id` is for one that brings none of A2A's; `session` is what the
    caller brought along from elsewhere; `ids` are those of the task and the context, as far as they are known."""
    parts = [_part(part) for message in messages for part in message["parts"]]
    said = messages[0].get(A2A) if messages else None
    more = said if isinstance(said, dict) else {}
    metadata = more.get("metadata")
    note: Tree = {"messages": [_envelope(message) for message in messages]}
    if session:
        note["session"] = session
    fields: dict[str, Any] = {"metadata": {**(metadata if isinstance(metadata, dict) else {}), ACP: note}}
    for name, field in (("extensions", "extensions"), ("referenceTaskIds", "reference_task_ids")):
        listed = more.get(name)
        if isinstance(listed, list) and all(isinstance(each, str) for each in listed):
            fields[field] = tuple(listed)
    brought = more.get("messageId")
    if isinstance(brought, str) and 0 < len(brought) <= MAX_ID:
        message_id = brought
    return Message.of(message_id=message_id, role=Role.USER, parts=tuple(parts), **fields, **ids)


def _part(part: Tree) -> Part:
    tree = read_part(part)
    if len(CONTENT & tree.keys()) != 1:
        raise invalid("parts", "must each have content or content_url")
    try:
        made = Part.model_validate(tree)
    except ValidationError:
        raise invalid("parts", f"{A2A!r} holds what no part of A2A can be") from None
    check_members(Part, made.model_extra or {}, "parts.")
    return made


def _envelope(message: Tree) -> Tree:
    kept = {name: value for name, value in message.items() if name not in ("parts", A2A) and value is not None}
    return {**kept, "role": message.get("role") or "user", "parts": len(message["parts"])}


def write_input(message: Message, *, message_id: str | None = None, request: Tree | None = None) -> list[Tree]:
    """The input of a run: the messages that the caller handed over, or the one that it is. `message_id` is A2A's and
    `request` what stands beside a message there, for a server that knows what they are (this gateway's is one)."""
    tree = tree_of(message)
    parts = [write_part(part) for part in tree["parts"]]
    said = {name: value for name, value in tree.items() if name not in _ENVELOPE}
    note = _note(message, len(parts))
    made: list[Tree] = []
    if note is None:
        made.append({"role": "user", "parts": parts})
    else:
        said["metadata"] = {name: value for name, value in said["metadata"].items() if name != ACP}
        for envelope in note:
            count = envelope["parts"]
            made.append({**envelope, "parts": parts[:count]})
            parts = parts[count:]
    said |= {"messageId": message_id, "request": request}
    if kept := {name: value for name, value in said.items() if value}:
        made[0][A2A] = kept
    return made


def session_of(message: Message) -> Tree | None:
    """What the caller's session held elsewhere: URLs of messages (`history`) and of a state."""
    note = (message.metadata or {}).get(ACP)
    session = note.get("session") if isinstance(note, dict) else None
    return session if isinstance(session, dict) else None


def _note(message: Message, parts: int) -> list[Tree] | None:
    """Who said which parts, if that adds up."""
    note = (message.metadata or {}).get(ACP)
    listed = note.get("messages") if isinstance(note, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        return None
    counts = [each.get("parts") for each in listed]
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != parts:
        return None
    return listed
