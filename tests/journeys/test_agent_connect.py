"""Callers' own authorizations, in the middle of a task: at remote agents, and at tool servers that agents here use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority, Guarded, authority, guarded
from tests.journeys.test_agent_credentials import INBOUND
from tests.journeys.test_mcp_connect import Person
from tests.journeys.test_mcp_oauth import login
from tests.journeys.test_ownership import kept
from tests.pki import Ca, terminated
from tests.remote import Asked, Scripted, card, ended, ready, scripted
from tests.serving import BOUND, ROOT, Gateway, message, running

pytestmark = pytest.mark.requirement("a2a.upstream.own-authorization")

Tree = dict[str, Any]


@dataclass
class Far:
    """A remote agent that takes tokens of `authority` and no others. `calls` are those with a good one, by token."""

    agent: Scripted
    authority: Authority
    calls: list[tuple[str, str]] = field(default_factory=list)  # method, token
    challenge: str = "Bearer"

    @property
    def refused(self) -> int:
        return len(self.agent.asked) - len(self.calls)

    async def play(self, asked: Asked) -> None:
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.authority.tokens:
            asked.whole(b"{}", "401 Unauthorized", www_authenticate=self.challenge)
            return
        self.calls.append((asked.method, token))
        text = asked.params.get("message", {"parts": [{"text": "slow"}]})["parts"][0].get("text", "")
        state = "TASK_STATE_WORKING" if text == "slow" and asked.method != "GetTask" else "TASK_STATE_COMPLETED"
        artifact = {"artifactId": "a", "parts": [{"text": f"did {text}"}]}
        task = {"id": "t", "contextId": "c", "status": {"state": state}, "artifacts": [artifact]}
        asked.answer(task if asked.method == "GetTask" else {"task": task})


def scheme(by: Authority, **more: Any) -> Tree:
    flow = {"authorizationUrl": f"{by.issuer}/authorize", "tokenUrl": f"{by.issuer}/token", "scopes": {}, **more}
    return {"oauth2SecurityScheme": {"flows": {"authorizationCode": flow}}}


@asynccontextmanager
async def far_away(by: Authority, kind: Tree | None = None, **more: Any) -> AsyncIterator[Far]:
    async with scripted() as agent:
        far = Far(agent, by)
        agent.card["capabilities"] = {"streaming": False}
        agent.card["securitySchemes"] = {"o": kind or scheme(by)}
        agent.card["securityRequirements"] = [{"schemes": {"o": {"list": ["read"]}}}]
        agent.card |= more
        for method in ("SendMessage", "GetTask", "CancelTask"):
            agent.plays[method] = far.play
        yield far


def configuration(far: Far, oauth: str, more: str = "") -> str:
    entry = f"  far: {{card_url: '{far.agent.url}', public: true, credentials: {{oauth: {{{oauth}}}}}}}\n"
    return f"agents:\n{entry}egress: {{allow_loopback: true}}\n{more}"


def pinned(by: Authority) -> str:
    return f"login: caller, issuer: '{by.issuer}'"


async def asks(gateway: Gateway, text: str, who: str, agent: str = "far", **more: Any) -> Tree:
    """Sends a message that somebody has to authorize; the task that waits for that."""
    task = await gateway.task(text, agent=agent, who=who, **more)
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED", task
    assert link(task) in task["status"]["message"]["parts"][0]["text"]
    found: Tree = task
    return found


def link(task: Tree) -> str:
    url: str = task["status"]["message"]["metadata"]["url"]
    return url


def said(task: Tree) -> str:
    text: str = task["artifacts"][0]["parts"][0]["text"]
    return text


@pytest.mark.parametrize("how", ["configuration", "endpoints", "metadata URL", "openid scheme", "resource metadata"])
async def test_a_task_waits_for_its_caller_and_goes_on_by_itself(tmp_path: Path, how: str) -> None:
    """Wherever it is written who gives the tokens."""
    async with authority() as by:
        kinds: dict[str, Tree] = {
            "endpoints": scheme(by, pkceRequired=True),
            "metadata URL": {
                "oauth2SecurityScheme": {
                    "flows": {},
                    "oauth2MetadataUrl": f"{by.issuer}/.well-known/oauth-authorization-server",
                }
            },
            "openid scheme": {
                "openIdConnectSecurityScheme": {"openIdConnectUrl": f"{by.issuer}/.well-known/openid-configuration"}
            },
        }
        oauth = pinned(by) if how == "configuration" else "grant: authorization_code"
        if how == "endpoints":  # nothing is known of it but its endpoints, so nobody is registered there
            oauth += ", client_id: gateway"
            by.iss = ""
        async with far_away(by, kinds.get(how)) as far:
            if how == "resource metadata":
                base = far.agent.card["supportedInterfaces"][0]["url"]
                document = {"resource": base, "authorization_servers": [by.issuer], "scopes_supported": ["read"]}
                far.agent.documents["/.well-known/oauth-protected-resource/rpc"] = json.dumps(document).encode()
            async with running(tmp_path, configuration(far, oauth)) as gateway:
                await ready(gateway, "far")
                ann = await gateway.key("ann")
                task = await asks(gateway, "hi", ann)
                assert far.calls == []
                done = await Person(gateway).connects(link(task), ann)
                assert "may use far in your name" in done.text, done.text
                assert said(await ended(gateway, task["id"], agent="far", who=ann)) == "did hi"
                assert len(far.calls) == 1
                # RFC 8707: asked for, and got, for that agent alone; RFC 7636: S256, which the authority checks.
                (asked,) = by.asked
                resource = far.agent.card["supportedInterfaces"][0]["url"]
                assert (asked["resource"], asked["redirect_uri"]) == (resource, f"{gateway.url}/oauth/connected")
                assert {form["resource"] for form in by.forms} == {resource}
                assert asked.get("scope") == "read"
                # The next call needs nobody.
                assert said(await gateway.task("again", agent="far", who=ann)) == "did again"


async def test_a_stream_stays_open_and_tells_how_the_task_goes_on(tmp_path: Path) -> None:
    async with authority() as by, far_away(by) as far, running(tmp_path, configuration(far, pinned(by))) as gateway:
        await ready(gateway, "far")
        ann = await gateway.key("ann")
        params = {"message": message("hi")}
        async with gateway.stream("SendStreamingMessage", params, agent="far", who=ann) as events:
            seen = [await asyncio.wait_for(anext(events), BOUND)]
            while "AUTH_REQUIRED" not in str(seen[-1]):
                seen.append(await asyncio.wait_for(anext(events), BOUND))
            status = (seen[-1].get("statusUpdate") or seen[-1]["task"])["status"]
            await Person(gateway).connects(status["message"]["metadata"]["url"], ann)
            rest = [event async for event in events]
        states = [event["statusUpdate"]["status"]["state"] for event in rest if "statusUpdate" in event]
        assert states == ["TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]


async def test_nobody_elses_authorization_is_ever_used(tmp_path: Path) -> None:
    async with authority() as by, far_away(by) as far, running(tmp_path, configuration(far, pinned(by))) as gateway:
        await ready(gateway, "far")
        ann, bob = await gateway.key("ann"), await gateway.key("bob")
        hers, his = await asks(gateway, "from ann", ann), await asks(gateway, "from bob", bob)
        assert (await Person(gateway).shows(link(hers), bob)).status_code == 403
        await Person(gateway).connects(link(hers), ann)
        await ended(gateway, hers["id"], agent="far", who=ann)
        assert len(far.calls) == 1
        assert (await gateway.result("GetTask", {"id": his["id"]}, agent="far", who=bob))["status"]["state"] == (
            "TASK_STATE_AUTH_REQUIRED"
        )
        await asks(gateway, "and again", bob)
        await Person(gateway).connects(link(his), bob)
        await ended(gateway, his["id"], agent="far", who=bob)
        await gateway.task("once more", agent="far", who=ann)
        tokens = [token for _, token in far.calls]
        assert tokens[-1] == tokens[0]
        assert len(set(tokens)) == 2
        entries = [entry for entry in await gateway.record() if entry.target == "far"]
        verbs = [(each.verb, each.principal, each.outcome) for each in entries if each.verb.startswith("Connect")]
        assert verbs[0] == ("ConnectAgent", "key:bob", "PERMISSION_DENIED")
        assert verbs[1:3] == [("ConnectAgent", "key:ann", "ok"), ("ConnectedAgent", "key:ann", "ok")]


async def test_all_tasks_of_the_caller_go_on_at_once_and_no_other(tmp_path: Path) -> None:
    async with authority() as by, far_away(by) as far, running(tmp_path, configuration(far, pinned(by))) as gateway:
        await ready(gateway, "far")
        ann = await gateway.key("ann")
        first, second, third = [await asks(gateway, text, ann) for text in ("one", "two", "three")]
        await gateway.result("CancelTask", {"id": third["id"]}, agent="far", who=ann)
        await Person(gateway).connects(link(second), ann)
        for task in (first, second):
            await ended(gateway, task["id"], agent="far", who=ann)
        assert len(far.calls) == 2
        canceled = await gateway.result("GetTask", {"id": third["id"]}, agent="far", who=ann)
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"


async def test_what_waits_takes_nobodys_place(tmp_path: Path) -> None:
    async with authority() as by, far_away(by) as far:
        config = configuration(far, pinned(by)).replace("public: true", "public: true, concurrency: 1, queue: 0")
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            ann, bob = await gateway.key("ann"), await gateway.key("bob")
            tasks = [await asks(gateway, "hi", who) for who in (ann, ann, bob)]
            await Person(gateway).connects(link(tasks[2]), bob)
            await ended(gateway, tasks[2]["id"], agent="far", who=bob)
            assert said(await gateway.task("at once", agent="far", who=bob)) == "did at once"


async def test_a_task_that_waits_survives_a_restart(tmp_path: Path, port: int) -> None:
    async with authority() as by, far_away(by) as far:
        config = configuration(far, pinned(by))
        async with running(tmp_path, config, port=port) as gateway:
            await ready(gateway, "far")
            ann = await gateway.key("ann")
            task = await asks(gateway, "hi", ann)
        async with running(tmp_path, config, port=port) as gateway:
            await ready(gateway, "far")
            await Person(gateway).connects(link(task), ann)
            done = await ended(gateway, task["id"], agent="far", who=ann)
            assert said(done) == "did hi"
            assert [method for method, _ in far.calls] == ["SendMessage"]
            outcomes = [
                (entry.verb, entry.phase, entry.outcome)
                for entry in await gateway.record()
                if entry.task_id == task["id"]
            ]
            assert outcomes[-2:] == [("SendMessage", "intent", "begun"), ("SendMessage", "outcome", "COMPLETED")]


async def test_a_grant_that_was_revoked_is_asked_for_again(tmp_path: Path) -> None:
    async with authority(life=1) as by, far_away(by) as far:
        now = [1_000_000_000_000]
        async with running(tmp_path, configuration(far, pinned(by)), now=lambda: now[0]) as gateway:
            await ready(gateway, "far")
            ann = await gateway.key("ann")
            await Person(gateway).connects(link(task := await asks(gateway, "hi", ann)), ann)
            await ended(gateway, task["id"], agent="far", who=ann)
            by.refreshes.clear()
            by.revoke()
            now[0] += 60_000
            again = await asks(gateway, "and now", ann)
            await Person(gateway).connects(link(again), ann)
            assert said(await ended(gateway, again["id"], agent="far", who=ann)) == "did and now"


async def test_a_grant_that_ends_while_the_agent_works_sends_nothing_twice(tmp_path: Path) -> None:
    async with authority() as by, far_away(by) as far:
        now = [1_000_000_000_000]
        async with running(tmp_path, configuration(far, pinned(by)), now=lambda: now[0]) as gateway:
            await ready(gateway, "far")
            ann = await gateway.key("ann")
            await Person(gateway).connects(link(task := await asks(gateway, "hi", ann)), ann)
            await ended(gateway, task["id"], agent="far", who=ann)
            work = far.agent.plays["SendMessage"]

            async def then_revoked(asked: Asked) -> None:
                await work(asked)
                by.refreshes.clear()
                by.revoke()
                now[0] += 60_000

            far.agent.plays["SendMessage"] = then_revoked
            task = await asks(gateway, "slow", ann)
            await Person(gateway).connects(link(task), ann)
            await ended(gateway, task["id"], agent="far", who=ann)
            assert [method for method, _ in far.calls] == ["SendMessage", "SendMessage", "GetTask"]


async def test_tokens_are_renewed_ahead_and_once(tmp_path: Path) -> None:
    async with authority(life=100) as by, far_away(by) as far:
        now = [1_000_000_000_000]
        async with running(tmp_path, configuration(far, pinned(by)), now=lambda: now[0]) as gateway:
            await ready(gateway, "far")
            ann = await gateway.key("ann")
            await Person(gateway).connects(link(task := await asks(gateway, "hi", ann)), ann)
            await ended(gateway, task["id"], agent="far", who=ann)
            now[0] += 95_000
            refused = far.refused
            await asyncio.gather(*(gateway.task(f"at once {n}", agent="far", who=ann) for n in range(8)))
            assert [form["grant_type"] for form in by.forms] == ["authorization_code", "refresh_token"]
            assert far.refused == refused


@pytest.mark.security
@pytest.mark.parametrize(
    ("settings", "iss", "words"),
    [
        ({"metadata": {"code_challenge_methods_supported": ["plain"]}}, None, "PKCE"),
        ({}, "https://evil.example", "from another authorization server"),
        ({}, "", "does not say which authorization server"),
    ],
    ids=["no S256", "another iss", "no iss"],
)
async def test_an_authorization_server_that_could_be_mixed_up_is_refused(
    tmp_path: Path, settings: Tree, iss: str | None, words: str
) -> None:
    async with (
        authority(iss=iss, **settings) as by,
        far_away(by) as far,
        running(tmp_path, configuration(far, pinned(by))) as gateway,
    ):
        await ready(gateway, "far")
        ann, person = await gateway.key("ann"), Person(gateway)
        task = await asks(gateway, "hi", ann)
        page = await person.shows(link(task), ann)
        if page.status_code == 200:
            page = await person.connects(link(task), ann)
        assert (page.status_code, words in page.text) == (502, True), page.text
        assert by.forms == []
        still = await gateway.result("GetTask", {"id": task["id"]}, agent="far", who=ann)
        assert still["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"


async def test_a_card_alone_that_promises_no_pkce_leads_nobody_anywhere(tmp_path: Path) -> None:
    async with authority() as by, far_away(by, scheme(by)) as far:
        oauth = "grant: authorization_code, client_id: gateway"
        async with running(tmp_path, configuration(far, oauth)) as gateway:
            await ready(gateway, "far")
            ann = await gateway.key("ann")
            page = await Person(gateway).shows(link(await asks(gateway, "hi", ann)), ann)
            assert (page.status_code, "PKCE" in page.text) == (502, True)
            assert by.asked == []


async def test_nobody_has_no_authorization(tmp_path: Path) -> None:
    async with (
        authority() as by,
        far_away(by) as far,
        running(tmp_path, configuration(far, pinned(by)), anonymous=True) as gateway,
    ):
        await ready(gateway, "far")
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
        answer = await gateway.client.post("/agents/far", json=body, headers={"A2A-Version": "1.0"})
        assert "authorization of the caller's own" in answer.json()["error"]["message"]


@pytest.mark.security
@pytest.mark.requirement("oauth.token.not-passed-on")
@pytest.mark.parametrize("leg", ["agent", "certificate", "tool"])
async def test_nothing_of_what_a_caller_shows_goes_along_with_their_authorization(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, leg: str
) -> None:
    """Canaries in every header, on the way to an agent, to one that asks for a certificate, and to a tool; while the
    task waits, when it goes on, and at the authorization server."""
    caplog.set_level("DEBUG")
    (tmp_path / "pki").mkdir()
    ca, data = Ca(tmp_path / "pki"), tmp_path / "data"
    async with authority() as by, far_away(by) as far, guarded(by) as server:
        with terminated(ca.asking(), int(far.agent.url.rpartition(":")[2])) as port:
            config = tooled(server) if leg == "tool" else configuration(far, pinned(by))
            if leg == "certificate":
                cert, key = ca.gives("gateway")
                far.agent.card = {**card(f"https://127.0.0.1:{port}", streaming=False)}
                far.agent.card["securitySchemes"] = {"o": scheme(by), "m": {"mtlsSecurityScheme": {}}}
                far.agent.card["securityRequirements"] = [{"schemes": {"o": {"list": []}, "m": {"list": []}}}]
                config = config.replace(far.agent.url, f"https://127.0.0.1:{port}")
                config = config.replace(
                    "credentials: {", f"credentials: {{cert: {cert}, cert_key: {key}, ca: {ca.ca}, "
                )
            async with running(data, config) as gateway:
                await (login(gateway) if leg == "tool" else ready(gateway, "far"))
                agent, text = ("helper", "docs/hello") if leg == "tool" else ("far", "hi")
                ann = await gateway.key("canary")
                headers = {name.replace("-", "_"): word for name, word in INBOUND.items()}
                body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message(text)}}
                answer = await gateway.post(body, agent=agent, who=ann, **headers)
                assert "result" in answer.json(), answer.text
                task = answer.json()["result"]["task"]
                pages = [await Person(gateway).connects(link(task), ann)]
                done = await ended(gateway, task["id"], agent=agent, who=ann)
                assert done["status"]["state"] == "TASK_STATE_COMPLETED", done
            upstream = str([(a.headers, a.raw) for a in far.agent.asked] + far.agent.lines + server.sent)
            places = {
                "the agent or tool": upstream,
                "the authorization server": str((by.asked, by.forms, by.authorizations)),
                "a log": "".join(r.getMessage() for r in caplog.records if r.name.startswith("gateway")),
                "an answer": answer.text + str(answer.headers) + str(done) + pages[0].text,
                "the disk": kept(data).decode("latin-1"),
            }
            ours = {word for word in by.secrets if word in places["the agent or tool"]}
            for place, text in places.items():
                assert ann not in text, place
                seen = text
                for word in (*by.secrets, "key:canary"):
                    seen = seen.replace(word, "")
                for word in INBOUND.values():
                    assert word not in seen, (place, word)
                if place not in ("the agent or tool", "the authorization server"):
                    assert not any(word in text for word in by.secrets), place
            assert ours <= set(by.tokens), "of what the authorization server gave, access tokens travel alone"


async def test_tokens_are_on_disk_sealed_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with authority() as by, far_away(by) as far, running(tmp_path, configuration(far, pinned(by))) as gateway:
        await ready(gateway, "far")
        ann = await gateway.key("ann")
        task = await asks(gateway, "hi", ann)
        await Person(gateway).connects(link(task), ann)
        done = await ended(gateway, task["id"], agent="far", who=ann)
        for word in by.secrets:
            assert word.encode() not in kept(tmp_path)
            assert word not in str(done)
            assert word not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("gateway"))


# Agents of ours that use tool servers.


def tooled(server: Guarded, agent: str = "tests.actors:tooled") -> str:
    return f"""
tools:
  docs: {{url: "{server.url}", oauth: {{login: caller}}}}
agents:
  helper: {{run: "{agent}", card: {ROOT}/agent_cards/echo.json, public: true}}
grants:
  - {{to: "agent:helper", tools: [docs]}}
egress: {{allow_loopback: true}}
"""


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_an_agent_of_ours_waits_where_it_stands_for_its_callers_authorization(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, tooled(server)) as gateway:
        await login(gateway)
        ann = await gateway.key("ann")
        task = await asks(gateway, "docs/hello", ann, agent="helper")
        assert server.calls == []
        await Person(gateway).connects(link(task), ann)
        done = await ended(gateway, task["id"], agent="helper", who=ann)
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"
        assert done["status"]["message"]["parts"][0]["data"]["text"] == "hello"
        assert server.calls == ["hello"]


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_what_an_agent_did_before_it_had_to_wait_is_not_done_twice(tmp_path: Path) -> None:
    async with (
        authority() as by,
        guarded(by) as server,
        running(tmp_path, tooled(server, "tests.actors:diligent")) as gateway,
    ):
        await login(gateway)
        ann = await gateway.key("ann")
        task = await asks(gateway, "docs/hello", ann, agent="helper")
        await Person(gateway).connects(link(task), ann)
        done = await ended(gateway, task["id"], agent="helper", who=ann)
        assert [each["parts"][0]["text"] for each in done["artifacts"]] == ["before", "hello", "hello"]


@pytest.mark.requirement("mcp.client.own-authorization")
@pytest.mark.parametrize(("agent", "state"), [("tooled", "COMPLETED"), ("diligent", "COMPLETED"), ("eager", "FAILED")])
async def test_after_a_restart_an_agent_begins_again_if_it_has_done_nothing_yet(
    tmp_path: Path, port: int, agent: str, state: str
) -> None:
    """`eager` has asked another agent before: nobody knows whether that may be done again."""
    async with authority() as by, guarded(by) as server:
        config = tooled(server, f"tests.actors:{agent}").replace(
            "grants:",
            f"  peer: {{run: 'tests.actors:mirror', card: {ROOT}/agent_cards/echo.json, public: true}}\ngrants:",
        )
        async with running(tmp_path, config, port=port) as gateway:
            await login(gateway)
            ann = await gateway.key("ann")
            task = await asks(gateway, "docs/hello", ann, agent="helper")
        async with running(tmp_path, config, port=port) as gateway:
            still = await gateway.result("GetTask", {"id": task["id"]}, agent="helper", who=ann)
            assert still["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
            await Person(gateway).connects(link(task), ann)
            done = await ended(gateway, task["id"], agent="helper", who=ann)
            assert done["status"]["state"] == f"TASK_STATE_{state}", done
            if state == "FAILED":
                assert done["status"]["message"]["metadata"]["reason"] == "unknown-outcome"


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_a_message_to_a_task_that_waits_comes_first(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, tooled(server)) as gateway:
        await login(gateway)
        ann = await gateway.key("ann")
        task = await asks(gateway, "docs/hello", ann, agent="helper")
        again = await asks(gateway, "docs/hello", ann, agent="helper", taskId=task["id"])
        assert again["id"] == task["id"]
        await Person(gateway).connects(link(task), ann)  # the link before is as good
        await ended(gateway, task["id"], agent="helper", who=ann)
        assert server.calls == ["hello"]


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_calls_at_the_same_time_wait_together(tmp_path: Path) -> None:
    async with (
        authority() as by,
        guarded(by) as server,
        running(tmp_path, tooled(server, "tests.actors:twice")) as gateway,
    ):
        await login(gateway)
        ann = await gateway.key("ann")
        task = await asks(gateway, "docs/hello", ann, agent="helper")
        await Person(gateway).connects(link(task), ann)
        done = await ended(gateway, task["id"], agent="helper", who=ann)
        assert done["status"]["message"]["parts"][0]["text"] == "hello hello"
