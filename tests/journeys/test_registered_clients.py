"""Clients that the operator did not make: registered by themselves, or known by a document at a URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.journeys.people import BACK, App, admin, app, error, town
from tests.person import somebody
from tests.serving import Gateway
from tests.upstream import loopback
from tests.upstream.tls import contexts

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]

PUBLIC: dict[str, Any] = {"redirect_uris": [BACK], "token_endpoint_auth_method": "none"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with town(tmp_path_factory.mktemp("open"), ", registration: open") as (gateway, _):
        yield gateway


async def register(gateway: Gateway, word: str | None, **about: Any) -> Any:
    headers = {} if word is None else gateway.bearer(word)
    return await gateway.client.post("/oauth/register", json={**PUBLIC, **about}, headers=headers)


@pytest.mark.requirement("oauth.server.registration", "oauth.server.registration-guarded")
async def test_only_who_was_invited_registers_and_only_for_as_long(tmp_path: Path) -> None:
    async with town(tmp_path) as (gateway, clock):
        about = (await gateway.client.get("/.well-known/oauth-authorization-server")).json()
        assert about["registration_endpoint"] == f"{gateway.url}/oauth/register"
        word = (await admin(gateway, "clients:invite", seconds=60))["token"]
        made = await register(gateway, word, client_name="A program", scope="admin", extra=1)
        assert made.status_code == 201
        assert made.json() == {
            "client_id": made.json()["client_id"],
            "client_id_issued_at": made.json()["client_id_issued_at"],
            "client_name": "A program",
            "redirect_uris": [BACK],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        tokens = await App(gateway, made.json()["client_id"]).tokens()
        assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope"}  # it asked for no refresh token
        program = await app(gateway)
        access = (await program.tokens())["access_token"]
        wrong = (None, "", "x", access, gateway.token, word[:-4] + "AAAA")
        refused = [await register(gateway, each) for each in wrong]
        clock.ahead += 61
        refused.append(await register(gateway, word))
        assert {answer.status_code for answer in refused} == {401}
        assert all(answer.headers["www-authenticate"].startswith("Bearer ") for answer in refused)
        # An invitation is no token for anything else.
        fresh = (await admin(gateway, "clients:invite"))["token"]
        assert (await gateway.client.get("/agents", headers=gateway.bearer(fresh))).status_code == 401


async def test_a_registered_client_with_a_secret_must_show_it(open_town: Gateway) -> None:
    gateway = open_town
    async with somebody(gateway.url) as ada:
        made = (await register(gateway, None, token_endpoint_auth_method="client_secret_post")).json()
        assert made["client_secret_expires_at"] == 0
        known = App(gateway, made["client_id"], made["client_secret"])
        code = await known.code(ada)
        nameless = App(gateway, made["client_id"], verifier=known.verifier)
        assert error(await nameless.redeem(code)) == (401, "invalid_client")
        assert (await known.redeem(code)).status_code == 200
        # And the operator can take it back.
        answer = await gateway.client.delete(f"/admin/clients/{known.id}", headers=gateway.bearer(None))
        assert answer.status_code == 204
        assert (await gateway.client.get(known.link())).status_code == 400


async def test_where_too_many_have_registered_the_operator_makes_room_by_revoking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.clients.MAX_REGISTERED", 2)
    async with town(tmp_path, ", registration: open") as (gateway, _):
        first, second, third = [await register(gateway, None) for _ in range(3)]
        assert (second.status_code, error(third)) == (201, (503, "temporarily_unavailable"))
        path = f"/admin/clients/{first.json()['client_id']}"
        assert (await gateway.client.delete(path, headers=gateway.bearer(None))).status_code == 204
        assert (await register(gateway, None)).status_code == 201
        assert (await register(gateway, None)).status_code == 503


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://app.example"}, "invalid_client_metadata"),
        ({"redirect_uris": ["http://app.example/back"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript://app.example/%0aalert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [BACK + "#x"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [BACK + f"/{n}" for n in range(11)]}, "invalid_redirect_uri"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange"]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
    ],
)
async def test_a_client_registers_for_nothing_that_needs_no_person(
    open_town: Gateway, about: dict[str, Any], said: str
) -> None:
    answer = await register(open_town, None, **about)
    assert error(answer) == (400, said), answer.text


async def test_nobody_registers_where_it_is_off(tmp_path: Path) -> None:
    async with town(tmp_path, ", registration: 'off'") as (gateway, _):
        assert (await register(gateway, None)).status_code == 404
        assert (
            "registration_endpoint" not in (await gateway.client.get("/.well-known/oauth-authorization-server")).json()
        )


@pytest.mark.requirement("oauth.server.client-documents-ssrf")
async def test_a_document_is_fetched_only_from_where_anybody_may_be_called(tmp_path: Path) -> None:
    """Its URL is whatever a stranger writes into a link (T36)."""
    async with town(tmp_path, ", client_documents: ['*']") as (gateway, _):
        about = (await gateway.client.get("/.well-known/oauth-authorization-server")).json()
        assert about["client_id_metadata_document_supported"]
        for url in (
            "https://127.0.0.1:9/client.json",
            "https://169.254.169.254/latest",
            "https://[::1]/client.json",
            "https://10.0.0.1/x",
            "https://localhost/client.json",
            "https://app.example/",
            "https://user@app.example/x",
            "https://app.example/a/../x",
            "http://app.example/client.json",
        ):
            answer = await gateway.client.get(App(gateway, url).link())
            assert (answer.status_code, answer.headers.get("location")) == (400, None), url
            # At the token endpoint it is just a client that nobody knows.
            answer = await App(gateway, url).redeem("x")
            assert error(answer) == (401, "invalid_client"), url


async def test_a_document_that_cannot_be_read_for_a_while_logs_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, _ = contexts(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trust.pem"))
    reply = {"now": b""}

    async def script(_: loopback.Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply["now"])

    settings = ", client_documents: ['*']"
    async with (
        loopback.serve(script, tls=tls) as site,
        town(tmp_path / "data", settings, "egress: {allow_loopback: true}\n") as (gateway, clock),
    ):
        program = App(gateway, f"https://127.0.0.1:{site.port}/client.json")
        about = {
            "client_id": program.id,
            "redirect_uris": [BACK],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        reply["now"] = good = loopback.answer(json.dumps(about).encode())
        made = await program.tokens()
        down, wrong = loopback.answer(b"", "503 Service Unavailable"), loopback.answer(b"{}")
        for reply["now"], seconds, status in (
            (down, 601, 200),
            (down, 1800, 200),
            (down, 1801, 401),
            (good, 31, 200),
            (wrong, 601, 401),  # it says something else now
        ):
            clock.ahead += seconds
            answer = await program.refresh(made["refresh_token"])
            assert answer.status_code == status, seconds
            made = answer.json() if status == 200 else made


async def test_documents_of_hosts_that_the_operator_did_not_name_are_not_asked_for(tmp_path: Path) -> None:
    async with town(tmp_path, ", client_documents: [good.example]") as (gateway, _):
        answer = await gateway.client.get(App(gateway, "https://other.example/client.json").link())
        assert answer.status_code == 400
        assert "not taken" in answer.text


async def test_a_revoked_document_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    async with town(tmp_path, ", client_documents: ['*']") as (gateway, _):
        url = "https://app.example/client.json"
        await admin(gateway, "clients:revoke", id=url)
        answer = await gateway.client.get(App(gateway, url).link())
        assert "not known here" in answer.text
        listed = await gateway.client.get("/admin/clients", headers=gateway.bearer(None))
        assert json.loads(listed.text)["clients"][0]["origin"] == "document"
