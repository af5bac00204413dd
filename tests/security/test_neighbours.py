"""Advisories about what one caller gets of another's: answers, streams, sessions, tasks."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.core.policy import RULES
from gateway.core.policy.rules import simple
from gateway.dialects.mcp import headers
from gateway.dialects.sse import Reader
from gateway.model.rows import TaskQuery
from gateway.model.whom import EVERYBODY
from gateway.server.front import Front
from gateway.server.mcp.exchange import Exchange
from gateway.server.mcp.sessions import Session, Sessions
from gateway.stores.sqlite import SqliteStore
from tests.actors import Cue
from tests.mcp import Door, Scripted, configured, events_of, message_of, modern, request, says, scripted, soon, tool
from tests.mcp import Session as ClientSession
from tests.security.twins import (
    Attacks,
    Attempt,
    asks_for_no_owner,
    asks_for_no_principal,
    broken_by,
    each_of,
)
from tests.serving import BOUND, ROOT, Gateway, message, running
from tests.upstream.mcp_raw import Call, legacy, raw

pytestmark = pytest.mark.security

HOOK = "http://127.0.0.1:9/hook"  # where nobody listens
CLIENTS, KEYS = 64, 8
AGENTS = f"""
egress: {{allow_loopback: true}}
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
  actor: {{run: "tests.actors:Actor", card: {ROOT}/agent_cards/echo.json, public: true}}
"""


@dataclass(frozen=True)
class House:
    """A gateway with agents and a tool server for everybody with a key, and three of those."""

    gateway: Gateway
    docs: Scripted
    ann: str
    bob: str

    def door(self, who: str) -> Door:
        return Door(self.gateway, who=who)


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[House]:
    async with scripted(tool("say"), tool("count")) as docs:
        names = ("ann", "client-spare", *(f"client-{number}" for number in range(KEYS)))
        grants = f"grants: [{', '.join(f'{{to: {name}, tools: [docs]}}' for name in names)}]"
        servers = configured(grants, docs=docs).replace("'}", "', concurrency: 256}", 1)
        async with running(data, AGENTS + servers, anonymous=True) as gateway:
            await gateway.app.tools.servers.settled()

            async def heard() -> bool:
                return bool(docs.listeners)

            await soon(heard)
            yield House(gateway, docs, await gateway.key("ann"), await gateway.key("bob"))


# The same ids. Every client begins to count at 0, and goes on as all the others do.


class Crowd:
    """Holds the answers of a tool until so many calls are there at once."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._all = asyncio.Event()

    async def answer(self, params: dict[str, Any]) -> dict[str, Any]:
        self._left -= 1
        if self._left <= 0:
            self._all.set()
        await self._all.wait()
        return says(params["arguments"]["canary"])


async def ids_that_are_the_same(house: House) -> list[bool]:
    """Over MCP without sessions, with a session each, and over A2A: whether any of the answers was another's."""
    keys = await asyncio.gather(*(house.gateway.key(f"client-{number}") for number in range(KEYS)))
    doors = [house.door(keys[number % KEYS]) for number in range(CLIENTS)]
    sessions = await asyncio.gather(*(door.session() for door in doors))
    got = []
    for id, ask in enumerate((_stateless, _in_session, _agent)):
        house.docs.answers["say"] = Crowd(CLIENTS).answer
        canaries = [f"canary-{id}-{number}" for number in range(CLIENTS)]
        answers = await asyncio.gather(*(ask(*each, id) for each in zip(doors, sessions, canaries, strict=True)))
        assert [answer["id"] for answer in answers] == [id] * CLIENTS
        texts = [json.dumps(answer) for answer in answers]
        assert all("canary-" in text for text in texts)
        got.append(any(f'"{canary}"' not in text for canary, text in zip(canaries, texts, strict=True)))
    return got


def _call(canary: str) -> dict[str, Any]:
    return {"name": "docs__say", "arguments": {"canary": canary}}


async def _stateless(door: Door, _: ClientSession, canary: str, id: int) -> dict[str, Any]:
    params = modern(_call(canary))
    made = headers.make("tools/call", params, "2026-07-28")
    return message_of(await door.raw(request("tools/call", params, id=id), made))


async def _in_session(_: Door, session: ClientSession, canary: str, id: int) -> dict[str, Any]:
    return message_of(await session.raw(request("tools/call", _call(canary), id=id)))


async def _agent(door: Door, _: ClientSession, canary: str, id: int) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": id, "method": "SendMessage", "params": {"message": message(canary)}}
    answer: dict[str, Any] = (await door.gateway.post(body, who=door.who)).json()
    return answer


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The body, and a `receive` that gives it again."""
    first = await receive()
    body: bytes = first.get("body", b"")
    given = iter([first])

    async def again() -> Message:
        return next(given, None) or await receive()

    return body, again


class _Lane:
    """Requests of one id that are under way at the same time."""

    def __init__(self) -> None:
        self.count = 0
        self.said: list[Message] = []
        self.all = asyncio.Event()


def answers_by_id(patch: pytest.MonkeyPatch) -> None:
    """One transport for all clients: what is answered belongs to the id alone, and the last answer is everybody's."""
    sound = Front.__call__
    lanes: dict[Any, _Lane] = {}

    async def shared(self: Front, scope: Scope, receive: Receive, send: Send) -> None:
        body, receive = await _read(receive)
        tree = json.loads(body) if body.startswith(b'{"jsonrpc"') else {}
        lane = lanes.setdefault(tree.get("id"), _Lane()) if "id" in tree else None
        if lane is None or tree["method"] == "initialize":
            await sound(self, scope, receive, send)
            return
        lane.count += 1
        said: list[Message] = []

        async def collect(part: Message) -> None:
            said.append(part)

        await sound(self, scope, receive, collect)
        lane.said = said
        lane.count -= 1
        if lane.count == 0:
            lanes.pop(tree["id"], None)
            lane.all.set()
        await lane.all.wait()
        for part in lane.said:
            await send(part)

    patch.setattr(Front, "__call__", shared)


# Streams and sessions.


async def a_stream_that_another_reads(house: House) -> list[bool]:
    """With the id of the victim's session, by another key and by nobody: what is said on its stream goes to the thief,
    and the victim hears no more."""
    got = []
    for thief in (house.gateway.bearer(house.bob), {}):
        session = await house.door(house.ann).session()
        async with session.stream(None) as told:
            stolen = await _steals(house, {**thief, **session.headers})
            got.append(stolen)
            if not stolen:
                house.docs.announce()
                assert (await asyncio.wait_for(anext(told), BOUND))["method"] == CHANGED
    return got


CHANGED = "notifications/tools/list_changed"


async def _steals(house: House, sent: dict[str, str]) -> bool:
    sent = {"Accept": "text/event-stream", **sent}
    async with house.gateway.client.stream("GET", "/mcp", headers=sent) as answer:
        if answer.status_code != 200:
            return False
        house.docs.announce()
        async with asyncio.timeout(BOUND):
            async for event in events_of(answer):
                if CHANGED.encode() in event.data:
                    return True
    return False


async def a_session_that_is_guessed(house: House) -> list[bool]:
    """Nobody has a credential here, so that a session's id is all that keeps two callers apart. The attacker has had
    ids before, and tries these and what lies beside them."""
    seen = []
    for _ in range(8):
        id = await _begun(house.gateway)
        seen.append(id)
    for id in seen:
        assert (await _nobody(house.gateway, None, id, "DELETE")).status_code == 204
    victim = await _begun(house.gateway)
    guesses = {f"{int(id, 16) + step:0{len(id)}x}" for id in seen for step in range(-8, 9)}
    answers = [await _nobody(house.gateway, request("ping", {}), guess) for guess in sorted(guesses)]
    assert (await _nobody(house.gateway, request("ping", {}), victim)).status_code == 200
    return [any(each.status_code == 200 for each in answers)]


async def _begun(gateway: Gateway) -> str:
    offer = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await _nobody(gateway, request("initialize", offer))
    id: str = answer.headers["mcp-session-id"]
    return id


async def _nobody(gateway: Gateway, body: Any, session: str = "", method: str = "POST") -> httpx2.Response:
    sent = {"Accept": "application/json, text/event-stream", **({"Mcp-Session-Id": session} if session else {})}
    content = {} if body is None else {"json": body}
    return await gateway.client.request(method, "/mcp", headers=sent, **content)


def uses_ids_again(patch: pytest.MonkeyPatch) -> None:
    """The address of the object as its id: the next one gets the place of one that is gone."""
    sound = Sessions.open

    async def open(self: Sessions, *about: Any) -> Session:
        session = await sound(self, *about)
        there = self._sessions.pop(session.id)
        there.id = next(
            id for id in (f"{0x7F00 + 0x40 * n:08x}" for n in itertools.count()) if id not in self._sessions
        )
        self._sessions[there.id] = there
        return there

    patch.setattr(Sessions, "open", open)


# Tasks, while they run: who finds them in memory may forget to ask whose they are.


async def a_task_that_runs(house: House) -> list[bool]:
    got = []
    for verb in ("GetTask", "SubscribeToTask", *PUSH, "CancelTask"):
        id, cue = await _running(house)
        got.append(await _does(house, verb, id, house.bob))
        if got[-1] and verb == "CancelTask":
            await asyncio.wait_for(cue.stopped.wait(), BOUND)
        else:
            assert not cue.stopped.is_set()
        cue.done()
    return got


PUSH = (
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
)


async def _running(house: House) -> tuple[str, Cue]:
    """A task of ann's that is at work, with a webhook."""
    cue = Cue()
    cue.say("At work")
    later = {"returnImmediately": True}
    task = await house.gateway.task(cue.text, agent="actor", who=house.ann, configuration=later)
    await asyncio.wait_for(cue.began.wait(), BOUND)
    config = {"taskId": task["id"], "url": HOOK, "id": "c"}
    await house.gateway.result(PUSH[0], config, agent="actor", who=house.ann)
    return task["id"], cue


async def _does(house: House, verb: str, id: str, who: str | None) -> bool:
    """Whether somebody who is not its owner can do this with a task."""
    params = {"taskId": id, "id": "c", "url": HOOK} if verb in PUSH else {"id": id}
    body = {"jsonrpc": "2.0", "id": 1, "method": verb, "params": params}
    sent = {"A2A-Version": "1.0", **house.gateway.bearer(who)}
    async with house.gateway.client.stream("POST", "/agents/actor", json=body, headers=sent) as answer:
        return answer.headers["content-type"].startswith("text/event-stream") or b'"error"' not in await answer.aread()


async def what_is_private_for_the_operator(house: House) -> list[bool]:
    """The machine's own credential may do everything to the gateway, and nothing with what others asked of agents. (To
    see a task as it was is an act of its own, on the record: `gateway replay`.)"""
    http, operator = house.gateway.client, house.gateway.bearer(None)
    got = []
    for verb in ("GetTask", "SubscribeToTask", PUSH[2], "CancelTask"):
        id, cue = await _running(house)
        got.append(await _does(house, verb, id, None))
        cue.done()
    for verb, path in (("GET", ""), ("GET", ":watch"), ("POST", ":cancel")):
        id, cue = await _running(house)
        async with http.stream(verb, f"/admin/tasks/{id}{path}", headers=operator) as answer:
            got.append(answer.status_code == 200)
        cue.done()
    listed = await http.get("/admin/tasks", headers=operator)
    got.append(bool(listed.json()["tasks"]))
    got.append(bool((await house.gateway.result("ListTasks", {}, agent="actor"))["tasks"]))
    return got


def shows_the_operator_everything(patch: pytest.MonkeyPatch) -> None:
    task, tasks = SqliteStore.task, SqliteStore.tasks

    async def any_task(self: SqliteStore, tenant: str, task_id: str, *, owner: str | None = None, **more: Any) -> Any:
        return await task(self, tenant, task_id, owner=None if owner == "local:local" else owner, **more)

    async def all_tasks(self: SqliteStore, query: TaskQuery) -> Any:
        return await tasks(self, replace(query, owner="key:ann") if query.owner == "local:local" else query)

    patch.setattr(SqliteStore, "task", any_task)
    patch.setattr(SqliteStore, "tasks", all_tasks)


async def what_another_made(house: House) -> list[bool]:
    """Taken away by somebody who may take away what is his own: a webhook, a session, a run, a key."""
    gateway, bob = house.gateway, house.gateway.bearer(house.bob)
    id, cue = await _running(house)
    await gateway.http("DELETE", f"/tasks/{id}/pushNotificationConfigs/c", agent="actor", who=house.bob)
    left = await gateway.result(PUSH[2], {"taskId": id}, agent="actor", who=house.ann)
    got = [not left["configs"]]
    session = await house.door(house.ann).session()
    await house.door(house.bob).raw(None, session.headers, method="DELETE")
    got.append((await session.raw(request("ping", {}))).status_code != 200)
    canceled = await gateway.client.post(f"/acp/runs/{uuid.UUID(id)}/cancel", headers=bob)
    got.append(canceled.status_code == 202)
    if got[-1]:
        await asyncio.wait_for(cue.stopped.wait(), BOUND)
    cue.done()
    spare = await gateway.key("client-spare")
    listed = (await gateway.client.get("/admin/keys", headers=gateway.bearer(None))).json()["keys"]
    key = next(each["id"] for each in listed if each["name"] == "client-spare")
    await gateway.client.delete(f"/admin/keys/{key}", headers=bob)
    got.append((await gateway.client.get("/agents", headers=gateway.bearer(spare))).status_code == 401)
    return got


def lets_anybody_remove(patch: pytest.MonkeyPatch) -> None:
    asks_for_no_owner(patch)
    asks_for_no_principal(patch)
    patch.setattr("gateway.policing.RULES", (*RULES, simple("keys", "anybody known may", EVERYBODY, ("RevokeKey",))))


# Answers that are kept: the same question of somebody else.


async def the_same_question(house: House) -> list[bool]:
    """Byte for byte the same, by two callers: a call, a list, a message, and a list of tasks."""
    numbers = itertools.count(1)

    async def count(params: Any) -> dict[str, Any]:
        return says(f"number {next(numbers)}")

    house.docs.answers["count"] = count
    spare = await house.gateway.key("client-spare")
    got = []
    asks: tuple[tuple[str, Any], ...] = (("tools/call", {"name": "docs__count", "arguments": {}}), ("tools/list", {}))
    for method, params in asks:
        asked = modern(params)
        body = json.dumps(request(method, asked, id=1)).encode()
        made = headers.make(method, asked, "2026-07-28")
        other = spare if method == "tools/call" else house.bob
        one, two = [(await house.door(who).raw(body, made)).content for who in (house.ann, other)]
        assert b'"result"' in one
        got.append(one == two)
    same = {"message": message("mine", messageId="the-same")}
    for method, params in (("SendMessage", same), ("ListTasks", {})):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        one, two = [(await house.gateway.post(body, who=who)).content for who in (house.ann, house.bob)]
        got.append(one == two)
    return got


def keeps_answers_for_everybody(patch: pytest.MonkeyPatch) -> None:
    sound = Front.__call__
    kept: dict[tuple[str, bytes], list[Message]] = {}

    async def cached(self: Front, scope: Scope, receive: Receive, send: Send) -> None:
        body, receive = await _read(receive)
        said = kept.get((scope["path"], body))
        if said is None:
            said = kept[scope["path"], body] = []

            async def keep(part: Message, said: list[Message] = said) -> None:
                said.append(part)

            await sound(self, scope, receive, keep)
        for part in said:
            await send(part)

    patch.setattr(Front, "__call__", cached)


ATTACKS: Attacks[House] = {
    "ids": (ids_that_are_the_same, answers_by_id),
    "stream": (a_stream_that_another_reads, asks_for_no_principal),
    "guessed": (a_session_that_is_guessed, uses_ids_again),
    "running": (a_task_that_runs, asks_for_no_owner),
    "operator": (what_is_private_for_the_operator, shows_the_operator_everything),
    "removed": (what_another_made, lets_anybody_remove),
    "kept": (the_same_question, keeps_answers_for_everybody),
}


@each_of(ATTACKS)
async def test_nobody_gets_anothers_but_of_the_broken_twin(tmp_path: Path, attempt: Attempt[House]) -> None:
    async with house(tmp_path) as here:
        await attempt(here)


# Sessions with tool servers that keep something for a session.


class Memory:
    """A tool server whose sessions remember. It asks for no credential, so that to it all callers are one."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def initialize(self, call: Call) -> bytes:
        face = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "m", "version": "1"},
        }
        return call.result(face, mcp_session_id=f"s-{next(self._numbers)}")

    def listed(self, call: Call) -> bytes:
        return call.result({"tools": [tool("keep"), tool("recall")]})

    def called(self, call: Call) -> bytes:
        session = call.headers["mcp-session-id"]
        if call.params["name"] == "keep":
            self.kept[session] = call.params["arguments"]["text"]
        return call.result({"content": [{"type": "text", "text": self.kept.get(session, "nothing")}]})


def finds_a_session_by_the_server_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.upstream.mcp.sessions.key_of", lambda caller: ("everybody", b"{}"))


@broken_by(finds_a_session_by_the_server_alone)
async def test_a_server_keeps_nothing_of_one_caller_for_another_but_with_the_broken_twin(
    tmp_path: Path, broken: bool
) -> None:
    memory = Memory()
    handlers = legacy(initialize=memory.initialize, tools_list=memory.listed, tools_call=memory.called)
    async with raw(**handlers) as server:
        config = configured("grants: [{to: ann, tools: [memory]}, {to: bob, tools: [memory]}]", memory=server.url)
        async with running(tmp_path, config) as gateway:
            await gateway.app.tools.servers.settled()
            ann, bob = [Door(gateway, who=await gateway.key(name)) for name in ("ann", "bob")]
            assert _text(await ann.call("memory__keep", text="of ann")) == "of ann"
            assert _text(await ann.call("memory__recall")) == "of ann"
            assert (_text(await bob.call("memory__recall")) == "of ann") is broken


def _text(result: Any) -> str:
    return str(result["content"][0]["text"])


# What a server says before it answers.


def speaks_to_the_latest(patch: pytest.MonkeyPatch) -> None:
    """One place for the client that is spoken to: whoever came last."""
    begin, say = Exchange.__init__, Exchange._say
    latest: list[Exchange] = []

    def begun(self: Exchange, *about: Any, **more: Any) -> None:
        latest[:] = [self]
        begin(self, *about, **more)

    async def said(self: Exchange, body: bytes) -> None:
        await say(latest[0], body)

    patch.setattr(Exchange, "__init__", begun)
    patch.setattr(Exchange, "_say", said)


@broken_by(speaks_to_the_latest)
async def test_what_is_said_meanwhile_is_for_who_asked_but_in_the_broken_twin(tmp_path: Path, broken: bool) -> None:
    """The other half of CVE-2026-25536. All calls have the same id and the same token for progress."""
    crowd = Crowd(KEYS)

    async def works(call: Call) -> None:
        result = await crowd.answer(call.params)
        call.open()
        token, canary = call.params["_meta"]["progressToken"], call.params["arguments"]["canary"]
        call.notice("notifications/progress", progressToken=token, progress=1, message=canary)
        call.done(result)

    def listed(call: Call) -> bytes:
        return call.result({"tools": [tool("work")], "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"})

    async def ask(door: Door, canary: str) -> list[str]:
        params = modern({"name": "docs__work", "arguments": {"canary": canary}}, progressToken=1)
        sent = headers.make("tools/call", params, "2026-07-28")
        answer = await door.raw(request("tools/call", params, id=1), sent)
        if answer.headers["content-type"].startswith("text/event-stream"):
            return [event.data.decode() for event in Reader().feed(answer.content) if event.data]
        return [answer.text]

    async with raw(tools_list=listed, tools_call=works) as server:
        config = configured("grants: [{to: '*', tools: [docs]}]", docs=server.url)
        async with running(tmp_path, config) as gateway:
            await gateway.app.tools.servers.settled()
            doors = [Door(gateway, who=await gateway.key(f"client-{number}")) for number in range(KEYS)]
            canaries = [f"canary-{number}" for number in range(KEYS)]
            asks = (ask(*each) for each in zip(doors, canaries, strict=True))
            told = await asyncio.wait_for(asyncio.gather(*asks), BOUND)
    heard = [(canary, text) for canary, texts in zip(canaries, told, strict=True) for text in texts]
    assert sum("notifications/progress" in text for _, text in heard) == KEYS
    assert all(f'"{canary}"' in text for canary, text in heard) is not broken
