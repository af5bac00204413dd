"""A message as rules look at it: the skill that it names, and what it says as arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.policy.checks import same
from gateway.model.call import SendMessage

SKILL = "skillId"


def spoken(call: SendMessage) -> Mapping[str, Any]:
    message = call.message
    return {"text": message.text, "data": _all_data(call), "metadata": _all_metadata(call)}


# What is said twice is a list of both: a rule that lets one value through has not seen the other.


def _all_data(call: SendMessage) -> Any:
    found = [part.data for part in call.message.parts if part.data is not None]
    return found if len(found) > 1 else next(iter(found), None)


def _all_metadata(call: SendMessage) -> Mapping[str, Any]:
    outer, inner = call.metadata or {}, call.message.metadata or {}
    twice = {name: [outer[name], inner[name]] for name in outer.keys() & inner.keys()}
    return {**outer, **inner, **{name: both for name, both in twice.items() if not same(*both)}}


def skill(call: SendMessage) -> str:
    """The skill that a message is for: `skillId` of its metadata, or the tool that its data chooses of a set of tools.
    Whoever names two names none."""
    named = set(_named(call))
    return named.pop() if len(named) == 1 else ""


def _named(call: SendMessage) -> Iterator[str]:
    data = _data(call)
    words = [data.get("tool") if isinstance(data, dict) else None]
    words += [metadata.get(SKILL) for metadata in (call.metadata, call.message.metadata) if metadata is not None]
    yield from (word for word in words if isinstance(word, str) and word)


def _data(call: SendMessage) -> Any:
    return next((part.data for part in call.message.parts if part.data is not None), None)
