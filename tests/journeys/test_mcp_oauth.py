"""Tool servers that ask for OAuth, through the front door: who has to do what, and what nobody gets to see."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.authority import Authority, Guarded, authority, browse, guarded, said
from tests.mcp import Door, modern
from tests.remote import PROGRAM, environment
from tests.serving import BOUND, Gateway, running
from tests.vaults import opened

REDIRECT = "http://127.0.0.1:7777/callback"


def configuration(server: Guarded, oauth: str = "{}") -> str:
    return f"""
tools:
  docs: {{url: "{server.url}", oauth: {oauth}}}
mounts:
  docs: {{tools: [docs], naming: identity}}
grants:
  - {{to: ann, tools: [docs]}}
egress: {{allow_loopback: true}}
"""


async def admin(gateway: Gateway, verb: str, who: str | None = None, **body: str) -> httpx2.Response:
    return await gateway.client.post(f"/admin/tools:{verb}", json=body, headers=gateway.bearer(who))


async def login(gateway: Gateway, server: str = "docs") -> None:
    begun = await admin(gateway, "login", server=server, redirectUri=REDIRECT)
    back = await browse(begun.json()["authorizationUrl"])
    done = await admin(gateway, "authorized", server=server, response=back)
    assert (done.status_code, done.json()) == (200, {"up": True}), done.text


async def reason(gateway: Gateway) -> str:
    (server,) = [
        each
        for each in (await gateway.client.get("/admin/tools", headers=gateway.bearer(None))).json()["servers"]
        if each["id"] == "docs"
    ]
    return str(server["reason"])


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def strings(by: Authority) -> list[str]:
    assert by.secrets
    return by.secrets


@pytest.mark.requirement("mcp.client.no-token-passthrough")
async def test_without_an_authorization_everybody_is_told_the_command_and_nobody_is_challenged(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        door = Door(gateway, "docs", await gateway.key("ann"))
        assert await door.names() == []
        assert "run `gateway tools login docs`" in await reason(gateway)
        await login(gateway)
        assert await door.names() == ["hello"]
        by.revoke()
        await admin(gateway, "logout", server="docs")
        for _ in range(7):  # longer than a breaker has patience: it would hide the reason
            answer = await door.post("tools/call", modern({"name": "hello", "arguments": {}}))
            assert answer.status_code not in (401, 403)
            assert "www-authenticate" not in answer.headers
            assert "run `gateway tools login docs`" in answer.json()["error"]["message"]
        assert not any(door.who in json.dumps(sent) for sent in server.sent if door.who)


async def test_a_call_succeeds_after_a_login_and_after_a_restart_with_a_new_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with authority() as by, guarded(by) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            door = Door(gateway, "docs", await gateway.key("ann"))
            await login(gateway)
            assert (await door.call("hello"))["content"][0]["text"] == "hello"
            shown = (await gateway.client.get("/admin/tools", headers=gateway.bearer(None))).text
        vault = await opened(tmp_path / "oauth")
        kept = vault.load("docs")
        kept["held"]["expires"] = kept["held"]["since"] + 1000  # as if the gateway had been away for long
        kept["held"]["since"] -= 60_000
        vault.keep("docs", kept)
        async with running(tmp_path, configuration(server)) as gateway:
            assert (await Door(gateway, "docs").call("hello"))["content"][0]["text"] == "hello"
        assert [form["grant_type"] for form in by.forms][:2] == ["authorization_code", "refresh_token"]
        files = contents(tmp_path)
        assert not any(each in shown or each in caplog.text or each.encode() in files for each in strings(by))


async def test_a_machine_needs_nobody(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret-of-the-operator\n")
    oauth = f"{{grant: client_credentials, client_id: gw, client_secret: {{file: {secret}}}, scopes: [read]}}"
    async with authority() as by, guarded(by) as server:
        async with running(tmp_path / "data", configuration(server, oauth)) as gateway:
            assert (await Door(gateway, "docs").call("hello"))["content"][0]["text"] == "hello"
            refused = await admin(gateway, "login", server="docs", redirectUri=REDIRECT)
            assert refused.status_code == 400
            assert "nobody logs in" in refused.text
        assert by.forms[0]["scope"] == "read"


@pytest.mark.security
async def test_only_the_machines_own_credential_logs_in_and_only_to_loopback(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        ann = await gateway.key("ann")
        for verb, body in (
            ("login", {"redirectUri": REDIRECT}),
            ("authorized", {"response": f"{REDIRECT}?code=a&state=b"}),
            ("logout", {}),
        ):
            assert (await admin(gateway, verb, ann, server="docs", **body)).status_code == 403
        for elsewhere in (
            "https://evil.example/callback",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:80@evil.example/callback",
            "http://localhost:7777/callback",
            "http://127.0.0.1:7777/callback?x=1",
            "http://127.0.0.1:x/callback",
        ):
            assert (await admin(gateway, "login", server="docs", redirectUri=elsewhere)).status_code == 400, elsewhere
        assert (await admin(gateway, "login", server="nothing", redirectUri=REDIRECT)).status_code == 404
        assert not by.asked


@pytest.mark.requirement("oauth.client.revocation")
async def test_who_logs_out_gives_the_tokens_back_and_hears_what_the_issuer_did(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        by.takes_back()
        await login(gateway)
        held = set(by.tokens)
        done = await admin(gateway, "logout", server="docs")
        assert (done.status_code, done.json()) == (200, {"forgotten": True, "issuer": "revoked", "callers": {}})
        assert [kind for kind, _ in by.revoked] == ["refresh_token", "access_token"]
        assert held
        assert not by.tokens
        assert not by.refreshes
        again = await admin(gateway, "logout", server="docs")
        assert again.json() == {"forgotten": False, "issuer": None, "callers": {}}
        await login(gateway)
        by.instead["/revoke"] = said({"error": "server_error"}, "503 Service Unavailable")
        leaving = await command(gateway, "tools", "logout", "docs")
        _, err = await asyncio.wait_for(leaving.communicate(), BOUND)
        assert leaving.returncode == 0
        assert b"Forgotten, but its issuer did not revoke its tokens: end it there, too." in err
        assert (
            "run `gateway tools login docs`"
            in (await Door(gateway, "docs").error("tools/call", {"name": "hello"}))["message"]
        )


async def command(gateway: Gateway, *words: str) -> Any:
    """The program, as a person starts it."""
    return await asyncio.create_subprocess_exec(
        str(PROGRAM),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(gateway.app.settings.data), "GATEWAY_URL": gateway.url},
    )


async def test_a_person_logs_in_and_out_at_the_terminal(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        person = await command(gateway, "tools", "login", "docs")
        url = (await asyncio.wait_for(person.stdout.readline(), BOUND)).decode().strip()
        back = await browse(url)
        assert back.startswith("http://127.0.0.1:")
        async with httpx2.AsyncClient(trust_env=False, timeout=BOUND) as browser:
            origin = back.partition("/callback")[0]
            # Other pages of the browser can call the port; what they say is no answer.
            assert (await browser.get(f"{origin}/favicon.ico")).status_code == 404
            assert (await browser.get(f"{origin}/callback?code=evil&state=guess")).status_code == 404
            page = await browser.get(back)
        assert page.status_code == 200
        assert "code" not in page.text
        out, err = await asyncio.wait_for(person.communicate(), BOUND)
        assert person.returncode == 0, err
        assert b"The gateway may use docs now." in err
        assert not any(secret.encode() in out + err for secret in strings(by))
        assert (await Door(gateway, "docs").call("hello"))["content"][0]["text"] == "hello"
        nothing = b"Forgotten, but its issuer revokes nothing: tokens that somebody else has seen are good as long"
        for words in (nothing, b"There was no authorization for docs."):
            leaving = await command(gateway, "tools", "logout", "docs")
            _, err = await asyncio.wait_for(leaving.communicate(), BOUND)
            assert leaving.returncode == 0
            assert words in err
