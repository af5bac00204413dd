"""Bodies that somebody sends to break things. Whatever comes in: an answer in the caller's dialect that says what is
wrong, no word about our inside, and a gateway that goes on serving."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.a2a_v1.errors import BY_CODE, CODES
from tests.serving import Gateway, message, running

pytestmark = pytest.mark.security

# What no answer may contain: names of our language, our libraries, our files, and what the body held.
INSIDE = re.compile(
    rb"Traceback|File \"|object at 0x|<class|NoneType|[A-Z]\w+Error\b|Exception|pydantic|orjson|starlette|uvicorn"
    rb"|jsonschema|sqlite|\.py\b|/home/|/usr/|errors\.pydantic\.dev|canary-7f3a"
)

# --- What is not JSON as RFC 8259 and I-JSON know it: -32700, 400. ------------------------------------------

NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "a NUL": b"\0",
    "text": b"canary-7f3a",
    "half an object": b'{"jsonrpc":"2.0","canary-7f3a":',
    "an open string": b'{"canary-7f3a',
    "two documents": b"{}{}",
    "a line too many": b'{}\n{"a":1}',
    "garbage behind": b"{} canary-7f3a",
    "a comma too many": b'{"a":1,}',
    "a comment": b'{"a":1/*canary-7f3a*/}',
    "single quotes": b"{'a':1}",
    "a bare key": b"{a:1}",
    "Python": b"{'a': None, 'b': True}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "a leading zero": b'{"a":01}',
    "a plus": b'{"a":+1}',
    "a bare fraction": b'{"a":.5}',
    "hexadecimal": b'{"a":0x10}',
    "a line break in a string": b'{"a":"x\ny"}',
    "a bad escape": rb'{"a":"\x41"}',
    "half an escape": rb'{"a":"\u00"}',
    "a lone surrogate": rb'{"a":"\ud800"}',
    "surrogates in the wrong order": rb'{"a":"\udc00\ud800"}',
    "an escaped NUL": rb'{"a":"\u0000"}',
    "an escaped NUL in a key": rb'{"a\u0000":1}',
    "a stray byte": b'{"a":"\xff"}',
    "an overlong slash": b'{"a":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "half a character": b'{"a":"\xe2\x82"}',
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "Latin-1": '{"a":"\xe9"}'.encode("latin-1"),
    "a key twice": b'{"a":1,"a":2}',
    "a key twice, one escaped": rb'{"a":1,"\u0061":2}',
    "a key twice, far inside": b'{"a":[{"b":{"c":1,"c":1}}]}',
    "2^63": b'{"a":9223372036854775808}',
    "2^64": b'{"a":18446744073709551616}',
    "an integer of 5000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "1e400": b'{"a":1e400}',
    "65 levels": b"[" * 66 + b"]" * 66,
    "100000 levels": b"[" * 100_000 + b"]" * 100_000,
    "100000 open levels": b'{"a":' * 100_000,
    "too many values": b"[" + b"0," * 100_001 + b"0]",
    "gzip": gzip.compress(b'{"a":1}'),
    "a form": b"jsonrpc=2.0&method=ListTasks",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "HTML": b"<script>alert(1)</script>",
    "YAML": b"a: !!python/object/apply:os.system [id]\n",
    "a request line": b"POST /admin/keys HTTP/1.1\r\nHost: x\r\n\r\n",
    "protobuf": bytes.fromhex("0a0c0a0a63616e6172792d376633"),
    "random bytes": bytes(range(256)),
}

# --- JSON, but nothing that could be a call: -32600, 400. ----------------------------------------------------

NOT_A_CALL: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": 12,
    "a float": 1e300,
    "a string": "canary-7f3a",
    "an empty list": [],
    "lists in lists": [[[[]]]],
    "a list of nulls": [None] * 10,
}

# --- A call whose parameters are hostile: -32602 or what the method says, never an incident. ------------------


def _send(**more: Any) -> dict[str, Any]:
    return {"message": {**message("hi"), **more}}


def _nested(depth: int) -> Any:
    tree: Any = "canary"
    for _ in range(depth):
        tree = {"a": tree}
    return tree


HOSTILE_PARAMETERS: dict[str, Any] = {
    "no message": {},
    "a message that is a list": {"message": []},
    "a message that is a string": {"message": "canary-7f3a"},
    "parts that are an object": _send(parts={"text": "hi"}),
    "parts that are a string": _send(parts="text"),
    "parts of null": _send(parts=[None]),
    "a text that is a number": _send(parts=[{"text": 1}]),
    "a text that is an object": _send(parts=[{"text": {"$ne": None}}]),
    "two contents at once": _send(parts=[{"text": "a", "url": "b"}]),
    "raw that is no base64": _send(parts=[{"raw": "%%%canary-7f3a"}]),
    "raw with half a byte": _send(parts=[{"raw": "a"}]),
    "a role of nobody": _send(role="canary-7f3a"),
    "a message id that is a number": _send(messageId=7),
    "an empty message id": _send(messageId=""),
    "a message id of 100 kB": _send(messageId="x" * 100_000),
    "a context id that is a list": _send(contextId=["canary-7f3a"]),
    "a task id that climbs": _send(taskId="../../../etc/passwd"),
    "a task id with SQL in it": _send(taskId="' OR 1=1; DROP TABLE tasks; --"),
    "a task id with a line break": _send(taskId="x\r\nSet-Cookie: a=b"),
    "a task id that is a format": _send(taskId="{0.__class__}%s%n${jndi:ldap://x}"),
    "extensions that are text": _send(extensions="canary-7f3a"),
    "metadata that is a list": _send(metadata=[1]),
    "a history of minus one": {**_send(), "configuration": {"historyLength": -1}},
    "a history beyond int32": {**_send(), "configuration": {"historyLength": 2**40}},
    "a configuration that is text": {**_send(), "configuration": "canary-7f3a"},
    "modes that are a number": {**_send(), "configuration": {"acceptedOutputModes": 5}},
    "a webhook that is a file": {
        **_send(),
        "configuration": {"taskPushNotificationConfig": {"url": "file:///etc/passwd"}},
    },
    "a webhook to ourselves": {
        **_send(),
        "configuration": {"taskPushNotificationConfig": {"url": "http://127.0.0.1:1/x"}},
    },
    "a webhook to the cloud's own": {
        **_send(),
        "configuration": {"taskPushNotificationConfig": {"url": "http://169.254.169.254/latest"}},
    },
    "a tenant of nobody": {**_send(), "tenant": "canary-7f3a"},
    "a tenant that is an object": {**_send(), "tenant": {"a": 1}},
}
# Odd, but nobody's fault: these are answered, whatever the answer is.
ODD_PARAMETERS: dict[str, Any] = {
    "names of Python's inside": {**_send(), "__class__": 1, "__proto__": {"a": 1}, "self": 2, "constructor": 3},
    "10000 parts": _send(parts=[{"text": ""}] * 10_000),
    "metadata as deep as may be": _send(metadata=_nested(50)),
    "data of every kind": _send(parts=[{"data": [None, True, -1, 1e300, "", {"": {}}]}]),
    "half a megabyte": _send(parts=[{"text": "x" * 500_000}]),
    "text that turns around": _send(parts=[{"text": "\u202e\u2066\x1b[2J\ufeff\U0010ffff"}]),
    "a media type with lines": _send(parts=[{"text": "x", "mediaType": "text/plain\r\nX: y"}]),
    "a file name that climbs": _send(parts=[{"raw": "", "filename": "../../x"}]),
}


def test_there_are_enough_of_them() -> None:
    assert len(NOT_JSON) + len(NOT_A_CALL) + len(HOSTILE_PARAMETERS) + len(ODD_PARAMETERS) >= 100


async def rpc(gateway: Gateway, body: bytes) -> httpx2.Response:
    return await gateway.post(body)


async def http(gateway: Gateway, body: bytes, path: str = "/message:send") -> httpx2.Response:
    answer: httpx2.Response = await gateway.http(
        "POST", path, content=body, headers={"Content-Type": "application/a2a+json"}
    )
    return answer


def judge(answer: httpx2.Response, what: object) -> None:
    assert answer.status_code < 500, (what, answer.content[:300])
    found = INSIDE.search(answer.content)
    assert found is None, (what, found)
    assert len(answer.content) < 2_000_000


def rpc_code(answer: httpx2.Response, what: object) -> int | None:
    """The error code of a JSON-RPC answer (None: it went well), after a look at its form."""
    judge(answer, what)
    assert answer.headers["content-type"] == "application/json", what
    tree = answer.json()
    if isinstance(tree, list):
        return None
    assert tree["jsonrpc"] == "2.0"
    assert "id" in tree
    assert ("result" in tree) != ("error" in tree)
    if "result" in tree:
        return None
    error = tree["error"]
    assert error["message"], what
    assert error["data"][0]["reason"] == BY_CODE[error["code"]], what
    return int(error["code"])


def http_reason(answer: httpx2.Response, what: object) -> str | None:
    """The reason of an HTTP+JSON answer (None: it went well), after a look at its form."""
    judge(answer, what)
    if answer.status_code < 400:
        return None
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    assert error["message"]
    reason = error["details"][0]["reason"]
    code = next(code for known, code in CODES.items() if known == reason)
    assert (code.http, code.status) == (answer.status_code, error["status"]), what
    return str(reason)


async def still_serves(gateway: Gateway) -> None:
    assert (await gateway.task("hi"))["status"]["state"] == "TASK_STATE_COMPLETED"
    assert (await gateway.client.get("/readyz")).status_code == 200


async def test_what_is_not_json_is_a_parse_error_in_the_callers_dialect(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for what, body in NOT_JSON.items():
            answer = await rpc(gateway, body)
            assert rpc_code(answer, what) == -32700, (what, answer.text[:200])
            assert answer.json()["id"] is None
            # On this binding a message is the whole body, so an empty one is an empty object (protojson).
            expected = "INVALID_PARAMS" if not body else "PARSE_ERROR"
            assert http_reason(await http(gateway, body), what) == expected, what
        await still_serves(gateway)


async def test_json_that_is_no_call_is_an_invalid_request(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for what, tree in NOT_A_CALL.items():
            body = json.dumps(tree).encode()
            answer = await rpc(gateway, body)
            if isinstance(tree, list) and tree:
                judge(answer, what)
                assert {one["error"]["code"] for one in answer.json()} == {-32600}, what
            else:
                assert rpc_code(answer, what) == -32600, what
            assert http_reason(await http(gateway, body), what) == "INVALID_REQUEST", what
        await still_serves(gateway)


async def test_hostile_parameters_are_refused_by_field_and_never_quoted(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for what, params in HOSTILE_PARAMETERS.items():
            call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
            answer = await rpc(gateway, json.dumps(call).encode())
            code = rpc_code(answer, what)
            expected = -32001 if "taskId" in params.get("message", ()) else -32602
            assert code == expected, (what, answer.text[:300])
            reason = http_reason(await http(gateway, json.dumps(params).encode()), what)
            assert reason == BY_CODE[expected], what
        assert (await gateway.result("ListTasks"))["totalSize"] == 0
        await still_serves(gateway)


async def test_odd_parameters_are_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for what, params in ODD_PARAMETERS.items():
            call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
            rpc_code(await rpc(gateway, json.dumps(call).encode()), what)
            http_reason(await http(gateway, json.dumps(params).encode()), what)
        await still_serves(gateway)


async def test_hostile_method_names_and_paths_are_not_found(tmp_path: Path) -> None:
    names = ["x" * 5000, "__init__", "../admin", "SendMessage\r\n", "rpc.system", "\u202eksaTteG", "GetTask;drop"]
    paths = ["/tasks/..", "/tasks/%2e%2e%2fadmin", "/tasks/" + "x" * 2000, "/tasks/%00", "/tasks/a:b:c", "/no/such"]
    async with running(tmp_path) as gateway:
        for name in names:
            call = {"jsonrpc": "2.0", "id": 1, "method": name, "params": {}}
            assert rpc_code(await rpc(gateway, json.dumps(call).encode()), name) == -32601
        for path in paths:
            answer = await gateway.http("GET", path)
            judge(answer, path)
            assert answer.status_code in (400, 404, 405), (path, answer.status_code)
        await still_serves(gateway)


async def test_a_body_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        body = b'{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"a":"' + b"x" * 1_100_000 + b'"}}'
        for answer in (await rpc(gateway, body), await http(gateway, body)):
            judge(answer, "too large")
            assert answer.status_code == 413
            assert "1048576" in answer.text
        await still_serves(gateway)


async def test_a_body_of_another_type_is_refused_unread(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for kind in ("text/plain", "application/json-evil", "multipart/form-data; boundary=x", "application/xml", ""):
            answer = await gateway.post(b"canary-7f3a", Content_Type=kind)
            judge(answer, kind)
            assert answer.status_code == 415
            assert answer.json()["error"]["code"] == -32005
            answer = await gateway.http("POST", "/message:send", content=b"canary-7f3a", headers={"Content-Type": kind})
            judge(answer, kind)
            assert answer.status_code == 415
        await still_serves(gateway)


# --- And what nobody thought of. -----------------------------------------------------------------------------

SEEDS = [
    json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    for method, params in {
        "SendMessage": {"message": message("hi"), "configuration": {"historyLength": 1}},
        "ListTasks": {"pageSize": 5, "status": "TASK_STATE_WORKING"},
        "CreateTaskPushNotificationConfig": {"taskId": "x", "url": "https://hooks.example/x"},
        "agents/tasks/create": {"agent_id": "echo", "task": {"id": "t", "description": "d", "input_data": {"a": 1}}},
    }.items()
]
_TOKENS = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"-1", b"1e999", b"\\u0000", b"\xff", b"\0"]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good body with a few things done to it."""
    body = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.integers(0, 30)))
        what = draw(st.sampled_from(("drop", "double", "token", "bytes")))
        if what == "drop":
            del body[at:to]
        elif what == "double":
            body[at:at] = body[at:to]
        elif what == "token":
            body[at:to] = draw(st.sampled_from(_TOKENS))
        else:
            body[at:to] = draw(st.binary(max_size=8))
    return bytes(body)


def _trees() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
    keys = st.text(max_size=8) | st.sampled_from(["message", "parts", "text", "id", "metadata", "params", "messageId"])
    return st.recursive(leaves, lambda below: st.lists(below) | st.dictionaries(keys, below), max_leaves=12)


def test_mutated_bodies_and_made_up_parameters_never_break_it(tmp_path: Path) -> None:
    # uvloop, as `gateway serve` has it.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.ExitStack() as stack:
        entered = running(tmp_path)
        gateway = runner.run(entered.__aenter__())
        stack.callback(lambda: runner.run(entered.__aexit__(None, None, None)))
        quick = settings(max_examples=150)

        @quick
        @given(mutated())
        def mutations(body: bytes) -> None:
            for answer in (runner.run(rpc(gateway, body)), runner.run(http(gateway, body))):
                judge(answer, body)

        @quick
        @given(st.sampled_from(["SendMessage", "ListTasks", "GetTask", "CancelTask", "agents/tasks/result"]), _trees())
        def parameters(method: str, tree: Any) -> None:
            call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": tree}
            answer = runner.run(rpc(gateway, json.dumps(call).encode()))
            # Python's json writes lone surrogates as escapes; those are parse errors, everything else is judged.
            judge(answer, call)
            judge(runner.run(http(gateway, json.dumps(tree).encode())), tree)

        mutations()
        parameters()
        runner.run(still_serves(gateway))
