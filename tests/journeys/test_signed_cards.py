"""Signed cards, both ways: what the gateway serves verifies elsewhere, and what comes is verified here (A2A §8.4)."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from a2a.client import A2ACardResolver
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier

from gateway.core import registry
from gateway.dialects.a2a_v1.signing import forms
from tests.cardkeys import CardKey, encoded, jwks, sdk_verifies
from tests.remote import Scripted, admin_agent, command, scripted, task, until
from tests.serving import ECHO, ROOT, Gateway, running
from tests.upstream import loopback

CARD = "/.well-known/agent-card.json"
KEYS = "/.well-known/agent-card-keys.json"
DAY = 86_400_000


async def served(gateway: Gateway, agent: str = "echo", **headers: str) -> Any:
    answer = await gateway.client.get(f"/agents/{agent}{CARD}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def keys(gateway: Gateway) -> Any:
    return (await gateway.client.get(KEYS)).json()


async def shown(gateway: Gateway, agent: str = "far") -> Any:
    answer = await gateway.client.get(f"/admin/cards/{agent}", headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def verified(gateway: Gateway, url: str, **more: Any) -> Any:
    body = {"cardUrl": url, **more}
    answer = await gateway.client.post("/admin/cards:verify", json=body, headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def add(gateway: Gateway, url: str) -> tuple[int, str]:
    body = {"cardUrl": url, "id": "far"}
    answer = await gateway.client.post("/admin/agents", json=body, headers=gateway.bearer(None))
    return answer.status_code, answer.text


def far(agent: Scripted, **settings: str) -> str:
    more = "".join(f", {name}: {value}" for name, value in settings.items())
    return f"agents:\n  far: {{card_url: '{agent.url}', public: true{more}}}\n"


def protected(signature: Any) -> Any:
    text = signature["protected"]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


# What the gateway serves.


@pytest.mark.requirement("a2a.card.signed")
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_a2a_sdks_own_client_accepts_our_card(tmp_path: Path, algorithm: str) -> None:
    async with running(tmp_path, ECHO + f"cards: {{algorithm: {algorithm}}}\n") as gateway:
        known = {key["kid"]: jwt.PyJWK(key) for key in (await keys(gateway))["keys"]}
        asked = []

        def key(kid: str | None, jku: str | None) -> jwt.PyJWK:
            asked.append(jku)
            return known[str(kid)]

        async with httpx.AsyncClient(trust_env=False) as client:
            resolver = A2ACardResolver(client, f"{gateway.url}/agents/echo")
            verifier = create_signature_verifier(key, [algorithm])
            card = await resolver.get_agent_card(signature_verifier=verifier)
        assert card.name == "Echo"
        assert set(asked) == {gateway.url + KEYS}


@pytest.mark.requirement("a2a.card.signed", "a2a.card.signature-header")
async def test_both_documents_of_a_card_are_signed_in_every_form_that_readers_make_of_it(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        published = await keys(gateway)
        (key,) = published["keys"]
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
        assert "d" not in key
        for headers in ({}, {"A2A-Version": "1.0"}):
            card = await served(gateway, **headers)
            sdk_verifies(card, published, jku=gateway.url + KEYS)
            for signature in card["signatures"]:
                assert protected(signature) == {
                    "alg": "ES256", "typ": "JOSE", "kid": key["kid"], "jku": gateway.url + KEYS,
                }  # fmt: skip
            with pytest.raises(InvalidSignaturesError):
                sdk_verifies({**card, "description": "Changed on the way."}, published)
            # And a reader that does it by the letter of §8.4.1, unknown fields included: ours.
            answer = await verified(gateway, f"{gateway.url}/agents/echo")
            assert answer["verdict"] == "verified"
            assert {each["form"] for each in answer["signatures"]} == {"a2a", "a2a-known-fields", "a2a-sdk", "a2a-js"}


async def test_the_catalogue_the_admin_api_and_the_extended_card_are_signed_too(tmp_path: Path) -> None:
    more = f"extended_card: {ROOT}/conformance/cards/strict.json, public: true"
    async with running(tmp_path, ECHO.replace("public: true", more)) as gateway:
        published = await keys(gateway)
        listed = (await gateway.client.get("/agents")).json()["agents"][0]
        extended = await gateway.result("GetExtendedAgentCard")
        for card in (listed, extended, (await admin_agent(gateway, "echo"))["card"]):
            sdk_verifies(card, published)


async def test_cards_are_not_signed_where_the_file_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO + "cards: {sign: false}\n") as gateway:
        assert "signatures" not in await served(gateway)
        assert (await gateway.client.get(KEYS)).status_code == 404
        assert not (tmp_path / "card-keys").exists()


@pytest.mark.security
async def test_the_key_is_the_owners_alone_and_is_not_the_one_of_the_tokens(tmp_path: Path) -> None:
    """A card is in part a stranger's text: signed with the key of the tokens it could be one."""
    config = ECHO + "auth: {authorization_server: {}}\n"
    async with running(tmp_path, config) as gateway:
        await served(gateway)
        tokens = (await gateway.client.get("/.well-known/jwks.json")).json()["keys"]
        assert {key["kid"] for key in tokens}.isdisjoint(key["kid"] for key in (await keys(gateway))["keys"])
        for path in (tmp_path / "card-keys").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_that_is_no_key_is_named_and_nothing_goes_out_unsigned(tmp_path: Path) -> None:
    (tmp_path / "card-keys").mkdir()
    (tmp_path / "card-keys" / "1-x.jwk").write_text("{}")
    async with running(tmp_path) as gateway:
        answer = await gateway.client.get(f"/agents/echo{CARD}")
        assert answer.status_code == 503
        assert "card-keys" in answer.json()["error"]["message"]


@pytest.mark.requirement("a2a.card.key-rotation")
async def test_a_new_key_is_published_a_day_before_it_signs_and_the_old_one_long_after(tmp_path: Path) -> None:
    clock = [1_800_000_000_000]
    config = ECHO + "cards: {rotate_days: 2}\n"
    async with running(tmp_path, config, now=lambda: clock[0]) as gateway:
        old = await served(gateway)
        (first,) = (await keys(gateway))["keys"]
        tag = (await gateway.client.get(f"/agents/echo{CARD}")).headers["etag"]

        clock[0] += 2 * DAY
        assert (await keys(gateway))["keys"][0] == first
        assert len((await keys(gateway))["keys"]) == 2
        assert protected((await served(gateway))["signatures"][0])["kid"] == first["kid"]

        clock[0] += DAY
        card, published = await served(gateway), await keys(gateway)
        assert protected(card["signatures"][0])["kid"] == published["keys"][1]["kid"]
        answer = await gateway.client.get(f"/agents/echo{CARD}", headers={"If-None-Match": tag})
        assert answer.status_code == 200, "the document has changed: it is signed with another key"
        sdk_verifies(card, published)
        sdk_verifies(old, published)

        clock[0] += 3 * DAY + 1000
        assert first["kid"] not in {key["kid"] for key in (await keys(gateway))["keys"]}
    async with running(tmp_path, config, now=lambda: clock[0]) as gateway:
        sdk_verifies(await served(gateway), await keys(gateway))


# What comes.


@pytest.mark.requirement("a2a.card.verified")
@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
async def test_a_card_that_a2a_sdk_signed_is_verified_by_the_key_at_its_own_origin(tmp_path: Path, alg: str) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        key = CardKey(alg=alg)
        agent.documents["/keys"] = json.dumps(jwks(CardKey("other"), key)).encode()
        agent.card = key.sdk(agent.card, f"{agent.url}/keys")
        assert (await add(gateway, agent.url))[0] == 201
        told = await shown(gateway)
        (received,) = told["received"]
        assert received["verdict"] == "verified"
        assert received["card"] == agent.card, "as it came, signature included"
        (signature,) = received["signatures"]
        assert (signature["alg"], signature["kid"], signature["form"]) == (alg, "k1", "a2a")
        assert told["served"]["signatures"][0] != agent.card["signatures"][0]
        assert set(told["differences"]) >= {"supportedInterfaces", "capabilities", "securitySchemes", "signatures"}
        sdk_verifies(await served(gateway, "far", **gateway.bearer(None)), await keys(gateway))


@pytest.mark.requirement("a2a.card.verified")
async def test_empty_values_that_a2a_sdk_leaves_out_are_told(tmp_path: Path) -> None:
    """§8.4.1 keeps a REQUIRED field though it is empty; a2a-sdk does not sign it. We take both and say so."""
    async with scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        empty = {**agent.card, "description": ""}
        agent.card = key.sdk(empty, f"{agent.url}/keys")
        (signature,) = (await verified(gateway, agent.url))["signatures"]
        assert signature["form"] == "a2a-sdk"
        assert "§8.4.1 wants the value kept" in signature["says"]
        right = next(form.payload for form in forms(empty))
        agent.card = {**empty, "signatures": [key.jws(right, jku=f"{agent.url}/keys")]}
        (signature,) = (await verified(gateway, agent.url))["signatures"]
        assert signature["form"] == "a2a"


@pytest.mark.security
async def test_fields_that_a_signature_does_not_cover_are_not_used(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        evil = [{"url": "https://evil.example", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
        agent.card = {**key.sdk(agent.card, f"{agent.url}/keys"), "supported_interfaces": evil, "more": "evil"}
        assert (await add(gateway, agent.url))[0] == 201
        assert "evil" not in json.dumps(await served(gateway, "far", **gateway.bearer(None)))
        assert (await shown(gateway))["received"][0]["signatures"][0]["form"] == "a2a-known-fields"


@pytest.mark.requirement("a2a.card.verified")
async def test_a_card_of_0_3_is_verified_as_it_was_sent(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        older = {
            **{name: value for name, value in agent.card.items() if name != "supportedInterfaces"},
            "protocolVersion": "0.3.0", "url": f"{agent.url}/rpc", "preferredTransport": "JSONRPC",
        }  # fmt: skip
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        payload = next(form.payload for form in forms(older))
        agent.card = {**older, "signatures": [key.jws(payload, jku=f"{agent.url}/keys")]}
        assert (await verified(gateway, agent.url))["signatures"][0]["form"] == "as-sent"
        assert (await add(gateway, agent.url))[0] == 201


@pytest.mark.security
async def test_a_changed_card_is_refused(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        agent.card = {**key.sdk(agent.card, f"{agent.url}/keys"), "name": "Somebody else"}
        status, said = await add(gateway, agent.url)
        assert status == 500
        assert "has a signature that does not fit it" in said
        assert "something was changed after signing" in said
        assert (await verified(gateway, agent.url))["verdict"] == "invalid"


@pytest.mark.security
async def test_a_key_at_another_origin_is_not_fetched_and_proves_nothing(tmp_path: Path) -> None:
    async with loopback.canary() as elsewhere, scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        plain = agent.card
        for jku in (f"{elsewhere.url}/keys", "file:///etc/passwd", "http://u:p@127.0.0.1/", None):
            agent.card = key.sdk(plain, jku)
            answer = await verified(gateway, agent.url)
            assert answer["verdict"] == "unknown-key", jku
            assert (await verified(gateway, agent.url, keys=jwks(key)))["verdict"] == "verified", (
                "given: the rest is noise"
            )
        assert (await add(gateway, agent.url))[0] == 201, "worth what an unsigned card is"


@pytest.mark.security
async def test_hostile_signatures_never_verify(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        key, jku = CardKey(), f"{agent.url}/keys"
        plain = agent.card
        payload = next(form.payload for form in forms(plain))
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        good = key.jws(payload, jku=jku)
        stranger = CardKey()
        none = encoded(json.dumps({"alg": "none", "kid": "k1", "jku": jku}).encode())
        hmac = encoded(json.dumps({"alg": "HS256", "kid": "k1", "jku": jku}).encode())
        hostile = {
            "none": {"protected": none, "signature": ""},
            "public key as a secret": {"protected": hmac, "signature": encoded(b"x" * 32)},
            "another key under this name": stranger.jws(payload, jku=jku),
            "its own key in the header": stranger.jws(payload, jku=jku, jwk=stranger.public, kid="k1"),
            "unknown name": key.jws(payload, jku=jku, kid="k2"),
            "crit": key.jws(payload, jku=jku, crit=["exp"]),
            "cut": {**good, "signature": good["signature"][:-8]},
            "padded": {**good, "signature": good["signature"] + "=="},
            "of another payload": key.jws(b"{}", jku=jku),
            "nothing in it": {},
            "jku beside the protected header": {**key.jws(payload), "header": {"jku": jku}},
        }  # fmt: skip
        for name, signature in hostile.items():
            agent.card = {**plain, "signatures": [signature]}
            assert (await verified(gateway, agent.url))["verdict"] != "verified", name
        agent.card = {**plain, "signatures": [*[*hostile.values()][:8], good]}
        assert "more than 8" in (await verified(gateway, agent.url))["signatures"][0]["says"]
        agent.card = {**plain, "signatures": [hostile["none"], good, good, good]}
        answer = await verified(gateway, agent.url)
        assert answer["verdict"] == "verified", "one that fits is enough"
        assert [each["verdict"] for each in answer["signatures"]] == ["unknown-key", "verified"], "and once is enough"


@pytest.mark.security
async def test_a_key_set_that_leads_elsewhere_or_is_none_proves_nothing(tmp_path: Path) -> None:
    async with loopback.canary() as inside, scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        agent.card = key.sdk(agent.card, f"{agent.url}/keys")
        for document in (b"", b"[]", b'{"keys":[]}', b'{"keys":7}', b"x" * 300_000):
            agent.documents["/keys"] = document
            assert (await verified(gateway, agent.url))["verdict"] == "unknown-key"
        del agent.documents["/keys"]  # now the card itself is there
        assert (await verified(gateway, agent.url))["verdict"] == "unknown-key"
        assert inside.connections == 0


# Pinned keys, and what may not get worse.


@pytest.mark.security
@pytest.mark.requirement("a2a.card.verified")
async def test_pinned_keys_alone_count(tmp_path: Path) -> None:
    pinned, other = CardKey(), CardKey()
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(jwks(pinned)))
    async with scripted() as agent:
        plain = agent.card
        agent.documents["/keys"] = json.dumps(jwks(other)).encode()
        agent.card = other.sdk(plain, f"{agent.url}/keys")
        async with running(tmp_path / "a", far(agent, card_keys=str(path))) as gateway:
            why = await until(lambda: _reason(gateway))
            assert "does not fit" in why
            error = await gateway.error("SendMessage", {"message": _message()}, agent="far")
            assert error["data"][0]["reason"] == "UNAVAILABLE"
            assert (await shown(gateway))["received"][0]["refused"]["verdict"] == "invalid"
        agent.card = plain
        async with running(tmp_path / "b", far(agent, card_keys=str(path))) as gateway:
            assert "has no signature; this agent's card has to be signed" in await until(lambda: _reason(gateway))
        agent.card = pinned.sdk(plain)
        _completes(agent)
        async with running(tmp_path / "c", far(agent, card_keys=str(path))) as gateway:
            await until(lambda: _card(gateway))
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"
        # The same set behind a URL that the operator named, at whatever origin.
        async with (
            loopback.serve(loopback.always(loopback.answer(path.read_bytes()))) as vault,
            running(tmp_path / "d", far(agent, card_keys_url=f"'{vault.url}/set'")) as gateway,
        ):
            await until(lambda: _card(gateway))


@pytest.mark.security
@pytest.mark.requirement("a2a.card.downgrade-refused")
async def test_a_card_that_was_signed_may_not_come_unsigned_until_somebody_accepts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
    async with scripted() as agent:
        key, plain = CardKey(), agent.card
        agent.etag = '"one"'
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        agent.card = key.sdk(plain, f"{agent.url}/keys")
        _completes(agent)
        async with running(tmp_path) as gateway:
            assert (await add(gateway, agent.url))[0] == 201
            agent.etag, agent.card = '"two"', {**plain, "description": "Now unsigned"}
            why = await until(lambda: _reason(gateway))
            assert "it was signed before" in why
            assert (await served(gateway, "far", **gateway.bearer(None)))["description"] != "Now unsigned"
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"
        async with running(tmp_path) as gateway:  # nor after a restart
            assert "gateway cards accept far" in await until(lambda: _reason(gateway))
            told = await asyncio.to_thread(command, tmp_path, "cards", "show", "far", url=gateway.url)
            assert "refused    a later card" in told.stdout
            done = await asyncio.to_thread(command, tmp_path, "cards", "accept", "far", url=gateway.url)
            assert done.returncode == 0, done.stderr
            assert (await served(gateway, "far", **gateway.bearer(None)))["description"] == "Now unsigned"
            assert (await admin_agent(gateway, "far"))["endpoints"][0]["signature"] == "unsigned"
            (received,) = (await shown(gateway))["received"]
            assert received["changes"] == ["description changed"]


@pytest.mark.security
@pytest.mark.requirement("a2a.card.downgrade-refused")
async def test_a_key_that_was_withdrawn_is_noticed_though_the_card_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    async with scripted() as agent, running(tmp_path) as gateway:
        key, newer = CardKey(), CardKey("k2")
        plain, agent.etag = agent.card, '"one"'
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        agent.card = key.sdk(plain, f"{agent.url}/keys")
        assert (await add(gateway, agent.url))[0] == 201
        agent.documents["/keys"] = json.dumps(jwks(newer)).encode()
        assert "is not one of those" in await until(lambda: _reason(gateway))
        # The owner signs with the new key: all is well, and nothing has changed for anybody.
        monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
        agent.card = newer.sdk(plain, f"{agent.url}/keys")
        await gateway.client.post("/admin/cards/far:accept", headers=gateway.bearer(None))
        assert (await shown(gateway))["received"][0]["signatures"][0]["kid"] == "k2"
        assert (await shown(gateway))["received"][0]["changes"] == []


# The commands.


async def test_the_commands_say_what_became_of_a_card(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        key = CardKey()
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        agent.card = key.sdk(agent.card, f"{agent.url}/keys")
        assert (await add(gateway, agent.url))[0] == 201

        async def run(*words: str) -> Any:
            return await asyncio.to_thread(command, tmp_path, *words, url=gateway.url)

        mine = await run("cards", "verify", f"{gateway.url}/agents/echo")
        assert (mine.returncode, "verdict    verified" in mine.stdout) == (0, True), mine.stderr
        (tmp_path / "wrong.json").write_text(json.dumps(jwks(CardKey("k9"))))
        wrong = await run("cards", "verify", agent.url, "--keys", "wrong.json")
        assert (wrong.returncode, "unknown-key" in wrong.stdout) == (1, True)
        told = (await run("cards", "show", "far")).stdout
        assert "verified (ES256 k1): by one of the keys" in told
        assert "supportedInterfaces: clients come to the gateway" in told
        nobody = await run("cards", "show", "nobody")
        assert (nobody.returncode, "Known: echo, far" in nobody.stderr) == (1, True)


async def test_only_the_operator_looks_at_strangers_cards(tmp_path: Path) -> None:
    async with loopback.canary() as canary, running(tmp_path) as gateway:
        alice = gateway.bearer(await gateway.key("alice"))
        body = {"cardUrl": canary.url}
        assert (await gateway.client.post("/admin/cards:verify", json=body, headers=alice)).status_code == 403
        assert (await gateway.client.get("/admin/cards/echo", headers=alice)).status_code == 403
        assert (await gateway.client.post("/admin/cards/echo:accept", headers=alice)).status_code == 403


def _completes(agent: Scripted) -> None:
    @agent.on("SendMessage")
    async def _(asked: Any) -> None:
        asked.answer({"task": task("COMPLETED")})


def _message() -> Any:
    return {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}


async def _reason(gateway: Gateway) -> Any:
    return (await admin_agent(gateway, "far"))["reason"]


async def _card(gateway: Gateway) -> Any:
    return (await admin_agent(gateway, "far"))["card"]
