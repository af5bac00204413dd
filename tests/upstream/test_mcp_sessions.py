"""Sessions over HTTP, 2025-11-25 and before, as bytes: whose they are, how they live and end, and what may happen."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import ACKNOWLEDGED, Change, Kind, PeerError, Tree
from gateway.upstream.mcp.limits import NOBODY, Limits
from gateway.upstream.mcp.server import HttpServer
from tests.upstream.loopback import answer, canary
from tests.upstream.mcp_raw import ACCEPTED, CALL, INITIALIZED, OK, SSE_HEAD, Call, Raw, legacy, raw
from tests.upstream.mcp_servers import FULL, INFO, PATIENCE, Recorder, at

LISTED = "notifications/tools/list_changed"
CONTENT = {"content": OK["content"]}
DONE = {"resultType": "complete", **CONTENT}


class Sessions:
    """A server that gives each session a number and remembers who opened it."""

    def __init__(self, face: Tree | None = None) -> None:
        self.opened: dict[str, Tree] = {}
        self.known: set[str] = set()
        self._face = face or INITIALIZED
        self._numbers = itertools.count(1)

    def initialize(self, call: Call) -> bytes:
        id = f"s-{next(self._numbers)}"
        self.opened[id] = call.params
        self.known.add(id)
        return call.result(self._face, mcp_session_id=id)

    def delete(self, call: Call) -> bytes:
        self.known.discard(call.headers["mcp-session-id"])
        return answer(b"")


@asynccontextmanager
async def sessions(limits: Limits | None = None, **handlers: Any) -> AsyncIterator[tuple[Raw, HttpServer, Sessions]]:
    book = Sessions(handlers.pop("face", None))
    known = legacy(initialize=book.initialize, DELETE=book.delete, **handlers)
    async with raw(**known) as it, at(it.url, limits=limits) as server:
        yield it, server, book


def done(call: Call) -> bytes:
    return call.result(CONTENT)


# The handshake.


@pytest.mark.requirement("mcp.client.session-handshake")
async def test_a_session_begins_with_what_its_caller_can_and_names_itself_from_then_on() -> None:
    caller = Recorder(capabilities=FULL | {"extensions": {"x/y": {}}}, client={"name": "ide", "version": "3"})
    async with sessions(tools_call=done) as (it, server, book):
        assert await server.request("tools/call", CALL, caller) == DONE
        own, theirs = it.seen("initialize")
        assert book.opened["s-1"]["capabilities"] == {}
        assert own.params["clientInfo"] == INFO
        assert theirs.params == {
            "protocolVersion": "2025-11-25",
            "capabilities": FULL,
            "clientInfo": {"name": "ide", "version": "3"},
        }
        assert "mcp-session-id" not in theirs.headers
        (call,) = it.seen("tools/call")
        greeting = it.seen("notifications/initialized")[1]
        for later in (greeting, call):
            assert later.headers["mcp-session-id"] == "s-2"
            assert later.headers["mcp-protocol-version"] == "2025-11-25"
        assert call.params == CALL
        assert not [name for name in call.headers if name in ("mcp-method", "mcp-name")]


@pytest.mark.parametrize(("version", "header"), [("2025-06-18", "2025-06-18"), ("2025-03-26", None)])
async def test_an_older_revision_is_spoken_as_it_is(version: str, header: str | None) -> None:
    def called(call: Call) -> bytes:
        note = {"jsonrpc": "2.0", "method": "notifications/x"}
        return call.say([note, {"jsonrpc": "2.0", "id": call.id, "result": CONTENT}])

    async with sessions(face=INITIALIZED | {"protocolVersion": version}, tools_call=called) as (it, server, _):
        assert (await server.face()).version == version
        assert await server.request("tools/call", CALL, Recorder()) == DONE
        assert it.seen("tools/call")[0].headers.get("mcp-protocol-version") == header


@pytest.mark.parametrize(
    ("result", "headers", "sentence"),
    [
        (INITIALIZED | {"protocolVersion": "1999-01-01"}, {}, "revision that the gateway does not"),
        (INITIALIZED | {"protocolVersion": None}, {}, "revision that the gateway does not"),
        ({"protocolVersion": "2025-11-25"}, {}, "nothing about its capabilities"),
        (INITIALIZED, {"mcp_session_id": "a b"}, "an id that is none"),
        (INITIALIZED, {"mcp_session_id": "x" * 2000}, "an id that is none"),
    ],
)
async def test_a_handshake_that_makes_no_sense_is_a_failure(
    result: Any, headers: dict[str, str], sentence: str
) -> None:
    handlers = legacy(initialize=lambda call: call.result(result, **headers))
    async with raw(**handlers) as it, at(it.url) as server:
        with pytest.raises(GatewayError, match=sentence):
            await server.face()


# Whose they are.


@pytest.mark.security
@pytest.mark.requirement("mcp.client.sessions-are-not-shared")
async def test_a_session_belongs_to_one_principal_with_one_set_of_capabilities() -> None:
    async with sessions(tools_call=done, tools_list=lambda call: call.result({"tools": []})) as (it, server, _):
        await server.list(Kind.TOOL)
        callers = [
            Recorder("alice"),
            Recorder("bob"),
            Recorder("alice", FULL),
            Recorder("alice", dict(reversed(FULL.items()))),  # the same, said in another order
            Recorder("alice"),
        ]
        for caller in callers:
            await server.request("tools/call", CALL, caller)
        used = [call.headers["mcp-session-id"] for call in it.calls if call.method.startswith("tools/")]
    assert used == ["s-1", "s-2", "s-3", "s-4", "s-4", "s-2"]


async def test_many_first_calls_of_one_caller_open_one_session_and_giving_up_one_spoils_none() -> None:
    go = asyncio.Event()
    book = Sessions()

    async def initialize(call: Call) -> bytes:
        if call.params["capabilities"]:
            await go.wait()
        return book.initialize(call)

    async with raw(**legacy(initialize=initialize, tools_call=done)) as it, at(it.url) as server:
        await server.face()
        calls = [asyncio.ensure_future(server.request("tools/call", CALL, Recorder("a", FULL))) for _ in range(5)]
        await asyncio.sleep(0)
        calls[0].cancel()
        go.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [DONE] * 4
        assert len(book.opened) == 2


@pytest.mark.requirement("mcp.client.session-end")
async def test_sessions_end_with_a_delete_when_the_gateway_stops() -> None:
    async with sessions(tools_call=done) as (_, server, book):
        await asyncio.gather(*(server.request("tools/call", CALL, Recorder(f"p{n}")) for n in range(3)))
        assert len(book.known) == 4
        await server.aclose()
        assert book.known == set()


async def test_a_session_that_is_not_used_is_ended() -> None:
    ended = asyncio.Event()
    book = Sessions()

    def delete(call: Call) -> bytes:
        ended.set()
        return book.delete(call)

    limits = Limits(idle_session_seconds=0.05)
    handlers = legacy(initialize=book.initialize, DELETE=delete, tools_call=done)
    async with raw(**handlers) as it, at(it.url, limits=limits) as server:
        await server.request("tools/call", CALL, Recorder())
        await asyncio.wait_for(ended.wait(), PATIENCE)
        assert await server.request("tools/call", CALL, Recorder()) == DONE


async def test_there_are_only_so_many_sessions_and_idle_ones_make_room() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def called(call: Call) -> bytes:
        if call.params["name"] == "slow":
            arrived.set()
            await go.wait()
        return done(call)

    async with sessions(Limits(sessions=3), tools_call=called) as (_, server, book):
        slow = asyncio.ensure_future(server.request("tools/call", {"name": "slow"}, Recorder("slow")))
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        for name in "abcd":
            assert await server.request("tools/call", CALL, Recorder(name)) == DONE
        async with asyncio.timeout(PATIENCE):
            while len(book.known) > 3:  # noqa: ASYNC110  # those that made room say goodbye behind our back
                await asyncio.sleep(0.01)
        go.set()
        assert await slow == DONE


@pytest.mark.requirement("mcp.client.session-lost")
async def test_a_session_that_the_server_forgot_is_opened_again_and_the_call_made_once_more() -> None:
    book = Sessions()

    def called(call: Call) -> bytes:
        return done(call) if call.headers["mcp-session-id"] in book.known else answer(b"", "404 Not Found")

    handlers = legacy(initialize=book.initialize, DELETE=book.delete, tools_call=called)
    async with raw(**handlers) as it, at(it.url) as server:
        await server.request("tools/call", CALL, Recorder())
        book.known.clear()
        assert await server.request("tools/call", CALL, Recorder()) == DONE
        assert it.methods.count("server/discover") == 1
        ids = [call.headers["mcp-session-id"] for call in it.seen("tools/call")]
        assert ids == ["s-2", "s-2", "s-3"]


async def test_a_server_that_forgets_every_session_at_once_is_a_failure_and_not_a_loop() -> None:
    async with sessions(tools_call=lambda call: answer(b"", "404 Not Found")) as (it, server, _):
        with pytest.raises(GatewayError, match="404"):
            await server.request("tools/call", CALL, Recorder())
        assert len(it.seen("tools/call")) == 2


@pytest.mark.security
async def test_a_call_that_the_server_finds_malformed_disturbs_no_other_and_is_no_way_to_make_it_busy() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def called(call: Call) -> bytes:
        if call.params["name"] == "bad":
            return call.error(-32600, "malformed", status="400 Bad Request")
        arrived.set()
        await go.wait()
        return done(call)

    async with sessions(tools_call=called) as (it, server, _):
        slow = asyncio.ensure_future(server.request("tools/call", CALL, Recorder("alice")))
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        for _ in range(3):
            with pytest.raises(PeerError, match="malformed"):
                await server.request("tools/call", {"name": "bad"}, Recorder("mallory"))
        go.set()
        assert await slow == DONE
        assert it.methods.count("server/discover") == 2
        assert {call.headers["mcp-session-id"] for call in it.seen("DELETE")} <= {"s-4"}  # of the second look


# What happens during a call.


@pytest.mark.requirement("mcp.client.live-requests")
async def test_what_the_server_asks_is_put_to_the_caller_whose_call_it_is() -> None:
    answers: asyncio.Queue[Call] = asyncio.Queue()

    async def called(call: Call) -> None:
        call.open()
        call.event({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {"message": "hm?"}})
        reply = await answers.get()
        call.done({"content": [{"type": "text", "text": reply.tree["result"]["content"]["x"]}]})

    def other(call: Call) -> bytes:
        answers.put_nowait(call)
        return ACCEPTED

    caller = Recorder(capabilities=FULL, answers={"elicitation/create": {"action": "accept", "content": {"x": "7"}}})
    async with sessions(tools_call=called, POST=other) as (_, server, _):
        result = await server.request("tools/call", CALL, caller)
    assert result["content"][0]["text"] == "7"
    assert caller.asked == [("elicitation/create", {"message": "hm?"})]


REFUSALS: dict[str, tuple[str, Recorder, Any]] = {
    "a capability that was not declared": ("sampling/createMessage", Recorder(capabilities={"roots": {}}), -32601),
    "a caller that cannot be asked": ("roots/list", Recorder(capabilities=FULL), -32601),
    "a caller that refuses": (
        "roots/list",
        Recorder(capabilities=FULL, answers={"roots/list": PeerError(-1, "no", [1])}),
        {"code": -1, "message": "no", "data": [1]},
    ),
    "a caller that breaks": (
        "roots/list",
        Recorder(capabilities=FULL, answers={"roots/list": ZeroDivisionError("inside")}),
        {"code": -32603, "message": "The client could not be asked"},
    ),
    "something unheard of": ("tools/list", Recorder(capabilities=FULL), -32601),
    "a ping": ("ping", Recorder(progress=True), {}),
}


@pytest.mark.requirement("mcp.client.live-requests")
@pytest.mark.parametrize("name", REFUSALS)
async def test_every_question_of_the_server_is_answered(name: str) -> None:
    method, caller, expected = REFUSALS[name]
    answers: asyncio.Queue[Call] = asyncio.Queue()

    async def called(call: Call) -> None:
        call.open()
        call.event({"jsonrpc": "2.0", "id": 5, "method": method})
        await answers.get()
        call.done(CONTENT)

    def other(call: Call) -> bytes:
        answers.put_nowait(call)
        return ACCEPTED

    async with sessions(tools_call=called, POST=other) as (it, server, _):
        assert await server.request("tools/call", CALL, caller) == DONE
        (reply,) = it.seen("POST")
    assert reply.id == 5
    said: Any = reply.tree.get("error", reply.tree.get("result"))
    assert (said["code"] if isinstance(expected, int) else said) == expected


async def test_the_time_that_a_caller_takes_to_answer_is_not_the_servers() -> None:
    answers: asyncio.Queue[Call] = asyncio.Queue()

    async def called(call: Call) -> None:
        call.open()
        call.event({"jsonrpc": "2.0", "id": 5, "method": "roots/list"})
        await answers.get()
        if call.params["name"] == "t":
            call.done(CONTENT)
        else:
            await call.reader.read()

    def other(call: Call) -> bytes:
        answers.put_nowait(call)
        return ACCEPTED

    async def think() -> Tree:
        await asyncio.sleep(1.5)  # longer than a call may take
        return {"roots": []}

    caller = Recorder(capabilities=FULL, answers={"roots/list": think})
    async with sessions(Limits(call_seconds=1.0, idle_seconds=1.0), tools_call=called, POST=other) as (_, server, _):
        assert await server.request("tools/call", CALL, caller) == DONE
        with pytest.raises(GatewayError) as caught:  # and afterwards the clock goes on
            await asyncio.wait_for(server.request("tools/call", {"name": "slow"}, caller), PATIENCE)
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


@pytest.mark.requirement("mcp.client.cancel")
@pytest.mark.parametrize("how", ["the caller gives up", "it takes too long"])
async def test_a_call_that_is_given_up_is_canceled_by_the_number_it_has_there(how: str) -> None:
    arrived, canceled = asyncio.Event(), asyncio.Event()

    async def called(call: Call) -> None:
        call.open()
        arrived.set()
        await call.reader.read()

    def cancel(call: Call) -> bytes:
        canceled.set()
        return ACCEPTED

    limits = Limits(call_seconds=1.0 if how.startswith("it") else 60)
    async with sessions(limits, tools_call=called, notifications_cancelled=cancel) as (it, server, _):
        task = asyncio.ensure_future(server.request("tools/call", CALL, Recorder(progress=True)))
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        if how.startswith("the"):
            task.cancel()
        await asyncio.wait_for(canceled.wait(), PATIENCE)
        await asyncio.gather(task, return_exceptions=True)
        (call,), (note,) = it.seen("tools/call"), it.seen("notifications/cancelled")
        assert note.params["requestId"] == call.id
        assert note.headers["mcp-session-id"] == call.headers["mcp-session-id"]


async def test_progress_and_logs_are_the_callers_own_and_the_level_of_the_session_the_lowest_wanted() -> None:
    async def called(call: Call) -> None:
        call.open()
        if token := call.params.get("_meta", {}).get("progressToken"):
            call.notice("notifications/progress", progressToken=token, progress=0.5, extra=1)
        call.notice("notifications/message", level="info", data="i")
        call.notice("notifications/message", level="error", data="e")
        call.done(CONTENT)

    levels = lambda call: call.result({})  # noqa: E731
    async with sessions(tools_call=called, logging_setLevel=levels) as (it, server, _):
        wants = [Recorder(log_level=level) for level in ("error", "info", "error", None)]
        for caller in wants:
            await server.request("tools/call", CALL, caller)
        assert [[params["data"] for _, params in caller.all] for caller in wants] == [["e"], ["i", "e"], ["e"], []]
        assert [call.params["level"] for call in it.seen("logging/setLevel")] == ["error", "info"]
        caller = Recorder(progress=True, meta={"traceparent": "t"})
        await server.request("tools/call", CALL, caller)
        last = it.seen("tools/call")[-1]
        assert last.params["_meta"] == {"traceparent": "t", "progressToken": last.id}
        ((_, params),) = caller.all
        assert (params["progress"], params["extra"]) == (0.5, 1)


@pytest.mark.requirement("mcp.client.resume")
async def test_a_broken_stream_is_gone_on_with_from_its_last_event() -> None:
    async def called(call: Call) -> None:
        call.open()
        call.raw("id: e1\nretry: 10\ndata:\n\n")
        call.done()

    async def resumed(call: Call) -> bytes | None:
        last = call.headers.get("last-event-id")
        if last is None:
            return answer(b"", "405 Method Not Allowed")
        call.open()
        request = it.seen("tools/call")[0]
        if last == "e1":
            call.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}, id="e2")
            call.done()
        else:
            call.event({"jsonrpc": "2.0", "id": request.id, "result": CONTENT}, id="e3")
            call.done()
        return None

    caller = Recorder(log_level="info")
    async with sessions(tools_call=called, GET=resumed) as (it, server, _):
        assert await server.request("tools/call", CALL, caller) == DONE
        assert len(caller.all) == 1
        assert [call.headers.get("last-event-id") for call in it.seen("GET") if "last-event-id" in call.headers] == [
            "e1",
            "e2",
        ]
        assert len(it.seen("tools/call")) == 1


async def test_a_stream_that_breaks_again_and_again_without_news_is_given_up() -> None:
    async def broken(call: Call) -> None:
        call.open()
        call.raw("id: e1\nretry: 1\ndata:\n\n")
        call.done()

    async with sessions(tools_call=broken, GET=broken) as (it, server, _):
        with pytest.raises(GatewayError, match="too early"):
            await asyncio.wait_for(server.request("tools/call", CALL, Recorder(progress=True)), PATIENCE)
        assert len(it.seen("tools/call")) == 1


@pytest.mark.requirement("mcp.client.resume")
async def test_a_stream_is_gone_on_with_however_its_connection_broke() -> None:
    away = asyncio.Event()

    async def called(call: Call) -> None:
        call.open()
        call.raw("id: e1\nretry: 10\ndata:\n\n")
        await call.writer.drain()
        call.writer.transport.abort()

    async def resumed(call: Call) -> None:
        if not away.is_set():
            away.set()
            call.writer.transport.abort()  # as while a server starts anew
            return
        assert call.headers["last-event-id"] == "e1"
        call.open()
        call.event({"jsonrpc": "2.0", "id": it.seen("tools/call")[0].id, "result": CONTENT})
        call.done()

    async with sessions(tools_call=called, GET=resumed) as (it, server, _):
        call = server.request("tools/call", CALL, Recorder(progress=True))
        assert await asyncio.wait_for(call, PATIENCE) == DONE
        assert len(it.seen("tools/call")) == 1


@pytest.mark.requirement("mcp.client.resume")
async def test_a_caller_that_wants_to_hear_nothing_meanwhile_gets_its_answer_too() -> None:
    async def called(call: Call) -> None:
        call.open()
        call.raw("id: e1\nretry: 10\ndata:\n\n")
        call.done()

    async def resumed(call: Call) -> None:
        call.open()
        call.event({"jsonrpc": "2.0", "id": it.seen("tools/call")[0].id, "result": CONTENT})
        call.done()

    async with sessions(tools_call=called, GET=resumed) as (it, server, _):
        assert await asyncio.wait_for(server.request("tools/call", CALL, NOBODY), PATIENCE) == DONE


@pytest.mark.requirement("mcp.client.cancel")
async def test_a_call_is_canceled_at_its_server_also_while_its_stream_is_broken() -> None:
    async def called(call: Call) -> None:
        call.open()
        call.raw("id: e1\nretry: 20000\ndata:\n\n")
        call.done()
        broken.set()

    broken, told = asyncio.Event(), asyncio.Event()

    def canceled(call: Call) -> bytes:
        told.set()
        return ACCEPTED

    async with sessions(tools_call=called, notifications_cancelled=canceled) as (it, server, _):
        calling = asyncio.ensure_future(server.request("tools/call", CALL, Recorder(log_level="info")))
        await asyncio.wait_for(broken.wait(), PATIENCE)
        await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait_for(told.wait(), PATIENCE)
        assert it.seen("notifications/cancelled")[0].params["requestId"] == it.seen("tools/call")[0].id


# The stream of the session.


async def streamed(call: Call, script: asyncio.Queue[Tree]) -> None:
    call.open()
    while True:
        call.event(await script.get())


@pytest.mark.requirement("mcp.client.session-changes")
async def test_changes_come_on_the_stream_of_the_gateways_own_session() -> None:
    script: asyncio.Queue[Tree] = asyncio.Queue()
    ok = lambda call: call.result({})  # noqa: E731
    async with sessions(
        GET=lambda call: streamed(call, script),
        resources_subscribe=ok,
        resources_unsubscribe=ok,
        tools_call=done,
    ) as (it, server, _):
        stream, second = server.changes(frozenset({"a:1"})), server.changes(frozenset({"a:1", "a:2"}))
        for each in (stream, second):
            assert (await asyncio.wait_for(anext(each), PATIENCE)).method == ACKNOWLEDGED
        assert [call.params["uri"] for call in it.seen("resources/subscribe")] == ["a:1", "a:2"]
        assert len(it.seen("GET")) == 1
        for uri in ("a:2", "a:1", "a:3"):
            script.put_nowait({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})
        script.put_nowait({"jsonrpc": "2.0", "id": 9, "result": {"nobody": "asked"}})
        script.put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        got = [await asyncio.wait_for(anext(stream), PATIENCE) for _ in range(2)]
        assert [(change.method.rpartition("/")[2], change.params.get("uri")) for change in got] == [
            ("updated", "a:1"),
            ("list_changed", None),
        ]
        assert (await asyncio.wait_for(anext(second), PATIENCE)).params == {"uri": "a:2"}
        await second.aclose()
        await stream.aclose()
        await server.request("tools/call", CALL, Recorder())
        assert {call.params["uri"] for call in it.seen("resources/unsubscribe")} <= {"a:1", "a:2"}


async def test_a_server_that_opens_no_stream_sends_no_changes() -> None:
    async with sessions() as (_, server, _):
        with pytest.raises(GatewayError) as caught:
            await anext(server.changes(frozenset()))
        assert caught.value.reason is Reason.UNSUPPORTED_OPERATION


@pytest.mark.requirement("mcp.client.resume")
async def test_the_stream_of_a_session_is_gone_on_with_and_its_listeners_notice_nothing() -> None:
    lasts: list[str | None] = []
    listens = asyncio.Event()

    async def streaming(call: Call) -> None:
        lasts.append(call.headers.get("last-event-id"))
        call.open()
        if len(lasts) == 1:
            call.raw("id: e0\nretry: 10\ndata:\n\n")
            await listens.wait()
        call.event({"jsonrpc": "2.0", "method": LISTED, "params": {"n": len(lasts)}}, id=f"e{len(lasts)}")
        if len(lasts) == 1:
            call.done()
        else:
            await call.reader.read()

    async with sessions(GET=streaming) as (_, server, _):
        stream = server.changes(frozenset())
        news = [await asyncio.wait_for(anext(stream), PATIENCE)]
        listens.set()
        news += [await asyncio.wait_for(anext(stream), PATIENCE) for _ in range(2)]
        assert [each.params.get("n") for each in news] == [None, 1, 2]
        assert lasts == [None, "e1"]


@pytest.mark.requirement("mcp.client.session-changes")
@pytest.mark.parametrize("listens", [False, True])
async def test_what_is_said_of_the_lists_in_a_callers_session_is_overheard(*, listens: bool) -> None:
    async def called(call: Call) -> None:
        call.open()
        call.notice(LISTED)
        call.done(CONTENT)

    async def streaming(call: Call) -> None:
        call.open()
        await call.reader.read()

    heard: list[Change] = []
    get: dict[str, Any] = {"GET": streaming} if listens else {}
    async with sessions(tools_call=called, **get) as (_, server, _):
        server.overhear(heard.append)
        if listens:
            stream = server.changes(frozenset())
            await asyncio.wait_for(anext(stream), PATIENCE)
        assert await server.request("tools/call", CALL, Recorder(log_level="info")) == DONE
        assert [each.method for each in heard] == [LISTED]


async def test_whoever_listens_hears_when_the_stream_ends() -> None:
    go = asyncio.Event()

    async def closing(call: Call) -> None:
        call.open()
        await go.wait()
        call.done()

    async with sessions(GET=closing) as (_, server, _):
        stream = server.changes(frozenset())
        await asyncio.wait_for(anext(stream), PATIENCE)
        go.set()
        with pytest.raises(GatewayError, match="closed its stream"):
            await asyncio.wait_for(anext(stream), PATIENCE)


@pytest.mark.security
async def test_a_question_on_the_stream_of_a_session_reaches_only_the_caller_of_that_session() -> None:
    replies: asyncio.Queue[Call] = asyncio.Queue()
    asked = asyncio.Event()
    alice = Recorder("alice", FULL, answers={"roots/list": {"roots": []}})
    bob = Recorder("bob", FULL, answers={"roots/list": {"roots": ["never"]}})

    async def streaming(call: Call) -> None:
        call.open()
        if call.headers["mcp-session-id"] == "s-2":
            await asked.wait()
            call.event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        await call.reader.read()

    async def called(call: Call) -> bytes:
        if call.params["name"] == "ask":
            asked.set()
            await replies.get()
        return done(call)

    def other(call: Call) -> bytes:
        replies.put_nowait(call)
        return ACCEPTED

    async with sessions(GET=streaming, tools_call=called, POST=other) as (it, server, _):
        await server.request("tools/call", CALL, alice)
        await server.request("tools/call", CALL, bob)
        both = (server.request("tools/call", {"name": "ask"}, alice), server.request("tools/call", CALL, bob))
        first, second = await asyncio.wait_for(asyncio.gather(*both), PATIENCE)
        assert first == second == DONE
        (reply,) = it.seen("POST")
        assert reply.headers["mcp-session-id"] == "s-2"
        assert reply.tree["result"] == {"roots": []}
    assert bob.asked == []


async def test_a_question_that_is_tied_to_no_request_finds_the_stream_open_at_the_first_call() -> None:
    """As servers on the TypeScript SDK put it: whoever does not read there yet will never hear it."""
    streams: dict[str, Call] = {}
    replies: asyncio.Queue[Call] = asyncio.Queue()

    async def streaming(call: Call) -> None:
        call.open()
        streams[call.headers["mcp-session-id"]] = call
        await call.reader.read()

    async def called(call: Call) -> bytes:
        streams[call.headers["mcp-session-id"]].event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        reply = await replies.get()
        return call.result({"content": [{"type": "text", "text": str(len(reply.tree["result"]["roots"]))}]})

    def other(call: Call) -> bytes:
        replies.put_nowait(call)
        return ACCEPTED

    caller = Recorder(capabilities=FULL, answers={"roots/list": {"roots": [{}, {}]}})
    async with sessions(GET=streaming, tools_call=called, POST=other) as (_, server, _):
        result = await asyncio.wait_for(server.request("tools/call", CALL, caller), PATIENCE)
    assert result["content"][0]["text"] == "2"


# The transport of 2024-11-05.


@pytest.mark.security
@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:{port}/x", "//127.0.0.1:{port}/x", "http://[::1", "file:///etc/passwd"]
)
async def test_an_old_server_cannot_send_us_to_another_origin(endpoint: str) -> None:
    async with canary() as bird:

        async def streaming(call: Call) -> None:
            call.writer.write(SSE_HEAD)
            call.raw(f"event: endpoint\ndata: {endpoint.format(port=bird.port)}\n\n")
            await call.reader.read()

        nothing = answer(b"", "404 Not Found")
        async with (
            raw(any=lambda call: nothing, GET=streaming, server_discover=lambda call: nothing) as it,
            at(it.url, headers={"authorization": "Bearer ours"}) as server,
        ):
            with pytest.raises(GatewayError, match="endpoint"):
                await server.face()


@pytest.mark.parametrize("how", ["names none", "closes at once"])
async def test_an_old_server_that_names_no_endpoint_is_given_up(how: str) -> None:
    async def streaming(call: Call) -> None:
        call.open()
        if how == "closes at once":
            call.done()
        else:
            await call.reader.read()

    nothing = answer(b"", "405 Method Not Allowed")
    limits = Limits(handshake_seconds=0.2)
    async with (
        raw(any=lambda call: nothing, GET=streaming, server_discover=lambda call: nothing) as it,
        at(it.url, limits=limits) as server,
    ):
        with pytest.raises(GatewayError):
            await asyncio.wait_for(server.face(), PATIENCE)


async def test_what_is_no_mcp_server_at_all_is_called_that() -> None:
    page = answer(b"<html>", "404 Not Found")
    async with raw(any=lambda call: page, server_discover=lambda call: page) as it, at(it.url) as server:
        with pytest.raises(GatewayError, match=r"did not answer as an MCP server \(HTTP 404\)"):
            await server.face()
