"""Remote agents over gRPC that misbehave, and addresses that must not be called: every answer is written by the test.

That well-behaved ones can be used by any client is in test_matrix.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from a2a.types import a2a_pb2 as pb
from a2a.types import a2a_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import EgressRules, Origin
from gateway.upstream.egress import Egress
from gateway.upstream.grpc import Channels, Refused
from tests.ports import reserved
from tests.remote import Scripted, admin_agent, agents, ended, ready, reason, scripted, until
from tests.serving import BOUND, Gateway, message, running
from tests.upstream import tls

ALLOWED = "egress: {allow_loopback: true}\n"
Play = Callable[[Any, Any], Awaitable[Any]]


@dataclass
class Far:
    """An agent over gRPC whose methods a test writes. `asked` is what came, with its metadata."""

    port: int
    card: Scripted
    server: grpc.aio.Server
    plays: dict[str, Play] = field(default_factory=dict)
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)

    def on(self, method: str) -> Callable[[Play], Play]:
        def put(play: Play) -> Play:
            self.plays[method] = play
            return play

        return put

    def asked_for(self, method: str) -> list[Any]:
        return [request for name, request, _ in self.asked if name == method]


class _Servicer(a2a_pb2_grpc.A2AServiceServicer):
    def __init__(self, far: Far) -> None:
        for method in pb.DESCRIPTOR.services_by_name["A2AService"].methods:
            setattr(self, method.name, self._played(far, method.name))

    def _played(self, far: Far, name: str) -> Play:
        async def play(request: Any, context: Any) -> Any:
            far.asked.append((name, request, dict(context.invocation_metadata())))
            return await far.plays[name](request, context)

        return play


async def _serve(far: Far, *, port: int = 0, credentials: Any = None) -> None:
    far.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(_Servicer(far), far.server)  # type: ignore[no-untyped-call]
    where = f"127.0.0.1:{port}"
    far.port = far.server.add_secure_port(where, credentials) if credentials else far.server.add_insecure_port(where)
    await far.server.start()


@asynccontextmanager
async def calling(credentials: Any = None, *, streaming: bool = True) -> AsyncIterator[Far]:
    async with scripted(streaming=streaming) as card:
        far = Far(0, card, grpc.aio.server())
        with reserved() as port:  # where it may restart
            await _serve(far, port=port, credentials=credentials)
            offered = {"url": f"127.0.0.1:{far.port}", "protocolBinding": "GRPC", "protocolVersion": "1.0"}
            card.card["supportedInterfaces"] = [offered]
            try:
                yield far
            finally:
                await far.server.stop(0)


@asynccontextmanager
async def behind(tmp_path: Path, **about: Any) -> AsyncIterator[tuple[Gateway, Far]]:
    async with calling(**about) as far, running(tmp_path, agents(far=far.card.url) + ALLOWED) as gateway:
        await ready(gateway, "far")
        yield gateway, far


def task(state: str, **more: Any) -> pb.Task:
    return pb.Task(id="theirs-1", context_id="ctx-theirs", status={"state": f"TASK_STATE_{state}"}, **more)


def update(state: str, text: str = "") -> pb.StreamResponse:
    parts = [{"text": text}]
    said = {"message": {"message_id": text, "role": "ROLE_AGENT", "parts": parts}} if text else {}
    status = {"state": f"TASK_STATE_{state}", **said}
    return pb.StreamResponse(status_update={"task_id": "theirs-1", "context_id": "ctx-theirs", "status": status})


async def refuse(context: Any, code: grpc.StatusCode, reason: str | None, message: str = "No.", **more: str) -> None:
    trailers: tuple[tuple[str, bytes], ...] = ()
    if reason:
        status = status_pb2.Status(code=code.value[0], message=message)
        info = error_details_pb2.ErrorInfo(reason=reason, domain="a2a-protocol.org", metadata=more)
        status.details.add().Pack(info)
        trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, message, trailers)


# What travels.


async def test_the_callers_credential_stays_here_and_what_is_the_agents_goes_along(tmp_path: Path) -> None:
    async with calling() as far:
        far.card.card["supportedInterfaces"][0]["tenant"] = "acme"
        far.card.card["capabilities"]["extensions"] = [{"uri": "https://e.example/x", "required": True}]
        async with running(tmp_path, agents(far=far.card.url) + ALLOWED) as gateway:
            await ready(gateway, "far")

            @far.on("SendMessage")
            async def _(request: Any, context: Any) -> Any:
                return pb.SendMessageResponse(task=task("COMPLETED"))

            params = {"message": message("hi", metadata={"a": [1, 2.5]}), "metadata": {"trace": {"x": 1}}}
            body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": params}
            answer = await gateway.post(body, agent="far", A2A_Extensions="https://e.example/x")
            assert "COMPLETED" in answer.text
            ((_name, request, metadata),) = far.asked
            assert (metadata["a2a-version"], metadata["a2a-extensions"]) == ("1.0", "https://e.example/x")
            assert metadata["gateway-hops"] == "1"
            assert "authorization" not in metadata
            assert gateway.token not in str(far.asked)
            assert request.tenant == "acme"
            assert request.configuration.return_immediately
            assert request.metadata["trace"]["x"] == 1
            assert list(request.message.metadata["a"]) == [1, 2.5]


@pytest.mark.requirement("a2a.grpc.agents")
async def test_a_refusal_is_carried_by_its_reason_and_without_one_by_its_code(tmp_path: Path) -> None:
    code = grpc.StatusCode
    async with behind(tmp_path) as (gateway, far):
        for status, word, ours in (
            (code.UNKNOWN, "UNSUPPORTED_OPERATION", "UNSUPPORTED_OPERATION"),
            (code.INTERNAL, "CONTENT_TYPE_NOT_SUPPORTED", "CONTENT_TYPE_NOT_SUPPORTED"),
            (code.INVALID_ARGUMENT, None, "INVALID_PARAMS"),
            (code.UNIMPLEMENTED, None, "UNSUPPORTED_OPERATION"),
            # Between the gateway and the agent; a caller must not take it for ours.
            (code.UNAUTHENTICATED, "UNAUTHENTICATED", "UPSTREAM_FAILED"),
            (code.PERMISSION_DENIED, None, "UPSTREAM_FAILED"),
        ):

            @far.on("SendMessage")
            async def _(request: Any, context: Any, status: Any = status, word: Any = word) -> None:
                await refuse(context, status, word, "Not this one.")

            error = await gateway.error("SendMessage", {"message": message("hi")}, agent="far")
            assert error["data"][0]["reason"] == ours, (status, word)
            assert "Not this one." in error["message"]


async def test_errors_and_events_speak_of_our_ids(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, far):

        @far.on("SendMessage")
        async def _(request: Any, context: Any) -> Any:
            return pb.SendMessageResponse(task=task("INPUT_REQUIRED"))

        @far.on("CancelTask")
        async def _(request: Any, context: Any) -> None:
            assert request.id == "theirs-1"
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, None, "theirs-1 goes on")

        mine = await gateway.task("hi", agent="far")
        error = await gateway.error("CancelTask", {"id": mine["id"]}, agent="far")
        assert (error["code"], error["message"]) == (-32002, f"{mine['id']} goes on")


# Broken calls.


@pytest.mark.requirement("a2a.grpc.agents")
async def test_a_stream_that_dies_is_taken_up_again_where_it_stands(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, far):

        @far.on("SendStreamingMessage")
        async def _(request: Any, context: Any) -> None:
            await context.write(pb.StreamResponse(task=task("SUBMITTED")))
            await context.write(update("WORKING", "one"))
            await refuse(context, grpc.StatusCode.UNAVAILABLE, None)

        @far.on("SubscribeToTask")
        async def _(request: Any, context: Any) -> None:
            assert request.id == "theirs-1"
            await context.write(pb.StreamResponse(task=task("WORKING")))
            await context.write(update("WORKING", "two"))
            await context.write(update("COMPLETED", "three"))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        said = [e["statusUpdate"]["status"].get("message", {}).get("parts") for e in events if "statusUpdate" in e]
        assert [parts[0]["text"] for parts in said if parts] == ["one", "two", "three"]
        assert len(far.asked_for("SendStreamingMessage")) == 1
        assert "theirs" not in str(events)


async def test_a_stream_that_stays_open_while_the_agent_asks_ends_the_turn_all_the_same(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, far):
        left = asyncio.Event()

        @far.on("SendStreamingMessage")
        async def _(request: Any, context: Any) -> None:
            await context.write(pb.StreamResponse(task=task("WORKING")))
            await context.write(update("INPUT_REQUIRED", "What?"))
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        await asyncio.wait_for(left.wait(), BOUND)


async def test_an_agent_that_restarts_in_mid_stream_is_waited_for(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, far):
        port = far.port

        @far.on("SendStreamingMessage")
        async def _(request: Any, context: Any) -> None:
            await context.write(pb.StreamResponse(task=task("WORKING")))
            await asyncio.Event().wait()

        @far.on("SubscribeToTask")
        async def _(request: Any, context: Any) -> None:
            await refuse(context, grpc.StatusCode.UNIMPLEMENTED, None)

        @far.on("GetTask")
        async def _(request: Any, context: Any) -> Any:
            return task("COMPLETED", artifacts=[{"artifact_id": "a", "parts": [{"text": "found"}]}])

        params = {"message": message("hi")}
        async with asyncio.timeout(BOUND), gateway.stream("SendStreamingMessage", params, agent="far") as events:
            await anext(events)
            await far.server.stop(0)
            await _serve(far, port=port)
            rest = [event async for event in events]
        assert rest[-2]["artifactUpdate"]["artifact"]["parts"] == [{"text": "found"}]
        assert rest[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_nobody_sends_twice_when_an_answer_never_comes(tmp_path: Path) -> None:
    async with behind(tmp_path, streaming=False) as (gateway, far):

        @far.on("SendMessage")
        async def _(request: Any, context: Any) -> None:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, None)

        sent = message("hi")
        for _time in range(2):
            failed = (await gateway.result("SendMessage", {"message": sent}, agent="far"))["task"]
            assert (failed["status"]["state"], reason(failed)) == ("TASK_STATE_FAILED", "unknown-outcome")
        assert len(far.asked) == 1


@pytest.mark.security
async def test_an_answer_that_is_too_large_or_nonsense_is_the_agents_fault(tmp_path: Path) -> None:
    async with behind(tmp_path, streaming=False) as (gateway, far):

        @far.on("SendMessage")
        async def _(request: Any, context: Any) -> Any:
            if request.message.parts[0].text == "large":
                return pb.SendMessageResponse(message={"message_id": "m", "parts": [{"text": "x" * 5 * 1024 * 1024}]})
            return pb.SendMessageResponse(task={"id": "theirs-1", "status": {"state": 77}})

        failed = await gateway.task("large", agent="far")
        assert "more than 4194304 bytes" in failed["status"]["message"]["parts"][0]["text"]
        error = await gateway.error("SendMessage", {"message": message("odd")}, agent="far")
        assert error["data"][0]["reason"] == "INVALID_AGENT_RESPONSE"


async def test_a_canceled_task_is_canceled_there(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, far):
        left = asyncio.Event()

        @far.on("SendMessage")
        async def _(request: Any, context: Any) -> Any:
            return pb.SendMessageResponse(task=task("WORKING"))

        @far.on("SubscribeToTask")
        async def _(request: Any, context: Any) -> None:
            await context.write(pb.StreamResponse(task=task("WORKING")))
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        @far.on("CancelTask")
        async def _(request: Any, context: Any) -> Any:
            return task("CANCELED")

        mine = await gateway.task("hi", agent="far", configuration={"returnImmediately": True})
        await until(lambda: _there(far.asked_for("SubscribeToTask")))
        assert (await gateway.result("CancelTask", {"id": mine["id"]}, agent="far"))["status"]["state"].endswith("ED")
        assert (await ended(gateway, mine["id"], agent="far"))["status"]["state"] == "TASK_STATE_CANCELED"
        await asyncio.wait_for(left.wait(), BOUND)


async def _there(found: Any) -> Any:
    return found


# Which interface.


@pytest.mark.parametrize("first", ["GRPC", "JSONRPC"])
async def test_the_cards_own_order_decides(tmp_path: Path, first: str) -> None:
    async with calling() as far:
        over_rpc = {"url": f"{far.card.url}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        both = [*far.card.card["supportedInterfaces"], over_rpc]
        far.card.card["supportedInterfaces"] = both if first == "GRPC" else both[::-1]

        @far.on("SendMessage")
        async def _(request: Any, context: Any) -> Any:
            return pb.SendMessageResponse(task=task("COMPLETED"))

        @far.card.on("SendMessage")
        async def _(asked: Any) -> None:
            asked.answer({"task": {"id": "theirs-1", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}})

        async with running(tmp_path, agents(far=far.card.url) + ALLOWED) as gateway:
            await ready(gateway, "far")
            await gateway.task("hi", agent="far")
        assert (len(far.asked), len(far.card.asked)) == ((1, 0) if first == "GRPC" else (0, 1))


async def test_without_the_extra_another_interface_is_taken_or_the_extra_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gateway.upstream.a2a_grpc", None)
    async with calling() as far, running(tmp_path, agents(far=far.card.url) + ALLOWED) as gateway:

        async def told() -> Any:
            return (await admin_agent(gateway, "far"))["reason"]

        assert "pip install 'gateway[grpc]'" in await until(told)


# Where it may lead.


@pytest.mark.security
@pytest.mark.requirement("a2a.grpc.guarded")
async def test_an_address_that_a_card_names_is_not_called_unless_it_is_allowed(tmp_path: Path) -> None:
    async with calling() as far:

        @far.on("SendMessage")
        async def _(request: Any, context: Any) -> Any:
            return pb.SendMessageResponse(task=task("COMPLETED"))

        async with running(tmp_path / "1", agents(far=far.card.url)) as gateway:

            async def told() -> Any:
                return (await admin_agent(gateway, "far"))["reason"]

            assert f'egress.allow: ["127.0.0.1:{far.port}"]' in await until(told)
        allowed = f"egress: {{allow: ['127.0.0.1:{far.port}']}}\n"
        async with running(tmp_path / "2", agents(far=far.card.url) + allowed) as gateway:
            await ready(gateway, "far")
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names resolve to these addresses, one list after the other, the last for ever; gives who was asked for."""
    asked: list[str] = []

    async def found(self: Any, host: str, port: int, **_: Any) -> Any:
        addresses = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", found)
    return asked


@pytest.mark.security
@pytest.mark.requirement("a2a.grpc.guarded")
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_inside_is_not_called(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    async with calling() as far:
        resolving(monkeypatch, [address])
        channels = Channels(Egress(EgressRules()))
        with pytest.raises(GatewayError) as refused:
            await channels.ask(Origin("http", "inner.example", far.port), "/x/y", b"", {}, timeout=5, trusted=False)
        assert (refused.value.reason, refused.value.metadata["delivered"]) == (Reason.EGRESS_REFUSED, "no")
        assert address not in refused.value.message
        assert not far.asked


@pytest.mark.security
@pytest.mark.requirement("a2a.grpc.guarded")
async def test_a_name_server_that_changes_its_mind_moves_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name's addresses only those that may be called are given to gRPC; a broken channel is judged anew."""
    async with calling() as far:

        @far.on("GetTask")
        async def _(request: Any, context: Any) -> Any:
            return task("COMPLETED")

        asked = resolving(monkeypatch, ["10.0.0.1", "127.0.0.1"], ["10.0.0.1"])
        channels = Channels(Egress(EgressRules(allow_loopback=True)))
        origin = Origin("http", "far.example", far.port)

        async def ask() -> bytes:
            path = "/lf.a2a.v1.A2AService/GetTask"
            return await channels.ask(origin, path, b"", {"a2a-version": "1.0"}, timeout=5, trusted=False)

        for _time in range(2):
            assert pb.Task.FromString(await ask()).id == "theirs-1"
        assert asked == ["far.example"]
        await far.server.stop(0)
        with contextlib.suppress(GatewayError):
            await ask()  # may still find the channel as it was
        with pytest.raises(GatewayError) as refused:
            await ask()
        assert refused.value.reason is Reason.EGRESS_REFUSED
        await channels.aclose()


@pytest.mark.security
async def test_a_certificate_must_be_the_names_though_an_address_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trusting = tls.contexts(tmp_path, "far.example")
    pem = (tmp_path / "server.pem").read_bytes()
    async with calling(grpc.ssl_server_credentials([(pem, pem)])) as far:
        heard = []

        @far.on("GetTask")
        async def _(request: Any, context: Any) -> None:
            heard.append(request)
            await refuse(context, grpc.StatusCode.NOT_FOUND, None)

        resolving(monkeypatch, ["127.0.0.1"])
        channels = Channels(Egress(EgressRules(allow_loopback=True), tls=trusting))
        path = "/lf.a2a.v1.A2AService/GetTask"
        with pytest.raises(Refused, match="NOT_FOUND"):
            await channels.ask(Origin("https", "far.example", far.port), path, b"", {}, timeout=5, trusted=False)
        with pytest.raises(GatewayError, match="could not be reached") as refused:
            await channels.ask(Origin("https", "other.example", far.port), path, b"", {}, timeout=5, trusted=False)
        assert refused.value.metadata["delivered"] == "no"
        with pytest.raises(GatewayError, match="could not be reached"):
            await channels.ask(Origin("http", "far.example", far.port), path, b"", {}, timeout=5, trusted=False)
        assert len(heard) == 1
        await channels.aclose()
