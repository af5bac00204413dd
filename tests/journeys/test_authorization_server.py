"""The gateway's own authorization server: client credentials from the metadata to the task, and how it refuses.

Tokens are taken apart and checked with bare cryptography here, not with the library that signed them.
"""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway.dialects.oauth2 import access_token as said
from tests.issuer import Clock, SigningKey, b64, compact
from tests.journeys.test_ownership import kept
from tests.remote import command, process
from tests.serving import A2A, ROOT, Gateway, running

ECHO = f"{{run: 'agents.echo:Echo', card: {ROOT}/agent_cards/echo.json"
AGENTS = f"agents:\n  echo: {ECHO}, public: true}}\n  other: {ECHO}, public: true}}\n"
FORM = {"content-type": "application/x-www-form-urlencoded"}
GRANT = {"grant_type": "client_credentials"}


@asynccontextmanager
async def giving(tmp_path: Path, settings: str = "", port: int = 0) -> AsyncIterator[tuple[Gateway, Clock]]:
    clock = Clock()
    text = f"auth: {{authorization_server: {{{settings}}}}}\n{AGENTS}"
    async with running(tmp_path, text, port=port, now=clock.now) as gateway:
        yield gateway, clock


async def client(gateway: Gateway, id: str = "agent-7", *scopes: str) -> str:
    """The secret of a new client."""
    body = {"id": id, "scopes": list(scopes)}
    answer = await gateway.client.post("/admin/clients", json=body, headers=gateway.bearer(None))
    assert answer.status_code == 201, answer.text
    secret: str = answer.json()["secret"]
    return secret


async def ask(
    gateway: Gateway, secret: str, id: str = "agent-7", path: str = "/oauth/token", **form: str
) -> httpx2.Response:
    fields = {**(GRANT if path.endswith("token") else {}), **form}
    return await gateway.client.post(path, data=fields, auth=httpx2.BasicAuth(id, secret))


async def token(gateway: Gateway, secret: str, id: str = "agent-7", **form: str) -> str:
    answer = await ask(gateway, secret, id, **form)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["access_token"]
    return found


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    header, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    return json.loads(header), json.loads(claims), signature


async def tasks(gateway: Gateway, token: str, agent: str = "echo") -> httpx2.Response:
    return await gateway.client.get(f"/agents/{agent}/tasks", headers={**A2A, **gateway.bearer(token)})


def refused(answer: httpx2.Response) -> str:
    assert answer.status_code == 401, answer.text
    return str(answer.headers["www-authenticate"].split('error_description="')[1].split('"')[0])


# From nothing to a task.


@pytest.mark.requirement("oauth.server.metadata", "oauth.server.client-credentials")
async def test_a_client_finds_its_way_from_a_401_to_a_task(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        http = gateway.client
        challenge = (await http.get("/agents/echo/tasks", headers=A2A)).headers["www-authenticate"]
        resource = (await http.get(challenge.split('resource_metadata="')[1].rstrip('"'))).json()
        (issuer,) = resource["authorization_servers"]
        about = (await http.get(f"{issuer}/.well-known/oauth-authorization-server")).json()
        assert about["issuer"] == issuer == gateway.url
        exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
        assert about["grant_types_supported"] == ["client_credentials", exchange]  # nobody can log in here
        assert not {"authorization_endpoint", "registration_endpoint", "scopes_supported"} & about.keys()
        answer = await http.post(
            about["token_endpoint"],
            data={**GRANT, "resource": resource["resource"]},
            auth=httpx2.BasicAuth("agent-7", secret),
        )
        assert answer.headers["cache-control"] == "no-store"
        got = answer.json()
        assert got.keys() == {"access_token", "token_type", "expires_in", "scope"}
        assert (got["token_type"], got["expires_in"]) == ("Bearer", 600)
        task = await gateway.task("hi", who=got["access_token"])
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        seen = {(entry.principal, entry.verb) for entry in await gateway.record()}
        assert {("oauth:gateway#agent-7", "IssueToken"), ("oauth:gateway#agent-7", "SendMessage")} <= seen


@pytest.mark.requirement("oauth.server.token-profile", "oauth.server.jwks")
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_a_token_is_what_rfc_9068_says_and_its_key_is_published(tmp_path: Path, algorithm: str) -> None:
    async with giving(tmp_path, f"algorithm: {algorithm}, token_seconds: 60") as (gateway, clock):
        secret = await client(gateway, "agent-7", "read", "write")
        made = await token(gateway, secret)
        header, claims, signature = parts(made)
        assert header == {"alg": algorithm, "typ": "at+jwt", "kid": header["kid"]}
        assert {name: claims[name] for name in ("iss", "aud", "sub", "client_id", "scope")} == {
            "iss": gateway.url, "aud": gateway.url, "sub": "agent-7", "client_id": "agent-7", "scope": "read write",
        }  # fmt: skip
        assert claims["exp"] - claims["iat"] == 60
        assert abs(claims["iat"] - clock.now() / 1000) < 10
        published = (await gateway.client.get("/.well-known/jwks.json")).json()["keys"]
        (jwk,) = [key for key in published if key["kid"] == header["kid"]]
        assert "d" not in jwk
        signed = made.rpartition(".")[0].encode()
        x, y = (base64.urlsafe_b64decode(jwk.get(name, "") + "==") for name in "xy")
        if algorithm == "EdDSA":
            ed25519.Ed25519PublicKey.from_public_bytes(x).verify(signature, signed)
        else:
            numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
            der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
            numbers.public_key().verify(der, signed, ec.ECDSA(hashes.SHA256()))
        assert (await tasks(gateway, made)).status_code == 200
        assert parts(await token(gateway, secret))[1]["jti"] != claims["jti"]
        clock.ahead += 95
        assert refused(await tasks(gateway, made)) == said.EXPIRED


@pytest.mark.requirement("oauth.server.resource")
async def test_a_token_for_one_agent_is_asked_for_by_its_url(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        made = await token(gateway, secret, resource=f"{gateway.url}/agents/echo")
        assert (await tasks(gateway, made)).status_code == 200
        assert refused(await tasks(gateway, made, "other")) == said.BAD_AUDIENCE
        ours = ("/admin", "/agents", "/agents/echo/", "/agents/echo/tasks", ".evil.example", "#x")
        for resource in (*(gateway.url + more for more in ours), "https://evil.example", "/agents/echo"):
            answer = await ask(gateway, secret, resource=resource)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target"), resource


@pytest.mark.requirement("oauth.server.scopes")
async def test_a_client_gets_the_scopes_that_it_was_given_and_no_others(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway, "agent-7", "read", "write")
        assert (await ask(gateway, secret, scope="read")).json()["scope"] == "read"
        assert (await ask(gateway, secret, scope="write read")).json()["scope"] == "write read"
        for scope in ("admin", "read admin", "READ"):
            answer = await ask(gateway, secret, scope=scope)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


async def test_two_clients_do_not_see_each_others_tasks(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        one = await token(gateway, await client(gateway, "one"), "one")
        two = await token(gateway, await client(gateway, "two"), "two")
        task = await gateway.task("hi", who=one)
        error = await gateway.error("GetTask", {"id": task["id"]}, who=two)
        assert error["data"][0]["reason"] == "TASK_NOT_FOUND"
        assert (await gateway.client.get("/admin/clients", headers=gateway.bearer(one))).status_code == 403


# Every way to be refused.


@pytest.mark.requirement("oauth.server.client-authentication")
async def test_who_is_not_that_client_gets_nothing_and_learns_nothing(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        other = await client(gateway, "other")
        body = urlencode(GRANT)
        basic = base64.b64encode(f"agent-7:{secret}".encode()).decode()
        wrong: list[tuple[dict[str, str], str]] = [
            ({}, body),
            ({}, urlencode({**GRANT, "client_id": "agent-7"})),
            ({}, urlencode({**GRANT, "client_id": "agent-7", "client_secret": other})),
            ({}, urlencode({**GRANT, "client_id": "nobody", "client_secret": secret})),
            ({"authorization": f"Bearer {secret}"}, body),
            ({"authorization": "Basic"}, body),
            ({"authorization": "Basic !!!"}, body),
            ({"authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()}, body),
            ({"authorization": "Basic " + base64.b64encode(b"agent-7").decode()}, body),
            ({"authorization": "Basic " + base64.b64encode(b"agent-7:").decode()}, body),
            ({"authorization": "Basic " + base64.b64encode(f"AGENT-7:{secret}".encode()).decode()}, body),
            ({"authorization": "Basic " + base64.b64encode(f"agent-7:{secret} ".encode()).decode()}, body),
            ({"authorization": f"Basic {basic}x"}, body),
        ]
        told = set()
        for headers, form in wrong:
            answer = await gateway.client.post("/oauth/token", content=form, headers={**FORM, **headers})
            assert answer.status_code == 401, (headers, answer.text)
            assert answer.json()["error"] == "invalid_client"
            assert "not known, or its secret is wrong" in answer.json()["error_description"]
            assert answer.headers["www-authenticate"] == 'Basic realm="gateway"'
            told.add(answer.text)
        assert len(told) == 1  # a client that is missing and a secret that is wrong are the same
        both = urlencode({**GRANT, "client_id": "agent-7", "client_secret": secret})
        answer = await gateway.client.post(
            "/oauth/token", content=both, headers={**FORM, "authorization": f"Basic {basic}"}
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert (await gateway.client.post("/oauth/token", content=both, headers=FORM)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "unsupported_grant_type"),
        (b"grant_type=password&username=a&password=b", 400, "unsupported_grant_type"),
        (b"grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
        (b"grant_type=refresh_token&refresh_token=x", 400, "unsupported_grant_type"),
        (b"grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        (b"grant_type=client_credentials&resource=a&resource=b", 400, "invalid_request"),
        (b"grant_type=client_credentials&scope=%ff", 400, "invalid_request"),
        (b"grant_type", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (b"&".join(b"a%d=b" % n for n in range(40)), 400, "invalid_request"),
        (b"grant_type=client_credentials&x=" + b"y" * 17_000, 400, "invalid_request"),
    ],
)
async def test_a_request_that_is_none(tmp_path: Path, body: bytes, status: int, error: str) -> None:
    async with giving(tmp_path) as (gateway, _):
        basic = httpx2.BasicAuth("agent-7", await client(gateway))
        answer = await gateway.client.post("/oauth/token", content=body, headers=FORM, auth=basic)
        assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text


async def test_only_forms_are_taken_and_only_by_post(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
            answer = await gateway.client.post(path, json=GRANT, auth=httpx2.BasicAuth("agent-7", secret))
            assert answer.status_code == 415
            assert (await gateway.client.get(path)).status_code == 405
            # Nor does an agent's tenant word ever take these paths.
            assert "WWW-Authenticate" not in (await gateway.client.post(path, headers=A2A)).headers


@pytest.mark.security
@pytest.mark.parametrize("change", ["iss", "aud", "alg none", "foreign key", "typ", "another's name"])
async def test_a_token_of_our_own_that_we_did_not_make_opens_nothing(tmp_path: Path, change: str) -> None:
    async with giving(tmp_path) as (gateway, _):
        made = await token(gateway, await client(gateway))
        header, claims, _ = parts(made)
        stranger = SigningKey.make(header["kid"])
        if change == "iss":
            claims["iss"] = "https://evil.example"
        elif change == "aud":
            claims["aud"] = "https://evil.example"
        elif change == "typ":
            header["typ"] = "JWT"
        elif change == "another's name":
            claims["sub"] = claims["client_id"] = "local"
        if change == "alg none":
            forged = f"{b64(json.dumps({**header, 'alg': 'none'}).encode())}.{made.split('.')[1]}."
        else:
            forged = compact(stranger, json.dumps(header).encode(), json.dumps(claims).encode())
        assert refused(await tasks(gateway, forged)) in {
            said.BAD_SIGNATURE, said.BAD_ALGORITHM, said.BAD_TYPE, said.BAD_ISSUER,
        }  # fmt: skip


# Taking it back.


@pytest.mark.requirement("oauth.server.revocation")
async def test_a_revoked_token_is_refused_at_once_and_after_a_restart(tmp_path: Path, port: int) -> None:
    async with giving(tmp_path, port=port) as (gateway, _):
        secret, thief = await client(gateway), await client(gateway, "thief")
        one, two = await token(gateway, secret), await token(gateway, secret)
        assert (await tasks(gateway, one)).status_code == 200
        for unknown in ("", "x", "a.b.c", one[:-4] + "AAAA"):
            assert (
                (await ask(gateway, secret, path="/oauth/revoke", token=unknown)).status_code == 200
                if unknown
                else True
            )
        assert (await ask(gateway, thief, "thief", "/oauth/revoke", token=one)).status_code == 200
        assert (await tasks(gateway, one)).status_code == 200  # not the thief's to revoke
        assert (await ask(gateway, "wrong", path="/oauth/revoke", token=one)).status_code == 401
        assert (await ask(gateway, secret, path="/oauth/revoke")).json()["error"] == "invalid_request"
        assert (await ask(gateway, secret, path="/oauth/revoke", token=one)).status_code == 200
        assert refused(await tasks(gateway, one)) == said.NOT_ACTIVE
        assert (await tasks(gateway, two)).status_code == 200
    text = f"auth: {{authorization_server: {{}}}}\n{AGENTS}"
    async with running(tmp_path, text, port=port) as gateway:
        assert refused(await tasks(gateway, one)) == said.NOT_ACTIVE
        assert (await tasks(gateway, two)).status_code == 200


@pytest.mark.requirement("oauth.server.revocation")
async def test_what_is_revoked_is_not_good_again_behind_its_end(tmp_path: Path) -> None:
    """Revocations are forgotten when their tokens have ended, and our own clock is no other one: there is no leeway."""
    async with giving(tmp_path) as (gateway, clock):
        secret = await client(gateway)
        one, plain = await token(gateway, secret), await token(gateway, secret)
        assert (await ask(gateway, secret, path="/oauth/revoke", token=one)).status_code == 200
        clock.ahead += 601
        last = await token(gateway, secret)
        assert (await ask(gateway, secret, path="/oauth/revoke", token=last)).status_code == 200
        for ended in (one, plain):
            assert refused(await tasks(gateway, ended)) == said.EXPIRED
            assert (await ask(gateway, secret, path="/oauth/introspect", token=ended)).json() == {"active": False}


async def test_a_hint_that_is_not_known_here_means_nothing(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        one = await token(gateway, secret)
        hint = {"token": one, "token_type_hint": "urn:example:other"}
        assert (await ask(gateway, secret, path="/oauth/introspect", **hint)).json()["active"]
        assert (await ask(gateway, secret, path="/oauth/revoke", **hint)).status_code == 200
        assert refused(await tasks(gateway, one)) == said.NOT_ACTIVE


async def test_a_revoked_client_takes_its_tokens_with_it_and_its_name_is_not_given_again(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        made = await token(gateway, secret)
        assert (await tasks(gateway, made)).status_code == 200
        gone = await gateway.client.delete("/admin/clients/agent-7", headers=gateway.bearer(None))
        assert gone.status_code == 204
        assert refused(await tasks(gateway, made)) == said.NOT_ACTIVE
        assert (await ask(gateway, secret)).json()["error"] == "invalid_client"
        again = await gateway.client.post("/admin/clients", json={"id": "agent-7"}, headers=gateway.bearer(None))
        assert again.status_code == 409


async def test_a_new_secret_ends_the_old_one_and_what_was_got_with_it_and_the_client_stays(
    tmp_path: Path, port: int
) -> None:
    async with giving(tmp_path, port=port) as (gateway, clock):
        old, other = await client(gateway), await client(gateway, "agent-8")
        stolen, others = await token(gateway, old), await token(gateway, other, "agent-8")
        task = await gateway.task("hi", who=stolen)
        clock.ahead += 2
        answer = await gateway.client.post("/admin/clients/agent-7:rotate", headers=gateway.bearer(None))
        assert answer.status_code == 200, answer.text
        new = answer.json()["secret"]
        assert new != old
        assert refused(await tasks(gateway, stolen)) == said.NOT_ACTIVE
        assert (await ask(gateway, old)).json()["error"] == "invalid_client"
        again = await token(gateway, new)
        assert (await gateway.result("GetTask", {"id": task["id"]}, who=again))["id"] == task["id"]
        assert (await tasks(gateway, others)).status_code == 200
    text = f"auth: {{authorization_server: {{users: true}}}}\n{AGENTS}"
    async with running(tmp_path, text, port=port, now=clock.now) as gateway:
        assert refused(await tasks(gateway, stolen)) == said.NOT_ACTIVE
        assert (await tasks(gateway, again)).status_code == 200
        assert (await ask(gateway, old)).json()["error"] == "invalid_client"
        public = {"id": "open", "public": True, "grants": ["device_code"]}
        assert (
            await gateway.client.post("/admin/clients", json=public, headers=gateway.bearer(None))
        ).status_code == 201
        for id, status in (("open", 400), ("nobody", 404)):
            answer = await gateway.client.post(f"/admin/clients/{id}:rotate", headers=gateway.bearer(None))
            assert (answer.status_code, "secret" in answer.json()) == (status, False), answer.text


@pytest.mark.requirement("oauth.server.introspection")
async def test_a_client_may_ask_about_its_own_tokens_only(tmp_path: Path) -> None:
    async with giving(tmp_path) as (gateway, clock):
        secret, other = await client(gateway, "agent-7", "read"), await client(gateway, "other")
        made = await token(gateway, secret)
        answer = (await ask(gateway, secret, path="/oauth/introspect", token=made)).json()
        assert answer == {"active": True, "token_type": "Bearer", **parts(made)[1]}
        no = {"active": False}
        assert (await ask(gateway, other, "other", "/oauth/introspect", token=made)).json() == no
        assert (await ask(gateway, secret, path="/oauth/introspect", token="x")).json() == no
        assert (await ask(gateway, secret, path="/oauth/introspect", token=secret)).json() == no
        assert (await ask(gateway, "wrong", path="/oauth/introspect", token=made)).status_code == 401
        clock.ahead += 700
        assert (await ask(gateway, secret, path="/oauth/introspect", token=made)).json() == no


# Keys and secrets.


@pytest.mark.requirement("oauth.server.key-rotation")
async def test_keys_are_rotated_without_a_token_being_refused(tmp_path: Path) -> None:
    async with giving(tmp_path, "rotate_days: 2, token_seconds: 3600") as (gateway, clock):
        secret = await client(gateway)
        published: list[set[str]] = []

        async def now() -> tuple[str, str]:
            made = await token(gateway, secret)
            keys = (await gateway.client.get("/.well-known/jwks.json")).json()["keys"]
            published.append({key["kid"] for key in keys})
            return parts(made)[0]["kid"], made

        first, _ = await now()
        clock.ahead += 2 * 86_400 + 1
        second, made = await now()
        assert second == first  # the new key is there, and does not sign yet
        assert len(published[-1]) == 2
        clock.ahead += 86_400 - 1800
        assert (await now())[0] == first
        clock.ahead += 1801
        third, fresh = await now()
        assert third != first
        assert published[-1] == {first, third}
        assert (await tasks(gateway, fresh)).status_code == 200
        clock.ahead += 3700
        assert (await now())[0] == third
        assert published[-1] == {third}
        assert len(list((tmp_path / "oauth-keys").iterdir())) == 1
        assert refused(await tasks(gateway, made)) in (said.EXPIRED, said.UNKNOWN_KEY)


async def test_secrets_are_kept_as_hashes_and_keys_for_their_owner_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with giving(tmp_path) as (gateway, _):
        secret = await client(gateway)
        made = await token(gateway, secret)
        listed = (await gateway.client.get("/admin/clients", headers=gateway.bearer(None))).text
        assert "agent-7" in listed
        assert (await tasks(gateway, made)).status_code == 200
        for word in (secret, made.split(".")[2]):
            assert word not in listed
            assert word not in caplog.text
            assert word.encode() not in kept(tmp_path)
    folder = tmp_path / "oauth-keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


async def test_a_gateway_without_a_server_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS) as gateway:
        answer = await gateway.client.post("/admin/clients", json={"id": "x"}, headers=gateway.bearer(None))
        assert "auth.authorization_server" in answer.json()["error"]["message"]
        for path in ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server"):
            assert (await gateway.client.get(path)).status_code == 404


@pytest.mark.parametrize("id", ["", "a b", "a/b", "-a", "a" * 64, "a#b", "ä"])
async def test_a_client_needs_a_name_that_can_be_written_everywhere(tmp_path: Path, id: str) -> None:
    async with giving(tmp_path) as (gateway, _):
        answer = await gateway.client.post("/admin/clients", json={"id": id}, headers=gateway.bearer(None))
        assert answer.status_code == 400


# The program.


def test_two_commands_give_an_agent_a_token(tmp_path: Path) -> None:
    text = f"auth: {{authorization_server: {{}}}}\n{AGENTS}"
    with process(tmp_path, text) as gateway:
        made = command(tmp_path, "clients", "add", "agent-7", "--scope", "read", url=gateway.url)
        assert made.returncode == 0, made.stderr
        (tmp_path / "secret").write_text(made.stdout)
        words = ("token", "--client", "agent-7", "--secret-file", "secret")
        got = command(tmp_path, *words, "--agent", "echo", url=gateway.url)
        assert got.returncode == 0, got.stderr
        assert parts(got.stdout)[1]["aud"] == f"{gateway.url}/agents/echo"
        sent = command(tmp_path, "send", "echo", "hi", url=gateway.url, GATEWAY_TOKEN=got.stdout.strip())
        assert sent.stdout == "hi\n", sent.stderr
        by_environment = command(
            tmp_path, *words[:3], "--scope", "read", url=gateway.url, GATEWAY_CLIENT_SECRET=made.stdout.strip()
        )
        assert parts(by_environment.stdout)[1]["scope"] == "read"
        listed = command(tmp_path, "clients", "list", url=gateway.url)
        assert listed.stdout.splitlines()[1].split()[:2] == ["agent-7", "read"]
        assert command(tmp_path, "clients", "revoke", "agent-7", url=gateway.url).returncode == 0
        refused = command(tmp_path, *words, url=gateway.url)
        assert refused.returncode == 1
        assert "This client is not known" in refused.stderr
        nothing = command(tmp_path, *words[:3], url=gateway.url)
        assert nothing.returncode == 2
        assert "GATEWAY_CLIENT_SECRET" in nothing.stderr
