"""The page on which people who have logged in answer a call that waits: who may, what they see, and every way to take
an answer that nobody gave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio

from gateway.core.tools import consents
from tests.issuer import Clock
from tests.journeys.people import App, admin, app
from tests.journeys.test_approvals import approval_of, ended, reached, said, waiting
from tests.mcp import Door, Tree, configured, scripted, soon, tool
from tests.openid import CLIENT, SECRET, openid
from tests.person import PASSWORD, Person, somebody
from tests.serving import ROOT, Gateway, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]

CARD = f"card: {ROOT}/agent_cards/echo.json"
CONFIG = f"""
agents:
  desk: {{run: "tests.actors:mirror", {CARD}}}
  bank: {{run: "tests.actors:mirror", {CARD}}}
  own: {{run: "tests.actors:mirror", {CARD}}}
"""
POLICY = """
rules:
  - {rule: letters, who: [ann, "role:clerk"], do: call, on: agents/desk, verdict: ESCALATE, because: people read them}
  - {rule: money, who: ann, do: call, on: agents/bank, verdict: ESCALATE, approvers: 2}
  - {rule: own, who: "role:clerk", do: call, on: agents/own, verdict: ESCALATE, approver: caller}
  - {rule: wipe, who: ann, do: tools/call, on: docs/wipe, verdict: ESCALATE, because: it is gone then}
  - {rule: mine, who: "role:clerk", do: tools/call, on: docs/send, verdict: ESCALATE, approver: caller}
  - {rule: rest, who: [ann, "role:clerk"], do: use, on: ["agents/*", docs], verdict: PASS}
  - {rule: leads, who: ["role:clerk", lea], do: approve, on: [agents/desk, agents/bank, docs], verdict: PASS}
"""


@dataclass
class House:
    gateway: Gateway
    clock: Clock
    app: App

    async def token(self, name: str) -> str:
        """What a program of this person's calls with."""
        async with somebody(self.gateway.url) as person:
            await person.get(self.app.link())
            await person.log_in(name)
            await person.submit("allow")
            made: str = (await self.app.redeem(person.answer["code"])).json()["access_token"]
            return made


@asynccontextmanager
async def house(folder: Path, login: str = "users: true") -> AsyncIterator[House]:
    (folder / "policy.yaml").write_text(POLICY)
    clock = Clock()
    async with scripted(tool("wipe"), tool("send")) as docs:
        auth = f"auth: {{authorization_server: {{{login}, scopes: [read, write]}}}}"
        config = f"{CONFIG}{auth}\npolicy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config, now=clock.now) as gateway:
            for name, roles in (("ada", ["clerk"]), ("bea", ["clerk"]), ("eve", [])):
                await admin(gateway, "users", name=name, password=PASSWORD, roles=roles)
            yield House(gateway, clock, await app(gateway))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("pages")) as made:
        yield made


def link(task: Any) -> str:
    url: str = task["status"]["message"]["metadata"]["url"]
    return url


async def opened(person: Person, url: str, name: str = "ada") -> Person:
    """The page, as somebody who has logged in for it."""
    await person.get(url)
    if "password" in person.page.labels:
        await person.log_in(name)
    return person


def text(person: Person) -> str:
    return person.page.text


# Who may.


@pytest.mark.requirement("mcp.elicitation.url-opener-known", "mcp.elicitation.url-lets-nobody-in")
async def test_who_may_approve_logs_in_sees_the_whole_call_and_approves_it(here: House) -> None:
    gateway = here.gateway
    task = await waiting(gateway, "to everybody")
    told = task["status"]["message"]
    assert link(task) == f"{gateway.url}/oauth/approval?id={approval_of(task)}"
    assert told["parts"][0]["text"].endswith(f"people read them. Whoever may answer can do so at {link(task)}")
    async with somebody(gateway.url) as ada:
        await ada.get(link(task))
        assert "A call waits for an approval" in text(ada)
        assert "to everybody" not in text(ada), "nothing of it before they have logged in"
        await ada.log_in()
        shown = await shown_by_operator(gateway, task)
        for words in ("ada", "key:ann", "SendMessage on agents/desk", "letters: people read them", shown["until"]):
            assert words in text(ada), words
        assert shown["digest"] in text(ada)
        assert '"text": "to everybody"' in text(ada)
        await ada.submit("approve", reason="good for us")
        assert "Approved" in text(ada)
    assert reached(await ended(gateway, task))["message"]["parts"] == [{"text": "to everybody"}]
    (word,) = (await shown_by_operator(gateway, task))["words"]
    assert (word["by"], word["said"], word["reason"]) == ("oauth:gateway#user:ada", "approve", "good for us")
    agreed = {entry.principal for entry in await gateway.record() if entry.verb == "ApproveCall"}
    assert "oauth:gateway#user:ada" in agreed, "and it is on record who did"


async def shown_by_operator(gateway: Gateway, task: Any) -> Any:
    answer = await gateway.client.get(f"/admin/approvals/{approval_of(task)}", headers=gateway.bearer(None))
    return answer.json()


async def test_who_rejects_says_why_to_who_asked(here: House) -> None:
    task = await waiting(here.gateway)
    async with somebody(here.gateway.url) as ada:
        await opened(ada, link(task))
        await ada.submit("reject", reason="not now")
        assert "The call is not made" in text(ada)
        again = await opened(ada, link(task))
        assert "It is rejected. by oauth:gateway#user:ada: not now" in text(again)
        assert again.page.forms == [], "there is nothing more to say"
    gone = await ended(here.gateway, task)
    assert "by oauth:gateway#user:ada: not now" in gone["status"]["message"]["parts"][0]["text"]


async def test_four_eyes_are_two_people_who_have_logged_in(here: House) -> None:
    task = await waiting(here.gateway, agent="bank")
    async with somebody(here.gateway.url) as ada, somebody(here.gateway.url) as bea:
        await opened(ada, link(task))
        await ada.submit("approve")
        assert "1 more person has to approve it" in text(ada)
        await opened(ada, link(task))
        await ada.submit("approve")
        assert "You have approved it; somebody else has to, too" in text(ada)
        await opened(bea, link(task), "bea")
        assert "approve by oauth:gateway#user:ada" in text(bea)
        await bea.submit("approve")
        assert "The call may be made, once" in text(bea)
    await ended(here.gateway, task, agent="bank")


async def test_nobody_approves_a_call_of_their_own_on_the_page_either(here: House) -> None:
    gateway, mine = here.gateway, await here.token("ada")
    task = await gateway.task("mine", agent="desk", who=mine)
    async with somebody(gateway.url) as ada:
        await opened(ada, link(task))
        assert "It is your own call. Somebody else has to answer." in text(ada)
        assert [value for _, value in ada.page.forms[0].buttons] == ["other"]
        sent = {**ada.page.forms[0].fields, "answer": "approve"}
        forced = await ada.http.post(f"{gateway.url}/oauth/approval", data=sent, headers={"origin": gateway.url})
        assert forced.status_code == 403
        assert "Nobody answers for a call of their own" in forced.text
        await ada.submit("other")
        await ada.log_in("bea")
        await ada.submit("approve")
        assert "The call may be made, once" in text(ada)


async def test_a_caller_that_may_answer_for_itself_does_so_on_the_page(here: House) -> None:
    gateway, mine = here.gateway, await here.token("ada")
    task = await gateway.task("mine", agent="own", who=mine)
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    async with somebody(gateway.url) as bea, somebody(gateway.url) as ada:
        assert (await opened(bea, link(task), "bea")).at is not None
        assert "Nothing waits here" in text(bea), "only the caller was named"
        await opened(ada, link(task))
        await ada.submit("approve")
        assert "The call may be made, once" in text(ada)

    async def completed() -> bool:
        found = await gateway.result("GetTask", {"id": task["id"]}, agent="own", who=mine)
        return bool(found["status"]["state"] == "TASK_STATE_COMPLETED")

    await soon(completed)


async def test_who_may_answer_nothing_cannot_tell_a_call_from_none(here: House) -> None:
    task = await waiting(here.gateway)
    async with somebody(here.gateway.url) as eve:
        pages = []
        for url in (link(task), link(task) + "0", f"{here.gateway.url}/oauth/approval"):
            await opened(eve, url, "eve")
            assert eve.at is not None
            pages.append((eve.at.status_code, eve.at.text))
        assert pages[0][0] == 404
        assert pages[0] == pages[1] == pages[2]


async def test_where_nobody_can_log_in_there_is_no_page_and_no_link(tmp_path: Path) -> None:
    async with house(tmp_path, "token_seconds: 600") as without:
        task = await waiting(without.gateway)
        assert "url" not in task["status"]["message"]["metadata"]
        assert "/oauth/approval" not in task["status"]["message"]["parts"][0]["text"]
        assert (await without.gateway.client.get("/oauth/approval?id=1")).status_code == 404


async def test_people_of_an_identity_provider_answer_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    async with openid() as provider:
        provider.claims = {"groups": ["clerk"]}
        about = f"issuer: '{provider.url}', client_id: {CLIENT}, client_secret_file: {tmp_path}/secret"
        async with house(tmp_path, f"login: {{{about}, roles_claim: groups}}") as there:
            task = await waiting(there.gateway)
            async with somebody(there.gateway.url, provider.url) as person:
                await person.get(link(task))
                (way,) = person.page.links
                await person.follow(way)
                await person.submit("approve")
                assert "The call may be made, once" in text(person)
            await ended(there.gateway, task)
            (word,) = (await shown_by_operator(there.gateway, task))["words"]
            assert word["by"] == f"oauth:gateway#{provider.url}#248289"


# What is not an answer.


async def test_what_was_edited_meanwhile_has_to_be_looked_at_again(here: House) -> None:
    task = await waiting(here.gateway, agent="bank")
    async with somebody(here.gateway.url) as ada:
        await opened(ada, link(task))
        edited = {"arguments": {"parts": [{"text": "everything"}]}}
        assert (await said(here.gateway, "lea", approval_of(task), "edit", **edited)).status_code == 200
        await ada.submit("approve")
        assert ada.at is not None
        assert ada.at.status_code == 409
        assert "It was edited meanwhile; look at it again" in text(ada)
        assert '"text": "everything"' in text(ada)
        assert "It was asked for with" in text(ada)
        assert (await shown_by_operator(here.gateway, task))["state"] == "waiting"
        await ada.submit("approve")
        assert "The call may be made, once" in text(ada)
    assert reached(await ended(here.gateway, task, agent="bank"))["message"]["parts"] == [{"text": "everything"}]


async def test_a_form_is_good_in_one_browser_for_one_call_and_not_for_long(here: House) -> None:
    gateway, task, other = here.gateway, await waiting(here.gateway), await waiting(here.gateway, "another")
    async with somebody(gateway.url) as ada, somebody(gateway.url) as thief, somebody(gateway.url) as bea:
        await opened(ada, link(task))
        form = ada.page.forms[0].fields
        sent = {**form, "answer": "approve"}
        origin = {"origin": gateway.url}
        assert (await thief.http.post(f"{gateway.url}/oauth/approval", data=sent, headers=origin)).status_code == 403
        await opened(bea, link(other), "bea")
        stolen = await bea.http.post(f"{gateway.url}/oauth/approval", data=sent, headers=origin)
        assert stolen.status_code == 403, "logged in, but it was made for another browser"
        crossing = {"origin": "https://evil.example"}
        assert (await ada.http.post(f"{gateway.url}/oauth/approval", data=sent, headers=crossing)).status_code == 403
        made_up = {"visit": "", "answer": "approve", "id": approval_of(task)}
        assert (await ada.http.post(f"{gateway.url}/oauth/approval", data=made_up, headers=origin)).status_code == 403
        by_link = await ada.http.get(f"{link(task)}&answer=approve&visit={form['visit']}")
        assert by_link.status_code == 200
        assert (await shown_by_operator(gateway, task))["state"] == "waiting", "a link answers nothing"
        here.clock.ahead += 601
        await ada.submit("approve")
        assert "too old" in text(ada)
        assert (await shown_by_operator(gateway, task))["state"] == "waiting"


async def test_a_removed_user_answers_nothing_with_an_open_page(here: House) -> None:
    gateway, task = here.gateway, await waiting(here.gateway)
    await admin(gateway, "users", name="zoe", password=PASSWORD, roles=["clerk"])
    async with somebody(gateway.url) as zoe:
        await opened(zoe, link(task), "zoe")
        gone = await gateway.client.delete("/admin/users/zoe", headers=gateway.bearer(None))
        assert gone.status_code < 300
        assert (await zoe.submit("approve")).status_code == 403
        assert "password" in (await opened_plain(zoe, link(task))).page.labels
    assert (await shown_by_operator(gateway, task))["state"] == "waiting"


async def opened_plain(person: Person, url: str) -> Person:
    await person.get(url)
    return person


async def test_what_a_caller_writes_is_text_on_the_page_and_nothing_hides_in_it(here: House) -> None:
    bad = "<script>alert(1)</script><form action=//evil> pay \u202eeno ot\u200b\u0007"
    task = await waiting(here.gateway, bad)
    async with somebody(here.gateway.url) as ada:
        await opened(ada, link(task))
        assert ada.at is not None
        assert "script" not in ada.page.tags
        assert len(ada.page.forms) == 1
        assert "pay \\u202eeno ot\\u200b\\u0007" in text(ada)
        policy = ada.at.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy


async def test_what_is_too_long_to_be_read_is_not_approved_here(here: House) -> None:
    task = await waiting(here.gateway, "x" * 60_000)
    async with somebody(here.gateway.url) as ada:
        await opened(ada, link(task))
        assert f"gateway approvals show {approval_of(task)}" in text(ada)
        assert ("answer", "approve") not in ada.page.forms[0].buttons
        assert ("answer", "reject") in ada.page.forms[0].buttons


# Callers of MCP.

URLS: Tree = {"elicitation": {"url": {}}}
BOTH: Tree = {"elicitation": {"form": {}, "url": {}}}


async def called(who: Door, name: str, capabilities: Tree, **arguments: Any) -> Tree:
    return await who.result("tools/call", {"name": name, "arguments": arguments}, capabilities=capabilities)


@pytest.mark.requirement("mcp.elicitation.opened-is-not-done", "mcp.mrtr.asked-again")
@pytest.mark.parametrize("capabilities", [URLS, BOTH])
async def test_a_client_that_opens_links_is_led_to_the_page(
    here: House, monkeypatch: pytest.MonkeyPatch, capabilities: Tree
) -> None:
    monkeypatch.setattr(consents, "HOLD_SECONDS", 0.1)
    gateway = here.gateway
    ann = Door(gateway, who=await gateway.key("ann"))
    first = await called(ann, "docs__wipe", capabilities, which=str(capabilities))
    assert first["resultType"] == "input_required"
    asked = first["inputRequests"]["approval"]
    assert asked["method"] == "elicitation/create"
    assert asked["params"].keys() == {"mode", "message", "url"}
    assert asked["params"]["mode"] == "url"
    assert "To have opened it does not release the call" in asked["params"]["message"]
    params = {
        "name": "docs__wipe",
        "arguments": {"which": str(capabilities)},
        "requestState": first["requestState"],
        "inputResponses": {"approval": {"action": "accept"}},
    }
    again = await ann.result("tools/call", params, capabilities=capabilities)
    assert again["resultType"] == "input_required", "it was opened, not approved"
    assert again["requestState"] != first["requestState"]
    async with somebody(gateway.url) as ada:
        await opened(ada, asked["params"]["url"])
        assert "tools/call on docs/wipe" in text(ada)
        await ada.submit("approve")
    params["requestState"] = again["requestState"]
    assert (await ann.result("tools/call", params, capabilities=capabilities))["content"][0]["text"] == "wipe"


@pytest.mark.requirement("mcp.elicitation.form-has-no-link", "mcp.elicitation.opened-is-not-done")
async def test_a_caller_that_may_answer_for_itself_is_shown_a_form_where_it_can_be_and_else_the_page(
    here: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consents, "HOLD_SECONDS", 0.1)
    ada_at = Door(here.gateway, who=await here.token("ada"))
    form = await called(ada_at, "docs__send", BOTH, which="form")
    assert form["inputRequests"]["approval"]["params"]["mode"] == "form"
    assert "http" not in form["inputRequests"]["approval"]["params"]["message"], "a form has no links"
    page = await called(ada_at, "docs__send", URLS, which="page")
    asked = page["inputRequests"]["approval"]["params"]
    assert asked["mode"] == "url"
    params = {"name": "docs__send", "arguments": {"which": "page"}, "requestState": page["requestState"]}
    accepted = {**params, "inputResponses": {"approval": {"action": "accept", "content": {}}}}
    again = await ada_at.result("tools/call", accepted, capabilities=URLS)
    assert again["resultType"] == "input_required", "to open the page is not to approve"
    async with somebody(here.gateway.url) as ada:
        await opened(ada, asked["url"])
        await ada.submit("approve")
    done = await ada_at.result("tools/call", {**params, "requestState": again["requestState"]}, capabilities=URLS)
    assert done["content"][0]["text"] == "send"


@pytest.mark.requirement("mcp.eras.url-elicitation")
@pytest.mark.requirement("mcp.mrtr.asks-what-was-declared", "mcp.elicitation.form-has-no-link")
async def test_a_client_that_opens_no_links_is_given_none(here: House) -> None:
    ann = Door(here.gateway, who=await here.gateway.key("ann"))
    form = (await called(ann, "docs__wipe", {"elicitation": {}}, which="forms"))["inputRequests"]["approval"]["params"]
    assert form["mode"] == "form"
    assert "http" not in form["message"]
    told = await called(ann, "docs__wipe", {}, which="neither")
    assert told["isError"]
    assert "inputRequests" not in told
    assert "Whoever may answer can do so at http" in told["content"][0]["text"], "a model reads it and tells its user"


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_the_sdks_client_opens_the_page_and_its_call_goes_through(here: House, era: str) -> None:
    """Its user opens the link at once; ada is the one who may answer."""
    seen: list[Any] = []

    async def elicited(context: Any, params: Any) -> types.ElicitResult:
        seen.append(params)
        async with somebody(here.gateway.url) as ada:
            await opened(ada, params.url)
            await ada.submit("approve")
        return types.ElicitResult(action="accept")

    ann = Door(here.gateway, who=await here.gateway.key("ann"))
    async with ann.sdk(era, elicitation_callback=elicited) as sdk:
        result = await sdk.call_tool("docs__wipe", {"which": f"sdk-{era}"})
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "wipe"
    assert [each.mode for each in seen] == ["url"]
    assert (seen[0].elicitation_id is not None) == (era == "legacy")
    assert seen[0].url.startswith(f"{here.gateway.url}/oauth/approval?id=")
