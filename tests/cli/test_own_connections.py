"""`gateway connections`: what an operator reads about what people have connected, and what is said at the end of it."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import Run
from tests.cli.fake_gateway import FakeGateway, Reply

ISSUER = "https://as.example"
HERS: dict[str, Any] = {
    "id": "tools.docs.ab12", "owner": "key:ann", "at": "tools/docs", "issuer": ISSUER, "scopes": ["read"],
    "since": "2026-11-26T08:00:00.000Z", "expires": "2026-11-26T09:00:00.000Z", "refreshable": True,
}  # fmt: skip
OLD = {**HERS, "id": "agents.far.cd34", "owner": None, "at": "agents/far", "issuer": None, "scopes": [], "since": None,
       "expires": None, "refreshable": False}  # fmt: skip


def test_connections_are_listed(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/connections"] = [Reply({"connections": [HERS, OLD]}), Reply({"connections": []})]
    _, hers, old = gateway("connections", "list", "--of", "key:ann", "--at", "docs").out.splitlines()
    assert fake.seen[-1].query == {"of": "key:ann", "at": "docs"}
    assert hers.split() == [HERS["id"], "key:ann", "tools/docs", ISSUER, "read", HERS["since"], HERS["expires"], "yes"]
    assert old.split() == ["agents.far.cd34", "-", "agents/far", "-", "-", "-", "-", "no"]
    assert gateway("connections", "list").err == "Nobody has connected anything.\n"


def test_what_became_of_the_tokens_is_said_for_each_that_is_removed(gateway: Run, fake: FakeGateway) -> None:
    ways = {
        "revoked": "are revoked at",
        "no-endpoint": "revokes nothing",
        "failed": "did not revoke",
        "unasked": "nobody",
    }
    fake.answers["GET /admin/connections"] = Reply({"connections": [HERS, OLD]})
    fake.answers["DELETE /admin/connections/agents.far.cd34"] = Reply({"issuer": "unasked"})
    for issuer, words in ways.items():
        fake.answers["DELETE /admin/connections/tools.docs.ab12"] = Reply({"issuer": issuer})
        found = gateway("connections", "remove", "tools.docs.ab12")
        assert found.err.startswith("Forgot tools.docs.ab12 of key:ann, ")
        assert words in found.err
    both = gateway("connections", "remove", "--at", "docs", "--json")
    assert [each["id"] for each in json.loads(both.out)["removed"]] == [HERS["id"], OLD["id"]]
    assert "Forgot agents.far.cd34 of nobody known" in both.err


def test_it_is_said_which_ones_are_meant(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/connections"] = Reply({"connections": []})
    nothing = gateway("connections", "remove")
    assert (nothing.code, fake.seen) == (1, [])
    assert "ID, --of PRINCIPAL or --at UPSTREAM" in nothing.err
    assert "no such connection" in gateway("connections", "remove", "x").err
