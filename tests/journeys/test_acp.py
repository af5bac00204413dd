"""ACP clients at `/acp`: agents, runs in their three modes, questions, cancellation, events that can be read again."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.model.rows import TaskQuery
from tests.acp import UUID, Acp, said, words
from tests.actors import Cue
from tests.bindings import Caller
from tests.remote import until
from tests.serving import BOUND, ECHO, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)


@pytest.fixture
def acp(gateway: Gateway) -> Acp:
    """The machine's own credential."""
    return Acp(gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(gateway: Gateway) -> Acp:
    """A principal without any run yet."""
    return Acp(gateway, who=await gateway.key(f"acp{next(_numbers)}"))


# Agents.


@pytest.mark.requirement("acp.agents.list")
async def test_agents_are_listed_with_what_their_cards_say(acp: Acp) -> None:
    assert await acp.get("/ping") == {}
    listed = (await acp.get("/agents"))["agents"]
    (echo,) = [agent for agent in listed if agent["name"] == "echo"]
    assert await acp.get("/agents/echo") == echo
    assert echo["input_content_types"]
    assert echo["metadata"]["annotations"] == {"a2a": {"name": "Echo", "version": "1.0.0"}}
    assert {"name", "description"} == echo["metadata"]["capabilities"][0].keys()


async def test_a_page_of_agents_is_as_long_as_asked_for(acp: Acp) -> None:
    names = [agent["name"] for agent in (await acp.get("/agents"))["agents"]]
    paged = [(await acp.get(f"/agents?limit=2&offset={n}"))["agents"] for n in range(0, len(names), 2)]
    assert [agent["name"] for page in paged for agent in page] == names
    assert {len(page) for page in paged[:-1]} == {2}
    await acp.refused(422, "invalid_input", "GET", "/agents?limit=0")
    await acp.refused(422, "invalid_input", "GET", "/agents?offset=-1")


async def test_a_hidden_agent_and_a_missing_one_look_the_same(acp: Acp, fresh: Acp) -> None:
    assert "hidden" in [agent["name"] for agent in (await acp.get("/agents"))["agents"]]
    assert "hidden" not in [agent["name"] for agent in (await fresh.get("/agents"))["agents"]]
    answers = [await fresh.ask("GET", f"/agents/{name}") for name in ("hidden", "nobody")]
    answers += [
        await fresh.ask("POST", "/runs", body=Acp(fresh.gateway, name).body("hi")) for name in ("hidden", "nobody")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


# Runs.


@pytest.mark.requirement("acp.runs.sync")
async def test_a_run_that_is_waited_for_is_answered_when_it_has_ended(acp: Acp) -> None:
    run = await acp.run("hello")
    assert (run["agent_name"], run["status"]) == ("echo", "completed")
    assert words(run["output"]) == "hello"
    assert [message["role"] for message in run["output"]] == ["agent/echo"]
    assert run["finished_at"] >= run["created_at"]
    assert await acp.get(f"/runs/{run['run_id']}") == run


@pytest.mark.requirement("acp.runs.async")
async def test_a_run_that_is_not_waited_for_can_be_asked_for(acp: Acp) -> None:
    begun = await acp.run("wait 1", "async")
    assert begun["status"] in ("created", "in-progress")
    done = await acp.until(begun["run_id"], "completed")
    assert words(done["output"]) == "Waited 1 s."


@pytest.mark.requirement("acp.runs.stream")
async def test_a_run_streams_its_events_as_they_happen(acp: Acp) -> None:
    events = await acp.events("count 3")
    assert [event["type"] for event in events] == [
        *("run.created", "run.in-progress", "message.created"),
        *("message.part", "message.part", "message.part", "message.completed"),
        *("message.created", "message.part", "message.completed", "run.completed"),
    ]
    parts = [event["part"] for event in events if event["type"] == "message.part"]
    assert [part["content"] for part in parts] == ["1\n", "2\n", "3\n", "Counted to 3."]
    assert [part.get("name") for part in parts] == ["count", "count", "count", None]  # an artifact has a name
    assert events[0]["run"]["output"] == []
    assert words(events[-1]["run"]["output"]) == "1\n2\n3\nCounted to 3."


async def test_an_agent_that_only_replies_gives_a_run_like_any_other(gateway: Gateway) -> None:
    mirror = Acp(gateway, "mirror")
    run = await mirror.run("hi")
    assert run["status"] == "completed"
    assert run["output"][0]["parts"][0]["content_type"] == "application/json"
    assert await mirror.get(f"/runs/{run['run_id']}") == run


async def test_a_run_that_fails_says_why(acp: Acp) -> None:
    failed = await acp.run("fail")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert failed["error"]["message"] == "Failed, as you asked."
    rejected = await acp.run("reject")
    assert rejected["error"]["data"]["a2a"]["state"] == "TASK_STATE_REJECTED"
    assert (await acp.events("fail"))[-1]["type"] == "run.failed"


@pytest.mark.requirement("acp.runs.is-a-task")
async def test_a_run_is_a_task_that_every_other_dialect_sees(acp: Acp, gateway: Gateway) -> None:
    run = await acp.run("hello")
    task = await Caller(gateway, "jsonrpc").get(run["run_id"].replace("-", ""))
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["contextId"] == run["session_id"].replace("-", "")
    sent = await gateway.task("from A2A")
    seen = await acp.get(f"/runs/{sent['id']}")
    assert (seen["status"], words(seen["output"])) == ("completed", "from A2A")


async def test_several_messages_are_one_turn_and_the_agent_can_tell_them_apart(gateway: Gateway) -> None:
    mirror = Acp(gateway, "mirror")
    given = [said("one"), said("two", role="agent/other"), said("three")]
    run = await mirror.run("", input=given)
    seen = run["output"][0]["parts"][0]["content"]
    assert '"text":"one"},{"text":"two"},{"text":"three"}' in seen
    assert '"messages":[{"role":"user","parts":1},{"role":"agent/other","parts":1},{"role":"user","parts":1}]' in seen
    session = await mirror.get(f"/sessions/{run['session_id']}")
    texts = [(await _resource(mirror, url))["parts"][0]["content"] for url in session["history"][:3]]
    assert texts == ["one", "two", "three"]


# Questions.


@pytest.mark.requirement("acp.runs.await-and-resume")
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_question_is_answered_and_the_same_run_goes_on(acp: Acp, mode: str) -> None:
    run = await acp.run("ask")
    assert (run["status"], run["finished_at"]) == ("awaiting", None)
    assert words([run["await_request"]["message"]]) == "What shall I echo?"
    await acp.resume(run["run_id"], "blue", mode)
    done = await acp.until(run["run_id"], "completed")
    assert (done["run_id"], words(done["output"])) == (run["run_id"], "blue")
    assert done["await_request"] is None


@pytest.mark.requirement("acp.runs.resume-streams-what-is-new")
async def test_a_resumed_stream_begins_where_the_first_one_ended(acp: Acp) -> None:
    before = await acp.events("ask")
    assert [event["type"] for event in before] == ["run.created", "run.in-progress", "run.awaiting"]
    id = before[0]["run"]["run_id"]
    async with asyncio.timeout(BOUND), acp.stream("POST", f"/runs/{id}", acp.answer("blue", "stream")) as events:
        pairs = [pair async for pair in events]
    assert [event["type"] for _, event in pairs] == [
        *("run.in-progress", "message.created", "message.part", "message.completed", "run.completed"),
    ]
    assert [number for number, _ in pairs] == [4, 5, 6, 7, 8]
    assert (await acp.get(f"/runs/{id}/events"))["events"] == [*before, *(event for _, event in pairs)]


async def test_only_a_run_that_waits_can_be_resumed(acp: Acp) -> None:
    done = await acp.run("hello")
    await acp.refused(403, "server_error", "POST", f"/runs/{done['run_id']}", acp.answer("more"))
    assert await acp.get(f"/runs/{done['run_id']}") == done
    asked = await acp.run("ask")
    path = f"/runs/{asked['run_id']}"
    await acp.refused(422, "invalid_input", "POST", path, {"await_resume": {"type": "odd"}, "mode": "sync"})
    await acp.refused(422, "invalid_input", "POST", path, {"await_resume": acp.answer("x")["await_resume"]})
    assert (await acp.get(path))["status"] == "awaiting"


# Cancellation.


@pytest.mark.requirement("acp.runs.cancel")
async def test_a_run_is_canceled(acp: Acp) -> None:
    run = await acp.run("wait 60", "async")
    answer = await acp.ask("POST", f"/runs/{run['run_id']}/cancel")
    assert answer.status_code == 202
    assert answer.json()["status"] in ("cancelling", "cancelled")
    assert (await acp.until(run["run_id"], "cancelled"))["finished_at"]
    await acp.refused(403, "server_error", "POST", f"/runs/{run['run_id']}/cancel")
    assert (await acp.get(f"/runs/{run['run_id']}/events"))["events"][-1]["type"] == "run.cancelled"


# Events.


@pytest.mark.requirement("acp.events.durable-and-resumable")
async def test_a_stream_that_broke_goes_on_after_the_last_event_that_was_seen(gateway: Gateway) -> None:
    actor, cue = Acp(gateway, "actor"), Cue()
    seen = []
    cue.say("one")
    async with asyncio.timeout(BOUND), actor.stream("POST", "/runs", actor.body(cue.text, "stream")) as events:
        async for number, event in events:
            seen.append((number, event))
            if event["type"] == "generic":
                break  # the client is gone, the run goes on
    run_id = seen[0][1]["run"]["run_id"]
    cue.say("two")
    cue.done()
    rest = await actor.after(run_id, seen[-1][0])
    assert [number for number, _ in (*seen, *rest)] == list(range(1, len(seen) + len(rest) + 1))
    assert [event for _, event in (*seen, *rest)] == (await actor.get(f"/runs/{run_id}/events"))["events"]
    assert [event["generic"]["thought"] for _, event in rest if event["type"] == "generic"] == ["two"]
    assert rest[-1][1]["type"] == "run.completed"
    assert await actor.after(run_id, 999) == []
    await actor.refused(
        422, "invalid_input", "GET", f"/runs/{run_id}/events", accept="text/event-stream", **{"last-event-id": "x"}
    )


async def test_events_and_runs_are_there_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        acp = Acp(gateway)
        streamed = await acp.events("count 2")
        run_id = streamed[0]["run"]["run_id"]
        asked = await acp.run("ask")
    async with running(tmp_path) as gateway:
        acp = Acp(gateway)
        assert (await acp.get(f"/runs/{run_id}/events"))["events"] == streamed
        assert words((await acp.resume(asked["run_id"], "still here"))["output"]) == "still here"


# Sessions.


async def _resource(acp: Acp, url: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = await acp.get(url[url.index("/acp/") + 4 :])
    return found


@pytest.mark.requirement("acp.sessions.history")
async def test_a_session_keeps_what_was_said_in_its_runs(acp: Acp) -> None:
    first = await acp.run("one")
    second = await acp.run("two", session_id=first["session_id"])
    assert second["session_id"] == first["session_id"]
    session = await acp.get(f"/sessions/{first['session_id']}")
    assert (session["id"], session["state"]) == (first["session_id"], None)
    messages = [await _resource(acp, url) for url in session["history"]]
    assert [message["parts"][0]["content"] for message in messages] == ["one", "one", "two", "two"]
    assert await acp.get(f"/session/{first['session_id']}") == session


async def test_a_session_that_the_client_names_is_kept_under_that_name(acp: Acp) -> None:
    id = "6f1d3f3e-0000-4000-8000-00000000000a"
    assert (await acp.run("one", session_id=id))["session_id"] == id
    assert (await acp.run("two", session={"id": id.upper()}))["session_id"] == id
    assert len((await acp.get(f"/sessions/{id}"))["history"]) == 4
    await acp.refused(
        400, "invalid_input", "POST", "/runs", acp.body("x", session_id=id, session={"id": id.replace("a", "b")})
    )


async def test_a_session_from_another_server_keeps_its_history_and_state(acp: Acp) -> None:
    id, elsewhere = "6f1d3f3e-0000-4000-8000-00000000000c", "https://other.example/resources/1"
    state = "https://other.example/resources/2"
    await acp.run("one", session={"id": id, "history": [elsewhere], "state": state})
    session = await acp.get(f"/sessions/{id}")
    assert session["history"][0] == elsewhere
    assert len(session["history"]) == 3
    assert session["state"] == state


async def test_a_context_of_an_a2a_client_is_a_session(acp: Acp, gateway: Gateway) -> None:
    dashed = "6f1d3f3e-0000-4000-8000-00000000000d"
    await gateway.task("from A2A", contextId=dashed)
    run = await acp.run("from ACP", session_id=dashed)
    task = await Caller(gateway, "jsonrpc").get(run["run_id"].replace("-", ""))
    assert task["contextId"] == dashed  # as its first client wrote it
    assert len((await acp.get(f"/sessions/{dashed}"))["history"]) == 4
    named = await gateway.task("hi", contextId="my-trip")
    seen = await acp.get(f"/runs/{named['id']}")
    assert (seen["session_id"], seen["a2a"]) == (None, {"contextId": "my-trip"})


# Whose.


@pytest.mark.requirement("acp.foreign-is-missing")
async def test_what_is_somebody_elses_does_not_exist(acp: Acp, fresh: Acp) -> None:
    run = await acp.run("ask", session_id="6f1d3f3e-0000-4000-8000-00000000000e")
    missing = "01234567-0000-4000-8000-000000000000"

    async def bodies(id: str) -> list[tuple[int, bytes]]:
        asked = [
            await fresh.ask("GET", f"/runs/{id}"),
            await fresh.ask("GET", f"/runs/{id}/events"),
            await fresh.ask("GET", f"/runs/{id}/events", accept="text/event-stream"),
            await fresh.ask("POST", f"/runs/{id}", body=fresh.answer("x")),
            await fresh.ask("POST", f"/runs/{id}/cancel"),
            await fresh.ask("GET", f"/resources/{id}.0"),
        ]
        return [(answer.status_code, answer.content) for answer in asked]

    assert await bodies(run["run_id"]) == await bodies(missing)
    assert {status for status, _ in await bodies(missing)} == {404}
    sessions = [await fresh.ask("GET", f"/sessions/{id}") for id in (run["session_id"], missing)]
    assert len({(answer.status_code, answer.content) for answer in sessions}) == 1
    assert (await acp.get(f"/runs/{run['run_id']}"))["status"] == "awaiting"
    # The same session id is another session for another caller.
    assert (await fresh.run("hi", session_id=run["session_id"]))["session_id"] == run["session_id"]
    assert len((await fresh.get(f"/sessions/{run['session_id']}"))["history"]) == 2


async def test_a_credential_is_needed_for_everything(gateway: Gateway) -> None:
    for path in ("/ping", "/agents", "/runs/x", "/sessions/x"):
        answer = await gateway.client.get(f"/acp{path}")
        assert answer.status_code == 401
        assert answer.json()["code"] == "server_error"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    await Acp(gateway, who="wrong").refused(401, "server_error", "GET", "/agents")


@pytest.mark.requirement("acp.audited")
async def test_what_is_asked_is_recorded(acp: Acp, fresh: Acp) -> None:
    run = await acp.run("hello")
    await fresh.refused(404, "not_found", "GET", f"/runs/{run['run_id']}")
    entries = [entry for entry in await acp.gateway.record() if entry.principal.startswith("key:")]
    missed = [(entry.verb, entry.outcome) for entry in entries if entry.outcome == "TASK_NOT_FOUND"]
    assert missed[-1] == ("GetTask", "TASK_NOT_FOUND")


POLICY = """
rules:
  - {rule: no-cancel-for-eve, who: eve, do: CancelTask, on: agents/echo, verdict: BLOCK, because: Eve has to wait}
  - {rule: nothing-for-mallory, who: mallory, on: agents/echo, verdict: BLOCK, because: Mallory has left}
"""


@pytest.mark.requirement("acp.audited")
async def test_a_policy_holds_for_runs_as_for_messages(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with running(tmp_path, f"policy: {{file: {tmp_path}/policy.yaml}}" + ECHO) as gateway:
        eve, mallory = [Acp(gateway, who=await gateway.key(name)) for name in ("eve", "mallory")]
        run = await eve.run("ask")
        refused = await eve.refused(403, "server_error", "POST", f"/runs/{run['run_id']}/cancel")
        assert "Eve has to wait" in refused["message"]
        assert (await eve.resume(run["run_id"], "blue"))["status"] == "completed"
        await mallory.refused(404, "not_found", "POST", "/runs", mallory.body("hi"))
        assert await mallory.get("/agents") == {"agents": []}


async def test_who_waits_while_the_gateway_stops_is_told_where_to_look(tmp_path: Path) -> None:
    config = "server: {drain_seconds: 0.2}" + ECHO
    async with running(tmp_path, config) as gateway:
        acp = Acp(gateway)
        waiting = asyncio.create_task(acp.ask("POST", "/runs", body=acp.body("wait 2")))

        async def begun() -> bool:
            return bool((await gateway.app.store.tasks(TaskQuery("", "local:local", None, 1))).rows)

        await until(begun)
        await gateway.app.drain()
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (503, "server_error")
        run_id = answer.json()["data"]["run_id"]
    async with running(tmp_path, config) as gateway:
        assert words((await Acp(gateway).until(run_id, "completed"))["output"]) == "Waited 2 s."


# What is refused.


@pytest.mark.requirement("acp.errors")
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a":1,"a":2}',
        b"[]",
        {},
        {"agent_name": "echo", "input": []},
        {"agent_name": "echo", "input": [{"role": "system", "parts": []}]},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a", "content_url": "https://x.example/"}]}]},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a b", "content_encoding": "base64"}]}]},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a", "metadata": {"kind": "odd"}}]}]},
        {"agent_name": "echo", "input": [{"parts": [{"a2a": {"kind": "", "part": {"newer": 1}}}]}]},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a", "a2a": {"part": {"filename": 1}}}]}]},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a"}]}], "mode": "later"},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a"}]}], "session_id": "not-a-uuid"},
        {"agent_name": "echo", "input": [{"parts": [{"content": "a"}] * 1001}]},
    ],
    ids=str,
)
async def test_a_body_that_is_wrong_is_refused_with_the_reason(acp: Acp, body: object) -> None:
    refused = await acp.refused(422, "invalid_input", "POST", "/runs", body)
    assert refused["message"]


async def test_what_is_no_route_is_said_in_acps_words(acp: Acp) -> None:
    await acp.refused(404, "not_found", "GET", "/nothing")
    await acp.refused(404, "not_found", "GET", "")
    answer = await acp.ask("DELETE", "/runs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    await acp.refused(422, "invalid_input", "POST", "/runs", b"a=b", **{"content-type": "text/plain"})


async def test_ids_are_read_with_and_without_dashes(acp: Acp) -> None:
    run = await acp.run("hello")
    assert UUID.fullmatch(run["run_id"])
    assert await acp.get(f"/runs/{run['run_id'].replace('-', '').upper()}") == run
