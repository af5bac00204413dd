"""Who gets what answer where: the table in the repository is what the gateway does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.access_matrix import KINDS, PAGE, made, page
from tests.openapi import admin
from tests.serving import ROOT


@pytest.mark.security
async def test_every_route_answers_every_kind_of_caller_as_the_table_says(tmp_path: Path) -> None:
    rows = await made(tmp_path)
    assert PAGE.read_text(encoding="utf-8") == page(rows), "look at each change, then python -m tests.access_matrix"


@pytest.mark.security
def test_no_route_hides_behind_a_setting_that_the_table_was_made_without() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway" / "server").rglob("*.py"))
    named = set(re.findall(r'"(/(?:oauth|admin|\.well-known)/[^"\s?]*)"', sources))
    named |= {route.path for route in admin().routes()}
    told = PAGE.read_text(encoding="utf-8")
    assert len(named) > 70
    assert [path for path in sorted(named) if path not in told] == []


@pytest.mark.security
def test_the_table_lets_nobody_in_who_is_nobody() -> None:
    """What the table says must make sense by itself, whoever made it."""
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    for name, *cells in rows:
        told = dict(zip(KINDS, (cell.strip(" |") for cell in cells), strict=True))
        open_to_all = len(set(told.values())) == 1 and told["wrong"] != "401"
        assert open_to_all or told["wrong"] == told["revoked"] == "401", name
        if "/admin/" in name and ":call" not in name:
            # What shares one task is judged by whose it is, and nobody else hears that there is one.
            shares = "/tasks/" in name and "share" in name
            known = ("operator", "anonymous", "revoked", "wrong", *(("owner",) if shares else ()))
            others = {told[kind] for kind in KINDS if kind not in known}
            assert others == {"404" if shares else "403"}, name
        if "{id}" in name and "/tasks/" in name and "/admin/" not in name:
            others = {told[kind] for kind in KINDS if kind not in ("owner", "revoked", "wrong")}
            assert others == {"404"}, name
