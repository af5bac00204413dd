"""JSON-RPC has two ways through the gateway: one plain call goes straight to the method, everything else goes through
jsonrpcserver. A caller must not be able to tell which one its call took."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects import a2a, jsonrpc, tasks
from gateway.server.a2a_jsonrpc import METHODS
from gateway.server.dispatch import MAX_BATCH
from tests.serving import ROOT, Gateway, message, running

SECRET = "postgres://admin:hunter2@db.internal/prod"

LEAKY = f"""
async def leaky(context, message):
    raise RuntimeError("cannot reach {SECRET}")
"""
CONFIG = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true,
         extended_card: {ROOT}/agent_cards/echo.extended.json}}
  leaky: {{run: "leaky_of_the_paths:leaky", card: {ROOT}/agent_cards/echo.json}}
  worker: {{tasks_url: pull, worker: bob}}
"""


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Gateway]:
    (folder / "leaky_of_the_paths.py").write_text(LEAKY)
    async with running(folder / "data", CONFIG, base=folder) as gateway:
        yield gateway


def call(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "a", "method": method, **({} if params is None else {"params": params}), **more}


def masked(body: bytes) -> bytes:
    """Without what is new in every run: ids, incident numbers, moments."""
    body = re.sub(rb"[0-9a-f]{16,32}", b"<id>", body)
    return re.sub(rb'"\d{4}-\d\d-\d\dT[\d:.]+Z"', b'"<time>"', body)


# --- The same call on both ways. ---------------------------------------------------------------------------

# What a call needs to find, and the parameters it then has. Run once for every way, so each finds its own.
Make = Callable[[Gateway], Awaitable[Any]]

_numbers = itertools.count(1)


def plainly(params: Any) -> Make:
    async def make(gateway: Gateway) -> Any:
        return params

    return make


async def _sent(gateway: Gateway, text: str = "hi") -> str:
    task = await gateway.task(text)
    return str(task["id"])


async def _a_message(gateway: Gateway) -> Any:
    return {"message": message("hi", messageId=f"m-{next(_numbers)}")}


async def _a_direct_reply(gateway: Gateway) -> Any:
    return {"message": message("hi", messageId=f"tck-message-response-{next(_numbers)}")}


async def _a_task(gateway: Gateway) -> Any:
    return {"id": await _sent(gateway)}


async def _an_open_task(gateway: Gateway) -> Any:
    return {"id": await _sent(gateway, "ask")}


async def _a_context(gateway: Gateway) -> Any:
    return {"contextId": (await gateway.task("hi"))["contextId"]}


async def _a_config(gateway: Gateway) -> Any:
    return {"taskId": await _sent(gateway), "id": "c", "url": "https://hooks.example/x"}


async def _a_created_config(gateway: Gateway) -> Any:
    config = await _a_config(gateway)
    await gateway.result("CreateTaskPushNotificationConfig", config)
    return {"taskId": config["taskId"], "id": "c"}


async def _its_task(gateway: Gateway) -> Any:
    return {"taskId": (await _a_created_config(gateway))["taskId"]}


async def _a_03_message(gateway: Gateway) -> Any:
    parts = [{"kind": "text", "text": "hi"}]
    return {"message": {"kind": "message", "messageId": f"m-{next(_numbers)}", "role": "user", "parts": parts}}


async def _a_03_config(gateway: Gateway) -> Any:
    return {"taskId": await _sent(gateway), "pushNotificationConfig": {"url": "https://hooks.example/x"}}


async def _a_set_03_config(gateway: Gateway) -> Any:
    config = await _a_created_config(gateway)
    return {"id": config["taskId"], "pushNotificationConfigId": "c"}


async def _a_task_with_a_03_config(gateway: Gateway) -> Any:
    return {"id": (await _a_created_config(gateway))["taskId"]}


async def _an_older_task(gateway: Gateway) -> Any:
    return {"agent_id": "echo", "task": {"id": f"t-{next(_numbers):04}", "description": "hi"}}


async def _an_older_result(gateway: Gateway) -> Any:
    params = await _an_older_task(gateway)
    await gateway.result(tasks.CREATE, params)
    return {"task_id": params["task"]["id"]}


NOT_AN_ID: Any = {"id": 7}
# Per method: what goes well, and what does not.
GOOD: dict[str, list[Make]] = {
    "SendMessage": [_a_message, _a_direct_reply],
    "GetTask": [_a_task],
    "ListTasks": [_a_context, plainly({"status": "TASK_STATE_WORKING", "pageSize": 1}), plainly(None)],
    "CancelTask": [_an_open_task],
    "CreateTaskPushNotificationConfig": [_a_config],
    "GetTaskPushNotificationConfig": [_a_created_config],
    "ListTaskPushNotificationConfigs": [_its_task],
    "DeleteTaskPushNotificationConfig": [_a_created_config],
    "GetExtendedAgentCard": [plainly({}), plainly(None)],
    "message/send": [_a_03_message],
    "tasks/get": [_a_task],
    "tasks/cancel": [_an_open_task],
    "tasks/pushNotificationConfig/set": [_a_03_config],
    "tasks/pushNotificationConfig/get": [_a_set_03_config, _a_task_with_a_03_config],
    "tasks/pushNotificationConfig/list": [_a_task_with_a_03_config],
    "tasks/pushNotificationConfig/delete": [_a_set_03_config],
    "agent/getAuthenticatedExtendedCard": [plainly({}), plainly(None)],
    tasks.CREATE: [_an_older_task],
    tasks.RESULT: [_an_older_result],
    tasks.PENDING: [plainly({"agent_id": "worker"})],
}
BAD: dict[str, list[Any]] = {
    "SendMessage": [
        {},
        {"message": None},
        {"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}},
        {"message": {"messageId": "", "role": "ROLE_USER", "parts": [{"text": "hi"}]}},
        {"message": {"messageId": "m", "role": "user", "parts": [{"text": "hi", "url": "x"}]}},
        {"message": message("hi", messageId="m", taskId="no-such-task")},
        {"message": message("hi", messageId="m"), "tenant": "acme"},
    ],
    "GetTask": [{}, NOT_AN_ID, {"id": ""}, {"id": "no-such-task"}, {"id": "x", "historyLength": -1}],
    "ListTasks": [{"pageSize": 0}, {"pageSize": 101}, {"status": "asleep"}, {"pageToken": "made up"}],
    "CancelTask": [{}, NOT_AN_ID, {"id": "no-such-task"}],
    "CreateTaskPushNotificationConfig": [{}, {"taskId": "x", "url": "https://hooks.example/x"}, {"url": 1}],
    "GetTaskPushNotificationConfig": [{}, {"taskId": "x", "id": "y"}],
    "ListTaskPushNotificationConfigs": [{}, {"taskId": "x"}, {"taskId": "x", "pageSize": 1000}],
    "DeleteTaskPushNotificationConfig": [{}, {"taskId": "x", "id": "y"}],
    "GetExtendedAgentCard": [{"tenant": "acme"}],
    "message/send": [
        {},
        {"message": None},
        {"message": message("hi", messageId="m")},
        {"message": message("hi", messageId="m", role="agent", parts=[{"kind": "text", "text": "hi"}])},
        {"message": message("hi", messageId="m", role="user", parts=[{"kind": "video", "video": "x"}])},
        {"message": message("hi", messageId="m", role="user", parts=[{"kind": "data", "data": 7}])},
        {"message": message("hi", messageId="m", role="user", parts=[{"kind": "file", "file": {}}])},
        {"message": message("hi", messageId="m", role="user"), "configuration": {"blocking": "yes"}},
    ],
    "tasks/get": [{}, NOT_AN_ID, {"id": "no-such-task"}, {"id": "x", "historyLength": -1}],
    "tasks/cancel": [{}, NOT_AN_ID, {"id": "no-such-task"}],
    "tasks/pushNotificationConfig/set": [{}, {"taskId": "x"}, {"taskId": "x", "pushNotificationConfig": {"url": 1}}],
    "tasks/pushNotificationConfig/get": [{}, NOT_AN_ID, {"id": "x"}, {"id": "x", "pushNotificationConfigId": 7}],
    "tasks/pushNotificationConfig/list": [{}, NOT_AN_ID, {"id": "x"}],
    "tasks/pushNotificationConfig/delete": [{}, {"id": "x"}, {"id": "x", "pushNotificationConfigId": "y"}],
    "agent/getAuthenticatedExtendedCard": [{"tenant": "acme"}],
    tasks.CREATE: [{}, {"task": {"id": "t"}}, {"agent_id": "nobody", "task": {"id": "t", "description": "d"}}],
    tasks.RESULT: [{}, {"task_id": "no-such"}, {"task_id": "t", "status": "asleep"}],
    tasks.PENDING: [{}, {"agent_id": "worker", "limit": 0}, {"agent_id": "nobody"}],
}
UNKNOWN = ("NoSuchMethod", "tasks/list", "sendmessage", "rpc.discover", "", "__init__", "agents/tasks/delete")


def endpoint(method: str) -> str:
    return "" if method in tasks.METHODS else "echo"  # at the root `agent_id` says which agent is meant


def test_every_method_of_both_tables_has_good_and_bad_calls() -> None:
    assert GOOD.keys() == BAD.keys() == METHODS.keys() - a2a.STREAMING
    assert METHODS.keys() == a2a.METHODS.keys() | tasks.METHODS


async def _both(gateway: Gateway, method: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The answers to the same call, by the way it took."""
    agent = endpoint(method)
    version = {"A2A_Version": a2a.METHODS[method].version if method in a2a.METHODS else "1.0"}
    direct = await gateway.post(call(method, await make(gateway)), agent=agent, **version)
    batch = await gateway.post([call(method, await make(gateway))], agent=agent, **version)
    assert batch.content.startswith(b"[")
    assert batch.content.endswith(b"]")
    params = await make(gateway)
    with monkeypatch.context() as patch:
        patch.setattr(jsonrpc, "is_single_call", lambda tree: False)
        long = await gateway.post(call(method, params), agent=agent, **version)
    answers = {"direct": direct.content, "batch": batch.content[1:-1], "long": long.content}
    return {way: masked(body) for way, body in answers.items()}


async def test_every_good_call_has_the_same_answer_on_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as gateway:
        for method, makes in GOOD.items():
            for make in makes:
                answers = await _both(gateway, method, make, monkeypatch)
                expected = re.sub(rb"(t-\d{4}|m-\d+|response-\d+)", b"<n>", answers["direct"])
                assert expected.startswith(b'{"jsonrpc":"2.0","id":"a","result":'), (method, expected)
                for way, body in answers.items():
                    assert re.sub(rb"(t-\d{4}|m-\d+|response-\d+)", b"<n>", body) == expected, (method, way)


async def test_every_bad_call_has_the_same_answer_on_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as gateway:
        for method, examples in BAD.items():
            for params in examples:
                answers = await _both(gateway, method, plainly(params), monkeypatch)
                assert len(set(answers.values())) == 1, (method, params, answers)
                error = json.loads(answers["direct"])["error"]
                assert error["code"] < 0, error
                assert "incident" not in error["message"], (method, params)


async def test_an_unknown_method_has_the_same_answer_on_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as gateway:
        for method in UNKNOWN:
            for params in ({}, {"id": "x"}, None):
                answers = await _both(gateway, method, plainly(params), monkeypatch)
                assert len(set(answers.values())) == 1, (method, answers)
                assert json.loads(answers["direct"])["error"]["code"] == -32601


async def test_a_version_that_is_not_spoken_is_refused_the_same_on_both_ways(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        body = call("GetTask", {"id": "x"})
        direct = await gateway.post(body, A2A_Version="7.0")
        batch = await gateway.post([body], A2A_Version="7.0")
        assert direct.json()["error"]["code"] == -32009
        assert batch.content == b"[" + direct.content + b"]"


# --- Ids. --------------------------------------------------------------------------------------------------

ECHOED = ["a", "", "ünï", "x" * 5000, 0, 1, -1, 2**53 + 1, 2**63 - 1, 1.5, -0.25]


@pytest.mark.parametrize("in_batch", [False, True], ids=["alone", "in a batch"])
async def test_an_id_comes_back_as_it_was_sent(tmp_path: Path, in_batch: bool) -> None:
    async with served(tmp_path) as gateway:
        for id in [*ECHOED, None]:
            body = call("GetTask", {"id": "no-such"}, id=id)
            answer = (await gateway.post([body] if in_batch else body)).json()
            one = answer[0] if in_batch else answer
            assert one["id"] == id
            assert type(one["id"]) is type(id)
            assert one["error"]["code"] == -32001


@pytest.mark.parametrize("id", [True, False, {}, [], ["a"]])
async def test_an_id_of_another_type_is_refused(tmp_path: Path, id: Any) -> None:
    async with served(tmp_path) as gateway:
        alone = (await gateway.post(call("GetTask", {"id": "x"}, id=id))).json()
        batch = (await gateway.post([call("GetTask", {"id": "x"}, id=id)])).json()
        assert batch == [alone]
        assert (alone["id"], alone["error"]["code"]) == (None, -32600)


async def test_an_id_that_no_reader_would_keep_exactly_is_a_parse_error(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        for id in (b"9223372036854775808", b"-9223372036854775809", b"1" * 400, b"NaN", b"Infinity"):
            answer = await gateway.post(b'{"jsonrpc":"2.0","id":' + id + b',"method":"ListTasks"}')
            assert answer.json()["error"]["code"] == -32700, id
            assert answer.json()["id"] is None


# --- Malformed requests. -----------------------------------------------------------------------------------

MALFORMED: list[Any] = [
    {},
    {"jsonrpc": "2.0"},
    {"jsonrpc": "2.0", "id": "a"},
    {"jsonrpc": "1.0", "id": "a", "method": "ListTasks"},
    {"jsonrpc": 2.0, "id": "a", "method": "ListTasks"},
    {"id": "a", "method": "ListTasks"},
    {"jsonrpc": "2.0", "id": "a", "method": 1},
    {"jsonrpc": "2.0", "id": "a", "method": None},
    {"jsonrpc": "2.0", "id": "a", "method": "ListTasks", "params": None},
    {"jsonrpc": "2.0", "id": "a", "method": "ListTasks", "params": 1},
    {"jsonrpc": "2.0", "id": "a", "method": "ListTasks", "params": "x"},
    {"jsonrpc": "2.0", "id": "a", "method": "ListTasks", "params": {}, "extra": 1},
    {"jsonrpc": "2.0", "id": "a", "result": {}},
    "ListTasks",
    1,
    None,
    True,
]


async def test_what_is_no_request_is_refused_under_its_id_where_one_can_be_read(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        for tree in MALFORMED:
            body = json.dumps(tree).encode()
            alone = await gateway.post(body)
            answer = alone.json()
            assert answer["error"]["code"] == -32600, tree
            assert answer["id"] == (tree.get("id") if isinstance(tree, dict) else None), tree
            batch = await gateway.post(b"[" + body + b"]")
            assert batch.content == b"[" + alone.content + b"]", tree


async def test_parameters_by_position_are_invalid_parameters(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        for params in ([], ["x"], [{"id": "x"}], [1, 2, 3]):
            for method in ("GetTask", tasks.CREATE):
                alone = await gateway.post(call(method, params))
                batch = await gateway.post([call(method, params)])
                if params:
                    assert alone.json()["error"]["code"] == -32602, (method, params)
                assert batch.content == b"[" + alone.content + b"]"


async def test_parameters_with_strange_names_reach_the_method_as_data(tmp_path: Path) -> None:
    names = ("self", "name", "params", "method", "context", "positional", "", "not an identifier", "class")
    async with served(tmp_path) as gateway:
        body = call("GetTask", {"id": "no-such", **dict.fromkeys(names, 1)})
        alone, batch = await gateway.post(body), await gateway.post([body])
        assert alone.json()["error"]["code"] == -32001
        assert batch.content == b"[" + alone.content + b"]"


# --- Batches. ----------------------------------------------------------------------------------------------


async def test_a_batch_has_at_most_so_many_elements(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        full = [call("GetTask", {"id": "x"}, id=n) for n in range(MAX_BATCH)]
        answers = (await gateway.post(full)).json()
        assert [answer["id"] for answer in answers] == list(range(MAX_BATCH))
        refused = (await gateway.post([*full, call("GetTask", {"id": "x"})])).json()
        assert (refused["id"], refused["error"]["code"]) == (None, -32600)
        assert str(MAX_BATCH) in refused["error"]["message"]


async def test_an_empty_batch_is_one_refusal_and_no_list(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        answer = (await gateway.post(b"[]")).json()
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)


async def test_one_bad_element_spoils_no_other(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        id = await _sent(gateway)
        answers = (
            await gateway.post(
                [
                    call("GetTask", {"id": id}, id=1),
                    7,
                    [call("GetTask", {"id": id}, id=2)],
                    call("NoSuchMethod", id=3),
                    {"jsonrpc": "2.0", "method": "GetTask", "params": {"id": id}},
                    call("GetTask", {}, id=4),
                    {"id": 5},
                    call("SendMessage", {"message": message("hi")}, id=6),
                ]
            )
        ).json()
        told = [(answer["id"], answer.get("error", {}).get("code")) for answer in answers]
        assert told == [
            (1, None),
            (None, -32600),
            (None, -32600),
            (3, -32601),
            (4, -32602),
            (5, -32600),
            (6, None),
        ]
        assert answers[0]["result"]["id"] == id


async def test_two_calls_with_one_id_have_two_answers(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        answers = (await gateway.post([call("GetTask", {"id": "x"}), call("ListTasks")])).json()
        assert [answer["id"] for answer in answers] == ["a", "a"]
        assert "error" in answers[0]
        assert "result" in answers[1]


async def test_a_streaming_method_in_a_batch_is_refused_and_does_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        stream = call("SendStreamingMessage", {"message": message("hi")}, id=1)
        answers = (await gateway.post([stream, call("SubscribeToTask", {"id": "x"}, id=2)])).json()
        assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [(1, -32600), (2, -32600)]
        assert "stream" in answers[0]["error"]["message"]
        assert (await gateway.result("ListTasks"))["totalSize"] == 0


async def test_the_same_message_twice_in_one_batch_is_done_once(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        send = call("SendMessage", {"message": message("hi")})
        first, second = (await gateway.post([send, send])).json()
        assert first["result"] == second["result"]
        assert (await gateway.result("ListTasks"))["totalSize"] == 1


# --- Notifications. ----------------------------------------------------------------------------------------


def notification(method: str, params: Any = None) -> dict[str, Any]:
    body = call(method, params)
    del body["id"]
    return body


async def test_a_notification_is_done_and_not_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        for number, body in enumerate(
            (
                notification("SendMessage", {"message": message("hi")}),
                [notification("SendMessage", {"message": message("hi")})],
            ),
            start=1,
        ):
            answer = await gateway.post(body)
            assert (answer.status_code, answer.content) == (204, b"")
            assert "content-type" not in answer.headers
            assert (await gateway.result("ListTasks"))["totalSize"] == number


async def test_a_notification_that_fails_is_not_answered_either(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        for body in (
            notification("NoSuchMethod"),
            notification("GetTask", {}),
            notification("GetTask", ["by position"]),
            notification("SendStreamingMessage", {"message": message("hi")}),
            [notification("NoSuchMethod"), notification("GetTask", {})],
        ):
            answer = await gateway.post(body)
            assert (answer.status_code, answer.content) == (204, b""), body
        assert (await gateway.result("ListTasks"))["totalSize"] == 0


# --- Inside stays inside. ----------------------------------------------------------------------------------


async def test_what_an_agent_raises_is_in_the_log_and_not_on_the_wire(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path) as gateway:
        for body in (
            call("SendMessage", {"message": message("hi")}),
            [call("SendMessage", {"message": message("hi")})],
        ):
            caplog.clear()
            answer = await gateway.post(body, agent="leaky")
            assert answer.status_code == 200
            _no_secret(answer.content)
            tree = answer.json()
            task = (tree[0] if isinstance(tree, list) else tree)["result"]["task"]
            assert task["status"]["state"] == "TASK_STATE_FAILED"
            said = task["status"]["message"]
            incident = said["metadata"]["incident"]
            assert incident in said["parts"][0]["text"]
            assert _logged(caplog, incident)


async def test_what_the_gateway_itself_raises_is_in_the_log_and_not_on_the_wire(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: object, **more: object) -> object:
        raise RuntimeError(f"cannot reach {SECRET}")

    async with served(tmp_path) as gateway:
        monkeypatch.setattr(type(gateway.app.store), "task", broken)
        for body in (
            call("GetTask", {"id": "x"}),
            [call("GetTask", {"id": "x"}), call("GetTask", {"id": "y"})],
            call("SubscribeToTask", {"id": "x"}),
        ):
            caplog.clear()
            answer = await gateway.post(body)
            assert answer.status_code == 200
            _no_secret(answer.content)
            tree = answer.json()
            for one in tree if isinstance(tree, list) else [tree]:
                error = one["error"]
                assert (one["id"], error["code"]) == ("a", -32603)
                incident = error["data"][0]["metadata"]["incident"]
                assert error["message"] == f"Internal error; incident {incident}"
                assert _logged(caplog, incident)
        answer = await gateway.http("GET", "/tasks/x")
        assert answer.status_code == 500
        _no_secret(answer.content)
        assert re.search(r"incident [0-9a-f]{16}", answer.json()["error"]["message"])


def _no_secret(body: bytes) -> None:
    for word in (b"hunter2", b"db.internal", b"RuntimeError", b"Traceback", b".py"):
        assert word not in body


def _logged(caplog: pytest.LogCaptureFixture, incident: str) -> bool:
    return any(
        incident in record.getMessage() and record.exc_info and SECRET in str(record.exc_info[1])
        for record in caplog.records
        if record.levelno >= logging.ERROR
    )


# --- Headers. ----------------------------------------------------------------------------------------------


async def test_activated_extensions_are_named_in_the_answer_of_both_ways(tmp_path: Path) -> None:
    uri = "https://example.com/extensions/quoting"
    card = json.loads((ROOT / "agent_cards" / "echo.json").read_text())
    card["capabilities"]["extensions"] = [{"uri": uri}]
    (tmp_path / "card.json").write_text(json.dumps(card))
    config = 'agents: {echo: {run: "agents.echo:Echo", card: card.json}}'
    async with running(tmp_path / "data", config, base=tmp_path) as gateway:
        body = call("GetTask", {"id": await _sent(gateway)})
        for sent in (body, [body]):
            answer = await gateway.post(sent, A2A_Extensions=f"{uri}, https://example.com/unknown")
            assert answer.headers["a2a-extensions"] == uri
