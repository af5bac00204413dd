"""`gateway compliance`: what a person reads about the profile."""

from __future__ import annotations

import json

from tests.cli.conftest import Run
from tests.cli.fake_gateway import FakeGateway, Reply, refused

RULE = {"rule": "no-secrets", "find": ["secrets"], "action": "block"}
SHOWN: dict[str, object] = {"file": "/etc/compliance.yaml", "problem": None, "rules": [RULE]}


def test_the_profile_is_shown_as_a_file_would_have_it(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/compliance"] = Reply(SHOWN)
    assert gateway("compliance", "show").out.splitlines() == [
        "# /etc/compliance.yaml",
        "rules:",
        "  - rule: no-secrets",
        "    find: [secrets]",
        "    action: block",
    ]
    assert json.loads(gateway("compliance", "show", "--json").out) == SHOWN


def test_what_is_wrong_with_it_is_said(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/compliance"] = [
        Reply({**SHOWN, "problem": "c.yaml:2: rules[0].action: must be one of"}),
        Reply({"file": None, "problem": None, "rules": []}),
    ]
    assert "c.yaml:2: rules[0].action: must be one of" in gateway("compliance", "show").err
    assert "everything may pass" in gateway("compliance", "show").err
    fake.answers["POST /admin/compliance:reload"] = [
        Reply(SHOWN),
        refused(400, "INVALID_ARGUMENT", "c.yaml:2: rules[0].action: must be one of"),
    ]
    assert gateway("compliance", "reload").err == "The profile /etc/compliance.yaml holds, rules: 1.\n"
    assert gateway("compliance", "reload").code == 1
