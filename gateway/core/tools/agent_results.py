"""What an agent answered, as the result of a tool: artifacts as content and, with the task, as structuredContent."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.message import Part
from gateway.model.task import Task, TaskState
from gateway.model.tool import Tree


def of_task(task: Task) -> Tree:
    parts = [part for artifact in task.artifacts or () for part in artifact.parts]
    if task.status.message is not None:
        parts += task.status.message.parts
    found = result(task, task.context_id, tuple(parts))
    if task.status.state in (TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELED):
        found["isError"] = True
    return found


def result(task: Task | None, context_id: str | None, parts: Iterable[Part]) -> Tree:
    structured: Tree = {} if context_id is None else {"contextId": context_id}
    if task is not None:
        artifacts = [each.model_dump(by_alias=True, exclude_unset=True, mode="json") for each in task.artifacts or ()]
        structured = {"taskId": task.id, **structured, "state": task.status.state.value, "artifacts": artifacts}
    else:
        structured["artifacts"] = [{"parts": [_dumped(part) for part in parts]}]
    return {
        "resultType": "complete",
        "content": [block for part in parts for block in _blocks(part)],
        "structuredContent": structured,
    }


def _dumped(part: Part) -> Tree:
    return part.model_dump(by_alias=True, exclude_unset=True, mode="json")


def _blocks(part: Part) -> Iterable[Tree]:
    """A part as content: text, an image or a sound as what it is, a link; data stands in structuredContent."""
    kind = (part.media_type or "").partition("/")[0]
    if part.text is not None:
        yield {"type": "text", "text": part.text}
    elif part.raw is not None and kind in ("image", "audio"):
        yield {"type": kind, "data": part.raw, "mimeType": part.media_type}
    elif part.raw is not None:
        name = part.filename or "file"
        resource = {"uri": f"a2a:{name}", "blob": part.raw, "mimeType": part.media_type or "application/octet-stream"}
        yield {"type": "resource", "resource": resource}
    elif part.url is not None:
        yield {"type": "resource_link", "uri": part.url, "name": part.filename or part.url}
