"""Whether an answer is right. An answer that is not is an error, and never counts as a request."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from benchmarks.calls import Call


class Answer(NamedTuple):
    status: int
    streamed: bool
    body: bytes


def fault(answer: Answer, call: Call, number: int) -> str | None:
    """What is wrong with the answer to request `number`; None if nothing is."""
    if answer.status != 200:
        return f"status {answer.status}"
    if answer.streamed != bool(call.events):
        return "a stream" if answer.streamed else "not a stream"
    documents = events(answer.body) if answer.streamed else [answer.body]
    if call.events and len(documents) not in call.events:
        return f"{len(documents)} events"
    for document in documents:
        if (wrong := _document_fault(document, number)) is not None:
            return wrong
    # Of a stream only the last event can tell that the work has ended as it should.
    return None if call.expect % {b"n": number} in documents[-1] else "expected text missing"


def events(body: bytes) -> list[bytes]:
    """The data of each event. The servers measured here write each event's data on one line."""
    return [line[5:] for line in body.split(b"\n") if line.startswith(b"data:")]


def _document_fault(document: bytes, number: int) -> str | None:
    try:
        parsed: Any = orjson.loads(document)
    except orjson.JSONDecodeError:
        return "not JSON"
    if not isinstance(parsed, dict) or "result" not in parsed or "error" in parsed:
        return "no result"
    return None if parsed.get("id") == number else "wrong id"
