"""The compliance profile of the configuration, made into the rules that the core works with.

A part of app.py, in a room of its own; what the checks need is loaded only where a profile asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gateway.checks import patterns, sizes
from gateway.checks.detectors import DETECTORS, GROUPS
from gateway.checks.own import Own
from gateway.checks.schemas import DeclaredSchema, Schema
from gateway.config import (
    ComplianceFile,
    ComplianceRule,
    ConfigError,
    Origin,
    Problem,
    did_you_mean,
    document_problem,
    parse_compliance,
    read_document,
)
from gateway.core.compliance.profile import Action, Profile, Rule
from gateway.dialects.strict_json import read
from gateway.model.compliance import Check, Place
from gateway.model.errors import GatewayError
from gateway.upstream.local import LoadError, load_function


class _Refused(Exception):
    """A rule whose check cannot be made: at which key, why, and what to do."""

    def __init__(self, key: str, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.key, self.reason, self.hint = key, reason, hint


def profile(file: Path, also: Path) -> Profile:
    """The profile in this file; modules with checks are looked for beside it, then in `also`. Raises ConfigError with
    every problem of the file."""
    text, name = read_document(file)
    base = file.absolute().parent
    entries, origin = parse_compliance(text, name, base)
    problems: list[Problem] = []
    rules = list(_rules(entries, origin, (base, also), problems))
    if problems:
        raise ConfigError(problems)
    return Profile(rules)


def _rules(file: ComplianceFile, origin: Origin, folders: tuple[Path, Path], problems: list[Problem]) -> Iterator[Rule]:
    for index, entry in enumerate(file.rules):
        try:
            check = _check(entry, folders)
        except _Refused as refused:
            problems.append(document_problem(origin, ("rules", index, refused.key), refused.reason, refused.hint))
            continue
        yield Rule(
            entry.rule,
            check,
            Action(entry.action),
            frozenset(map(Place, entry.places)),
            (entry.agents or ("*",)) if entry.about_agents else None,
            (entry.tools or ("*",)) if entry.about_tools else None,
            entry.timeout,
            entry.on_failure == "block",
        )


def _check(entry: ComplianceRule, folders: tuple[Path, Path]) -> Check:
    if entry.find:
        return _detectors(entry.find)
    if entry.pattern is not None:
        return _pattern(entry.pattern, entry.rule)
    if entry.schema_ is not None:
        return _schema(entry.schema_)
    if entry.declared:
        return DeclaredSchema()
    if entry.sizes is not None:
        return sizes.Sizes(entry.sizes.max_bytes, entry.sizes.max_parts, entry.sizes.media_types)
    assert entry.run is not None, "a rule has one check"
    try:
        return Own(load_function(entry.run, base=folders[0], also=folders[1]))
    except LoadError as error:
        raise _Refused("run", error.reason, error.hint) from error


def _detectors(words: Iterable[str]) -> Check:
    known = {**GROUPS, **DETECTORS}
    for word in words:
        if word not in known:
            raise _Refused("find", f"there is no detector '{word[:80]}'", did_you_mean(word, known))
    return patterns.named(words)


def _pattern(pattern: str, name: str) -> Check:
    try:
        return patterns.own(pattern, name)
    except ValueError as error:
        hint = "patterns are RE2: no look-around, no back references"
        raise _Refused("pattern", f"is no pattern: {error}", hint) from error


def _schema(file: Path) -> Check:
    text, name = read_document(file)
    try:
        return Schema(read(text.encode()))
    except GatewayError as error:
        raise _Refused("schema", f"{name}: {error.message}", "write strict JSON") from error
    except ValueError as error:
        raise _Refused("schema", f"{name} {error}") from error
