"""The long way for JSON-RPC by itself: what jsonrpcserver is allowed to decide, and what never leaves it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from gateway.dialects.a2a_v1.errors import BY_CODE, CODES
from gateway.model.errors import Reason, invalid
from gateway.server.dispatch import AT_ONCE, MAX_BATCH, answer

NAMES = dict.fromkeys(("add", "fail", "refuse", "slow"))


async def method(name: str, params: dict[str, Any]) -> bytes:
    if name == "fail":
        raise RuntimeError("password=hunter2")
    if name == "refuse":
        raise invalid("a", "is wrong")
    return json.dumps(params).encode()


def call(name: str, id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": name, "params": params}


async def answered(tree: Any) -> Any:
    body = await answer(tree, NAMES, method)
    return None if body is None else json.loads(body)


async def test_the_result_is_the_methods_own_bytes() -> None:
    async def exactly(name: str, params: dict[str, Any]) -> bytes:
        return b'{"n":1.50, "spaces":  true}'

    body = await answer(call("add"), NAMES, exactly)
    assert body == b'{"jsonrpc":"2.0","id":1,"result":{"n":1.50, "spaces":  true}}'


async def test_an_unknown_failure_is_an_incident_and_its_text_stays_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tree = await answered(call("fail"))
    assert tree["error"]["code"] == -32603
    assert "hunter2" not in json.dumps(tree)
    incident = tree["error"]["data"][0]["metadata"]["incident"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert incident in record.getMessage()
    assert record.exc_info is not None
    assert "hunter2" in str(record.exc_info[1])


async def test_a_refusal_keeps_its_code_and_fields() -> None:
    error = (await answered(call("refuse")))["error"]
    assert error["code"] == -32602
    assert error["data"][1]["fieldViolations"] == [{"field": "a", "description": "is wrong"}]


async def test_answers_stand_in_the_order_of_the_calls_whichever_ends_first() -> None:
    async def late(name: str, params: dict[str, Any]) -> bytes:
        for _ in range(10 - params["n"]):
            await asyncio.sleep(0)
        return b"%d" % params["n"]

    body = await answer([call("slow", n, n=n) for n in range(10)], NAMES, late)
    assert body is not None
    assert [one["id"] for one in json.loads(body)] == list(range(10))


async def test_only_so_many_calls_of_a_batch_are_in_hand_at_once() -> None:
    inside = most = 0

    async def counted(name: str, params: dict[str, Any]) -> bytes:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        return b"null"

    await answer([call("slow", n) for n in range(MAX_BATCH)], NAMES, counted)
    assert most == AT_ONCE


async def test_a_cancelled_request_cancels_what_it_began() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def forever(name: str, params: dict[str, Any]) -> bytes:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b"null"

    running = asyncio.create_task(answer([call("slow")], NAMES, forever))
    await asyncio.wait_for(began.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(ended.wait(), 5)


async def test_notifications_alone_have_no_answer() -> None:
    silent = {"jsonrpc": "2.0", "method": "add"}
    assert await answered(silent) is None
    assert await answered([silent, silent]) is None
    assert [one["id"] for one in await answered([silent, call("add", 7)])] == [7]


@pytest.mark.parametrize("element", [None, 1, "x", True, [], [call("add")], {"id": 3}, {"method": "add", "id": 3}])
async def test_what_is_no_request_spoils_only_itself(element: Any) -> None:
    good, bad = await answered([call("add", 1, a=1), element])
    assert good["result"] == {"a": 1}
    assert bad["error"]["code"] == -32600
    assert bad["id"] == (3 if isinstance(element, dict) else None)


async def test_the_librarys_own_words_never_leave() -> None:
    for tree in (
        {"jsonrpc": "2.0", "id": 1, "method": "nothing"},
        {"jsonrpc": "2.0", "id": 1, "method": "add", "params": 1},
        {"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 2, 3]},
        {"jsonrpc": "2.0", "id": {}, "method": "add"},
    ):
        error = (await answered(tree))["error"]
        assert error["data"][0]["@type"].endswith("ErrorInfo"), error
        assert error["data"][0]["reason"] in {reason.value for reason in Reason}


def test_every_reason_has_a_code_of_its_own() -> None:
    """So a code alone says what happened, and BY_CODE loses nothing when an upstream sends one."""
    assert len(BY_CODE) == len(CODES) == len(Reason)
