"""Results and events -> bytes, in the two forms of 0.3 (0.3.0 §7, §9.5)."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dialects.a2a_v03 import objects, pushes
from gateway.dialects.a2a_v03.objects import JSON, PROTO
from gateway.model.base import Model
from gateway.model.call import PushConfigPage, SendMessage, TaskPage
from gateway.model.card import AgentCard
from gateway.model.message import Message
from gateway.model.push import PushConfig
from gateway.model.rows import Record
from gateway.model.task import StatusUpdate, Task


def encode(call: object, result: Any) -> bytes:
    """The `result` member of a JSON-RPC response."""
    if isinstance(result, Task):
        return orjson.dumps(objects.write_task(JSON, _tree(result)))
    if isinstance(result, Message):
        return orjson.dumps(objects.write_message(JSON, _tree(result)))
    if isinstance(result, PushConfig):
        return orjson.dumps(pushes.nested(_tree(result)))
    if isinstance(result, PushConfigPage):
        return orjson.dumps([pushes.nested(_tree(config)) for config in result.configs])
    assert isinstance(result, AgentCard), f"no encoding for {type(result)}"
    return result.wire()


def encode_proto(call: object, result: Any) -> bytes:
    """The body of an HTTP+JSON answer."""
    if isinstance(result, Task | Message):
        key = result.KEY
        written = objects.write_event(PROTO, {key: _tree(result)})
        return orjson.dumps(written if isinstance(call, SendMessage) else written[key])
    if isinstance(result, TaskPage):
        return orjson.dumps([objects.write_task(PROTO, _tree(listed.task)) for listed in result.tasks])
    if isinstance(result, PushConfig):
        return orjson.dumps(pushes.resource(_tree(result)))
    if isinstance(result, PushConfigPage):
        configs = [pushes.resource(_tree(config)) for config in result.configs]
        return orjson.dumps({"configs": configs, "nextPageToken": result.next_page_token})
    assert result is None or isinstance(result, AgentCard), f"no encoding for {type(result)}"
    return b"{}" if result is None else result.wire()


def event(record: Record) -> bytes:
    """One event of a stream: the `result` of its JSON-RPC response."""
    return orjson.dumps(objects.write_event(JSON, orjson.loads(record.body)))


def event_proto(record: Record) -> bytes:
    return orjson.dumps(objects.write_event(PROTO, orjson.loads(record.body)))


def ends(record: Record) -> bool:
    """Whether the stream ends here, though the task may not (`final`, 0.3.0 §7.2.2)."""
    event = record.event
    return isinstance(event, StatusUpdate) and (event.status.state.terminal or event.status.state.interrupted)


def webhook(task: Task) -> bytes:
    """What a webhook of 0.3 is told: the whole task (0.3.0 §9.5)."""
    return orjson.dumps(objects.write_task(JSON, _tree(task)))


def _tree(value: Model) -> Any:
    """Our own words as a plain tree; unknown fields and presence survive."""
    return orjson.loads(value.wire())
