"""What people let the gateway use in their own name: listed and ended, by the operator and by themselves."""

from __future__ import annotations

import html
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.authority import authority, guarded, said
from tests.journeys.test_agent_connect import asks, far_away, link, pinned
from tests.journeys.test_agent_connect import configuration as with_agent
from tests.journeys.test_mcp_connect import Person, again, asked, bearers, configuration, link_in
from tests.journeys.test_mcp_oauth import admin, contents, login
from tests.mcp import Door
from tests.remote import ended, ready
from tests.serving import Gateway, running
from tests.stern import provider, stern
from tests.upstream.loopback import answer
from tests.vaults import opened

Tree = dict[str, Any]


async def connected(gateway: Gateway, name: str) -> Door:
    """A caller who has said yes at `docs`."""
    door = Door(gateway, "docs", await gateway.key(name))
    came = await asked(door)
    await Person(gateway).connects(link_in(came), door.who or "")
    assert (await again(door, came))["content"][0]["text"] == "hello"
    return door


async def listed(gateway: Gateway, **query: str) -> list[Tree]:
    answer = await gateway.client.get("/admin/connections", params=query, headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text
    found: list[Tree] = answer.json()["connections"]
    return found


async def remove(gateway: Gateway, id: str) -> httpx2.Response:
    return await gateway.client.delete(f"/admin/connections/{id}", headers=gateway.bearer(None))


@pytest.mark.requirement("oauth.client.revocation")
async def test_an_operator_sees_who_is_connected_and_ends_it_here_and_at_the_issuer(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, scopes=["read"]) as server:
        by.takes_back()
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)
            assert await listed(gateway) == [], "the operator's own login is nobody's connection"
            ann, bob = await connected(gateway, "ann"), await connected(gateway, "bob")
            hers, his = await listed(gateway)
            assert (hers["owner"], his["owner"]) == ("key:ann", "key:bob")
            assert (hers["at"], hers["issuer"], hers["scopes"]) == ("tools/docs", by.issuer, ["read"])
            assert hers["refreshable"] is True
            assert hers["since"] < hers["expires"]
            for query in ({"of": "key:ann"}, {"of": "/key:ann"}, {"of": "key:ann", "at": "docs"}):
                assert await listed(gateway, **query) == [hers]
            assert await listed(gateway, at="tools/docs") == [hers, his]
            assert await listed(gateway, at="agents/docs") == []
            assert not any(secret in json.dumps([hers, his]) for secret in by.secrets)

            token = next(filter(None, bearers(server)))
            gone = await remove(gateway, hers["id"])
            assert (gone.status_code, gone.json()) == (200, {"issuer": "revoked"})
            assert [kind for kind, _ in by.revoked] == ["refresh_token", "access_token"]
            assert {tuple(client) for _, client in by.revoked} == {("client-2", "s3cret/+&")}, "as all callers' client"
            assert await listed(gateway) == [his]
            before = len(bearers(server))
            assert (await asked(ann))["resultType"] == "input_required", "the next call asks for the link again"
            assert token not in bearers(server)[before:]
            assert (await bob.call("hello"))["content"][0]["text"] == "hello"
            assert (await remove(gateway, hers["id"])).status_code == 404
            await Person(gateway).connects(link_in(await asked(ann)), ann.who or "")
            assert (await ann.call("hello"))["content"][0]["text"] == "hello"

            entries = await gateway.record()
            about = [each for each in entries if each.verb == "RemoveConnection"]
            assert [(each.phase, each.outcome) for each in about] == [
                ("intent", "begun"),
                ("outcome", "ok"),
                ("outcome", "NOT_FOUND"),
            ]
            change = about[1].change
            assert change is not None
            assert change["after"] == []
            assert [(each["owner"], each["at"]) for each in change["before"]] == [("key:ann", "tools/docs")]
            assert any(each.verb == "ListConnections" for each in entries)
        async with running(tmp_path, configuration(server)) as gateway:
            assert [each["owner"] for each in await listed(gateway)] == ["key:ann", "key:bob"]
        assert not any(secret.encode() in contents(tmp_path) for secret in by.secrets)


async def test_what_the_issuer_does_not_take_back_is_forgotten_here_and_said(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        ann = await connected(gateway, "ann")
        assert (await remove(gateway, (await listed(gateway))[0]["id"])).json() == {"issuer": "no-endpoint"}
        by.takes_back()
        refusals = [said({"error": "server_error"}, "503 Service Unavailable"), answer(b"", "302 Found", location="/x")]
        for refusal in refusals:
            await Person(gateway).connects(link_in(await asked(ann)), ann.who or "")
            by.instead["/revoke"] = refusal
            assert (await remove(gateway, (await listed(gateway))[0]["id"])).json() == {"issuer": "failed"}
            assert await listed(gateway) == []
            assert (await asked(ann))["resultType"] == "input_required"


@pytest.mark.requirement("oauth.client.revocation")
async def test_a_logout_at_a_server_ends_everybodys_connection_there_and_nobody_elses(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server:
        by.takes_back()
        second = configuration(server).replace("tools:\n", f"tools:\n  dox: {{url: '{server.url}', oauth: {{}}}}\n")
        async with running(tmp_path, second) as gateway:
            await login(gateway, "dox")
            await login(gateway)
            ann, bob = await connected(gateway, "ann"), await connected(gateway, "bob")
            before = set(by.tokens)
            done = await admin(gateway, "logout", server="docs")
            assert done.json() == {"forgotten": True, "issuer": "revoked", "callers": {"revoked": 2}}
            assert (len(before), len(by.tokens), len(by.refreshes)) == (4, 1, 1), "that of dox is left"
            assert await listed(gateway) == []
            for door in (ann, bob):
                assert (await asked(door))["resultType"] == "input_required"
            await Person(gateway).connects(link_in(await asked(ann)), ann.who or "")
            by.instead["/revoke"] = said({"error": "server_error"}, "503 Service Unavailable")
            done = await admin(gateway, "logout", server="docs")
            assert done.json() == {"forgotten": True, "issuer": None, "callers": {"failed": 1}}
            assert await listed(gateway) == []
            assert (await admin(gateway, "logout", server="docs")).json()["forgotten"] is False


@pytest.mark.security
@pytest.mark.requirement("oauth.client.revocation")
async def test_a_login_at_an_identity_provider_is_listed_and_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AS_SECRET", "a/b+c:d")
    monkeypatch.setenv("IDP_SECRET", "idp/secret")
    about: Tree = {"now": time.time}
    async with provider(**about) as idp, stern(provider=idp, secret="a/b+c:d", **about) as by, guarded(by) as server:
        by.takes_back()
        idp.allowed[by.issuer], by.resource = by.client_id, server.url
        told = f'{{issuer: "{idp.issuer}", client_id: {idp.client_id}, client_secret: {{variable: IDP_SECRET}}}}'
        ours = f"client_id: {by.client_id}, client_secret: {{variable: AS_SECRET}}"
        oauth = f"{{grant: id_jag, login: caller, {ours}, identity_provider: {told}}}"
        async with running(tmp_path, configuration(server).replace("{login: caller}", oauth)) as gateway:
            await login(gateway)
            idp.person = "ann@example.com"
            ann = await connected(gateway, "ann")
            (hers,) = await listed(gateway)
            assert (hers["issuer"], hers["refreshable"]) == (by.issuer, True)
            # The server's own authorization server takes tokens back; the provider, which is where she logged in, none.
            assert (await remove(gateway, hers["id"])).json() == {"issuer": "no-endpoint"}
            assert [client for _, client in by.revoked] == [["gateway", "a/b+c:d"]]
            assert (await asked(ann))["resultType"] == "input_required"
            idp.takes_back = True
            await Person(gateway).connects(link_in(await asked(ann)), ann.who or "")
            (hers,) = await listed(gateway)
            assert hers["issuer"] == idp.issuer, "no call has needed a token yet"
            assert (await remove(gateway, hers["id"])).json() == {"issuer": "revoked"}
            assert list(idp.refreshes.values()) == ["ann", "ann@example.com"], "the first, which it did not take back"


async def test_a_task_at_a_remote_agent_asks_again_once_its_callers_connection_is_removed(tmp_path: Path) -> None:
    async with authority() as by, far_away(by) as far, running(tmp_path, with_agent(far, pinned(by))) as gateway:
        by.takes_back()
        await ready(gateway, "far")
        ann = await gateway.key("ann")
        task = await asks(gateway, "hi", ann)
        await Person(gateway).connects(link(task), ann)
        await ended(gateway, task["id"], agent="far", who=ann)
        (hers,) = await listed(gateway, at="far")
        assert (hers["at"], hers["owner"], hers["scopes"]) == ("agents/far", "key:ann", ["read"])
        assert (await remove(gateway, hers["id"])).json() == {"issuer": "revoked"}
        assert len(far.calls) == 1
        again = await asks(gateway, "and again", ann)
        assert len(far.calls) == 1
        await Person(gateway).connects(link(again), ann)
        await ended(gateway, again["id"], agent="far", who=ann)
        assert len({token for _, token in far.calls}) == 2


async def test_a_connection_at_an_agent_that_cannot_be_reached_is_forgotten(tmp_path: Path) -> None:
    async with authority() as by:
        by.takes_back()
        async with far_away(by) as far, running(tmp_path, with_agent(far, pinned(by))) as gateway:
            await ready(gateway, "far")
            ann = await gateway.key("ann")
            task = await asks(gateway, "hi", ann)
            await Person(gateway).connects(link(task), ann)
            await ended(gateway, task["id"], agent="far", who=ann)
        async with running(tmp_path, with_agent(far, pinned(by))) as gateway:  # its card is nowhere
            (hers,) = await listed(gateway)
            assert (await remove(gateway, hers["id"])).json() == {"issuer": "failed"}
            assert await listed(gateway) == []
            assert by.revoked == []


async def test_what_is_left_of_a_server_that_is_gone_can_be_removed(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)
            await connected(gateway, "ann")
        config = configuration(server).replace("{login: caller}", "{}")
        async with running(tmp_path, config) as gateway:
            vault = await opened(tmp_path / "oauth")
            vault.keep("docs", {}, "/key:old")  # of the first releases, which wrote no owner
            old, hers = await listed(gateway)
            assert (old["owner"], old["issuer"], old["since"]) == (None, None, None)
            for each in (old, hers):
                assert (await remove(gateway, each["id"])).json() == {"issuer": "unasked"}
            assert await listed(gateway) == []


# What people do themselves.


async def shown(gateway: Gateway, person: Person, credential: str) -> httpx2.Response:
    assert (await person.opens("/oauth/connections")).status_code == 200
    return await person._asks(
        "POST", "/oauth/connections", data={"credential": credential}, headers={"Origin": gateway.url}
    )


def words(page: httpx2.Response) -> list[str]:
    return [html.unescape(each) for each in re.findall(r'name="ticket" value="([^"]+)"', page.text)]


async def presses(gateway: Gateway, word: str, origin: str | None = None) -> httpx2.Response:
    sent = {"Origin": origin or gateway.url}
    return await gateway.client.post("/oauth/connections", data={"ticket": word}, headers=sent)


@pytest.mark.security
async def test_people_see_their_own_connections_and_end_them(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, scopes=["read"]) as server:
        by.takes_back()
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)
            ann, bob = await connected(gateway, "ann"), await connected(gateway, "bob")
            person = Person(gateway)
            page = await shown(gateway, person, ann.who or "")
            assert (page.status_code, page.text.count("<section>")) == (200, 1)
            assert by.issuer in page.text
            assert page.headers["cache-control"] == "no-store"
            (word,) = words(page)
            assert not any(secret in page.text for secret in [*by.secrets, ann.who or "-"])
            assert (await presses(gateway, word, "https://evil.example")).status_code == 403
            done = await presses(gateway, word)
            assert (done.status_code, "has taken it back" in done.text) == (200, True)
            assert (await asked(ann))["resultType"] == "input_required"
            assert (await bob.call("hello"))["content"][0]["text"] == "hello"
            assert [each["owner"] for each in await listed(gateway)] == ["key:bob"]
            assert (await presses(gateway, word)).status_code == 404
            assert "uses nothing in your name" in (await shown(gateway, person, ann.who or "")).text
            entries = await gateway.record()
            about = [each for each in entries if each.verb in ("ListConnections", "RemoveConnection")]
            own = [each for each in about if each.principal == "key:ann"]
            assert {each.rule for each in own} == {"own-authorization"}
            assert [each.outcome for each in own if each.verb == "RemoveConnection"] == ["begun", "ok", "NOT_FOUND"]


@pytest.mark.security
async def test_a_page_of_connections_is_for_its_owner_and_a_word_of_it_for_nothing_else(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server:
        config = configuration(server)
        async with running(tmp_path, config, anonymous=True) as gateway:
            await login(gateway)
            ann = await connected(gateway, "ann")
            (word,) = words(await shown(gateway, Person(gateway), ann.who or ""))
            for credential in ("wrong", "", "é\n"):
                page = await shown(gateway, Person(gateway), credential)
                assert (page.status_code, words(page)) == (403, [])
            for wrong in ("x", word[:-3] + "AAA", link_in(await asked(await other(gateway))).partition("=")[2]):
                assert (await presses(gateway, wrong)).status_code == 400
            assert (await Person(gateway).opens(f"/oauth/connect?ticket={word}")).status_code == 400
            page = await gateway.client.post("/oauth/connections", json={}, headers={"Origin": gateway.url})
            assert page.status_code == 400
            assert len(await listed(gateway)) == 1


async def other(gateway: Gateway) -> Door:
    return Door(gateway, "docs", await gateway.key("bob"))
