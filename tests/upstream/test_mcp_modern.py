"""Streamable HTTP of 2026-07-28 as bytes: what goes out, and what a server may do to us without harm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import ACKNOWLEDGED, Era, Kind, PeerError
from gateway.upstream.mcp.limits import Limits
from gateway.upstream.secret import Secret
from tests.upstream.loopback import answer
from tests.upstream.mcp_raw import CALL, FACE, INITIALIZED, MODERN, OK, Call, legacy, raw
from tests.upstream.mcp_servers import FULL, INFO, PATIENCE, Recorder, at

META = "io.modelcontextprotocol/"
TOOL = {"name": "t", "inputSchema": {"type": "object"}}


def ok(call: Call) -> bytes:
    return call.result(OK)


def tools(*trees: Any) -> Any:
    return lambda call: call.result({"resultType": "complete", "tools": list(trees)})


# What goes out.


@pytest.mark.requirement("mcp.client.request-metadata", "mcp.client.standard-headers")
async def test_a_request_says_everything_about_itself_and_nothing_about_anybody_else() -> None:
    caller = Recorder(
        capabilities=FULL,
        client={"name": "ide", "version": "3"},
        log_level="warning",
        progress=True,
        meta={"traceparent": "00-1-2-01", "com.example/x": [1]},
    )
    async with raw(tools_call=ok, tools_list=tools(TOOL)) as it, at(it.url) as server:
        await server.request("tools/call", {"name": "t", "arguments": {"a": 2**63 - 1, "b": 1e300}}, caller)
        (call,) = it.seen("tools/call")
    meta = call.params.pop("_meta")
    assert call.params == {"name": "t", "arguments": {"a": 2**63 - 1, "b": 1e300}}
    assert meta == {
        "traceparent": "00-1-2-01",
        "com.example/x": [1],
        META + "protocolVersion": MODERN,
        META + "clientInfo": {"name": "ide", "version": "3"},
        META + "clientCapabilities": FULL,
        META + "logLevel": "warning",
        "progressToken": call.id,
    }
    assert {name: call.headers[name] for name in call.headers if name != "content-length"} == {
        "host": it.upstream.url.removeprefix("http://"),
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "gateway",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "t",
    }


async def test_without_wishes_nothing_is_wished_and_the_gateway_names_itself() -> None:
    async with raw(tools_call=ok, tools_list=tools(TOOL)) as it, at(it.url) as server:
        await server.request("tools/call", CALL, Recorder())
        await server.request("tools/call", CALL, Recorder())
        first, second = it.seen("tools/call")
    assert first.params["_meta"] == {
        META + "protocolVersion": MODERN,
        META + "clientInfo": INFO,
        META + "clientCapabilities": {},
    }
    assert first.id != second.id
    assert it.upstream.connections == 1


@pytest.mark.requirement("mcp.client.standard-headers")
@pytest.mark.parametrize(
    ("method", "params", "header"),
    [
        ("prompts/get", {"name": "größe"}, "=?base64?Z3LDtsOfZQ==?="),
        ("resources/read", {"uri": "file:///a b"}, "file:///a b"),
        ("resources/read", {"uri": " x\r\nevil: 1"}, "=?base64?IHgNCmV2aWw6IDE=?="),
        ("completion/complete", {"ref": {}}, None),
    ],
)
async def test_names_are_repeated_in_a_header_that_can_carry_them(method: str, params: Any, header: str | None) -> None:
    async with raw(any=ok) as it, at(it.url) as server:
        await server.request(method, params, Recorder())
        (call,) = it.seen(method)
    assert call.headers.get("mcp-name") == header
    assert "evil" not in call.headers


@pytest.mark.requirement("mcp.client.parameter-headers")
async def test_annotated_arguments_are_repeated_in_headers_of_their_own() -> None:
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"on": {"type": "boolean", "x-mcp-header": "On"}}},
            "n": {"type": "integer", "x-mcp-header": "N"},
        },
    }
    async with raw(tools_call=ok, tools_list=tools({"name": "t", "inputSchema": schema})) as it, at(it.url) as server:
        arguments = {"region": "süd", "deep": {"on": True}, "n": None}
        await server.request("tools/call", {"name": "t", "arguments": arguments}, Recorder())
        (call,) = it.seen("tools/call")
    sent = {name: value for name, value in call.headers.items() if name.startswith("mcp-param-")}
    assert sent == {"mcp-param-region": "=?base64?c8O8ZA==?=", "mcp-param-on": "true"}


@pytest.mark.requirement("mcp.client.parameter-headers")
async def test_a_tool_whose_annotations_are_wrong_is_left_out_and_spoils_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = {"type": "object", "properties": {"x": {"type": "number", "x-mcp-header": "X"}}}
    async with raw(tools_list=tools(TOOL, {"name": "bad", "inputSchema": bad})) as it, at(it.url) as server:
        listing = await server.list(Kind.TOOL)
    assert [tree["name"] for tree in listing.trees] == ["t"]
    assert "'bad' is left out" in caplog.text


@pytest.mark.requirement("mcp.client.parameter-headers")
async def test_after_a_header_mismatch_the_list_is_read_again_and_the_call_made_once_more() -> None:
    schemas = [{}, {"properties": {"r": {"type": "string", "x-mcp-header": "R"}}}]

    def listed(call: Call) -> bytes:
        return tools({"name": "t", "inputSchema": schemas[min(len(it.seen("tools/list")), 2) - 1]})(call)  # type: ignore[no-any-return]

    def called(call: Call) -> bytes:
        fits = call.headers.get("mcp-param-r") == "eu"
        return call.result(OK) if fits else call.error(-32020, status="400 Bad Request")

    async with raw(tools_list=listed, tools_call=called) as it, at(it.url) as server:
        assert await server.request("tools/call", {"name": "t", "arguments": {"r": "eu"}}, Recorder()) == OK
        assert it.methods == ["server/discover", "tools/list", "tools/call", "tools/list", "tools/call"]
        with pytest.raises(PeerError):
            await server.request("tools/call", {"name": "t", "arguments": {"r": "us"}}, Recorder())
        assert it.methods[5:] == ["tools/call", "tools/list", "tools/call"]


@pytest.mark.security
@pytest.mark.requirement("mcp.client.no-token-passthrough")
async def test_only_the_operators_credential_travels_and_it_is_read_again_when_refused(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("old\n")
    caller = Recorder(meta={"authorization": "Bearer callers-own", "cookie": "a=b"})
    headers: dict[str, str | Secret] = {
        "Authorization": Secret(file=secret, before="Bearer "),
        "X-Api-Key": Secret(variable="KEY"),
        "X-Team": "blue",
    }

    def called(call: Call) -> bytes:
        if call.headers["authorization"] != "Bearer new":
            return answer(b"", "401 Unauthorized", WWW_Authenticate='Bearer resource_metadata="https://evil"')
        return call.result(OK)

    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url, headers=headers) as server:
        with pytest.raises(GatewayError) as caught:
            await server.request("tools/call", CALL, caller)
        assert caught.value.reason is Reason.UPSTREAM_FAILED
        assert "does not accept the gateway's credential" in caught.value.message
        assert "evil" not in repr(caught.value) + repr(caught.value.metadata)
        secret.write_text("new\n")
        await server.request("tools/call", CALL, caller)
        for call in it.calls:
            assert (call.headers["x-api-key"], call.headers["x-team"]) == ("k3y", "blue")
            assert "callers-own" not in repr(call.headers)
            assert "cookie" not in call.headers


async def test_a_credential_that_was_rotated_is_found_before_the_old_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.mcp.http.SECRET_SECONDS", -1.0)
    secret = tmp_path / "token"
    secret.write_text("one")
    async with raw(prompts_get=ok) as it, at(it.url, headers={"x-api-key": Secret(file=secret)}) as server:
        await server.request("prompts/get", {"name": "p"}, Recorder())
        secret.write_text("two")
        await server.request("prompts/get", {"name": "p"}, Recorder())
        assert [call.headers["x-api-key"] for call in it.seen("prompts/get")] == ["one", "two"]


@pytest.mark.security
@pytest.mark.parametrize("name", ["Mcp-Session-Id", "host", "Content-Length", "Cookie"])
async def test_a_header_that_is_the_gateways_cannot_be_configured(name: str) -> None:
    async with raw() as it, at(it.url, headers={name: "x"}) as server:
        with pytest.raises(GatewayError, match="made by the gateway"):
            await server.face()
    assert it.calls == []


# What comes back: streams.


async def test_what_a_stream_says_of_the_request_is_handed_on_as_it_comes() -> None:
    go = asyncio.Event()

    async def called(call: Call) -> None:
        call.open()
        call.raw(": comment\n\n")
        call.notice("notifications/progress", progressToken=call.id, progress=1)
        call.notice("notifications/progress", progressToken="somebody's", progress=9)
        call.notice("notifications/message", level="info", data="x")
        await go.wait()
        call.done(OK)

    caller = Recorder(progress=True, log_level="info")
    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        task = asyncio.ensure_future(server.request("tools/call", CALL, caller))
        assert (await caller.next())[1]["progress"] == 1
        assert (await caller.next())[1]["data"] == "x"
        assert not task.done()
        go.set()
        assert await task == OK
        assert caller.all == []


async def test_a_stream_is_understood_too_when_nobody_listens_to_it() -> None:
    async def called(call: Call) -> None:
        call.open()
        call.notice("notifications/progress", progressToken=call.id, progress=1)
        call.done(OK)

    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        for _ in range(2):
            assert await server.request("tools/call", CALL, Recorder()) == OK
    assert it.upstream.connections == 1


@pytest.mark.requirement("mcp.client.disconnect-cancels")
@pytest.mark.parametrize("streams", [False, True])
async def test_giving_up_closes_the_connection_and_so_cancels(streams: bool) -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def called(call: Call) -> None:
        if streams:
            call.open()
        arrived.set()
        await call.reader.read()
        closed.set()

    async with raw(tools_list=tools(), tools_call=called, prompts_get=ok) as it, at(it.url) as server:
        task = asyncio.ensure_future(server.request("tools/call", CALL, Recorder(progress=streams)))
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        task.cancel()
        await asyncio.wait_for(closed.wait(), PATIENCE)
        assert await server.request("prompts/get", {"name": "p"}, Recorder()) == OK
        assert "notifications/cancelled" not in it.methods


# What comes back: everything that may go wrong.

WRONG = {
    "another id": (b'{"jsonrpc":"2.0","id":999,"result":{}}', "that was not made"),
    "the id as text": (b'{"jsonrpc":"2.0","id":"ID","result":{}}', "that was not made"),
    "no id": (b'{"jsonrpc":"2.0","result":{}}', "no message"),
    "no version": (b'{"id":ID,"result":{}}', "no message"),
    "both": (b'{"jsonrpc":"2.0","id":ID,"result":{},"error":{"code":1,"message":""}}', "no message"),
    "neither": (b'{"jsonrpc":"2.0","id":ID}', "no message"),
    "no object": (b'{"jsonrpc":"2.0","id":ID,"result":[1]}', "no message"),
    "a number": (b"42", "no message"),
    "an empty list": (b"[]", "without an answer"),
    "a request": (b'{"jsonrpc":"2.0","id":ID,"method":"ping"}', "without an answer"),
    "nothing": (b"", "not strict JSON"),
    "no JSON": (b"<html>", "not strict JSON"),
    "half": (b'{"jsonrpc":"2.0","id":ID,"res', "not strict JSON"),
    "a key twice": (b'{"jsonrpc":"2.0","id":ID,"id":ID,"result":{}}', "not strict JSON"),
    "NaN": (b'{"jsonrpc":"2.0","id":ID,"result":{"x":NaN}}', "not strict JSON"),
    "a huge integer": (b'{"jsonrpc":"2.0","id":ID,"result":{"x":9223372036854775808}}', "not strict JSON"),
    "too deep": (b'{"jsonrpc":"2.0","id":ID,"result":{"x":' + b"[" * 70 + b"]" * 70 + b"}}", "not strict JSON"),
    "an unknown type": (b'{"jsonrpc":"2.0","id":ID,"result":{"resultType":"elephant"}}', "wrong type 'elephant'"),
    "no type but null": (b'{"jsonrpc":"2.0","id":ID,"result":{"resultType":null}}', "wrong type"),
    "a task for nobody": (b'{"jsonrpc":"2.0","id":ID,"result":{"resultType":"task"}}', "wrong type 'task'"),
    "input without a question": (b'{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required"}}', "saying which"),
    "input in a list": (
        b'{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required","inputRequests":[]}}',
        "saying which",
    ),
}


@pytest.mark.security
@pytest.mark.parametrize("streams", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_answer_is_a_clear_failure_and_harms_no_other_call(name: str, streams: bool) -> None:
    body, sentence = WRONG[name]

    async def called(call: Call) -> bytes | None:
        if call.params["name"] != "bad":
            return call.result(OK)
        data = body.replace(b"ID", str(call.id).encode())
        if not streams:
            return answer(data, content_type="application/json")
        call.open()
        call.raw(f"data: {data.decode()}\n\n")
        call.done()
        return None

    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        bad = server.request("tools/call", {"name": "bad"}, Recorder(progress=streams))
        good = server.request("tools/call", CALL, Recorder())
        wrong, right = await asyncio.gather(bad, good, return_exceptions=True)
        assert right == OK
        assert isinstance(wrong, GatewayError)
        assert wrong.reason is Reason.UPSTREAM_FAILED
        if not streams:
            assert sentence in wrong.message
        assert await server.request("tools/call", CALL, Recorder()) == OK


@pytest.mark.security
@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("302 Found", b""),
        ("500 Internal Server Error", b"Traceback: secret"),
        ("502 Bad Gateway", b"<html>"),
        ("204 No Content", b""),
    ],
)
async def test_a_status_that_is_no_answer_is_named_and_nothing_of_its_body_shown(status: str, body: bytes) -> None:
    reply = answer(body, status, Location="http://127.0.0.1:1/")
    async with raw(tools_list=tools(), tools_call=lambda call: reply) as it, at(it.url) as server:
        with pytest.raises(GatewayError, match=rf"\(HTTP {status[:3]}\)$"):
            await server.request("tools/call", CALL, Recorder())
        assert len(it.seen("tools/call")) == 1


async def test_an_error_of_the_server_comes_with_its_code_its_words_and_its_data() -> None:
    def called(call: Call) -> bytes:
        return call.error(-32021, "needs more", {"requiredCapabilities": {"x": 2**60}}, "400 Bad Request")

    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        with pytest.raises(PeerError) as caught:
            await server.request("tools/call", CALL, Recorder())
        assert (caught.value.code, caught.value.message) == (-32021, "needs more")
        assert caught.value.data == {"requiredCapabilities": {"x": 2**60}}
        assert len(it.seen("tools/call")) == 1


async def test_unknown_fields_their_order_and_every_number_survive() -> None:
    text = (
        '{"zeta":1,"resultType":"complete","content":[],"x":{"b":9007199254740993,"a":-9223372036854775808},'
        '"f":0.1,"e":1e300,"structuredContent":[null,true,{"":""}],"_meta":{"k/v":"\\u00e9"}}'
    )

    def called(call: Call) -> bytes:
        body = f'{{"jsonrpc":"2.0","id":{call.id},"result":{text}}}'
        return answer(body.encode(), content_type="application/json")

    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        result = await server.request("tools/call", CALL, Recorder())
    assert json.dumps(result) == json.dumps(json.loads(text))


@pytest.mark.security
@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_that_is_too_large_is_refused(streams: bool) -> None:
    async def called(call: Call) -> bytes | None:
        big = OK | {"x": "y" * 100_000}
        if not streams:
            return call.result(big)
        call.open()
        call.done(big)
        return None

    limits = Limits(answer_bytes=50_000)
    async with raw(tools_list=tools(), tools_call=called, prompts_get=ok) as it, at(it.url, limits=limits) as server:
        with pytest.raises(GatewayError) as caught:
            await server.request("tools/call", CALL, Recorder(progress=streams))
        assert caught.value.reason is Reason.UPSTREAM_TOO_LARGE
        assert await server.request("prompts/get", {"name": "p"}, Recorder()) == OK


@pytest.mark.security
@pytest.mark.parametrize("how", ["hangs", "hangs after its headers", "drips", "says nothing for too long"])
async def test_a_server_that_does_not_end_its_answer_is_given_up(how: str) -> None:
    async def called(call: Call) -> None:
        if how != "hangs":
            call.open()
        if how == "drips":
            while not call.reader.at_eof():
                call.raw(":\n\n")
                await asyncio.sleep(0.01)  # a drop
        if how == "says nothing for too long":
            call.notice("notifications/progress", progressToken=call.id, progress=1)
        await call.reader.read()

    limits = Limits(call_seconds=1.0, idle_seconds=0.5 if how.startswith("says") else 5.0)
    async with raw(tools_list=tools(), tools_call=called, prompts_get=ok) as it, at(it.url, limits=limits) as server:
        for progress in (True, False):
            with pytest.raises(GatewayError) as caught:
                await asyncio.wait_for(server.request("tools/call", CALL, Recorder(progress=progress)), PATIENCE)
            assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
        assert await server.request("prompts/get", {"name": "p"}, Recorder()) == OK


async def test_a_stream_that_ends_without_an_answer_is_a_failure_and_not_sent_again() -> None:
    async def called(call: Call) -> None:
        call.open()
        call.done()

    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        for progress in (True, False):
            with pytest.raises(GatewayError, match="too early") as caught:
                await server.request("tools/call", CALL, Recorder(progress=progress))
            assert caught.value.metadata["delivered"] == "unknown"
        assert len(it.seen("tools/call")) == 2


@pytest.mark.requirement("mcp.client.no-requests-from-modern-servers")
async def test_a_modern_server_cannot_ask_in_the_middle_of_a_call() -> None:
    async def called(call: Call) -> None:
        call.open()
        call.event({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {}})
        await call.reader.read()

    caller = Recorder(capabilities=FULL, progress=True)
    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url) as server:
        with pytest.raises(GatewayError, match="a request of its own"):
            await server.request("tools/call", CALL, caller)
    assert caller.asked == []


async def test_there_are_only_so_many_requests_at_the_same_time() -> None:
    arrived: asyncio.Queue[Call] = asyncio.Queue()
    go = asyncio.Event()

    async def called(call: Call) -> bytes:
        arrived.put_nowait(call)
        await go.wait()
        return call.result(OK)

    limits = Limits(concurrency=2)
    async with raw(tools_list=tools(), tools_call=called) as it, at(it.url, limits=limits) as server:
        await server.list(Kind.TOOL)
        running = [asyncio.ensure_future(server.request("tools/call", CALL, Recorder())) for _ in range(2)]
        for _ in running:
            await asyncio.wait_for(arrived.get(), PATIENCE)
        with pytest.raises(GatewayError) as caught:
            await server.request("tools/call", CALL, Recorder())
        assert (caught.value.reason, caught.value.metadata["delivered"]) == (Reason.OVERLOADED, "no")
        go.set()
        assert await asyncio.gather(*running) == [OK, OK]


# Lists.


async def test_a_list_is_read_page_after_page() -> None:
    pages = {
        None: {"tools": [TOOL | {"name": "a"}], "nextCursor": "2", "ttlMs": 9, "cacheScope": "public"},
        "2": {"tools": [], "nextCursor": "", "ttlMs": 5, "cacheScope": "private"},
        "": {"tools": [TOOL | {"name": "b"}]},
    }

    def listed(call: Call) -> bytes:
        return call.result(pages[call.params.get("cursor")])

    async with raw(tools_list=listed) as it, at(it.url) as server:
        listing = await server.list(Kind.TOOL)
        assert [tree["name"] for tree in listing.trees] == ["a", "b"]
        assert (listing.ttl_ms, listing.private) == (5, True)
        assert (await server.list(Kind.PROMPT)).trees == ()  # not declared: not asked for
        assert (await server.list(Kind.RESOURCE)).trees == ()  # declared and left out
        assert it.seen("prompts/list") == []


@pytest.mark.security
@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        (lambda n: {"tools": [], "nextCursor": "same"}, "again and again"),
        (lambda n: {"tools": [], "nextCursor": str(n)}, "more than 5 pages"),
        (lambda n: {"tools": [TOOL] * 30, "nextCursor": str(n)}, "more than 50 tools"),
        (lambda n: {"tools": {"a": 1}}, "a form that is none"),
        (lambda n: {"tools": [1]}, "a form that is none"),
        (lambda n: {}, "a form that is none"),
        (lambda n: {"resultType": "input_required", "requestState": "x"}, "wrong type"),
    ],
)
async def test_a_list_that_does_not_end_or_is_none_is_refused(page: Any, sentence: str) -> None:
    limits = Limits(pages=5, items=50)
    async with (
        raw(tools_list=lambda call: call.result(page(len(it.calls)))) as it,
        at(it.url, limits=limits) as server,
    ):
        with pytest.raises(GatewayError, match=sentence):
            await server.list(Kind.TOOL)
        assert len(it.calls) <= 7


# Changes.


async def subscribed(call: Call, *messages: dict[str, Any], end: bool = True) -> None:
    call.open()
    for message in messages:
        meta = {"_meta": {META + "subscriptionId": call.id} | message.pop("_meta", {})}
        call.event({"jsonrpc": "2.0", "method": message.pop("method"), "params": message | meta})
    if end:
        call.done({"resultType": "complete", "_meta": {META + "subscriptionId": call.id}})
    else:
        await call.reader.read()


@pytest.mark.requirement("mcp.client.listen")
async def test_changes_are_asked_for_by_filter_and_end_when_the_server_says_so() -> None:
    async def listened(call: Call) -> None:
        await subscribed(
            call,
            {"method": ACKNOWLEDGED, "notifications": {"toolsListChanged": True}},
            {"method": "notifications/tools/list_changed"},
            {"method": "notifications/resources/updated", "uri": "a:1", "_meta": {META + "subscriptionId": 77}},
            {"method": "notifications/resources/updated", "uri": "a:2", "_meta": {"x/y": 1}},
        )

    async with raw(subscriptions_listen=listened) as it, at(it.url) as server:
        changes = [change async for change in server.changes(frozenset({"a:2", "a:1"}))]
        (call,) = it.seen("subscriptions/listen")
    assert call.params["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a:1", "a:2"]}
    assert [change.method for change in changes] == [
        ACKNOWLEDGED,
        "notifications/tools/list_changed",
        "notifications/resources/updated",
    ]
    assert changes[2].params == {"uri": "a:2", "_meta": {"x/y": 1}}


@pytest.mark.security
async def test_changes_before_the_acknowledgement_are_not_believed() -> None:
    async def listened(call: Call) -> None:
        await subscribed(call, {"method": "notifications/tools/list_changed"}, end=False)

    async with raw(subscriptions_listen=listened) as it, at(it.url) as server:
        with pytest.raises(GatewayError, match="before it has acknowledged"):
            await anext(server.changes(frozenset()))


async def test_a_server_without_notifications_says_so() -> None:
    quiet = FACE | {"capabilities": {"tools": {}}}
    async with raw(server_discover=lambda call: call.result(quiet)) as it, at(it.url) as server:
        with pytest.raises(GatewayError) as caught:
            await anext(server.changes(frozenset()))
        assert caught.value.reason is Reason.UNSUPPORTED_OPERATION
    async with raw() as it, at(it.url) as server:  # declared, and then not there
        with pytest.raises(GatewayError) as caught:
            await anext(server.changes(frozenset()))
        assert caught.value.reason is Reason.UNSUPPORTED_OPERATION


# What era it is.

SEES: dict[str, tuple[Any, Era | str]] = {
    "a modern server": (lambda call: call.result(FACE), Era.MODERN),
    "a session id is missing": (lambda call: call.error(-32600, status="400 Bad Request"), Era.LEGACY),
    "no such method": (lambda call: call.error(-32601), Era.LEGACY),
    "no such method, 404": (lambda call: call.error(-32601, status="404 Not Found"), Era.LEGACY),
    "not initialized": (lambda call: call.error(-32002, status="400 Bad Request"), Era.LEGACY),
    "any other error": (lambda call: call.error(7), Era.LEGACY),
    "an empty 400": (lambda call: answer(b"", "400 Bad Request"), Era.LEGACY),
    "405": (lambda call: answer(b"", "405 Method Not Allowed"), Era.LEGACY),
    "500": (lambda call: answer(b"oops", "500 Internal Server Error"), Era.LEGACY),
    "a page": (lambda call: answer(b"<html>", content_type="text/html"), Era.LEGACY),
    "a result of another kind": (lambda call: call.result({"ok": True}), Era.LEGACY),
    "only older revisions": (lambda call: call.result(FACE | {"supportedVersions": ["2025-11-25"]}), Era.LEGACY),
    "refused, only older ones": (
        lambda call: call.error(-32022, data={"supported": ["2025-06-18"]}, status="400 Bad Request"),
        Era.LEGACY,
    ),
    "only newer revisions": (
        lambda call: call.error(-32022, data={"supported": ["2030-01-01"]}, status="400 Bad Request"),
        "speaks only revisions",
    ),
    "the same revision, refused": (
        lambda call: call.error(-32022, data={"supported": [MODERN]}, status="400 Bad Request"),
        "then refuses",
    ),
    "a modern error": (lambda call: call.error(-32020, "bad header", status="400 Bad Request"), "bad header"),
    "no credential": (lambda call: answer(b"", "401 Unauthorized"), "credential"),
}


@pytest.mark.requirement("mcp.client.era-probing")
@pytest.mark.parametrize("name", SEES)
async def test_the_answer_to_the_first_question_decides(name: str) -> None:
    discover, expected = SEES[name]
    async with raw(**legacy(server_discover=discover)) as it, at(it.url) as server:
        if not isinstance(expected, Era):
            with pytest.raises(GatewayError, match=expected):
                await server.face()
            assert "initialize" not in it.methods
            return
        assert (await server.face()).era is expected
        assert (await server.face()).era is expected
        assert it.methods.count("server/discover") == 1
        assert it.methods.count("initialize") == (expected is Era.LEGACY)


async def test_a_server_that_says_nothing_to_the_first_question_is_asked_the_older_one() -> None:
    async def silent(call: Call) -> None:
        await call.reader.read()

    limits = Limits(probe_seconds=0.1)
    async with raw(**legacy(server_discover=silent)) as it, at(it.url, limits=limits) as server:
        assert (await server.face()).version == "2025-11-25"


AFTER_IT_HAS_NAMED: dict[str, Any] = {
    "the end of the connection": lambda call: call.writer.close(),
    "an error": lambda call: call.error(-32603),
    "an empty 503": lambda call: answer(b"", "503 Service Unavailable"),
}


@pytest.mark.requirement("mcp.client.era-probing")
@pytest.mark.parametrize("named", [[MODERN], [MODERN, "2025-11-25"]], ids=["modern alone", "both"])
@pytest.mark.parametrize("then", AFTER_IT_HAS_NAMED)
async def test_a_server_that_has_named_no_older_revision_is_not_spoken_to_in_one(then: str, named: list[str]) -> None:
    def discover(call: Call) -> Any:
        if it.methods.count("server/discover") == 1:
            return call.error(-32022, data={"supported": named}, status="400 Bad Request")
        return AFTER_IT_HAS_NAMED[then](call)

    async with raw(**legacy(server_discover=discover)) as it, at(it.url) as server:
        if len(named) > 1:
            assert (await server.face()).era is Era.LEGACY
            return
        with pytest.raises(GatewayError):
            await server.face()
        assert "initialize" not in it.methods


async def test_a_server_that_is_not_there_is_not_taken_for_an_old_one(port: int) -> None:
    async with at(f"http://127.0.0.1:{port}/mcp") as server:
        with pytest.raises(GatewayError, match="refused the connection"):
            await server.face()


@pytest.mark.requirement("mcp.client.era-probing")
async def test_a_server_that_becomes_another_one_between_two_calls_is_asked_anew() -> None:
    old = {"now": False}
    session = legacy()

    def discover(call: Call) -> Any:
        return session["server_discover"](call) if old["now"] else call.result(FACE)

    def called(call: Call) -> bytes:
        has_session = "mcp-session-id" in call.headers
        if has_session is not old["now"]:
            return call.error(-32600, "Missing session ID", status="400 Bad Request")
        return call.result(OK)

    handlers = session | {"server_discover": discover, "tools_call": called, "tools_list": tools()}
    async with raw(**handlers) as it, at(it.url) as server:
        for era in (Era.MODERN, Era.LEGACY, Era.MODERN):
            old["now"] = era is Era.LEGACY
            many = [server.request("tools/call", CALL, Recorder()) for _ in range(3)]
            assert await asyncio.gather(*many) == [OK] * 3
            assert (await server.face()).era is era
        assert INITIALIZED["protocolVersion"] in {call.headers.get("mcp-protocol-version") for call in it.calls}


async def test_many_first_calls_ask_the_first_question_once() -> None:
    async with raw(tools_list=tools(), tools_call=ok) as it, at(it.url) as server:
        await asyncio.gather(*(server.request("tools/call", CALL, Recorder()) for _ in range(20)))
        assert it.methods.count("server/discover") == 1
