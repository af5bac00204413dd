"""What a pattern of `on` covers, however it is looked up."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.policy import Question, Situation, Target
from gateway.core.policy.checks import On
from gateway.core.policy.patterns import matches
from gateway.model.principal import Kind, Principal

ANN = Principal(Kind.KEY, "ann")
WORDS = st.text(alphabet="ab/*?[]x", max_size=6)
VERBS = st.sampled_from(["tools/call", "SendMessage"])


@pytest.mark.security
@given(st.lists(WORDS, min_size=1, max_size=4), VERBS, WORDS, st.sampled_from(["", "a", "a/b"]))
@example(["agents/a"], "SendMessage", "a", "b")
@example(["agents/a/b"], "SendMessage", "a", "b/x")
@example(["a/"], "tools/call", "a/b", "")
def test_a_rule_is_about_what_one_of_its_patterns_matches(words: list[str], verb: str, id: str, skill: str) -> None:
    patterns = [f"agents/{word}" for word in words] if verb == "SendMessage" else words
    asked = Question(ANN, verb, Target(id, skill=skill), {}, Situation())
    covered = any(pattern == "*" or matches(pattern, asked.address) for pattern in patterns)
    assert On(patterns).holds(asked) == covered
