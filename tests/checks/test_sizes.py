"""How much may pass, and of what kind."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.checks.sizes import Sizes, media_type, weight
from gateway.model.compliance import Place, Subject


async def found(check: Sizes, content: Any) -> list[tuple[str, str]]:
    return [(each.what, each.where) for each in await check.find(Subject(Place.RESULT, "docs/search", content))]


async def test_each_bound_is_reported_where_it_is_broken() -> None:
    check = Sizes(max_bytes=30, max_parts=1, media_types=("text/*", "application/json"))
    assert await found(check, {"content": [{"type": "text", "text": "short"}]}) == []
    long = {"content": [{"text": "ä" * 20}, {"data": "aGk=", "mimeType": "image/PNG; q=1"}]}
    assert await found(check, long) == [
        ("more than 30 bytes", ""),
        ("more than 1 parts", "/content"),
        ("media type image/png", "/content/1"),
    ]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"text": "hi"}, "text/plain"),
        ({"text": "hi", "mediaType": "Text/Markdown"}, "text/markdown"),
        ({"data": {"a": 1}}, "application/json"),
        ({"type": "resource", "resource": {"uri": "a:b", "mimeType": "text/csv", "text": "a"}}, "text/csv"),
        ({"role": "user", "content": {"type": "image", "mimeType": "image/png"}}, "image/png"),
        ("odd", "application/json"),
    ],
)
def test_a_part_is_what_it_says_or_what_is_in_it(part: Any, said: str) -> None:
    assert media_type(part) == said


def test_weight_counts_what_is_said() -> None:
    assert weight({"ab": ["c", 10, True, None]}) == len("abc10TrueNone")
