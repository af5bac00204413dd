"""Words of others in paths that we ask for."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.paths import Unaddressable, segment

PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "%", "2e", "2E", "2f", "5c", "25", "a", "7", ":", "é", "?", "#", "\r\n"]
)
WORDS = st.text(st.characters(codec="utf-8")) | st.lists(PIECES, max_size=8).map("".join)


def _decoded(text: str) -> str:
    """As whoever decodes until nothing changes any more."""
    while (once := unquote(text)) != text:
        text = once
    return text.replace("\\", "/")


@pytest.mark.security
@given(WORDS)
def test_a_word_stays_one_segment_however_often_it_is_decoded_or_is_refused(word: str) -> None:
    try:
        made = segment(word)
    except Unaddressable:
        return
    assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", made)
    assert unquote(made) == word
    path = posixpath.normpath(_decoded(f"/base/tasks/{made}/pushNotificationConfigs"))
    assert path.count("/") == 4 + _decoded(word).count("/")
    assert path.startswith("/base/tasks/")


@pytest.mark.parametrize("word", ["a", "a/b", "urn:x:7", "...", "a..b", "v1.2", "100%", "ä b", "a?b#c"])
def test_what_agents_call_their_tasks_is_quoted_and_no_more(word: str) -> None:
    assert unquote(segment(word)) == word
