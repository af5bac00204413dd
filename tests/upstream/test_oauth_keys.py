"""The gateway shows keys and others' words instead of secrets: to servers that believe nobody (tests/stern.py)."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.model.login import LoginNeeded
from gateway.model.tool import Tree
from gateway.upstream.oauth.client import ClientSettings, Grant, IdentityProvider, Proofs
from gateway.upstream.secret import Secret
from tests.authority import Guarded, authority, browse, guarded
from tests.issuer import SigningKey
from tests.stern import (
    ID_JAG,
    JWT_BEARER,
    TOKEN_EXCHANGE,
    Bound,
    Provider,
    Refused,
    Stern,
    bound,
    pem,
    private_jwk,
    provider,
    stern,
    word,
)
from tests.tokenclient import REDIRECT, Client, client, refusal
from tests.upstream.loopback import Request
from tests.vaults import opened


def written(folder: Path, text: str, name: str = "secret") -> Secret:
    (folder / name).write_text(text)
    return Secret(file=folder / name)


@asynccontextmanager
async def at(by: Stern, data: Path, settings: ClientSettings, **about: Any) -> AsyncIterator[tuple[Guarded, Client]]:
    """A tool server that trusts `by`, and the gateway as its client; one clock for all."""
    async with guarded(by, **about) as server, client(server.url, data, settings) as one:
        by.resource = server.url
        by.now = lambda: one.now[0] / 1000
        yield server, one


# --- A key instead of a secret (RFC 7523 §2.2). ------------------------------------------------------------


def machine(key: Secret, **more: Any) -> ClientSettings:
    return ClientSettings(Grant.CLIENT_CREDENTIALS, "gateway", client_key=key, **more)


@pytest.mark.requirement("mcp.client.oauth.private-key-jwt")
@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
@pytest.mark.parametrize("form", [pem, private_jwk])
async def test_the_gateway_shows_that_it_holds_its_key(tmp_path: Path, alg: str, form: Any) -> None:
    key = SigningKey.make("known-there", alg)
    async with stern(key=key) as by, at(by, tmp_path, machine(written(tmp_path, form(key)))) as (_, one):
        for _ in range(2):
            assert (await one.call())["content"][0]["text"] == "hello"
            one.later(3600)
        assert not by.why
        assert len({form["client_assertion"] for form in by.forms}) == 2, "each is good once"
        assert all("client_secret" not in form for form in by.forms)
        head = json.loads(_part(by.forms[0]["client_assertion"], 0))
        assert head.get("kid") == ("known-there" if form is private_jwk else None)


@pytest.mark.security
async def test_the_key_stays_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = SigningKey.make("k")
    async with stern(key=key) as by, at(by, tmp_path, machine(written(tmp_path, pem(key)))) as (_, one):
        await one.call()
        line = pem(key).splitlines()[1]
        kept = (await opened(tmp_path / "oauth")).load("docs")
        assert line not in f"{by.forms} {by.authorizations} {caplog.text} {kept}"


async def test_a_key_that_was_replaced_is_used_from_then_on(tmp_path: Path) -> None:
    old, new = SigningKey.make("old"), SigningKey.make("new")
    place = written(tmp_path, pem(old))
    async with stern(key=old) as by, at(by, tmp_path, machine(place)) as (_, one):
        await one.call()
        by.key = new
        one.later(3601)
        assert "invalid_client" in (await refusal(one.call())).message
        written(tmp_path, pem(new))
        await one.call()


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.private-key-jwt")
async def test_another_key_is_not_believed(tmp_path: Path) -> None:
    ours = machine(written(tmp_path, pem(SigningKey.make("other"))))
    async with stern(key=SigningKey.make("k")) as by, at(by, tmp_path, ours) as (_, one):
        assert "invalid_client" in (await refusal(one.call())).message
        assert by.why == ["signature"]
        assert not by.tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no key at all", "is no private key in PEM or as a JWK"),
        ("{}", "is no private key in PEM or as a JWK"),
        ("{broken", "is no private key in PEM or as a JWK"),
        ("P-384", "is no private key for ES256 or EdDSA"),
        ("public", "is no private key for ES256 or EdDSA"),
    ],
)
async def test_a_key_that_cannot_be_used_is_said_by_its_place(tmp_path: Path, text: str, words: str) -> None:
    key = SigningKey.make("k", "ES384")
    text = {"P-384": pem(key), "public": json.dumps(SigningKey.make("k").jwk())}.get(text, text)
    ours = machine(written(tmp_path, text))
    async with stern(key=SigningKey.make("k")) as by, at(by, tmp_path, ours) as (_, one):
        error = await refusal(one.call())
        assert (error.reason, words in error.message) == (Reason.UNAVAILABLE, True)
        assert str(tmp_path / "secret") in error.message
        assert text not in error.message
        assert not by.forms


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"token_endpoint_auth_signing_alg_values_supported": ["RS256"]}, "signed with ES256"),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic", "none"]}, "does not take private_key_jwt"),
        ({"token_endpoint_auth_methods_supported": None}, "does not take private_key_jwt"),
    ],
)
async def test_where_a_key_is_of_no_use_none_is_shown(tmp_path: Path, metadata: Tree, words: str) -> None:
    key = SigningKey.make("k")
    async with stern(key=key) as by, at(by, tmp_path, machine(written(tmp_path, pem(key)))) as (_, one):
        by.metadata |= metadata
        assert words in (await refusal(one.call())).message
        assert not by.forms


@pytest.mark.security
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": ["ISSUER", "https://other.example"]}, "aud"),
        ({"iss": "somebody"}, "iss"),
        ({"sub": "somebody"}, "sub"),
        ({"exp": 900, "iat": 850}, "too old"),
        ({"iat": 1_100, "exp": 1_150}, "too new"),
        ({"exp": 2_000}, "for too long"),
        ({"exp": None}, "times"),
        ({"jti": None}, "jti"),
        ({"jti": "x"}, "jti"),
    ],
    ids=lambda each: str(each)[:30],
)
async def test_the_server_of_these_tests_cannot_be_fooled(changed: Tree, why: str) -> None:
    key = SigningKey.make("k")
    async with stern(key=key) as by:
        ourselves = {"iss": "gateway", "sub": "gateway", "aud": by.issuer}

        def shown(assertion: str) -> None:
            _, claims = by.checker.read(assertion, key.private.public_key(), "ES256", "invalid_client")
            by.checker.check(claims, "invalid_client", ourselves, longest=120)

        good = {**ourselves, "jti": "j" * 20, "iat": 1_000, "exp": 1_060}
        for forged in (word(SigningKey.make("k"), good), word(key, good, alg="none"), word(key, good) + "A"):
            with pytest.raises(Refused, match=r"signature|header"):
                shown(forged)
        with pytest.raises(Refused, match=why):
            shown(word(key, {name: each for name, each in {**good, **changed}.items() if each is not None}))
        shown(word(key, good))
        with pytest.raises(Refused, match="jti"):
            shown(word(key, good))


# --- What a platform says of its workloads (RFC 7523 §2.1). ------------------------------------------------


@pytest.mark.requirement("mcp.client.oauth.workload-identity")
async def test_a_workload_shows_what_its_platform_gave_it_and_reads_it_anew(tmp_path: Path) -> None:
    key = SigningKey.make("platform")
    about: Tree = {"iss": "https://k8s.example", "sub": "sa:gateway", "iat": 1_000, "exp": 1_600}
    settings = ClientSettings(Grant.JWT_BEARER, "gateway", assertion=Secret(file=tmp_path / "secret"))
    workloads = ("https://k8s.example", "sa:gateway", key)
    async with stern(workloads=workloads) as by, at(by, tmp_path, settings, scopes=["read"]) as (server, one):
        written(tmp_path, word(key, {**about, "aud": by.issuer, "jti": "platform-token-1"}))
        await one.call()
        one.later(3600)
        later = {"iat": 4_600, "exp": 5_200, "aud": by.issuer, "jti": "platform-token-2"}
        written(tmp_path, word(key, about | later))
        await one.call()
        assert not by.why
        expected = {"client_id": "gateway", "grant_type": JWT_BEARER, "resource": server.url, "scope": "read"}
        assert {name: by.forms[0][name] for name in expected} == expected


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.workload-identity")
@pytest.mark.parametrize(
    "changed",
    [{"aud": "https://wrong.example"}, {"iss": "https://other.example"}, {"iat": 0, "exp": 300}, {"sub": "x"}],
)
async def test_a_workload_that_is_not_believed_hears_it_and_tries_nothing_else(tmp_path: Path, changed: Tree) -> None:
    key = SigningKey.make("platform")
    settings = ClientSettings(Grant.JWT_BEARER, "gateway", assertion=Secret(file=tmp_path / "secret"))
    workloads = ("https://k8s.example", "sa:gateway", key)
    async with stern(workloads=workloads) as by, at(by, tmp_path, settings) as (_, one):
        good = {"iss": "https://k8s.example", "sub": "sa:gateway", "aud": by.issuer, "iat": 1_000, "exp": 1_300}
        written(tmp_path, word(key, {**good, "jti": "platform-token-1", **changed}))
        assert "invalid_grant" in (await refusal(one.call())).message
        assert [form["grant_type"] for form in by.forms] == [JWT_BEARER], "once, and nothing else instead"
        assert not by.tokens


# --- What an identity provider says of people (enterprise-managed authorization). --------------------------


def managed(idp: Provider, **more: Any) -> ClientSettings:
    return ClientSettings(
        Grant.ID_JAG,
        "gateway",
        Secret(variable="SECRET"),
        identity_provider=IdentityProvider(idp.issuer, idp.client_id, Secret(variable="IDP"), **more),
    )


@asynccontextmanager
async def enterprise(data: Path, **more: Any) -> AsyncIterator[tuple[Provider, Stern, Client]]:
    """`subject` is a file with an ID token; without it people log in at the provider."""
    async with provider() as idp, stern(provider=idp, secret="a/b+c:d") as by:
        idp.allowed[by.issuer] = by.client_id
        async with at(by, data, managed(idp, **more), scopes=["read"]) as (_, one):
            idp.now = by.now
            yield idp, by, one


@pytest.mark.requirement("mcp.client.oauth.id-jag")
async def test_a_word_of_the_identity_provider_becomes_a_token(tmp_path: Path) -> None:
    async with enterprise(tmp_path, subject=Secret(file=tmp_path / "secret")) as (idp, by, one):
        written(tmp_path, idp.id_token())
        await one.call()
        (asked,), (form,) = idp.forms, by.forms
        assert (asked["audience"], asked["resource"], asked["scope"]) == (by.issuer, by.resource, "read")
        assert asked["grant_type"] == TOKEN_EXCHANGE
        assert form["grant_type"] == JWT_BEARER
        assert set(by.subjects.values()) == {"ann"}
        assert not idp.why + by.why


@pytest.mark.requirement("mcp.client.oauth.id-jag")
async def test_a_person_logs_in_at_the_provider_once_and_the_rest_follows(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, by, one):
        assert isinstance(await refusal(one.call()), LoginNeeded)
        await one.login()
        await one.call()
        assert not by.asked, "nobody was asked at the tool server's authorization server"
        assert idp.asked[0]["scope"] == "openid offline_access"
        one.later(3600)  # the token is at its end, and the ID token too
        await one.call()
        kinds = [form["grant_type"] for form in idp.forms]
        assert kinds == ["authorization_code", TOKEN_EXCHANGE, "refresh_token", TOKEN_EXCHANGE]
        assert set(by.subjects.values()) == {"ann"}
    async with guarded(by) as _, client(by.resource, tmp_path, managed(idp)) as again:
        assert again.source._grants.identity is not None, "kept over a restart"


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.id-jag")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "https://other.example"}, "aud"),
        ({"iss": "https://other.example"}, "iss"),
        ({"client_id": "another-client"}, "client_id"),
        ({"resource": "https://other.example/mcp"}, "resource"),
        ({"iat": 0, "exp": 300}, "too old"),
        ({"typ": "JWT"}, "header"),
    ],
    ids=lambda each: str(each)[:30],
)
async def test_a_word_that_is_for_something_else_gets_no_token(tmp_path: Path, changed: Tree, why: str) -> None:
    async with enterprise(tmp_path, subject=Secret(file=tmp_path / "secret")) as (idp, by, one):
        written(tmp_path, idp.id_token())
        idp.changed = changed
        assert "invalid_grant" in (await refusal(one.call())).message
        assert why in by.why[0]
        assert not by.tokens


@pytest.mark.requirement("mcp.client.oauth.id-jag")
async def test_what_the_providers_policy_does_not_allow_is_said_and_asks_for_no_login(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, by, one):
        await one.login()
        idp.allowed.clear()
        error = await refusal(one.call())
        assert "does not let the gateway use this server (access_denied)" in error.message
        assert not isinstance(error, LoginNeeded)
        assert not by.forms


@pytest.mark.security
async def test_a_login_that_has_ended_needs_the_person_again(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, _, one):
        await one.login()
        await one.call()
        idp.refreshes.clear()
        one.later(3600)
        assert isinstance(await refusal(one.call()), LoginNeeded)
        await one.login()
        await one.call()


@pytest.mark.security
async def test_a_renewal_about_somebody_else_is_not_taken(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, by, one):
        await one.login()
        await one.call()
        idp.renewed_as = "bob"
        one.later(3600)
        assert "not for this login" in (await refusal(one.call())).message
        assert set(by.subjects.values()) == {"ann"}


@pytest.mark.security
async def test_an_id_token_of_another_login_is_not_taken(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, _, one):
        idp.nonce = "of another login"
        assert "not for this login" in (await refusal(one.login())).message
        assert isinstance(await refusal(one.call()), LoginNeeded)


@pytest.mark.security
async def test_another_person_who_logs_in_gets_nothing_of_the_first(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, by, one):
        await one.login()
        await one.call()
        idp.person = "bob"
        await one.login()
        await one.call()
        assert list(by.subjects.values()) == ["ann", "bob"]


@pytest.mark.security
async def test_what_is_no_id_jag_goes_nowhere(tmp_path: Path) -> None:
    async with enterprise(tmp_path, subject=Secret(file=tmp_path / "secret")) as (idp, by, one):
        written(tmp_path, idp.id_token())
        idp.issued = ID_JAG.replace("id-jag", "access_token")
        assert "something else than an ID-JAG" in (await refusal(one.call())).message
        assert not by.forms


@pytest.mark.security
async def test_an_answer_of_another_issuer_is_no_login(tmp_path: Path) -> None:
    async with enterprise(tmp_path) as (idp, by, one):
        back = await browse(await one.source.begin(REDIRECT))
        wrong = back.replace(f"127.0.0.1%3A{idp.port}", f"127.0.0.1%3A{by.port}")
        assert wrong != back
        assert "another authorization server" in (await refusal(one.source.finish(wrong))).message
        assert not idp.forms


# --- Tokens that are bound to a key (RFC 9449). ------------------------------------------------------------

PERSON = ClientSettings(Grant.AUTHORIZATION_CODE, "gateway")
REQUIRED = ClientSettings(Grant.AUTHORIZATION_CODE, "gateway", proofs=Proofs.REQUIRED)
OFF = ClientSettings(Grant.AUTHORIZATION_CODE, "gateway", proofs=Proofs.OFF)


@asynccontextmanager
async def proving(
    data: Path, settings: ClientSettings = PERSON, *, nonce: str | None = None, server_nonce: str | None = None
) -> AsyncIterator[tuple[Stern, Bound, Client]]:
    async with (
        stern(proofs=True, nonce=nonce) as by,
        bound(by, nonce=server_nonce) as server,
        client(server.url, data, settings) as one,
    ):
        by.now = lambda: one.now[0] / 1000
        yield by, server, one


async def logged_in(one: Client) -> None:
    await refusal(one.call())  # the server says that it wants proofs
    await one.login()


@pytest.mark.requirement("mcp.client.oauth.dpop")
async def test_a_token_is_bound_where_the_server_asks_for_it_and_each_request_proves_the_key(tmp_path: Path) -> None:
    async with proving(tmp_path) as (by, server, one):
        await logged_in(one)
        for _ in range(3):
            await one.call()
        assert not by.why + server.why
        assert len(server.thumbprints) == 1
        assert by.asked[0]["dpop_jkt"] in server.thumbprints, "the code was bound too"
        proofs = [sent["dpop"] for sent in server.sent if "dpop" in sent]
        assert len(set(proofs)) == len(proofs) >= 3


@pytest.mark.requirement("mcp.client.oauth.dpop")
async def test_a_bound_token_is_renewed_with_its_own_key_and_survives_a_restart(tmp_path: Path) -> None:
    async with proving(tmp_path) as (by, server, one):
        await logged_in(one)
        await one.call()
        one.later(3600)
        await one.call()
        async with client(server.url, tmp_path, PERSON) as again:
            again.now[0] = one.now[0]
            await again.call()
        assert not by.why + server.why
        assert len(server.thumbprints) == 1
        assert "d" in (await opened(tmp_path / "oauth")).load("docs")["held"]["key"]


@pytest.mark.requirement("mcp.client.oauth.dpop-nonce")
async def test_nonces_of_both_servers_are_taken_up_and_followed_when_they_change(tmp_path: Path) -> None:
    async with proving(tmp_path, nonce="as-1", server_nonce="rs-1") as (by, server, one):
        await logged_in(one)
        await one.call()
        by.nonce, server.nonce = "as-2", "rs-2"
        one.later(3600)
        await one.call()
        await one.call()
        assert by.why == ["nonce", "nonce"], "once for each of them"
        assert server.why == ["nonce"], "the first came with the refusal of no token at all"


@pytest.mark.requirement("mcp.client.oauth.dpop-nonce")
async def test_calls_at_once_all_take_up_the_nonce(tmp_path: Path) -> None:
    async with proving(tmp_path, server_nonce="rs-1") as (by, server, one):
        await logged_in(one)
        await asyncio.gather(*(one.call() for _ in range(8)))
        server.nonce = "rs-2"
        await asyncio.gather(*(one.call() for _ in range(8)))
        assert len(server.calls) == 16
        assert set(server.why) == {"nonce"}
        assert len(by.forms) == 1, "and nobody got another token for that"


async def test_a_nonce_that_is_never_right_ends_the_call(tmp_path: Path) -> None:
    async with proving(tmp_path) as (_, server, one):
        await logged_in(one)
        server.instead["/mcp"] = (
            b'HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error="use_dpop_nonce"\r\n'
            b"dpop-nonce: another\r\ncontent-length: 0\r\n\r\n"
        )
        assert (await refusal(one.call())).reason in (Reason.UPSTREAM_FAILED, Reason.UNAVAILABLE)


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.dpop")
async def test_who_has_only_read_the_token_cannot_use_it(tmp_path: Path) -> None:
    async with proving(tmp_path) as (by, server, one):
        await logged_in(one)
        await one.call()
        (token,) = by.tokens
        seen = [sent for sent in server.sent if "dpop" in sent]
        for headers in (
            {"authorization": f"Bearer {token}"},
            {"authorization": f"DPoP {token}"},
            {"authorization": f"DPoP {token}", "dpop": seen[-1]["dpop"]},
        ):
            assert b"401" in server._answer(Request("POST /mcp HTTP/1.1", headers, b"{}"))[:20]


async def test_a_server_that_says_nothing_of_proofs_gets_bearer_tokens(tmp_path: Path) -> None:
    async with stern(proofs=True) as by, at(by, tmp_path, PERSON) as (server, one):
        await one.login()
        await one.call()
        assert not by.bound
        assert server.sent[-1]["authorization"].startswith("Bearer ")


async def test_off_is_off(tmp_path: Path) -> None:
    async with proving(tmp_path, OFF) as (by, server, one):
        await logged_in(one)
        assert isinstance(await refusal(one.call()), GatewayError)
        assert not by.bound
        assert all("dpop" not in sent for sent in server.sent)


@pytest.mark.security
async def test_required_takes_no_bearer_token(tmp_path: Path) -> None:
    async with authority(token_type="Bearer") as by, guarded(by) as server:
        settings = ClientSettings(Grant.AUTHORIZATION_CODE, proofs=Proofs.REQUIRED)
        async with client(server.url, tmp_path, settings) as one:
            assert "bound to a key" in (await refusal(one.source.begin(REDIRECT))).message
            by.metadata = {"dpop_signing_alg_values_supported": ["ES256"]}
            by._codes.clear()
            assert "bound to no key" in (await refusal(one.login())).message
            assert isinstance(await refusal(one.call()), LoginNeeded)


async def test_required_binds_also_where_the_server_does_not_ask(tmp_path: Path) -> None:
    async with proving(tmp_path, REQUIRED) as (by, server, one):
        await one.login()  # before anybody has seen a challenge
        await one.call()
        assert set(by.bound.values()) == server.thumbprints


def _part(text: str, which: int) -> bytes:
    part = text.split(".")[which]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
