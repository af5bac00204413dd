"""Texts against patterns, in linear time: RE2, whoever wrote the pattern and whoever the text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import re2

from gateway.checks.detectors import DETECTORS, GROUPS, Detector
from gateway.model.compliance import Finding, Subject, numbers, texts

MAX_MEMORY = 8 << 20  # bytes of one compiled pattern
IN_A_THREAD = 65_536  # characters: looking through more would hold up everybody else for milliseconds


class Patterns:
    """A check by patterns: names -> what they look for. Raises ValueError for a pattern that RE2 does not take."""

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        options = re2.Options()
        options.max_mem = MAX_MEMORY
        options.log_errors = False
        self._compiled = [(name, _compiled(each.pattern, options), each) for name, each in detectors.items()]
        self._any = _compiled("|".join(f"(?:{each.pattern})" for each in detectors.values()), options)

    async def find(self, subject: Subject) -> Iterable[Finding]:
        said, counted = list(texts(subject.content)), list(numbers(subject.content))
        if sum(len(text) for _, text in (*said, *counted)) > IN_A_THREAD:
            return await asyncio.to_thread(self._all, said, counted)
        return self._all(said, counted)

    def _all(self, said: list[tuple[str, str]], counted: list[tuple[str, str]]) -> list[Finding]:
        found = [finding for where, text in said for finding in self._in(where, text)]
        # Of a number nothing can be cut out: all of it is meant.
        return found + [Finding(each.what, where) for where, text in counted for each in self._in(where, text)]

    def _in(self, where: str, text: str) -> Iterator[Finding]:
        """Nearly always one pass for all of them together is enough. (RE2's own sets of patterns would tell which of
        them match, but they say "none" when they run out of memory.)"""
        if self._any.search(text) is None:
            return
        for name, pattern, detector in self._compiled:
            matches = [each for each in pattern.finditer(text) if _agrees(detector, each.group(_group(each)))]
            if matches:
                spans = tuple(each.span(_group(each)) for each in matches)
                yield Finding(name, where, spans, tuple(each.span() for each in matches) if pattern.groups else ())


def _group(match: Any) -> int:
    """What is found: the first group; all of it where there is none, or where it matched without that."""
    return 1 if match.re.groups and match.group(1) is not None else 0


def _agrees(detector: Detector, found: str) -> bool:
    return detector.agrees is None or detector.agrees(found)


def named(words: Iterable[str]) -> Patterns:
    """The detectors that go by these names, or belong to groups that do."""
    names = [name for word in words for name in GROUPS.get(word, (word,))]
    return Patterns({name: DETECTORS[name] for name in names})


def own(pattern: str, name: str) -> Patterns:
    return Patterns({name: Detector(pattern)})


def _compiled(pattern: str, options: Any) -> Any:
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from error
