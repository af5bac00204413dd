"""A file beside the configuration, such as a policy: read as strictly as it, every problem with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config import source
from gateway.config.loading import explained, text_of
from gateway.config.problems import ConfigError, Loc, Problem, did_you_mean, dotted
from gateway.config.values import Origin

M = TypeVar("M", bound=BaseModel)

Inside = Mapping[str, type[BaseModel]]
"""The sections in it: key -> the model of what stands behind that key, or of each item of it."""


def read_document(path: Path) -> tuple[str, str]:
    """The text of the file and its name in messages. Raises ConfigError."""
    return text_of(path, str(path), "in the configuration"), str(path)


def parse_document(text: str, name: str, model: type[M], inside: Inside, base: Path = Path()) -> tuple[M, Origin]:
    """What the file says, and where. Raises ConfigError with every problem in it."""
    found = source.read(text, name)
    origin = Origin(name, base, found.lines)
    problems = list(found.problems)
    try:
        document = model.model_validate({} if found.data is None else found.data, context=origin)
    except ValidationError as error:
        raise ConfigError([*problems, *_translated(error, origin, model, inside)]) from error
    if problems:
        raise ConfigError(problems)
    return document, origin


def document_problem(origin: Origin, loc: Loc, reason: str, hint: str = "") -> Problem:
    """One problem at a place of the file; a word where a list could stand is at the place of the list."""
    if loc and isinstance(loc[-1], int) and loc not in origin.lines:
        loc = loc[:-1]
    return Problem(origin.name, origin.line(loc), dotted(loc), reason, hint)


def _translated(error: ValidationError, origin: Origin, model: type[BaseModel], inside: Inside) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_input=False):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        reason, hint = explained(detail["type"], detail.get("ctx", {}))
        if detail["type"] == "extra_forbidden":
            reason, hint = "unknown key", did_you_mean(str(loc[-1]), list(_fields(_owner(loc, model, inside))))
        elif detail["type"] == "missing":
            reason, hint = "is required", f"{loc[-1]}: {_fields(_owner(loc, model, inside))[str(loc[-1])].description}"
        yield document_problem(origin, loc, reason, hint)


def _owner(loc: Loc, model: type[BaseModel], inside: Inside) -> type[BaseModel]:
    """The section that a refused or missing key belongs to."""
    return next((inside[str(part)] for part in reversed(loc[:-1]) if part in inside), model)


def _fields(model: type[BaseModel]) -> Mapping[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}
