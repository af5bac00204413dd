"""The JSON-RPC binding's own rules (A2A §9, jsonrpc.org). Both ways through the door: test_jsonrpc_paths.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bindings import Caller
from tests.serving import Gateway, message

pytestmark = pytest.mark.asyncio(loop_scope="module")


def call(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}, **more}


async def code(gateway: Gateway, body: Any) -> tuple[int, Any]:
    answer = await gateway.post(body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    tree = answer.json()
    assert tree.keys() == {"jsonrpc", "id", "error"}
    assert tree["error"].keys() == {"code", "message", "data"}
    assert all("@type" in detail for detail in tree["error"]["data"])
    return tree["error"]["code"], tree["id"]


@pytest.mark.requirement("a2a.jsonrpc.parse-error", "a2a.error.info-in-jsonrpc", "a2a.error.code-and-sentence")
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"jsonrpc":"2.0","jsonrpc":"2.0"}', b"[1,", b"NaN"])
async def test_what_is_not_json_is_a_parse_error(gateway: Gateway, body: bytes) -> None:
    assert await code(gateway, body) == (-32700, None)


@pytest.mark.requirement("a2a.jsonrpc.invalid-request")
@pytest.mark.parametrize(
    "body", [b"1", b'"x"', b"null", b"{}", b"[]", b'{"jsonrpc":"1.0","method":"GetTask"}', b"true"]
)
async def test_json_that_is_no_request_is_invalid(gateway: Gateway, body: bytes) -> None:
    assert await code(gateway, body) == (-32600, None)


@pytest.mark.requirement("a2a.jsonrpc.unknown-method")
@pytest.mark.parametrize("method", ["NonExistentMethod", "getTask", "message/send", "tasks/get", "rpc.discover", ""])
async def test_an_unknown_method_is_not_found(gateway: Gateway, method: str) -> None:
    assert await code(gateway, call(method)) == (-32601, 1)


@pytest.mark.requirement("a2a.jsonrpc.id-returned")
@pytest.mark.parametrize("id", [0, 1, -7, 2**53, "", "x", "1", "é"])
async def test_an_answer_has_the_id_of_its_request(gateway: Gateway, id: Any) -> None:
    for method in ("ListTasks", "NonExistentMethod", "GetExtendedAgentCard"):
        tree = (await gateway.post(call(method, id=id))).json()
        assert (tree["id"], type(tree["id"])) == (id, type(id))


@pytest.mark.requirement("a2a.jsonrpc.no-params")
async def test_a_method_without_parameters_may_leave_them_out(gateway: Gateway) -> None:
    tree = (await gateway.post({"jsonrpc": "2.0", "id": 1, "method": "ListTasks"})).json()
    assert tree["result"]["tasks"] == []


@pytest.mark.requirement("a2a.jsonrpc.notification")
async def test_a_notification_is_done_and_not_answered(gateway: Gateway) -> None:
    quiet = await Caller(gateway, "jsonrpc").other("notifier")
    sent = {"jsonrpc": "2.0", "method": "SendMessage", "params": {"message": message("hi")}}
    answer = await gateway.post(sent, who=quiet.who)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await quiet.call("ListTasks"))["totalSize"] == 1


@pytest.mark.requirement("a2a.jsonrpc.batch")
async def test_a_batch_has_one_answer_for_each_request(gateway: Gateway) -> None:
    batch = [
        call("GetTask", {"id": "nobody"}, id="a"),
        {"jsonrpc": "2.0", "method": "ListTasks"},
        1,
        call("ListTasks", id="b"),
        call("SendStreamingMessage", {"message": message("hi")}, id="c"),
    ]
    answers = (await gateway.post(batch)).json()
    seen = {answer["id"]: answer.get("error", {}).get("code") for answer in answers}
    assert seen == {"a": -32001, None: -32600, "b": None, "c": -32600}
    assert len(answers) == 4
