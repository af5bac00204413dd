"""`agents/tasks/create` and `agents/tasks/result`: the older messages, and agents that speak nothing else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.ports import reserved
from tests.remote import Process, environment, process, until
from tests.serving import BOUND, ECHO, ROOT, Gateway, message, running
from tests.upstream import loopback

CREATE, RESULT, PENDING = "agents/tasks/create", "agents/tasks/result", "agents/tasks/pending"

# The example of the messages' own description, word for word.
EXAMPLE = {
    "agent_id": "echo",
    "task": {
        "id": "task-123",
        "description": "Research quantum computing",
        "context": {"user_id": "user-1", "session_id": "session-1"},
        "priority": "high",
    },
    "input_data": {"topic": "quantum computing", "depth": "comprehensive"},
}


def task(id: str | None, description: str = "hi", **more: Any) -> dict[str, Any]:
    return {"agent_id": "echo", "task": {"description": description} | ({"id": id} if id else {}), **more}


async def test_the_example_is_answered_with_its_result(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        answer = await gateway.result(CREATE, EXAMPLE, agent="")
        assert answer.pop("metadata") == {"a2a_state": "TASK_STATE_COMPLETED"}
        assert answer == {
            "task_id": "task-123",
            "agent_id": "echo",
            "status": "completed",
            "context_id": "session-1",
            "result": ["Research quantum computing", EXAMPLE["input_data"]],
        }
        listed = (await gateway.result("ListTasks", {"contextId": "session-1"}))["tasks"]
        told = listed[0]["history"][0]
        assert told["messageId"] == "task-123"
        assert told["parts"][1]["data"] == EXAMPLE["input_data"]
        assert told["metadata"]["priority"] == "high"
        assert told["metadata"]["context"]["user_id"] == "user-1"


async def test_no_version_header_is_needed(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        body = {"jsonrpc": "2.0", "id": "task-123", "method": CREATE, "params": EXAMPLE}
        answer = await gateway.client.post("/", json=body, headers=gateway.bearer(None))
        assert answer.json()["id"] == "task-123"
        assert answer.json()["result"]["status"] == "completed"


@pytest.mark.parametrize("agent", ["", "echo"])
async def test_input_data_may_stand_in_both_places_or_either(tmp_path: Path, agent: str) -> None:
    data = {"a": 1}
    inside = {"agent_id": "echo", "task": {"id": "inside", "description": "x", "input_data": data}}
    beside = {"agent_id": "echo", "task": {"id": "beside", "description": "x"}, "input_data": data}
    both = {"agent_id": "echo", "task": {"id": "both", "description": "x", "input_data": data}, "input_data": {"a": 1}}
    async with running(tmp_path) as gateway:
        for params in (inside, beside, both):
            assert (await gateway.result(CREATE, params, agent=agent))["result"] == ["x", data]
        differ = both | {"input_data": {"a": 2}}
        error = await gateway.error(CREATE, differ, agent=agent)
        assert error["code"] == -32602
        assert error["data"][1]["fieldViolations"][0]["field"] == "input_data"


async def test_the_callers_id_makes_a_task_once(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        first = await gateway.result(CREATE, task("1"))
        assert await gateway.result(CREATE, task("1")) == first
        assert (await gateway.result("ListTasks"))["totalSize"] == 1
        assert (await gateway.error(CREATE, task("1", "other")))["code"] == -32602


async def test_the_callers_id_makes_a_task_once_where_the_agent_does_not_deduplicate(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO.replace("public", "deduplicate: false, public")) as gateway:
        await gateway.result(CREATE, task("1"))
        await gateway.result(CREATE, task("1"))
        assert (await gateway.result("ListTasks"))["totalSize"] == 1


async def test_equal_ids_of_two_callers_are_two_tasks(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        alice, bob = await gateway.key("alice"), await gateway.key("bob")
        assert (await gateway.result(CREATE, task("1", "for alice"), agent="", who=alice))["result"] == "for alice"
        error = await gateway.error(RESULT, {"task_id": "1"}, agent="", who=bob)
        unknown = await gateway.error(RESULT, {"task_id": "2"}, agent="", who=bob)
        assert error["code"] == unknown["code"] == -32001
        assert error["message"] == unknown["message"]
        assert (await gateway.result(CREATE, task("1", "for bob"), agent="", who=bob))["result"] == "for bob"
        assert (await gateway.result(RESULT, {"task_id": "1"}, agent="", who=alice))["result"] == "for alice"


async def test_a_task_without_an_id_gets_one(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        one, two = [await gateway.result(CREATE, task(None)) for _ in range(2)]
        assert one["task_id"] != two["task_id"]
        assert (await gateway.result(RESULT, {"task_id": one["task_id"]}))["result"] == "hi"


STATUSES = [
    ("hi", "completed", "COMPLETED", {"result": "hi"}),
    ("fail", "failed", "FAILED", {"reason": "Failed, as you asked."}),
    ("reject", "failed", "REJECTED", {"reason": "Rejected, as you asked."}),
    ("ask", "in_progress", "INPUT_REQUIRED", {"detail": "What shall I echo?"}),
    ("wait 30", "in_progress", "WORKING", {}),
]


async def test_every_state_has_its_older_word(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for said, status, state, more in STATUSES:
            answer = await gateway.result(CREATE, task(said, said, wait=0.1 if said == "wait 30" else 10))
            context = answer.pop("context_id")
            assert context
            expected: dict[str, Any] = {"task_id": said, "agent_id": "echo", "status": status}
            expected |= {"metadata": {"a2a_state": f"TASK_STATE_{state}"}} | more
            assert answer == expected
            assert await gateway.result(RESULT, {"task_id": said}) == expected | {"context_id": context}
        mine = (await gateway.result("ListTasks", {"contextId": context}))["tasks"][0]["id"]
        await gateway.result("CancelTask", {"id": mine})
        canceled = await gateway.result(RESULT, {"task_id": "wait 30"})
        assert (canceled["status"], canceled["metadata"]) == ("failed", {"a2a_state": "TASK_STATE_CANCELED"})
        assert canceled["reason"] == "Canceled by the caller"


async def test_wait_is_how_long_an_answer_may_take(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        at_once = await gateway.result(CREATE, task("1", "wait 1", wait=0))
        assert at_once["status"] in ("pending", "in_progress")
        assert "result" not in at_once
        assert (await gateway.result(RESULT, {"task_id": "1"}))["status"] == "in_progress"
        assert (await gateway.result(RESULT, {"task_id": "1", "wait": 5}))["result"] == "Waited 1 s."
        assert (await gateway.error(RESULT, {"task_id": "1", "wait": 301}))["code"] == -32602


async def test_an_agent_that_answers_with_a_message_has_a_result_too(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        answer = await gateway.result(CREATE, task("tck-message-response-1"))
        assert (answer["status"], answer["result"]) == ("completed", "Direct message response")
        assert await gateway.result(RESULT, {"task_id": "tck-message-response-1"}) == answer


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("", {"agent_id": None}, "agent_id"),
    ("echo", {"agent_id": "other"}, "agent_id"),
    ("echo", {"task": {"id": "1", "description": "x", "priority": "urgent"}}, "task.priority"),
    ("echo", {"task": {"id": "1"}, "input_data": None}, "task"),
    ("echo", {"task": {"id": "", "description": "x"}}, "task.id"),
    ("echo", {"task": None}, "task"),
    ("echo", {"wait": "long"}, "wait"),
]


async def test_parameters_that_do_not_fit_are_named(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for agent, change, field in WRONG:
            error = await gateway.error(CREATE, EXAMPLE | change, agent=agent)
            assert error["code"] == -32602
            assert error["data"][1]["fieldViolations"][0]["field"].startswith(field)
        assert (await gateway.result("ListTasks"))["totalSize"] == 0


async def test_an_agent_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert (await gateway.error(CREATE, EXAMPLE | {"agent_id": "nobody"}, agent=""))["code"] == -32042


async def test_a_report_on_an_agent_without_worker_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        mine = await gateway.task("wait 30", configuration={"returnImmediately": True})
        report = {"task_id": mine["id"], "status": "completed", "result": "mine"}
        assert (await gateway.error(RESULT, report))["code"] == -32004
        alice = await gateway.key("alice")
        assert (await gateway.error(RESULT, report, who=alice))["code"] in (-32001, -32041)


# The other direction: agents that are sent these messages, or fetch them.

PULL = "agents:\n  counter: {tasks_url: pull, public: true}\n"


@contextmanager
def worker(gateway_url: str, key: str, *port: int) -> Iterator[None]:
    """The example agent, as a person would run it."""
    words = [sys.executable, str(ROOT / "examples" / "tasks_agent.py"), "counter", gateway_url, *map(str, port)]
    environ = environment(Path("/"), GATEWAY_KEY=key)
    agent = subprocess.Popen(words, env=environ, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        agent.kill()
        agent.wait(BOUND)


@asynccontextmanager
async def posting(tmp_path: Path, answer: bytes) -> AsyncIterator[tuple[Gateway, loopback.Upstream]]:
    """A gateway whose `counter` is called, and always gives this answer."""
    async with loopback.serve(loopback.always(answer)) as server:
        config = PULL.replace("pull", server.url)
        async with running(tmp_path, config) as gateway:
            yield gateway, server


def test_the_example_agent_has_forty_lines_of_the_standard_library() -> None:
    text = (ROOT / "examples" / "tasks_agent.py").read_text()
    code = [line for line in text.split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 40
    imported = {line.split()[1].partition(".")[0] for line in code if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("how", ["pull", "url"])
async def test_an_agent_of_the_standard_library_does_the_work(tmp_path: Path, how: str, port: int) -> None:
    config = PULL if how == "pull" else PULL.replace("pull", f"http://127.0.0.1:{port}/")
    async with running(tmp_path, config) as gateway:
        key = await gateway.key("counter")
        with worker(gateway.url, key, *([] if how == "pull" else [port])):
            if how == "url":
                await listening(port)
            done = await gateway.task("one two three", agent="counter")
            assert done["status"]["state"] == "TASK_STATE_COMPLETED"
            assert done["artifacts"][0]["parts"][0]["data"] == {"words": 3}
            older = {"agent_id": "counter", "task": {"id": "1", "description": "a b", "input_data": {"seconds": 0}}}
            assert (await gateway.result(CREATE, older, agent=""))["result"] == {"words": 2}
            events = await gateway.events("SendStreamingMessage", {"message": message("x")}, agent="counter")
            assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def listening(port: int) -> None:
    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(answers)


async def test_only_the_worker_of_an_agent_takes_and_reports(tmp_path: Path) -> None:
    async with running(tmp_path, PULL) as gateway:
        counter, alice = await gateway.key("counter"), await gateway.key("alice")
        mine = await gateway.task("x", agent="counter", who=alice, configuration={"returnImmediately": True})
        report = {"task_id": mine["id"], "status": "completed", "result": "forged"}
        assert (await gateway.error(PENDING, {"agent_id": "counter"}, agent="", who=alice))["code"] == -32041
        assert (await gateway.error(RESULT, report, agent="", who=alice))["code"] == -32001
        assert (await gateway.error(RESULT, report, agent="counter", who=alice))["code"] in (-32001, -32041)
        work = await gateway.result(PENDING, {}, agent="counter", who=counter)
        assert [params["task"]["id"] for params in work["tasks"]] == [mine["id"]]
        assert work["tasks"][0]["agent_id"] == "counter"
        assert work["tasks"][0]["task"]["context"]["user_id"] == "key:alice"
        assert (await gateway.result(PENDING, {}, agent="counter", who=counter))["tasks"] == []
        progress = {"task_id": mine["id"], "status": "in_progress"}
        assert (await gateway.result(RESULT, progress, agent="", who=counter))["status"] == "in_progress"
        receipt = await gateway.result(RESULT, report | {"result": "true"}, agent="", who=counter)
        assert receipt == {
            "task_id": mine["id"],
            "status": "completed",
            "metadata": {"a2a_state": "TASK_STATE_COMPLETED"},
        }
        done = await gateway.result("GetTask", {"id": mine["id"]}, agent="counter", who=alice)
        assert done["artifacts"][0]["parts"] == [{"text": "true"}]
        assert (await gateway.error(RESULT, report, agent="", who=counter))["code"] in (-32001, -32004)


async def test_a_worker_reports_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with running(tmp_path, PULL) as gateway:
        counter = await gateway.key("counter")
        mine = await gateway.task("x", agent="counter", configuration={"returnImmediately": True})
        await gateway.result(PENDING, {"wait": 5}, agent="counter", who=counter)
        report = {"task_id": mine["id"], "status": "failed", "result": "No words."}
        await gateway.result(RESULT, report, agent="counter", who=counter)
        failed = await gateway.result("GetTask", {"id": mine["id"]}, agent="counter")
        assert failed["status"]["state"] == "TASK_STATE_FAILED"
        assert failed["status"]["message"]["parts"] == [{"text": "No words."}]


async def test_a_waiting_worker_gets_work_when_it_comes(tmp_path: Path) -> None:
    async with running(tmp_path, PULL) as gateway:
        counter = await gateway.key("counter")
        waiting = asyncio.create_task(gateway.result(PENDING, {"wait": 9}, agent="counter", who=counter))
        mine = await gateway.task("x", agent="counter", configuration={"returnImmediately": True})
        async with asyncio.timeout(BOUND):
            assert (await waiting)["tasks"][0]["task"]["id"] == mine["id"]


async def test_work_is_not_given_to_a_worker_that_has_gone(tmp_path: Path) -> None:
    async with running(tmp_path, PULL) as gateway:
        counter = await gateway.key("counter")
        body = {"jsonrpc": "2.0", "id": 1, "method": PENDING, "params": {"wait": 9}}
        with pytest.raises(httpx2.ReadTimeout):
            await gateway.client.post("/agents/counter", json=body, headers=gateway.bearer(counter), timeout=0.3)
        mine = await gateway.task("x", agent="counter", configuration={"returnImmediately": True})
        taken = await gateway.result(PENDING, {"wait": 1}, agent="counter", who=counter)
        assert [params["task"]["id"] for params in taken["tasks"]] == [mine["id"]]


async def test_a_canceled_task_is_no_longer_given_to_a_worker(tmp_path: Path) -> None:
    async with running(tmp_path, PULL) as gateway:
        counter = await gateway.key("counter")
        mine = await gateway.task("x", agent="counter", configuration={"returnImmediately": True})
        await gateway.result("CancelTask", {"id": mine["id"]}, agent="counter")
        assert (await gateway.result(PENDING, {}, agent="counter", who=counter))["tasks"] == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (loopback.answer(b"<html>", "500 Oops"), "UPSTREAM_FAILED"),
        (loopback.answer(b"<html>", "401 Who"), "UPSTREAM_FAILED"),
        (loopback.answer(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"Full."}}'), "INVALID_AGENT_RESPONSE"),
        (loopback.answer(b"[]"), "INVALID_AGENT_RESPONSE"),
    ],
)
async def test_an_agent_that_does_not_take_the_task_is_to_blame_and_not_the_caller(
    tmp_path: Path, answer: bytes, why: str
) -> None:
    async with posting(tmp_path, answer) as (gateway, _):
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("x")}}
        refused = await gateway.post(body, agent="counter")
        assert refused.status_code == 200
        assert "www-authenticate" not in refused.headers
        error = refused.json()["error"]
        assert error["data"][0]["reason"] == why
        if b"Full" in answer:
            assert "Full." in error["message"]


async def test_what_is_sent_to_an_agent_has_the_form_of_the_example(tmp_path: Path) -> None:
    done = loopback.answer(b'{"jsonrpc":"2.0","id":"x","result":{"status":"completed","result":{"n":1}}}')
    async with posting(tmp_path, done) as (gateway, server):
        sent = EXAMPLE | {"agent_id": "counter"}
        answer = await gateway.result(CREATE, sent, agent="")
        assert answer["result"] == {"n": 1}
        call = json.loads(server.requests[0].body)
        assert call["method"] == CREATE
        assert call["id"] == call["params"]["task"]["id"]
        assert call["params"]["input_data"] == EXAMPLE["input_data"]
        assert call["params"]["task"]["description"] == "Research quantum computing"
        assert call["params"]["task"]["priority"] == "high"
        assert call["params"]["task"]["context"]["session_id"] == "session-1"
        assert "authorization" not in server.requests[0].headers


@contextmanager
def held(gateway_url: str) -> Iterator[tuple[str, threading.Event]]:
    """Where a worker finds the gateway, except that its reports wait there for the event: its work lasts until then."""
    go = threading.Event()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if json.loads(body)["method"] == RESULT:
                assert go.wait(2 * BOUND)
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
            with suppress(httpx2.TransportError):  # the worker sees what it would see of the gateway: no answer
                answer = httpx2.post(gateway_url, content=body, headers=headers, timeout=BOUND, trust_env=False)
                self.send_response(answer.status_code)
                self.end_headers()
                self.wfile.write(answer.content)

        def log_message(self, *said: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", go
        finally:
            go.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("how", ["pull", "url"])
def test_a_delegated_task_outlives_the_gateway(tmp_path: Path, how: str, port: int) -> None:
    config = PULL if how == "pull" else PULL.replace("pull", f"http://127.0.0.1:{port}/")
    with reserved() as own, process(tmp_path, config, port=own) as gateway, held(gateway.url) as (door, go):
        key = gateway.call("POST", "/admin/keys", json={"name": "counter"}).json()["key"]
        with worker(door, key, *([] if how == "pull" else [port])):
            if how == "url":
                asyncio.run(listening(port))
            params = {"agent_id": "counter", "task": {"id": "1", "description": "a b c"}, "wait": 0}
            created = gateway.rpc(CREATE, params, agent="")
            assert created["result"]["status"] in ("pending", "in_progress")
            gateway.until(lambda: status(gateway) == "in_progress")
            gateway.kill()
            with process(tmp_path, config, port=own) as again:
                go.set()
                answer = again.rpc(RESULT, {"task_id": "1", "wait": 25}, agent="")["result"]
                assert (answer["status"], answer["result"]) == ("completed", {"words": 3})


def status(gateway: Process) -> str:
    return str(gateway.rpc(RESULT, {"task_id": "1"}, agent="")["result"]["status"])
