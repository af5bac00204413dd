"""The compliance profile of the configuration, made into the rules that the core works with.

A part of app.py, in a room of its own; what the checks need is loaded only where a profile asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import digest
from gateway.upstream.local import LoadError, load_function
from gateway.watching import Watch

log = logging.getLogger(__name__)


REACH = 80  # characters of a stream that wait where patterns or functions of the operator's look on: a line


class _Refused(Exception):
    """A rule whose check cannot be made: at which key, why, and what to do."""

    def __init__(self, key: str, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.key, self.reason, self.hint = key, reason, hint


class Keeper:
    """Holds a gateway to its compliance profile: read at the start, and again when the file or a schema that it names
    changes. A profile that is wrong changes nothing, and says so until it is right. Modules with checks of the
    operator's own are read once. `unasked` is told what a policy's keeper tells."""

    verb = "ReloadCompliance"

    def __init__(self, file: Path, also: Path, use: Callable[[Profile], None]) -> None:
        self.problem: str | None = None
        self.unasked: Callable[[str, str | None], None] = lambda policy, problem: None
        self.rules: tuple[Mapping[str, Any], ...] = ()
        self._file = file
        self._also = also
        self._use = use
        self._watch = Watch("compliance-file", self._again)
        self._watch.read((file,))
        self._read()

    @property
    def file(self) -> str:
        return str(self._file)

    def start(self) -> None:
        self._watch.start()

    async def aclose(self) -> None:
        await self._watch.aclose()

    def reload(self) -> None:
        """Read it now. Raises INVALID_REQUEST with every problem of the file, and then the old rules hold on."""
        try:
            self._read()
        except ConfigError as error:
            self.problem = str(error)
            log.error("the compliance profile is wrong, what it said before holds on:\n%s", error)
            raise GatewayError(Reason.INVALID_REQUEST, str(error)) from error
        log.info("the compliance profile %s holds, rules: %d", self._file, len(self.rules))

    async def _again(self) -> None:
        with suppress(GatewayError):
            self.reload()
        self.unasked(digest(list(map(dict, self.rules))), self.problem)

    def _read(self) -> None:
        """Raises ConfigError with every problem of the file."""
        text, name = read_document(self._file)
        base = self._file.absolute().parent
        entries, origin = parse_compliance(text, name, base)
        schemas = [entry.schema_ for entry in entries.rules if entry.schema_ is not None]
        self._watch.read((self._file, *schemas))
        problems: list[Problem] = []
        rules = list(_rules(entries, origin, (base, self._also), problems))
        if problems:
            raise ConfigError(problems)
        self._use(Profile(rules))
        self.rules = tuple(entry.model_dump(mode="json", by_alias=True, exclude_unset=True) for entry in entries.rules)
        self.problem = None


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
            REACH if entry.pattern is not None or entry.run is not None else 0,
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
    try:
        text, name = read_document(file)
    except ConfigError as error:
        (problem,) = error.problems
        raise _Refused("schema", f"{file}: {problem.reason}", "name a file that holds a JSON Schema") from error
    try:
        return Schema(read(text.encode()))
    except GatewayError as error:
        raise _Refused("schema", f"{name}: {error.message}", "write strict JSON") from error
    except ValueError as error:
        raise _Refused("schema", f"{name} {error}") from error
