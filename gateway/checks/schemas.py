"""JSON Schema: a file of the operator's, or what a tool declares about itself.

Nothing is fetched, patterns run in linear time, and a schema is measured before it is used (`measure.py`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from gateway.checks.measure import measure
from gateway.model.compliance import Finding, Place, Subject
from gateway.model.tool import digest

MAX_ERRORS = 20  # of one value; more tell nobody more
MAX_VALIDATORS = 256  # of tools' own schemas that are kept compiled


class Schema:
    """A schema of the operator's: for each data part of a message, for arguments, or for a result's
    `structuredContent`. Raises ValueError for one that is no schema or too much of one."""

    def __init__(self, schema: Any) -> None:
        self._validator = compiled(schema)

    async def find(self, subject: Subject) -> Iterable[Finding]:
        if subject.beside:
            return ()
        return [finding for where, data in _data(subject) for finding in _broken(self._validator, where, data)]


class DeclaredSchema:
    """What each tool declares: `inputSchema` for arguments, `outputSchema` for results. No schema asks for nothing."""

    def __init__(self) -> None:
        self._validators: OrderedDict[str, Any] = OrderedDict()

    async def find(self, subject: Subject) -> Iterable[Finding]:
        if not isinstance(subject.declared, dict):
            return ()
        if subject.place is Place.RESULT and not _promised(subject.content):
            return ()
        validator = await self._validator(subject.declared)
        data = list(_data(subject))
        if not data:
            return (Finding("no structuredContent", ""),)
        return [finding for where, each in data for finding in _broken(validator, where, each)]

    async def _validator(self, schema: dict[str, Any]) -> Any:
        key = digest(schema)
        validator = self._validators.get(key)
        if validator is None:
            validator = self._validators[key] = await asyncio.to_thread(compiled, schema)
            if len(self._validators) > MAX_VALIDATORS:
                self._validators.popitem(last=False)
        else:
            self._validators.move_to_end(key)
        return validator


def _promised(result: Any) -> bool:
    """Questions on the way, and errors, say something else than what was promised (MCP, tools: output schema)."""
    return result.get("resultType", "complete") == "complete" and result.get("isError") is not True


def _data(subject: Subject) -> Iterator[tuple[str, Any]]:
    """What a schema is about, and where it is."""
    content = subject.content
    if subject.place is Place.ARGUMENTS:
        yield "", content
    elif subject.place is Place.RESULT:
        if "structuredContent" in content:
            yield "/structuredContent", content["structuredContent"]
    else:
        for index, part in enumerate(content.get("parts", ())):
            if "data" in part:
                yield f"/parts/{index}/data", part["data"]


def _broken(validator: Any, where: str, data: Any) -> Iterator[Finding]:
    """What is wrong, by keyword and place: the message of an error would repeat the content."""
    for count, error in enumerate(validator.iter_errors(data)):
        if count == MAX_ERRORS:
            return
        place = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in error.instance_path)
        yield Finding(f"schema: {error.kind.name}", where + place)


def compiled(schema: Any) -> Any:
    """Raises ValueError, with a sentence for whoever wrote the schema."""
    if not isinstance(schema, dict | bool):
        raise ValueError("a schema is an object")
    measure(schema)
    try:
        return jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(f"is no JSON Schema that can be used: {str(error).splitlines()[0][:200]}") from error
