"""The gateway as an OAuth client of a tool server: real loopback servers, honest and hostile; time is given in."""

from __future__ import annotations

import asyncio
import logging
import shutil
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from gateway.model.errors import Reason
from gateway.model.login import Ending, LoginNeeded
from gateway.model.tool import Kind, Tree
from gateway.upstream.address import EgressRules
from gateway.upstream.oauth.challenge import bearer
from gateway.upstream.oauth.client import ClientSettings, Grant
from gateway.upstream.secret import Secret
from tests.authority import SERVER_METADATA, Authority, Guarded, authority, basic, browse, guarded, said
from tests.serving import BOUND
from tests.tokenclient import REDIRECT, Client, client, refusal
from tests.upstream.loopback import Request, answer, canary
from tests.vaults import opened

MACHINE = ClientSettings(Grant.CLIENT_CREDENTIALS, "gw id", Secret(variable="SECRET"))


@dataclass
class World:
    authority: Authority
    server: Guarded
    client: Client
    data: Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with authority() as by, guarded(by) as server, client(server.url, tmp_path) as one:
        yield World(by, server, one, tmp_path)


# --- From nothing to a token. ------------------------------------------------------------------------------


@pytest.mark.requirement("mcp.client.oauth.discovery", "mcp.client.oauth.pkce", "mcp.client.oauth.resource")
async def test_a_person_logs_in_and_the_call_goes_through(world: World) -> None:
    error = await refusal(world.client.call())
    assert isinstance(error, LoginNeeded)
    assert "gateway tools login docs" in error.message
    await world.client.login()
    assert (await world.client.call())["content"][0]["text"] == "hello"
    (asked,), (form,) = world.authority.asked, world.authority.forms
    assert asked["resource"] == form["resource"] == world.server.url
    assert asked["redirect_uri"] == REDIRECT
    assert "scope" not in asked, "nobody named a scope"


@pytest.mark.requirement("mcp.client.oauth.registration")
async def test_a_registration_is_native_and_its_secret_is_encoded_as_the_rfc_says(world: World) -> None:
    await world.client.login()
    (registered,) = world.authority.registered
    assert registered["application_type"] == "native"
    assert registered["grant_types"] == ["authorization_code", "refresh_token"]
    assert registered["redirect_uris"] == [REDIRECT]
    assert basic(world.authority.authorizations[0]) == ["client-1", "s3cret/+&"]
    assert "client_secret" not in world.authority.forms[0]


async def test_a_machine_gets_its_own_token_without_anybody(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, scopes=["read", "write"]) as server:
        async with client(server.url, tmp_path, MACHINE) as one:
            await one.call()
        assert basic(by.authorizations[0]) == ["gw id", "a/b+c:d"]
        assert by.forms == [{"grant_type": "client_credentials", "resource": server.url, "scope": "read write"}]
        assert not by.registered


@pytest.mark.requirement("mcp.client.oauth.registration")
async def test_a_metadata_document_is_used_where_the_server_takes_one(tmp_path: Path) -> None:
    settings = ClientSettings(Grant.AUTHORIZATION_CODE, client_metadata="https://gw.example/client.json")
    async with authority(metadata={"client_id_metadata_document_supported": True}) as by, guarded(by) as server:
        async with client(server.url, tmp_path, settings) as one:
            await one.login()
        assert by.asked[0]["client_id"] == by.forms[0]["client_id"] == "https://gw.example/client.json"
        assert not by.registered


@pytest.mark.requirement("mcp.client.oauth.scopes")
async def test_scopes_are_those_of_the_challenge_then_of_the_resource_then_none(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, scopes=["a", "b"]) as server, client(server.url, tmp_path) as one:
        await one.login()
        server.challenge = server._said() + ', scope="c"'
        await one.source.forget()
        await refusal(one.call())
        await one.login()
        assert [each.get("scope") for each in by.asked] == ["a b", "c"]


async def test_offline_access_is_asked_for_only_where_it_is_listed(tmp_path: Path) -> None:
    listed = {"scopes_supported": ["a", "offline_access"]}
    async with authority(metadata=listed) as by, guarded(by, scopes=["a"]) as server:
        async with client(server.url, tmp_path) as one:
            await one.login()
            by.metadata = {}
            await one.login()
        assert [each["scope"] for each in by.asked] == ["a offline_access", "a"]


# --- A token's life. ---------------------------------------------------------------------------------------


async def test_a_token_is_renewed_ahead_of_its_end_once_for_all_who_wait(world: World) -> None:
    await world.client.login()
    await world.client.call()
    world.client.later(3600 - 30)
    await asyncio.gather(*(world.client.call() for _ in range(8)))
    assert [form["grant_type"] for form in world.authority.forms] == ["authorization_code", "refresh_token"]
    assert world.authority.forms[1]["resource"] == world.server.url
    assert len(world.server.calls) == 9


async def test_a_refresh_token_that_is_rotated_is_used_once_and_one_that_is_not_again(world: World) -> None:
    await world.client.login()
    for rotates in (True, True, False, False):
        world.authority.rotates = rotates
        world.client.later(3600)
        await world.client.call()
    used = [form["refresh_token"] for form in world.authority.forms[1:]]
    assert len(set(used[:3])) == 3
    assert used[2] == used[3]


async def test_a_revoked_grant_needs_a_person_again_and_says_which_command(world: World) -> None:
    await world.client.login()
    await world.client.call()
    world.authority.refreshes.clear()
    world.client.later(3600)
    error = await refusal(world.client.call())
    assert isinstance(error, LoginNeeded)
    assert "<b>" not in error.message
    await world.client.login()
    await world.client.call()


async def test_a_token_that_dies_before_its_time_is_replaced_and_the_call_repeated(world: World) -> None:
    await world.client.login()
    await world.client.call()
    world.client.later(60)
    world.authority.revoke()
    await world.client.call()
    assert [form["grant_type"] for form in world.authority.forms] == ["authorization_code", "refresh_token"]


async def test_a_token_that_dies_under_many_calls_is_replaced_once(world: World) -> None:
    await world.client.login()
    await world.client.call()
    world.client.later(60)
    world.authority.revoke()
    await asyncio.gather(*(world.client.call() for _ in range(8)))
    assert len(world.authority.forms) == 2


async def test_a_server_that_refuses_every_token_is_not_asked_again_and_again(world: World) -> None:
    await world.client.login()
    await world.client.call()
    world.server.refuses = True
    world.client.later(60)
    for _ in range(3):
        error = await refusal(world.client.call())
    assert "does not accept the gateway's credential" in error.message
    assert len(world.authority.forms) == 2, "one try with a new token, and then no more"


@pytest.mark.parametrize("life", [0, -5, True, "soon", 10**15, 1e300, None, [], "0"])
async def test_a_lie_about_the_lifetime_is_no_lifetime(tmp_path: Path, life: Any) -> None:
    async with authority(life=life) as by, guarded(by) as server, client(server.url, tmp_path) as one:
        await one.login()
        one.later(10 * 365 * 86_400)
        await one.call()
        assert len(by.forms) == 1


async def test_a_very_short_life_does_not_make_each_call_fetch_a_token(tmp_path: Path) -> None:
    async with authority(life=1) as by, guarded(by) as server, client(server.url, tmp_path, MACHINE) as one:
        for _ in range(5):
            await one.call()
            one.later(1)
        assert len(by.forms) == 1


async def test_a_token_endpoint_that_is_down_costs_nothing_while_the_token_is_good(world: World) -> None:
    await world.client.login()
    world.authority.instead["/token"] = answer(b"busy", "503 Service Unavailable")
    world.client.later(3600 - 30)
    await world.client.call()
    await world.client.call()
    world.client.later(31)
    assert (await refusal(world.client.call())).reason is Reason.UPSTREAM_FAILED
    del world.authority.instead["/token"]
    await world.client.call()


# --- More rights. ------------------------------------------------------------------------------------------


@pytest.mark.requirement("mcp.client.oauth.step-up")
async def test_more_rights_are_asked_for_on_top_of_those_before_and_never_twice(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, scopes=["read"]) as server, client(server.url, tmp_path) as one:
        server.needs = "write"
        await one.login()
        error = await refusal(one.call())
        assert isinstance(error, LoginNeeded)
        assert "(write)" in error.message
        by.grants = "read"  # whatever is asked for
        await one.login()
        assert [each["scope"] for each in by.asked] == ["read", "read write"]
        refused = await refusal(one.call())
        assert not isinstance(refused, LoginNeeded)
        assert "HTTP 403" in refused.message
        by.grants = None
        await one.source.forget()
        await refusal(one.call())
        await one.login()
        await refusal(one.call())
        await one.login()
        await one.call()


async def test_a_machine_steps_up_by_itself_and_gives_up_when_it_is_not_enough(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, scopes=["read"], needs="write") as server:
        async with client(server.url, tmp_path, MACHINE) as one:
            await one.call()
            by.grants = "read"
            by.revoke()
            one.later(60)
            for _ in range(3):
                assert "HTTP 403" in (await refusal(one.call())).message
        assert [each["scope"] for each in by.forms] == ["read", "read write", "read write"]


# --- Whom we believe. --------------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.issuer")
@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"issuer": "https://other.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"code_challenge_methods_supported": None}, "S256"),
        ({"code_challenge_methods_supported": ["plain"]}, "S256"),
        ({"token_endpoint": "http://as.example/token"}, "token_endpoint is no https URL"),
        ({"token_endpoint": None}, "no token endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is no https URL"),
        ({"authorization_endpoint": None}, "no authorization endpoint"),
        ({"registration_endpoint": None}, "oauth.client_id"),
    ],
)
async def test_an_authorization_server_that_is_not_what_it_should_be_sees_nobody(
    tmp_path: Path, metadata: Tree, words: str
) -> None:
    async with authority(metadata=metadata) as by, guarded(by) as server, client(server.url, tmp_path) as one:
        assert words in (await refusal(one.source.begin(REDIRECT))).message
        assert not by.forms
        assert not by.registered


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.resource")
@pytest.mark.parametrize("resource", ["https://bank.example/mcp", "PATH/mcp2", "PATH/mc", "", None, 7])
async def test_metadata_about_another_resource_gets_no_token(tmp_path: Path, resource: Any) -> None:
    async with authority() as by, guarded(by) as server, client(server.url, tmp_path) as one:
        path = server.url.removesuffix("/mcp")
        server.metadata = {"resource": resource.replace("PATH", path) if isinstance(resource, str) else resource}
        assert "another resource" in (await refusal(one.source.begin(REDIRECT))).message
        assert not by.asked


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.iss")
@pytest.mark.parametrize(
    ("iss", "says", "right"),
    [
        (None, True, True),
        (None, False, True),
        ("", False, True),
        ("", True, False),
        ("https://evil.example", True, False),
        ("https://evil.example", False, False),
        ("SAME/", True, False),
        ("SAME", True, True),
    ],
)
async def test_an_answer_counts_only_from_the_issuer_that_was_asked(
    tmp_path: Path, iss: str | None, says: bool, right: bool
) -> None:
    told = {"authorization_response_iss_parameter_supported": says or None}
    async with authority(metadata=told) as by, guarded(by) as server, client(server.url, tmp_path) as one:
        by.iss = iss.replace("SAME", by.issuer) if iss else iss
        if right:
            await one.login()
            await one.call()
        else:
            assert "authorization server" in (await refusal(one.login())).message
            assert not by.forms, "the code went nowhere"


@pytest.mark.security
async def test_an_answer_counts_once_for_its_own_question_and_in_time(world: World) -> None:
    back = await browse(await world.client.source.begin(REDIRECT))
    query = dict(parse_qsl(urlsplit(back).query))
    for wrong in ({**query, "state": "guess"}, {"code": "x"}):
        assert (await refusal(world.client.source.finish(f"{REDIRECT}?{urlencode(wrong)}"))).reason is (
            Reason.INVALID_PARAMS
        )
    assert (await refusal(world.client.source.finish(f"{back}&code=other"))).reason is Reason.INVALID_PARAMS
    assert not world.authority.forms
    await world.client.source.finish(back)
    assert (await refusal(world.client.source.finish(back))).reason is Reason.INVALID_PARAMS
    late = await browse(await world.client.source.begin(REDIRECT))
    world.client.later(601)
    assert (await refusal(world.client.source.finish(late))).reason is Reason.INVALID_PARAMS
    assert len(world.authority.forms) == 1


async def test_a_person_who_says_no_is_heard_without_the_servers_words(world: World) -> None:
    url = await world.client.source.begin(REDIRECT)
    state = dict(parse_qsl(urlsplit(url).query))["state"]
    no = {"error": "access_denied", "error_description": "<script>", "state": state, "iss": world.authority.issuer}
    error = await refusal(world.client.source.finish(f"{REDIRECT}?{urlencode(no)}"))
    assert "access_denied" in error.message
    assert "script" not in error.message


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.issuer")
async def test_what_one_issuer_gave_never_reaches_another(world: World) -> None:
    await world.client.login()
    await world.client.call()
    async with authority() as other:
        world.server.authority = other
        world.client.later(60)
        assert isinstance(await refusal(world.client.call()), LoginNeeded)
        await world.client.login()
        await world.client.call()
        seen = f"{other.forms} {other.asked} {other.authorizations}"
        assert len(other.registered) == 1, "registered anew"
        assert not any(secret in seen for secret in world.authority.secrets)
        assert "refresh_token" not in [form["grant_type"] for form in other.forms]


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.issuer")
async def test_a_client_of_the_operators_stays_with_the_issuer_it_was_first_used_with(tmp_path: Path) -> None:
    async with authority() as by, authority() as other, guarded(by) as server:
        async with client(server.url, tmp_path, MACHINE) as one:
            await one.call()
            server.authority = other
            one.later(60)
            assert "client_id was used with" in (await refusal(one.call())).message
        assert not other.forms


@pytest.mark.security
async def test_a_pinned_issuer_is_the_only_one(tmp_path: Path) -> None:
    settings = ClientSettings(Grant.CLIENT_CREDENTIALS, "id", Secret(variable="SECRET"), issuer="https://as.example")
    async with authority() as by, guarded(by) as server, client(server.url, tmp_path, settings) as one:
        assert "pins" in (await refusal(one.call())).message
        assert not by.forms


# --- Where we go. ------------------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.ssrf")
async def test_a_metadata_url_of_a_stranger_opens_no_private_address(tmp_path: Path) -> None:
    rules = EgressRules()  # the server itself is the operator's; what it names is not
    async with canary() as inner, authority() as by, guarded(by) as server:
        for challenge in (
            f'Bearer resource_metadata="{inner.url}/latest"',
            'Bearer resource_metadata="http://169.254.169.254/latest/meta-data"',
            'Bearer resource_metadata="file:///etc/passwd"',
        ):
            server.challenge = challenge
            async with client(server.url, tmp_path, rules=rules) as one:
                assert (await refusal(one.call())).reason is Reason.EGRESS_REFUSED
        server.challenge = None
        server.metadata = {"authorization_servers": [inner.url]}
        async with client(server.url, tmp_path, rules=rules) as one:
            assert (await refusal(one.call())).reason is Reason.EGRESS_REFUSED
        assert inner.connections == 0


@pytest.mark.security
@pytest.mark.requirement("mcp.client.oauth.ssrf")
async def test_a_token_endpoint_of_a_stranger_opens_no_private_address(tmp_path: Path) -> None:
    async with canary() as inner, authority() as by, guarded(by) as server:
        by.metadata = {"token_endpoint": f"{inner.url}/token"}
        # Only the authority's own port may be called.
        rules = EgressRules(allow=(f"127.0.0.1:{by.port}",))
        async with client(server.url, tmp_path, MACHINE, rules=rules) as one:
            assert (await refusal(one.call())).reason is Reason.EGRESS_REFUSED


@pytest.mark.security
async def test_redirects_lead_nowhere(world: World) -> None:
    by = world.authority
    by.instead[SERVER_METADATA] = answer(b"", "302 Found", location=f"{by.issuer}{SERVER_METADATA}")
    assert "no metadata" in (await refusal(world.client.source.begin(REDIRECT))).message
    del by.instead[SERVER_METADATA]
    by.instead["/token"] = answer(b"", "307 Temporary Redirect", location=f"{by.issuer}/elsewhere")
    assert "no token" in (await refusal(world.client.login())).message


@pytest.mark.security
@pytest.mark.parametrize("path", [SERVER_METADATA, "/token"])
async def test_a_huge_answer_is_not_read(world: World, path: str) -> None:
    world.authority.instead[path] = answer(b"[" + b" " * 5_000_000 + b"]")
    assert (await refusal(world.client.login())).reason is Reason.UPSTREAM_TOO_LARGE


@pytest.mark.security
async def test_a_slow_answer_is_not_waited_for(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def silence(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()

    async with authority() as by, guarded(by) as server:
        by.instead[SERVER_METADATA] = silence
        async with client(server.url, tmp_path, seconds=0.1) as one:
            assert (await refusal(one.call())).reason is Reason.UPSTREAM_TIMEOUT
        await asyncio.wait_for(left.wait(), 10)


@pytest.mark.security
@pytest.mark.parametrize(
    "tree",
    [
        {"token_type": "Bearer"},
        {"access_token": "a\r\nx: y", "token_type": "Bearer"},
        {"access_token": "a b", "token_type": "Bearer"},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": "a"},
        {"access_token": 7, "token_type": "Bearer"},
        {"access_token": "a" * 20_000, "token_type": "Bearer"},
    ],
)
async def test_what_is_no_bearer_token_is_not_used_as_one(world: World, tree: Tree) -> None:
    world.authority.instead["/token"] = said(tree)
    assert (await refusal(world.client.login())).reason is Reason.UPSTREAM_FAILED
    assert isinstance(await refusal(world.client.call()), LoginNeeded)


# --- What is kept, and what is shown. ----------------------------------------------------------------------


@pytest.mark.security
async def test_tokens_are_sealed_on_disk_and_survive_a_restart(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await world.client.login()
    await world.client.call()
    folder = world.data / "oauth"
    files = sorted(folder.iterdir())
    assert [each.name for each in files] == [".check", "docs.shared", "key"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = b"".join(each.read_bytes() for each in files)
    assert not any(secret.encode() in kept or secret in caplog.text for secret in world.authority.secrets)
    async with client(world.server.url, world.data) as again:
        await again.call()
    assert len(world.authority.forms) == 1


@pytest.mark.security
async def test_a_sealed_file_opens_for_its_own_server_only_and_not_when_it_was_changed(world: World) -> None:
    await world.client.login()
    vault = await opened(world.data / "oauth")
    file = world.data / "oauth" / "docs.shared"
    assert vault.load("docs")["held"]["access"] in world.authority.tokens
    assert vault.load("docs", "key:ann") == {}
    (world.data / "oauth" / "mail.shared").write_bytes(file.read_bytes())
    assert vault.load("mail") == {}
    *whole, last = file.read_bytes()
    file.write_bytes(bytes([*whole, last ^ 1]))
    assert vault.load("docs") == {}
    async with client(world.server.url, world.data) as again:
        assert isinstance(await refusal(again.call()), LoginNeeded)


@pytest.mark.security
async def test_another_address_under_the_same_name_gets_none_of_the_tokens(world: World) -> None:
    await world.client.login()
    await world.client.call()
    async with guarded(world.authority) as other, client(other.url, world.data) as moved:
        assert isinstance(await refusal(moved.call()), LoginNeeded)
        assert all("authorization" not in sent for sent in other.sent)
        await moved.login()
        await moved.call()


@pytest.mark.security
async def test_an_issuer_pinned_later_gets_nothing_from_before_and_the_server_neither(world: World) -> None:
    await world.client.login()
    seen = len(world.server.sent)
    pinned = ClientSettings(Grant.AUTHORIZATION_CODE, issuer="https://as.example")
    async with client(world.server.url, world.data, pinned) as other:
        assert "pins" in (await refusal(other.call())).message
    assert all("authorization" not in sent for sent in world.server.sent[seen:])


@pytest.mark.security
async def test_the_operators_secret_is_read_at_each_use_and_never_kept(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first-canary")
    settings = ClientSettings(Grant.AUTHORIZATION_CODE, "gw", Secret(file=secret))
    async with authority() as by, guarded(by) as server, client(server.url, tmp_path, settings) as one:
        await one.login()
        await one.call()
        assert "first-canary" not in str((await opened(tmp_path / "oauth")).load("docs"))
        by.instead["/token"] = said({"error": "invalid_client"}, "401 Unauthorized")
        one.later(3601)
        assert not isinstance(await refusal(one.call()), LoginNeeded), "the person's part still stands"
        del by.instead["/token"]
        secret.write_text("second-canary")
        await one.call()
        assert [basic(each)[1] for each in by.authorizations] == ["first-canary", "second-canary"]


async def test_a_registration_that_was_forgotten_there_is_made_anew(tmp_path: Path) -> None:
    settings = ClientSettings(Grant.CLIENT_CREDENTIALS)
    async with authority() as by, guarded(by) as server, client(server.url, tmp_path, settings) as one:
        await one.call()
        by.instead["/token"] = said({"error": "invalid_client"}, "401 Unauthorized")
        one.later(3601)
        assert "invalid_client" in (await refusal(one.call())).message
        del by.instead["/token"]
        await one.call()
        assert [basic(each)[0] for each in by.authorizations] == ["client-1", "client-2"]


async def test_a_token_that_cannot_be_kept_is_said_and_not_used(world: World) -> None:
    shutil.rmtree(world.data / "oauth")
    (world.data / "oauth").write_text("a file in the way")
    error = await refusal(world.client.login())
    assert error.reason is Reason.UNAVAILABLE
    assert "cannot be kept" in error.message
    assert isinstance(await refusal(world.client.call()), LoginNeeded)


def slowly(world: World) -> tuple[asyncio.Event, asyncio.Event]:
    """From now on the issuer does what it is asked for, says so by the first event, and answers after the second."""
    begun, on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = world.authority._answer("/token", {}, request)
        begun.set()
        await on.wait()
        writer.write(made)

    world.authority.instead["/token"] = slow
    return begun, on


async def renewing(world: World) -> tuple[asyncio.Future[Tree], asyncio.Event]:
    """A call whose token is being renewed; the answer comes when the event is set."""
    await world.client.login()
    begun, on = slowly(world)
    world.client.later(3600)
    call = asyncio.ensure_future(world.client.call())
    await asyncio.wait_for(begun.wait(), BOUND)
    return call, on


@pytest.mark.security
async def test_what_was_removed_is_used_no_more_and_no_renewal_brings_it_back(world: World) -> None:
    """Sources come and go with the callers; what they share is the file."""
    call, on = await renewing(world)
    world.client.vault.forget("docs")
    on.set()
    assert isinstance(await refusal(call), LoginNeeded)
    assert isinstance(await refusal(world.client.call()), LoginNeeded)
    assert (await opened(world.data / "oauth")).load("docs") == {}


async def test_a_caller_that_goes_away_while_the_token_is_renewed_costs_nobody_the_authorization(world: World) -> None:
    """The issuer has taken the old refresh token by then; a new one that nobody reads would be lost for good."""
    call, on = await renewing(world)
    await gone(call, on)
    assert (await world.client.call())["content"][0]["text"] == "hello"
    assert [form["grant_type"] for form in world.authority.forms] == ["authorization_code", "refresh_token"]


async def test_a_caller_that_goes_away_while_a_refused_token_is_replaced_costs_nothing_either(world: World) -> None:
    await world.client.login()
    await world.client.call()
    world.authority.revoke()
    world.client.later(5)
    begun, on = slowly(world)
    call = asyncio.ensure_future(world.client.call())
    await asyncio.wait_for(begun.wait(), BOUND)
    await gone(call, on)
    assert (await world.client.call())["content"][0]["text"] == "hello"
    assert [form["grant_type"] for form in world.authority.forms] == ["authorization_code", "refresh_token"]


async def gone(call: asyncio.Future[Tree], on: asyncio.Event) -> None:
    """Nobody waits for the call any more when the issuer answers."""
    call.cancel()
    await asyncio.wait((call,))
    on.set()


@pytest.mark.requirement("oauth.client.revocation")
async def test_ending_waits_for_a_renewal_and_gives_back_what_came_of_it(world: World) -> None:
    world.authority.takes_back()
    call, on = await renewing(world)
    ending = asyncio.ensure_future(world.client.source.end())
    on.set()
    await asyncio.wait((call, ending))  # whether the call still went with the new token is a race that hurts nobody
    assert await ending is Ending.REVOKED
    assert call.exception() is None or isinstance(call.exception(), LoginNeeded)
    assert [form["grant_type"] for form in world.authority.forms] == ["authorization_code", "refresh_token"]
    assert (world.authority.refreshes, len(world.authority.revoked)) == ({}, 2)
    assert isinstance(await refusal(world.client.call()), LoginNeeded)
    assert await world.client.source.end() is None, "there is nothing to give back"


@pytest.mark.security
async def test_a_secret_is_shown_to_no_issuer_that_it_is_not_for_when_something_old_is_ended(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first-canary")
    before = ClientSettings(Grant.AUTHORIZATION_CODE, "gw", Secret(file=secret))
    async with authority() as by, guarded(by) as server:
        by.takes_back()
        async with client(server.url, tmp_path, before) as one:
            await one.login()
        secret.write_text("second-canary")
        pinned = ClientSettings(Grant.AUTHORIZATION_CODE, "gw", Secret(file=secret), issuer="https://as.example")
        async with client(server.url, tmp_path, pinned) as other:
            assert await other.source.end() is Ending.UNASKED
            assert other.vault.load("docs") == {}
        assert by.revoked == []


@pytest.mark.parametrize("endpoint", ["http://as.example/revoke", "javascript:x", 7, None])
async def test_an_endpoint_that_takes_no_token_safely_is_none_and_keeps_nobody_out(
    tmp_path: Path, endpoint: Any
) -> None:
    listed = {"revocation_endpoint": endpoint}
    async with authority(metadata=listed) as by, guarded(by) as server, client(server.url, tmp_path) as one:
        await one.login()
        await one.call()
        assert await one.source.end() is Ending.NO_ENDPOINT
        assert isinstance(await refusal(one.call()), LoginNeeded)


async def test_logging_out_forgets_everything(world: World) -> None:
    await world.client.login()
    assert await world.client.source.end() is Ending.NO_ENDPOINT
    assert await world.client.source.end() is None
    assert not (world.data / "oauth" / "docs.shared").exists()
    assert isinstance(await refusal(world.client.call()), LoginNeeded)


async def test_lists_need_the_token_too(world: World) -> None:
    assert isinstance(await refusal(world.client.server.list(Kind.TOOL)), LoginNeeded)
    await world.client.login()
    assert [tree["name"] for tree in (await world.client.server.list(Kind.TOOL)).trees] == ["hello"]


@pytest.mark.parametrize(
    ("header", "scopes", "metadata", "error"),
    [
        ("", None, None, None),
        ("Bearer", None, None, None),
        ('Bearer realm="x"', None, None, None),
        ('bearer scope="a b a", error=insufficient_scope', ("a", "b"), None, "insufficient_scope"),
        ('Basic realm="Bearer scope=\\"no\\"", Bearer scope="yes"', ("yes",), None, None),
        ('Bearer resource_metadata="https://a.example/x,y", scope="z"', ("z",), "https://a.example/x,y", None),
        ('Bearer scope="a", scope="b"', ("a",), None, None),
        ('Bearer scope="a", DPoP scope="b"', ("a",), None, None),
        ('Basic dGVzdA==, Bearer scope="a"', ("a",), None, None),
        ('Bearer scope="\x7f"', None, None, None),
        ('Bearer scope="', None, None, None),
    ],
)
def test_a_challenge_is_read_as_the_rfc_says(
    header: str, scopes: tuple[str, ...] | None, metadata: str | None, error: str | None
) -> None:
    found = bearer(header)
    assert (found.scopes, found.resource_metadata, found.error) == (scopes, metadata, error)
