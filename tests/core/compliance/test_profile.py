"""Rules in their order, and what they make of what passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from gateway.core.compliance.profile import Action, Profile, Rule, redacted
from gateway.model.compliance import Finding, Place, Subject, texts


class Says:
    """A check that answers with what it is told to."""

    def __init__(self, answer: Callable[[Subject], Iterable[Finding]]) -> None:
        self._answer = answer

    async def find(self, subject: Subject) -> Iterable[Finding]:
        return self._answer(subject)


def word(wanted: str) -> Says:
    def find(subject: Subject) -> Iterable[Finding]:
        for where, text in texts(subject.content):
            if wanted in text:
                at = text.index(wanted)
                yield Finding("word", where, ((at, at + len(wanted)),))

    return Says(find)


async def passed(rules: list[Rule], content: Any, place: Place = Place.MESSAGE, target: str = "echo") -> Any:
    examined = await Profile(rules).examine(Subject(place, target, content))
    return None if examined.blocked else examined.content


async def test_a_rule_sees_what_the_ones_before_it_left() -> None:
    rules = [Rule("hide", word("secret"), Action.REDACT), Rule("stop", word("secret"), Action.BLOCK)]
    assert await passed(rules, {"parts": [{"text": "a secret!"}]}) == {"parts": [{"text": "a [redacted: word]!"}]}
    assert await passed(rules[::-1], {"parts": [{"text": "a secret!"}]}) is None


async def test_the_first_rule_that_blocks_is_the_last() -> None:
    rules = [Rule("stop", word("a"), Action.BLOCK), Rule("after", word("a"), Action.FLAG)]
    examined = await Profile(rules).examine(Subject(Place.MESSAGE, "echo", "a"))
    assert [each.rule for each in examined.noted] == ["stop"]


@pytest.mark.parametrize(
    ("rule", "place", "target", "covered"),
    [
        ({}, Place.MESSAGE, "echo", True),
        ({}, Place.RESULT, "docs/search", True),
        ({}, Place.RESULT, "echo", False),
        ({"tools": None}, Place.RESULT, "docs/search", False),
        ({"agents": ("ec*",), "tools": None}, Place.ANSWER, "echo", True),
        ({"agents": ("x*",)}, Place.ANSWER, "echo", False),
        ({"places": frozenset({Place.ANSWER})}, Place.MESSAGE, "echo", False),
        ({"tools": ("docs/*",)}, Place.ARGUMENTS, "docs/a/b", True),
    ],
)
def test_a_rule_is_about_its_places_and_targets(rule: Any, place: Place, target: str, covered: bool) -> None:
    profile = Profile([Rule("rule", word("x"), Action.FLAG, **rule)])
    assert bool(profile.rules(place, target)) is covered


def broken(subject: Subject) -> Iterable[Finding]:
    raise RuntimeError("a bug")


class Slow:
    async def find(self, subject: Subject) -> Iterable[Finding]:
        await asyncio.Event().wait()
        return ()


@pytest.mark.parametrize("check", [Says(broken), Slow()], ids=["fails", "takes too long"])
async def test_a_check_without_an_answer_blocks_unless_the_rule_lets_it_pass(check: Any) -> None:
    assert await passed([Rule("r", check, Action.REDACT, timeout=0.01)], "a") is None
    assert await passed([Rule("r", check, Action.REDACT, timeout=0.01, blocks_on_failure=False)], "a") == "a"


def test_redaction_reaches_values_names_and_encoded_texts_and_leaves_numbers_alone() -> None:
    content = {"parts": [{"raw": "c2VjcmV0IQ==", "mediaType": "text/plain"}, {"data": {"key": 2**63, "n": [1.5]}}]}
    left = redacted(
        content,
        [
            Finding("word", "/parts/0/raw", ((0, 6),)),
            Finding("name", "/parts/1/data/key#", ((0, 3),)),
            Finding("list", "/parts/1/data/n"),
        ],
    )
    assert left == {
        "parts": [
            {"raw": "W3JlZGFjdGVkOiB3b3JkXSE=", "mediaType": "text/plain"},
            {"data": {"[redacted: name]": 2**63, "n": "[redacted: list]"}},
        ]
    }


def test_findings_that_overlap_are_cut_once() -> None:
    findings = [Finding("a", "", ((0, 4), (2, 6))), Finding("b", "", ((5, 9),))]
    assert redacted("0123456789", findings) == "[redacted: a]9"
