"""`gateway grants`: what a person reads about what people have allowed."""

from __future__ import annotations

from tests.cli.conftest import Run
from tests.cli.fake_gateway import FakeGateway, Reply

GRANT = {
    "id": "ab12", "person": "user:ann", "client": "app", "scopes": ["read"], "name": "Ann", "audience": "https://gw.example",
    "began": "2026-11-26T08:00:00.000Z", "until": "2026-12-26T08:00:00.000Z",
}  # fmt: skip


def test_grants_are_listed_and_ended(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/grants"] = [Reply({"grants": [GRANT]}), Reply({"grants": []})]
    fake.answers["DELETE /admin/grants/ab12"] = Reply(None, 204)
    line = gateway("grants", "list", "--client", "app").out.splitlines()[1]
    assert line.split() == ["ab12", "user:ann", "app", "read", GRANT["began"], GRANT["until"]]
    assert gateway("grants", "list").err == "Nobody has allowed anything.\n"
    assert gateway("grants", "remove", "ab12").err == "Ended ab12, with every token that came of it.\n"
