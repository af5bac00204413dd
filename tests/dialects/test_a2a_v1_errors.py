"""Every reason has its place in both bindings, and what is written is read back as it was meant."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.a2a_v1.errors import CODES, http_error, jsonrpc_error, read_error
from gateway.model.errors import GatewayError, Reason, invalid


def test_every_reason_has_a_code_of_its_own() -> None:
    assert CODES.keys() == set(Reason)
    assert len({code.jsonrpc for code in CODES.values()}) == len(CODES)


@pytest.mark.parametrize("reason", Reason)
def test_an_error_is_read_back_from_either_binding(reason: Reason) -> None:
    error = GatewayError(reason, "why", metadata={"taskId": "t"})
    status, body = http_error(error)
    for tree in (orjson.loads(jsonrpc_error(error)), orjson.loads(body)["error"]):
        assert read_error(tree) == (reason, "why", {"taskId": "t"})
    assert orjson.loads(body)["error"]["code"] == status


@pytest.mark.requirement("a2a.error.invalid-agent-response", "a2a.error.extended-card")
@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        (Reason.INVALID_AGENT_RESPONSE, -32006, 500),
        (Reason.EXTENDED_AGENT_CARD_NOT_CONFIGURED, -32007, 400),
    ],
)
def test_errors_that_no_local_agent_brings_about_have_their_numbers(reason: Reason, code: int, status: int) -> None:
    error = GatewayError(reason, "why")
    assert orjson.loads(jsonrpc_error(error))["code"] == code
    assert http_error(error)[0] == status


def test_violations_follow_the_reason() -> None:
    details = orjson.loads(jsonrpc_error(invalid("a.b", "is wrong")))["data"]
    assert [detail["@type"].rpartition(".")[2] for detail in details] == ["ErrorInfo", "BadRequest"]
    assert details[1]["fieldViolations"] == [{"field": "a.b", "description": "is wrong"}]


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"code": -32001, "message": "x"}, Reason.TASK_NOT_FOUND),
        ({"code": -32001, "data": [{"@type": "other"}, 5, None]}, Reason.TASK_NOT_FOUND),
        ({"code": -32001, "data": "text"}, Reason.TASK_NOT_FOUND),
        ({"code": -1, "message": "x"}, None),
        ({"code": "x"}, None),
        ({}, None),
        ([], None),
        (None, None),
        ({"data": [{"@type": "google.rpc.ErrorInfo", "reason": ["x"], "metadata": 5}]}, None),
    ],
)
def test_whatever_an_upstream_sends_as_an_error_can_be_read(tree: Any, reason: Reason | None) -> None:
    assert read_error(tree)[0] is reason
