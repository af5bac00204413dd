"""A compliance profile: rules in their order, and what they make of what passes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from gateway.model.compliance import Check, Finding, Place, Subject, rewritten
from gateway.model.value import value

log = logging.getLogger(__name__)

_REMEMBERED = 4096  # targets whose rules are known; more than a gateway has
_TOOL_PLACES = frozenset({Place.ARGUMENTS, Place.RESULT})


class Action(StrEnum):
    FLAG = "flag"  # it passes, marked
    REDACT = "redact"  # it passes without what was found
    BLOCK = "block"  # it does not pass


@value
class Rule:
    """One rule. `agents` and `tools` are patterns (`*` stands for anything); None: this rule is not about them."""

    name: str
    check: Check
    action: Action
    places: frozenset[Place] = frozenset(Place)
    agents: tuple[str, ...] | None = ("*",)
    tools: tuple[str, ...] | None = ("*",)
    timeout: float = 1.0
    reach: int = 0  # characters, of several words, that its check may look for at once: so much of a stream waits
    blocks_on_failure: bool = True

    def covers(self, place: Place, target: str) -> bool:
        if place not in self.places or (place in _TOOL_PLACES and "/" not in target):
            return False  # an agent that is called as a tool is examined as the agent it is
        patterns = self.tools if place in _TOOL_PLACES else self.agents
        return patterns is not None and any(fnmatchcase(target, pattern) for pattern in patterns)


@value
class Noted:
    """What one rule found and did."""

    rule: str
    action: Action
    findings: tuple[Finding, ...]

    @property
    def sentence(self) -> str:
        shown = ", ".join(f"{each.what} at {each.where or '/'}" for each in self.findings[:3])
        more = len(self.findings) - 3
        return f"{shown} and {more} more" if more > 0 else shown


@value
class Examined:
    """What is left of the content, and what was noted on the way; with `blocked`, nothing is left."""

    content: Any
    noted: tuple[Noted, ...] = ()

    @property
    def blocked(self) -> Noted | None:
        return self.noted[-1] if self.noted and self.noted[-1].action is Action.BLOCK else None


class Profile:
    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = tuple(rules)
        self._known: dict[tuple[Place, str], tuple[Rule, ...]] = {}

    def rules(self, place: Place, target: str) -> tuple[Rule, ...]:
        """The rules for what passes there; mostly none."""
        if not self._rules:
            return ()
        known = self._known.get((place, target))
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = tuple(rule for rule in self._rules if rule.covers(place, target))
            self._known[place, target] = known
        return known

    async def examine(self, subject: Subject) -> Examined:
        """Each rule in its order sees what the ones before it left; the first that blocks is the last."""
        noted: list[Noted] = []
        content = subject.content
        for rule in self.rules(subject.place, subject.target):
            seen = replace(subject, content=content)
            found, action = await _asked(rule, seen)
            if not found:
                continue
            noted.append(Noted(rule.name, action, found))
            if action is Action.BLOCK:
                break
            if action is Action.REDACT:
                content = redacted(content, found)
        return Examined(content, tuple(noted))

    def reach(self, place: Place, target: str) -> int:
        return max((rule.reach for rule in self.rules(place, target)), default=0)

    async def stretches(self, place: Place, target: str, text: str) -> list[tuple[int, int]]:
        """Where in a text that goes on something begins and ends that a rule finds. It is examined once it is cut, and
        a check that fails says so then."""
        subject = Subject(place, target, {"parts": [{"text": text}]})
        found = [finding for rule in self.rules(place, target) for finding in (await _asked(rule, subject))[0]]
        return [
            span for finding in found if finding.where == "/parts/0/text" for span in finding.around or finding.spans
        ]


async def _asked(rule: Rule, subject: Subject) -> tuple[tuple[Finding, ...], Action]:
    """What the rule's check found. A check that fails or takes too long blocks, unless the rule lets it pass."""
    try:
        async with asyncio.timeout(rule.timeout):
            return tuple(await rule.check.find(subject)), rule.action
    except TimeoutError:
        what = "check timed out"
    except Exception:
        # A check may be anybody's code, and whatever goes wrong in it is the same to those who rely on it.
        log.exception("the check of compliance rule %s failed on %s of %s", rule.name, subject.place, subject.target)
        what = "check failed"
    return (Finding(what, ""),), Action.BLOCK if rule.blocks_on_failure else Action.FLAG


def redacted(content: Any, findings: Iterable[Finding]) -> Any:
    """The content with `[redacted: what]` in place of each finding."""
    by_place: dict[str, list[Finding]] = {}
    whole: dict[str, str] = {}
    for finding in findings:
        if finding.spans:
            by_place.setdefault(finding.where, []).append(finding)
        else:
            whole[finding.where] = finding.what

    def change(where: str, text: str) -> str:
        if (what := whole.pop(where, None)) is not None:
            return mark(what)
        return _cut(text, by_place[where]) if where in by_place else text

    return _replaced(rewritten(content, change), whole, "")


def _cut(text: str, findings: list[Finding]) -> str:
    pieces: list[str] = []
    end = 0
    for start, stop, what in sorted((*span, finding.what) for finding in findings for span in finding.spans):
        if stop <= end:
            continue  # inside what is gone already
        if start >= end:
            pieces += [text[end:start], mark(what)]
        end = stop
    return "".join([*pieces, text[end:]])


def _replaced(content: Any, whole: dict[str, str], where: str) -> Any:
    """Values that are no texts, replaced as they stand."""
    if not whole:
        return content
    if where in whole:
        return mark(whole[where])
    if isinstance(content, dict):
        return {
            name: _replaced(item, whole, f"{where}/{name.replace('~', '~0').replace('/', '~1')}")
            for name, item in content.items()
        }
    if isinstance(content, list):
        return [_replaced(item, whole, f"{where}/{index}") for index, item in enumerate(content)]
    return content


def mark(what: str) -> str:
    return f"[redacted: {what}]"
