"""A task that its owner lets somebody read: they read and follow it as its owner does, over every binding, and can do
nothing else with it; nobody else can do anything. It ends when the owner says so, at a time, and with either one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from a2a.client import ClientCallContext
from a2a.types.a2a_pb2 import CancelTaskRequest, GetTaskRequest, SubscribeToTaskRequest
from a2a.utils.errors import TaskNotFoundError

from conformance import peers
from gateway.core.sharing import MAX_SHARES
from gateway.core.tasks import Tasks
from gateway.model.audit import AuditEntry
from gateway.model.base import timestamp
from gateway.model.principal import Principal
from gateway.model.rows import TaskRow
from gateway.model.trail import HOPS
from tests.actors import Cue
from tests.bindings import BINDINGS, Caller
from tests.issuer import Clock, issuing
from tests.journeys.people import admin
from tests.journeys.test_ownership import AIMED, HOOK, MISSING, aimed, told
from tests.older import Older
from tests.older_rpc import OlderRpc
from tests.remote import command, process
from tests.rpc import caller
from tests.security.twins import WAYS
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = [pytest.mark.security]

CARD = f"card: {ROOT}/agent_cards/echo.json"
CONFIG = f"""
server: {{default_agent: actor}}
egress: {{allow_loopback: true}}
agents:
  actor: {{run: "tests.actors:Actor", {CARD}, public: true}}
  echo: {{run: "agents.echo:Echo", {CARD}, public: true}}
  shut: {{run: "agents.echo:Echo", {CARD}}}
policy: {{file: policy.yaml}}
"""
RULES = "rules: [{rule: shut, who: [ann, bob], do: use, on: agents/shut, verdict: PASS}]"


class Held(Clock):
    """It stands still, unless the test moves it."""

    def now(self) -> int:
        return 1_800_000_000_000 + round(self.ahead * 1000)


@dataclass(frozen=True)
class House:
    """A gateway with a task of ann's that is at work. It may be shared with bob."""

    gateway: Gateway
    clock: Clock
    cue: Cue
    task: str
    ann: str
    bob: str

    def caller(self, binding: str, who: str) -> Caller:
        return replace(caller(self.gateway, binding, "actor"), who=who)

    async def asks(self, verb: str, path: str, who: str | None, **body: Any) -> Any:
        url, sent = f"/admin/tasks/{path}", self.gateway.bearer(who)
        return await self.gateway.client.request(verb, url, headers=sent, json=body or None)

    async def share(self, who: str | None, reader: str = "bob", **more: Any) -> Any:
        answer = await self.asks("POST", f"{self.task}:share", who, reader=reader, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def unshare(self, who: str | None, reader: str = "bob") -> None:
        answer = await self.asks("POST", f"{self.task}:unshare", who, reader=reader)
        assert answer.status_code == 204, answer.text

    async def shares(self, who: str | None) -> list[str]:
        answer = await self.asks("GET", f"{self.task}/shares", who)
        assert answer.status_code == 200, answer.text
        return [each["reader"] for each in answer.json()["shares"]]

    async def freeze(self, name: str) -> None:
        await admin(self.gateway, "frozen", kind="principal", name=name)

    async def entries(self, verb: str) -> list[AuditEntry]:
        return [entry for entry in await self.gateway.record() if entry.verb == verb]


@asynccontextmanager
async def house(folder: Path, clock: Clock | None = None) -> AsyncIterator[House]:
    folder.joinpath("policy.yaml").write_text(RULES)
    clock, config = clock or Clock(), CONFIG.replace("policy.yaml", str(folder / "policy.yaml"))
    async with running(folder / "data", config, now=clock.now, grpc_port=0) as gateway:
        ann, bob = await gateway.key("ann"), await gateway.key("bob")
        cue = Cue()
        task = await Caller(gateway, "http", "actor", ann).started(cue.text)
        yield House(gateway, clock, cue, task["id"], ann, bob)
        cue.done()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.joinpath("data").mkdir()
    return tmp_path


ALL = [*BINDINGS, "grpc"]


# Reading.


@pytest.mark.parametrize("binding", ALL)
async def test_whom_a_task_is_shared_with_reads_and_follows_it_as_its_owner_does(folder: Path, binding: str) -> None:
    async with house(folder) as here:
        ann, bob = here.caller(binding, here.ann), here.caller(binding, here.bob)
        await bob.refused("TASK_NOT_FOUND", "GetTask", id=here.task)
        made = await here.share(here.ann)
        assert (made["reader"], made["owner"], made["by"], made["until"]) == ("key:bob", "key:ann", "key:ann", None)
        for length in ({}, {"historyLength": 0}, {"historyLength": 1}):
            assert await bob.get(here.task, **length) == await ann.get(here.task, **length)
        async with (
            ann.stream("SubscribeToTask", id=here.task) as own,
            bob.stream("SubscribeToTask", id=here.task) as lent,
        ):
            for events in (own, lent):
                await asyncio.wait_for(anext(events), BOUND)
            here.cue.say("a word")
            here.cue.done()
            async with asyncio.timeout(BOUND):
                heard = [[event async for event in events] for events in (own, lent)]
        assert heard[0] == heard[1]
        assert "a word" in str(heard[1])
        assert "TASK_STATE_COMPLETED" in str(heard[1])
        assert await bob.get(here.task) == await ann.get(here.task)


@pytest.mark.parametrize("binding", ALL)
async def test_a_client_of_0_3_reads_and_follows_it_too(folder: Path, binding: str) -> None:
    async with house(folder) as here:
        made: Any = OlderRpc(here.gateway) if binding == "grpc" else Older(here.gateway, binding, "actor")
        bob = replace(made, who=here.bob)
        await bob.refused("TASK_NOT_FOUND", "tasks/get", id=here.task)
        await here.share(here.ann)
        assert (await bob.call("tasks/get", id=here.task))["id"] == here.task
        async with asyncio.timeout(BOUND), AsyncExitStack() as stack:
            asked = "tasks/resubscribe"
            if binding == "grpc":
                events = bob.events(asked, id=here.task)
            else:
                events = await stack.enter_async_context(bob.stream(asked, id=here.task))
            await anext(events)
            here.cue.say("a word")
            here.cue.done()
            assert "a word" in str([event async for event in events])


@pytest.mark.parametrize("version", peers.VERSIONS)
async def test_the_sdks_client_reads_what_is_shared_with_it(folder: Path, version: str) -> None:
    async def reads(peer: peers.Peer) -> None:
        context = ClientCallContext(service_parameters={"authorization": peer.credential["Authorization"]})
        task = await peer.plain.get_task(GetTaskRequest(id=here.task), context=context)
        assert task.id == here.task
        events = peer.streaming.subscribe(SubscribeToTaskRequest(id=here.task), context=context)
        assert (await anext(events)).task.id == here.task
        with pytest.raises(TaskNotFoundError):
            await peer.plain.cancel_task(CancelTaskRequest(id=here.task), context=context)

    async with house(folder) as here:
        await here.share(here.ann)
        assert await peers.failures(f"{here.gateway.url}/agents/actor", (reads,), here.bob, version) == []


async def test_policy_is_asked_first_and_unchanged(folder: Path) -> None:
    """Of an agent that somebody may not see nothing can be shared with them."""
    async with house(folder) as here:
        ann, eve = Caller(here.gateway, "http", "shut", here.ann), await here.gateway.key("eve")
        task = await ann.task("hi")
        for reader in ("bob", "eve"):
            answer = await here.asks("POST", f"{task['id']}:share", here.ann, reader=reader)
            assert answer.status_code == 200
        assert (await replace(ann, who=here.bob).get(task["id"]))["id"] == task["id"]
        seen = [await replace(ann, who=eve).to(agent).ask("GetTask", id=task["id"]) for agent in ("shut", "nosuch")]
        assert told(seen[0]) == told(seen[1])
        await replace(ann, who=eve, agent="echo").refused("TASK_NOT_FOUND", "GetTask", id=task["id"])


# Nothing else.


OTHERS = [method for method in AIMED if method not in ("GetTask", "SubscribeToTask")]


@pytest.mark.parametrize("binding", ALL)
async def test_everything_else_is_missing_byte_for_byte(folder: Path, binding: str) -> None:
    async with house(folder) as here:
        ann, bob = here.caller(binding, here.ann), here.caller(binding, here.bob)
        await ann.call("CreateTaskPushNotificationConfig", taskId=here.task, url=HOOK, id="c")
        await here.share(here.ann)
        for method in OTHERS:
            foreign = await bob.ask(method, **aimed(AIMED[method], here.task))
            missing = await bob.ask(method, **aimed(AIMED[method], MISSING))
            bob.error(foreign, "TASK_NOT_FOUND")
            assert told(foreign, here.task) == told(missing, MISSING), method
        assert (await bob.call("ListTasks"))["tasks"] == []
        assert not here.cue.stopped.is_set()


@pytest.mark.parametrize("binding", ALL)
async def test_for_everybody_else_a_shared_task_is_missing_byte_for_byte(folder: Path, binding: str) -> None:
    async with house(folder) as here:
        await here.share(here.ann)
        eve = here.caller(binding, await here.gateway.key("eve"))
        for method in AIMED:
            foreign = await eve.ask(method, **aimed(AIMED[method], here.task))
            missing = await eve.ask(method, **aimed(AIMED[method], MISSING))
            assert told(foreign, here.task) == told(missing, MISSING), method


async def test_the_admin_api_shows_whom_it_is_shared_with_no_more_than_before(folder: Path) -> None:
    """Of what is theirs in the admin API somebody else's task is none."""
    async with house(folder) as here:
        await here.share(here.ann)
        for verb, path, body in (
            ("POST", ":share", {"reader": "eve"}),
            ("POST", ":unshare", {"reader": "bob"}),
            ("GET", "/shares", {}),
        ):
            foreign = await here.asks(verb, here.task + path, here.bob, **body)
            missing = await here.asks(verb, MISSING + path, here.bob, **body)
            assert foreign.status_code == 404
            assert told(foreign, here.task) == told(missing, MISSING)
        assert await here.shares(here.ann) == ["key:bob"]


async def test_a_call_that_names_no_agent_reads_nothing_by_a_share(folder: Path) -> None:
    """Policy was asked about no agent then, whatever else it lets the reader do."""
    async with house(folder) as here:
        await here.share(here.ann)
        folder.joinpath("policy.yaml").write_text("rules: [{rule: all, who: bob, do: use, on: '*', verdict: PASS}]")
        await here.gateway.client.post("/admin/policy:reload", headers=here.gateway.bearer(None))
        for path in ("", ":watch"):
            foreign, missing = [await here.asks("GET", id + path, here.bob) for id in (here.task, MISSING)]
            assert foreign.status_code == 404
            assert told(foreign, here.task) == told(missing, MISSING)
        assert {entry.outcome for entry in await here.entries("GetTask")} == {"TASK_NOT_FOUND"}
        await here.caller("http", here.bob).get(here.task)


async def test_an_agent_that_asks_for_the_reader_does_not_read_it(folder: Path) -> None:
    async with house(folder) as here:
        await here.share(here.ann)
        bob = here.caller("http", here.bob)
        await bob.get(here.task)
        await bob.having(**{HOPS: "1"}).refused("TASK_NOT_FOUND", "GetTask", id=here.task)
        await bob.having(**{HOPS: "1"}).refused("TASK_NOT_FOUND", "SubscribeToTask", id=here.task)
        own = here.caller("http", here.ann).having(**{HOPS: "1"})
        assert (await own.get(here.task))["id"] == here.task


async def test_nobody_of_another_tenant_reads_it(folder: Path) -> None:
    config = CONFIG.replace("policy: {file: policy.yaml}", "")
    async with issuing() as issuer:
        auth = f"auth: {{issuers: [{{issuer: '{issuer.url}', tenant_claim: [org]}}]}}\n"
        async with running(folder / "data", auth + config) as gateway:

            def of(sub: str, org: str) -> Caller:
                return Caller(gateway, "http", "echo", issuer.token(gateway.url, sub=sub, org=org))

            task = await of("ann", "one").task("hi")
            answer = await gateway.client.post(
                f"/admin/tasks/{task['id']}:share",
                json={"reader": f"oauth:{issuer.url}#bob"},
                headers=gateway.bearer(of("ann", "one").who),
            )
            assert answer.status_code == 200, answer.text
            assert (await of("bob", "one").get(task["id"]))["id"] == task["id"]
            await of("bob", "two").refused("TASK_NOT_FOUND", "GetTask", id=task["id"])
            await of("eve", "one").refused("TASK_NOT_FOUND", "GetTask", id=task["id"])


def reads_by_share_everywhere(patch: pytest.MonkeyPatch) -> None:
    """A task that is shared is as good as one's own."""
    own = Tasks.row

    async def row(self: Tasks, who: Principal, task_id: str, agent: str | None) -> TaskRow:
        share = await self._shares.given(who, task_id)
        return await own(self, who if share is None else Principal.of(share.owner, who.tenant), task_id, agent)

    patch.setattr(Tasks, "row", row)


@pytest.mark.parametrize("twin", [None, reads_by_share_everywhere], ids=[*WAYS])
async def test_a_share_is_read_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, twin: Callable[[pytest.MonkeyPatch], None] | None
) -> None:
    broken = twin is not None
    if twin is not None:
        twin(monkeypatch)
    async with house(folder) as here:
        bob = here.caller("http", here.bob)
        await here.share(here.ann)
        config = {"taskId": here.task, "url": HOOK, "id": "c"}
        answer = await bob.ask("CreateTaskPushNotificationConfig", **config)
        assert (answer.status_code == 404) != broken
        answer = await bob.ask("CancelTask", id=here.task)
        assert (answer.status_code == 404) != broken
        if broken:
            await asyncio.wait_for(here.cue.stopped.wait(), BOUND)


# Its end.


async def ends(events: AsyncIterator[Any]) -> bool:
    """Whether a stream ends without a further word."""
    async with asyncio.timeout(BOUND):
        return [event async for event in events] == []


@pytest.mark.parametrize("binding", ALL)
@pytest.mark.parametrize("end", ["unshared", "until", "owner frozen", "reader frozen", "earlier"])
async def test_an_open_stream_ends_with_what_lets_its_reader_in(folder: Path, binding: str, end: str) -> None:
    async with house(folder) as here:
        here.gateway.app.services.live.heartbeat = 10 * BOUND  # nothing but its end ends a stream
        later = (here.clock.now() + 3_600_000) // 1000
        until = {"until": _moment(later)} if end in ("until", "earlier") else {}
        await here.share(here.ann, **until)
        bob, eve = here.caller(binding, here.bob), here.caller(binding, await here.gateway.key("eve"))
        await here.share(here.ann, "eve")
        async with (
            bob.stream("SubscribeToTask", id=here.task) as lost,
            eve.stream("SubscribeToTask", id=here.task) as others,
        ):
            for events in (lost, others):
                await asyncio.wait_for(anext(events), BOUND)
            match end:
                case "unshared":
                    await here.unshare(here.ann)
                case "until":
                    here.clock.ahead += 3_601
                    here.cue.say("a secret")  # the loop's own timer is late
                case "earlier":
                    await here.share(here.ann, until=_moment(later - 60))
                case "owner frozen":
                    await here.freeze("ann")
                case "reader frozen":
                    await here.freeze("bob")
            assert await ends(lost)
            if end == "owner frozen":  # whose task is stopped, and that is told to nobody else
                assert await ends(others)
            else:
                here.cue.say("a secret")
                here.cue.done()
                async with asyncio.timeout(BOUND):
                    assert "a secret" in str([event async for event in others])
        if end == "earlier":
            assert (await bob.get(here.task))["id"] == here.task
        elif end == "reader frozen":
            await bob.refused("PERMISSION_DENIED", "GetTask", id=here.task)
        else:
            foreign, missing = [await bob.ask("GetTask", id=id) for id in (here.task, MISSING)]
            bob.error(foreign, "TASK_NOT_FOUND")
            assert told(foreign, here.task) == told(missing, MISSING)


async def test_a_silent_stream_ends_at_its_time_without_a_word_from_the_task(folder: Path) -> None:
    async with house(folder, Held()) as here:
        here.gateway.app.services.live.heartbeat = 10 * BOUND
        await here.share(here.ann, until=timestamp(here.clock.now() + 50))
        async with here.caller("http", here.bob).stream("SubscribeToTask", id=here.task) as events:
            await asyncio.wait_for(anext(events), BOUND)
            here.clock.ahead = 0.05
            assert await ends(events)
        assert await here.shares(here.ann) == []


@pytest.mark.parametrize("given_again", [False, True])
async def test_what_is_taken_back_while_a_stream_begins_ends_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given_again: bool
) -> None:
    """Between the look at the share and the first event; one that was given again meanwhile lets the reader in."""
    sound = Tasks.watch
    async with house(folder) as here:

        async def watch(self: Tasks, row: TaskRow, **more: Any) -> Any:
            made = await sound(self, row, **more)
            await here.unshare(here.ann)
            if given_again:
                await here.share(here.ann)
            return made

        await here.share(here.ann)
        bob = here.caller("http", here.bob)
        with monkeypatch.context() as patch:
            patch.setattr(Tasks, "watch", watch)
            if not given_again:
                await asyncio.wait_for(bob.refused("TASK_NOT_FOUND", "SubscribeToTask", id=here.task), BOUND)
                return
            async with bob.stream("SubscribeToTask", id=here.task) as events:
                await asyncio.wait_for(anext(events), BOUND)
                await here.unshare(here.ann)
                here.cue.say("a secret")
                assert await ends(events)


async def test_who_was_frozen_reads_again_when_thawed(folder: Path) -> None:
    async with house(folder) as here:
        await here.share(here.ann)
        bob = here.caller("http", here.bob)
        await here.freeze("ann")
        await bob.refused("TASK_NOT_FOUND", "GetTask", id=here.task)
        await here.gateway.client.post(
            "/admin/frozen:thaw", json={"kind": "principal", "name": "ann"}, headers=here.gateway.bearer(None)
        )
        assert (await bob.get(here.task))["id"] == here.task


# Who may share, and with whom.


async def test_the_machines_own_credential_shares_and_takes_back_for_the_owner(folder: Path) -> None:
    async with house(folder) as here:
        made = await here.share(None)
        assert (made["owner"], made["by"]) == ("key:ann", "local:local")
        assert await here.shares(None) == await here.shares(here.ann) == ["key:bob"]
        await here.caller("http", here.bob).get(here.task)
        await here.unshare(here.ann)
        assert await here.shares(None) == []
        answer = await here.asks("POST", f"{here.task}:unshare", None, reader="bob")
        assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "reader", ["ann", "*", "anybody", "anonymous", "local", "role:admin", "agent:echo", "worker", "a b", "", "x" * 3000]
)
async def test_it_is_shared_with_one_other_by_name(folder: Path, reader: str) -> None:
    async with house(folder) as here:
        answer = await here.asks("POST", f"{here.task}:share", here.ann, reader=reader)
        assert answer.status_code == 400, answer.text
        assert '"reader"' in answer.text
        assert await here.shares(here.ann) == []


async def test_a_time_that_is_over_or_none_is_refused(folder: Path) -> None:
    async with house(folder) as here:
        for until in ("2020-01-01T00:00:00Z", "tomorrow", 7):
            answer = await here.asks("POST", f"{here.task}:share", here.ann, reader="bob", until=until)
            assert answer.status_code == 400, answer.text
            assert '"until"' in answer.text


async def test_a_task_is_shared_with_so_many_and_those_that_ended_do_not_count(folder: Path) -> None:
    async with house(folder) as here:
        soon = _moment(here.clock.now() // 1000 + 600)
        await here.share(here.ann, "first", until=soon)
        await asyncio.gather(*(here.share(here.ann, f"reader-{n}") for n in range(MAX_SHARES - 1)))
        await here.share(here.ann, "first", until=soon)  # who is one of them already
        refused = await here.asks("POST", f"{here.task}:share", here.ann, reader="bob")
        assert (refused.status_code, f"at most {MAX_SHARES}" in refused.text) == (400, True)
        here.clock.ahead += 601
        await here.share(here.ann)
        assert len(await here.shares(here.ann)) == MAX_SHARES


async def test_a_rule_can_keep_people_from_sharing(folder: Path) -> None:
    async with house(folder) as here:
        rule = "rules: [{rule: kept, who: '*', do: share, on: agents/actor, verdict: BLOCK, because: it is private}]"
        folder.joinpath("policy.yaml").write_text(rule)
        answer = await here.gateway.client.post("/admin/policy:reload", headers=here.gateway.bearer(None))
        assert answer.status_code < 300, answer.text
        answer = await here.asks("POST", f"{here.task}:share", here.ann, reader="bob")
        assert (answer.status_code, "it is private" in answer.text) == (403, True)
        await here.caller("http", here.bob).refused("TASK_NOT_FOUND", "GetTask", id=here.task)


# The record.


async def test_the_record_says_who_let_whom_read_what_and_who_read_it(folder: Path) -> None:
    async with house(folder) as here:
        await here.share(here.ann)
        bob = here.caller("http", here.bob)
        await bob.get(here.task)
        async with bob.stream("SubscribeToTask", id=here.task) as events:
            await asyncio.wait_for(anext(events), BOUND)
        await here.unshare(None)
        (shared,), (unshared,) = await here.entries("ShareTask"), await here.entries("UnshareTask")
        assert (shared.principal, unshared.principal) == ("key:ann", "local:local")
        change, back = cast(Any, shared.change), cast(Any, unshared.change)
        (made,) = change["after"]
        assert change["before"] == []
        assert (made["taskId"], made["owner"], made["principal"]) == (here.task, "key:ann", "key:bob")
        assert back == {"before": [made], "after": []}
        for verb in ("GetTask", "SubscribeToTask"):
            (read,) = [entry for entry in await here.entries(verb) if entry.principal == "key:bob"]
            assert (read.outcome, read.task_id, read.target) == ("ok", here.task, "actor")
            assert read.reason == "a task of key:ann that is shared with the caller"


# Over restarts, and at the command line.


def test_a_share_is_there_after_a_kill_behind_its_answer(tmp_path: Path) -> None:
    config = f'agents:\n  echo: {{run: "agents.echo:Echo", {CARD}, public: true}}\n'
    data = tmp_path / "data"
    with process(data, config, cwd=ROOT) as gateway:
        ann, bob = (_key(gateway.url, data, name) for name in ("ann", "bob"))
        sent = _run(gateway.url, data, "send", "echo", "ask name", "--json", key=ann)
        task = json.loads(sent.stdout)["task"]["id"] if "task" in json.loads(sent.stdout) else _id(sent.stdout)
        done = _run(gateway.url, data, "tasks", "share", task, "--with", "bob", key=ann)
        gateway.popen.kill()
        assert done.returncode == 0, done.stderr
        assert "key:bob may read the task, and nothing else" in done.stderr
    with process(data, config, cwd=ROOT) as gateway:
        got = _run(gateway.url, data, "tasks", "get", task, key=bob)
        assert (got.returncode, task in got.stdout) == (0, True), got.stderr
        assert "No tasks." in _run(gateway.url, data, "tasks", "list", key=bob).stderr
        assert "not found" in _run(gateway.url, data, "tasks", "cancel", task, key=bob).stderr.lower()
        listed = _run(gateway.url, data, "tasks", "shares", task, key=ann)
        assert "key:bob" in listed.stdout
        done = _run(gateway.url, data, "tasks", "unshare", task, "--with", "bob", key=ann)
        gateway.popen.kill()
        assert done.returncode == 0, done.stderr
    with process(data, config, cwd=ROOT) as gateway:
        assert _run(gateway.url, data, "tasks", "get", task, key=bob).returncode == 1
        assert "Shared with nobody." in _run(gateway.url, data, "tasks", "shares", task, key=ann).stderr


def _key(url: str, data: Path, name: str) -> str:
    done = command(data, "keys", "add", name, "--json", url=url)
    key: str = json.loads(done.stdout)["key"]
    return key


def _run(url: str, data: Path, *words: str, key: str) -> Any:
    return command(data, *words, url=url, GATEWAY_TOKEN=key)


def _id(text: str) -> str:
    id: str = json.loads(text)["id"]
    return id


def _moment(seconds: int) -> str:
    return timestamp(seconds * 1000)
