"""The service parameters A2A-Version and A2A-Extensions (A2A §3.2.6, §3.6)."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.bindings import OPERATIONS, Caller, state
from tests.serving import Gateway, message

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUIRED = "urn:a2a:tck:required-extension"


def arguments(method: str) -> dict[str, Any]:
    if method.startswith("Send"):
        return {"message": message("hi")}
    return (
        {}
        if method in ("ListTasks", "GetExtendedAgentCard")
        else {"id": "t", "taskId": "t", "url": "https://x.example"}
    )


@pytest.mark.requirement("a2a.version.as-asked", "a2a.version.patch-ignored")
@pytest.mark.parametrize("version", ["1.0", "1.0.0", "1.0.1", "1.0.99"])
async def test_a_patch_number_makes_no_difference(caller: Caller, version: str) -> None:
    assert state(await caller.having(A2A_Version=version).task()) == "COMPLETED"


@pytest.mark.requirement("a2a.version.unsupported", "a2a.error.version")
@pytest.mark.parametrize("method", OPERATIONS)
async def test_every_operation_refuses_a_version_that_is_not_served(caller: Caller, method: str) -> None:
    for version in ("0.2", "0.9", "1", "1.1", "2.0", "10.0", "99.0", "1.0beta", "v1.0", "01.0"):
        error = await caller.having(A2A_Version=version).refused("VERSION_NOT_SUPPORTED", method, **arguments(method))
        assert error.metadata == {"supportedVersions": "1.0, 0.3"}
        assert "send A2A-Version: 1.0 or 0.3" in error.message


@pytest.mark.requirement("a2a.version.none-is-0.3")
@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_request_of_1_0_that_does_not_say_so_is_told_to(caller: Caller, method: str) -> None:
    """Without a version it is a 0.3 request, and 0.3 has neither these methods nor these paths."""
    for version in (None, "", "0.3", "0.3.0"):
        error = await caller.having(A2A_Version=version).refused("METHOD_NOT_FOUND", method, **arguments(method))
        assert error.message.endswith("send A2A-Version: 1.0")
        assert ("which means 0.3" in error.message) == (version in (None, ""))


@pytest.mark.requirement("a2a.version.in-the-query")
@pytest.mark.parametrize(
    ("header", "query", "served"),
    [
        (None, "1.0", True),
        (None, "1.0.7", True),
        ("1.0", "99.0", True),
        (None, "99.0", False),
        (None, "", False),
        ("99.0", "1.0", False),
    ],
)
async def test_the_version_may_stand_in_the_query(
    http_caller: Caller, header: str | None, query: str, served: bool
) -> None:
    asked = http_caller.having(A2A_Version=header)
    for method in ("SendMessage", "ListTasks"):
        request = asked.request(method, arguments(method))
        request.url = request.url.copy_merge_params({"A2A-Version": query})
        answer: httpx2.Response = await http_caller.gateway.client.send(request)
        if served:
            asked.result(answer)
        else:
            asked.error(answer, "VERSION_NOT_SUPPORTED" if "99.0" in (header, query) else "METHOD_NOT_FOUND")


# Extensions.


def done(caller: Caller) -> Any:
    return "OK" if caller.binding == "grpc" else 200


@pytest.mark.requirement("a2a.extension.required", "a2a.error.extension-required")
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_a_required_extension_has_to_be_named(caller: Caller, method: str) -> None:
    strict = caller.to("strict")
    for named in (None, "", "https://example.com/other", REQUIRED.upper()):
        asked = strict.having(A2A_Extensions=named)
        error = await asked.refused("EXTENSION_SUPPORT_REQUIRED", method, message=message("hi"))
        assert error.metadata == {"extensions": REQUIRED}
    answer = await strict.having(A2A_Extensions=REQUIRED).ask(method, message=message("hi"))
    assert answer.status_code == done(strict)
    assert "COMPLETED" in answer.text


@pytest.mark.requirement(
    "a2a.extension.activated-echoed",
    "a2a.extension.unknown-ignored",
    "a2a.extension.several-in-one-header",
    "a2a.grpc.metadata",
)
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage", "ListTasks"])
@pytest.mark.parametrize("name", ["A2A-Extensions", "a2a-extensions", "A2A-EXTENSIONS"])
async def test_the_answer_names_the_extensions_that_were_used_and_no_other(
    caller: Caller, method: str, name: str
) -> None:
    several = {name: f"https://example.com/ext/v1 ,{REQUIRED},, https://example.com/ext/v2"}
    answer = await caller.to("strict").having(**several).ask(method, **arguments(method))
    assert answer.status_code == done(caller), answer.text
    assert answer.headers["a2a-extensions"] == REQUIRED
    answer = await caller.having(**several).ask(method, **arguments(method))
    assert answer.status_code == done(caller), answer.text
    assert "a2a-extensions" not in answer.headers


async def test_extensions_may_come_on_several_lines(gateway: Gateway) -> None:
    lines = [("A2A-Extensions", "https://example.com/ext"), ("A2A-Extensions", REQUIRED), ("A2A-Version", "1.0")]
    headers = [*lines, *gateway.bearer(None).items()]
    answer = await gateway.client.post("/agents/strict/message:send", json={"message": message("hi")}, headers=headers)
    assert answer.headers["a2a-extensions"] == REQUIRED


async def test_a_batch_names_the_extensions_that_were_used(gateway: Gateway) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
    answer = await gateway.post([call], agent="strict", A2A_Extensions=REQUIRED)
    assert "result" in answer.json()[0]
    assert answer.headers["a2a-extensions"] == REQUIRED
