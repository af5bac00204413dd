"""Tool servers that each caller uses with an authorization of its own: the link, the person, whose token goes where."""

from __future__ import annotations

import asyncio
import html
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.dialects.mcp import headers
from tests.authority import Guarded, authority, browse, guarded
from tests.journeys.test_mcp_oauth import admin, contents, login
from tests.mcp import MODERN, Door, Tree, modern, request
from tests.remote import ended
from tests.serving import BOUND, Gateway, message, running
from tests.stern import provider, stern

URLS: Tree = {"elicitation": {"url": {}}}
HELLO: Tree = {"name": "hello", "arguments": {}}


def configuration(server: Guarded) -> str:
    return f"""
tools:
  docs: {{url: "{server.url}", oauth: {{login: caller}}}}
mounts:
  docs: {{tools: [docs], naming: identity}}
agents:
  notebook: {{tools: [docs], public: true}}
grants:
  - {{to: ann, tools: [docs]}}
  - {{to: bob, tools: [docs]}}
egress: {{allow_loopback: true}}
"""


class Person:
    """In front of a browser of their own."""

    def __init__(self, gateway: Gateway) -> None:
        self._url = gateway.url
        self._cookies = httpx2.Cookies()

    async def opens(self, link: str) -> httpx2.Response:
        return await self._asks("GET", link)

    async def _asks(self, method: str, link: str, **more: Any) -> httpx2.Response:
        browser = httpx2.AsyncClient(base_url=self._url, cookies=self._cookies, trust_env=False, timeout=BOUND)
        async with browser:
            page = await browser.request(method, link, **more)
            self._cookies = browser.cookies
        return page

    async def shows(self, link: str, credential: str) -> httpx2.Response:
        """Fills in the form of the first page."""
        page = await self.opens(link)
        ticket = html.unescape(re.search(r'name="ticket" value="([^"]+)"', page.text)[1])  # type: ignore[index]
        form = {"ticket": ticket, "credential": credential}
        return await self._asks("POST", "/oauth/connect", data=form, headers={"Origin": self._url})

    async def connects(self, link: str, credential: str) -> httpx2.Response:
        """All the way, saying yes."""
        page = await self.shows(link, credential)
        assert page.status_code == 200, page.text
        return await self.opens(await browse(leads_to(page)))


def leads_to(page: httpx2.Response) -> str:
    return html.unescape(re.search(r'href="([^"]+)"', page.text)[1])  # type: ignore[index]


async def asked(door: Door) -> Tree:
    """The answer to a call for which nobody has said yes."""
    came = await door.call("hello", URLS)
    assert came["resultType"] == "input_required"
    return came


def link_in(came: Tree) -> str:
    (question,) = came["inputRequests"].values()
    assert (question["method"], question["params"]["mode"]) == ("elicitation/create", "url")
    link: str = question["params"]["url"]
    return link


async def again(door: Door, came: Tree) -> Tree:
    answers = {key: {"action": "accept"} for key in came["inputRequests"]}
    params = {**HELLO, "inputResponses": answers, "requestState": came["requestState"]}
    return await door.result("tools/call", params, capabilities=URLS)


def bearers(server: Guarded) -> list[str]:
    """The tokens that calls went with, in order."""
    return [sent["authorization"] for sent in server.sent if sent.get("mcp-method") == "tools/call"]


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_a_caller_is_sent_to_a_link_and_its_call_goes_on_with_its_own_token(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)  # the operator's, for the list of tools
            ann, bob = [Door(gateway, "docs", await gateway.key(name)) for name in ("ann", "bob")]
            assert await ann.names() == ["hello"]
            came = await asked(ann)
            assert link_in(came).startswith(f"{gateway.url}/oauth/connect?ticket=")
            assert (await again(ann, came))["resultType"] == "input_required", "saying so is not being there"
            done = await Person(gateway).connects(link_in(came), ann.who or "")
            assert (done.status_code, "may use docs in your name" in done.text) == (200, True)
            assert (await again(ann, came))["content"][0]["text"] == "hello"
            other = await asked(bob)
            assert link_in(other) != link_in(came)
            await Person(gateway).connects(link_in(other), bob.who or "")
            assert (await again(bob, other))["content"][0]["text"] == "hello"
            held = [each for each in bearers(server) if each.removeprefix("Bearer ") in by.tokens]
            assert len(set(held)) == 2
            assert len(by.registered) == 2, "once for the operator, once for all callers"
            entries = [entry for entry in await gateway.record() if entry.target == "docs"]
            verbs = [(each.verb, each.principal) for each in entries if each.verb.startswith("Connect")]
            assert verbs[:2] == [("ConnectServer", "key:ann"), ("ConnectedServer", "key:ann")]
        async with running(tmp_path, configuration(server)) as gateway:  # it is kept, sealed, for its owner
            ann = Door(gateway, "docs", ann.who)
            assert (await ann.call("hello"))["content"][0]["text"] == "hello"
            assert bearers(server)[-1] == held[0]
            assert not any(secret.encode() in contents(tmp_path) for secret in by.secrets)
            await admin(gateway, "logout", server="docs")
            assert (await ann.call("hello", URLS))["resultType"] == "input_required"


async def test_a_person_may_have_several_links_open_side_by_side(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        ann, person = Door(gateway, "docs", await gateway.key("ann")), Person(gateway)
        tabs = [await person.shows(link_in(await asked(ann)), ann.who or "") for _ in range(3)]
        for tab in tabs:
            done = await person.opens(await browse(leads_to(tab)))
            assert (done.status_code, "may use docs in your name" in done.text) == (200, True)


@pytest.mark.security
@pytest.mark.requirement("mcp.client.own-authorization", "mcp.client.oauth.id-jag")
async def test_where_the_identity_provider_decides_each_caller_logs_in_there_and_is_who_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AS_SECRET", "a/b+c:d")
    monkeypatch.setenv("IDP_SECRET", "idp/secret")
    about: Tree = {"now": time.time}
    async with provider(**about) as idp, stern(provider=idp, secret="a/b+c:d", **about) as by, guarded(by) as server:
        idp.allowed[by.issuer], by.resource = by.client_id, server.url
        told = f'{{issuer: "{idp.issuer}", client_id: {idp.client_id}, client_secret: {{variable: IDP_SECRET}}}}'
        ours = f"client_id: {by.client_id}, client_secret: {{variable: AS_SECRET}}"
        oauth = f"{{grant: id_jag, login: caller, {ours}, identity_provider: {told}}}"
        config = configuration(server).replace("{login: caller}", oauth)
        async with running(tmp_path, config) as gateway:
            idp.person = "the-operator"
            await login(gateway)
            for name in ("ann", "bob"):
                door, idp.person = Door(gateway, "docs", await gateway.key(name)), f"{name}@example.com"
                came = await asked(door)
                await Person(gateway).connects(link_in(came), door.who or "")
                assert (await again(door, came))["content"][0]["text"] == "hello"
            held = [each.removeprefix("Bearer ") for each in bearers(server) if each]
            assert [by.subjects[each] for each in held] == ["ann@example.com", "bob@example.com"]
            assert not by.why + idp.why
            assert not by.asked, "nobody was asked anything at the server's own authorization server"
            assert not any(secret.encode() in contents(tmp_path) for secret in (*by.tokens, *idp.refreshes))


@pytest.mark.requirement("mcp.client.own-authorization", "mcp.eras.url-elicitation")
async def test_a_session_gets_the_older_error_and_hears_when_its_person_has_been_there(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        door = Door(gateway, "docs", await gateway.key("ann"))
        session = await door.session(URLS)
        async with session.stream(None) as told:
            error = (await session.ask("tools/call", HELLO))["error"]
            assert error["code"] == -32042
            (visit,) = error["data"]["elicitations"]
            assert visit["mode"] == "url"
            await Person(gateway).connects(visit["url"], door.who or "")
            over = await asyncio.wait_for(anext(told), BOUND)
            assert over["method"] == "notifications/elicitation/complete"
            assert over["params"] == {"elicitationId": visit["elicitationId"]}
        assert (await session.result("tools/call", HELLO))["content"][0]["text"] == "hello"


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_who_cannot_be_sent_anywhere_reads_the_link_in_the_tools_own_error(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        door = Door(gateway, "docs", await gateway.key("ann"))
        session = await door.session({"elicitation": {}})
        for result in (await door.call("hello"), await session.result("tools/call", HELLO)):
            assert result["isError"] is True
            text = result["content"][0]["text"]
            assert f"open {gateway.url}/oauth/connect?ticket=" in text
        link = re.search(r"http\S+", text)[0]  # type: ignore[index]
        await Person(gateway).connects(link, door.who or "")
        assert (await door.call("hello"))["content"][0]["text"] == "hello"


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_an_a2a_caller_of_the_tools_is_asked_for_its_authorization_and_the_task_goes_on(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        ann = await gateway.key("ann")

        async def send(**more: Any) -> Any:
            sent = {"message": {**message("x", **more), "parts": [{"data": {}}]}}
            return (await gateway.result("SendMessage", sent, agent="notebook", who=ann))["task"]

        task = await send()
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        link = task["status"]["message"]["metadata"]["url"]
        assert link in task["status"]["message"]["parts"][0]["text"]
        # A message asks again, with a new link; the task is the same.
        task = await send(taskId=task["id"], contextId=task["contextId"])
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        await Person(gateway).connects(task["status"]["message"]["metadata"]["url"], ann)
        task = await ended(gateway, task["id"], agent="notebook", who=ann)
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert task["artifacts"][0]["parts"][0]["text"] == "hello"
        # The same person's authorization, however it calls.
        assert (await Door(gateway, "docs", ann).call("hello"))["content"][0]["text"] == "hello"


@pytest.mark.security
@pytest.mark.requirement("mcp.client.own-authorization")
async def test_a_link_collects_nobody_elses_authorization(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        before = len(by.asked)
        ann, bob = [await gateway.key(name) for name in ("ann", "bob")]
        link = link_in(await asked(Door(gateway, "docs", ann)))
        victim, attacker = Person(gateway), Person(gateway)
        for credential, status in (("wrong", 403), ("", 403), (bob, 403), ("é\n", 403)):
            page = await victim.shows(link, credential)
            assert page.status_code == status, credential
            assert by.issuer not in page.text
        assert len(by.asked) == before
        # The page is safe, and says nothing about whose it is.
        page = await victim.opens(link)
        assert "ann" not in page.text.replace(link, "")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
        # Attackers begin with their own link and let the victim's browser finish.
        leading = await attacker.shows(link, ann)
        assert "httponly" in leading.headers["set-cookie"].lower()
        back = await browse(leads_to(leading))
        for person in (victim, Person(gateway)):
            refused = await person.opens(back)
            assert (refused.status_code, "no visit of this browser" in refused.text) == (400, True)
        assert (await attacker.opens(back)).status_code == 200
        assert (await attacker.opens(back)).status_code == 400, "an answer counts once"
        assert "no visit" in (await attacker.opens("/oauth/connected?state=&code=x")).text


@pytest.mark.security
async def test_a_link_that_is_none_is_refused(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        link = link_in(await asked(Door(gateway, "docs", await gateway.key("ann"))))
        person = Person(gateway)
        for wrong in ("/oauth/connect", "/oauth/connect?ticket=<script>", link[:-3] + "AAA"):
            page = await person.opens(wrong)
            assert page.status_code == 400
            assert "<script>" not in page.text
        elsewhere = await gateway.client.post("/oauth/connect", json={"ticket": "x"}, headers={"Origin": gateway.url})
        assert elsewhere.status_code == 400
        crossing = await gateway.client.post("/oauth/connect", data={}, headers={"Origin": "https://evil.example"})
        assert crossing.status_code == 403


async def test_nobody_has_an_authorization_of_its_own(tmp_path: Path) -> None:
    everybody = "grants:\n  - {to: anonymous, tools: [docs]}"
    async with authority() as by, guarded(by) as server:
        config = configuration(server).replace("grants:", everybody)
        async with running(tmp_path, config, anonymous=True) as gateway:
            await login(gateway)
            params = modern(HELLO, URLS)
            sent = {**headers.make("tools/call", params, MODERN), "Accept": "application/json"}
            answer = await gateway.client.post("/mcp/docs", json=request("tools/call", params), headers=sent)
            assert answer.status_code == 403
            assert "authorization of the caller's own" in answer.json()["error"]["message"]
