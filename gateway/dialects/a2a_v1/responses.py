"""Results -> bytes, for both bindings."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.model.base import Model
from gateway.model.call import PushConfigPage, SendMessage, TaskPage
from gateway.model.message import Message
from gateway.model.push import PushConfig
from gateway.model.task import Task


def encode(call: object, result: Any) -> bytes:
    """The result member (JSON-RPC) or body (HTTP+JSON) for the answer to `call`."""
    if isinstance(call, SendMessage):
        assert isinstance(result, Task | Message)
        return b'{"%s":%s}' % (result.KEY.encode(), result.wire())
    if isinstance(result, PushConfig):
        return _config(result)
    if isinstance(result, Model):
        return result.wire()
    if isinstance(result, TaskPage):
        return b'{"tasks":[%s],"nextPageToken":%s,"pageSize":%d,"totalSize":%d}' % (
            b",".join(listed.task.wire() for listed in result.tasks),
            orjson.dumps(result.next_page_token),
            result.page_size,
            result.total_size,
        )
    if isinstance(result, PushConfigPage):
        return b'{"configs":[%s],"nextPageToken":%s}' % (
            b",".join(map(_config, result.configs)),
            orjson.dumps(result.next_page_token),
        )
    assert result is None, f"no encoding for {type(result)}"
    return b"{}"


def _config(config: PushConfig) -> bytes:
    """Without what is ours."""
    view = config.model_copy()
    view.__pydantic_fields_set__.discard("protocol_version")
    return view.wire()
