"""With which OAuth client somebody came stands in the record of all that was done for them: one person's agent and the
same person's command line are told apart, whoever gave out the token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.stores.sqlite import SqliteStore
from tests.audit.logs import entries as lines_of
from tests.issuer import Issuer, issuing
from tests.journeys.people import app, town
from tests.journeys.test_audit import found, run
from tests.journeys.test_authorization_server import client, giving, token
from tests.serving import ROOT, running


def config(issuer: Issuer, more: str = "") -> str:
    return f"""
auth: {{issuers: [{{issuer: '{issuer.url}'{more}}}]}}
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
  asker: {{run: "tests.journeys.test_audit:ask", card: {ROOT}/agent_cards/echo.json, public: true}}
"""


@pytest.mark.security
async def test_a_person_is_told_apart_by_the_client_they_came_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with issuing() as issuer, running(tmp_path, config(issuer)) as gateway:
        monkeypatch.setenv("GATEWAY_URL", gateway.url)
        for of in ("agent-x", "cli"):
            await gateway.send(f"from {of}", who=issuer.token(gateway.url, client_id=of, jti=of))
        for of in ("agent-x", "cli"):
            begun = await found(gateway, client=of, action="SendMessage", outcome="begun")
            assert [(each["actor"], each["client"]) for each in begun] == [(f"oauth:{issuer.url}#alice", of)]
        assert await found(gateway, client="another") == []
        assert await run(gateway, "search", "--client", "cli", "--json") == 0
        shown = json.loads(capsys.readouterr().out)["entries"]
        assert {each["client"] for each in shown} == {"cli"}
        assert await run(gateway, "show", str(shown[0]["index"])) == 0
        lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert lines["client"] == "cli"
        assert isinstance(gateway.app.store, SqliteStore)
        assert lines["log"] == gateway.app.store.audit_log.name
        assert {"replica", "mono"} <= lines.keys()


async def test_what_an_agent_does_for_somebody_names_the_client_they_came_with(tmp_path: Path) -> None:
    async with issuing() as issuer, running(tmp_path, config(issuer)) as gateway:
        await gateway.send("hello", agent="asker", who=issuer.token(gateway.url, client_id="agent-x"))
        inner = await found(gateway, actor="agent:asker")
        assert inner
        assert {(each["client"], *each["chain"]) for each in inner} == {("agent-x", f"oauth:{issuer.url}#alice")}
        acting = issuer.token(gateway.url, client_id="agent-x", jti="2", act={"sub": "robot"})
        await gateway.send("for alice", who=acting)
        outer = await found(gateway, actor=f"oauth:{issuer.url}#robot")
        assert outer
        assert {(each["client"], *each["chain"]) for each in outer} == {("agent-x", f"oauth:{issuer.url}#alice")}


@pytest.mark.parametrize(
    ("claims", "client"),
    [
        ({"client_id": "a"}, "a"),
        ({"client_id": "a", "azp": "b"}, "a"),
        ({"client_id": ..., "azp": "b"}, "b"),
        ({"client_id": "", "azp": "b"}, "b"),
        ({"client_id": ...}, None),
    ],
)
async def test_tokens_like_id_tokens_name_it_as_the_authorized_party(
    tmp_path: Path, claims: dict[str, Any], client: str | None
) -> None:
    async with issuing() as issuer:
        legacy = f", token_types: [JWT], jwks_uri: '{issuer.url}/jwks'"
        async with running(tmp_path, config(issuer, legacy)) as gateway:
            await gateway.send("hello", who=issuer.token(gateway.url, header={"typ": "JWT"}, **claims))
            entries = await found(gateway, action="SendMessage")
            assert [each.get("client") for each in entries] == [client, client]


async def test_an_issuer_that_is_asked_about_a_token_says_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    async with issuing() as issuer:
        asked = f", introspection: {{client_id: gw, client_secret_file: {tmp_path}/secret}}"
        async with running(tmp_path, config(issuer, asked)) as gateway:
            about = {"active": True, "aud": gateway.url, "iss": issuer.url}
            issuer.active["opaque-1"] = {**about, "sub": "alice", "client_id": "agent-x"}
            issuer.active["opaque-2"] = {**about, "client_id": "robot"}
            for who in ("opaque-1", "opaque-2"):
                await gateway.send("hello", who=who)
            alice = await found(gateway, client="agent-x", action="SendMessage")
            assert {each["actor"] for each in alice} == {f"oauth:{issuer.url}#alice"}
            robot = await found(gateway, client="robot", action="SendMessage")
            assert {each["actor"] for each in robot} == {f"oauth:{issuer.url}##robot"}


async def test_people_of_the_gateways_own_server_come_with_the_client_they_said_yes_to(tmp_path: Path) -> None:
    async with town(tmp_path) as (gateway, _):
        for id in ("desk", "phone"):
            program = await app(gateway, id)
            await gateway.send("hello", who=(await program.tokens())["access_token"])
        for id in ("desk", "phone"):
            entries = await found(gateway, client=id, action="SendMessage")
            assert {each["actor"] for each in entries} == {"oauth:gateway#user:ada"}


@pytest.mark.security
async def test_a_client_that_asks_for_itself_is_no_less_a_pseudonym_for_it(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        access = await token(gateway, await client(gateway, "agent-7"))
        await gateway.send("hello", who=access)
        entries = await found(gateway, client="agent-7", action="SendMessage")
        assert {(each["actor"], each["client"]) for each in entries} == {("oauth:gateway#agent-7", "agent-7")}
        assert len(await found(gateway, client="agent-7", action="IssueToken")) == 1, "where it got the token, too"
    records = map(json.loads, lines_of(tmp_path / "gateway.db"))
    actors = [each["actor"] for each in records if each["action"] == "SendMessage"]
    assert {(actor["iss"], actor["client"] == actor["sub"]) for actor in actors} == {("gateway", True)}
    assert "agent-7" not in json.dumps(actors)
