"""The gRPC port's own: which agent is meant, bytes, sizes, deadlines, who leaves, health, reflection, TLS, the end.

What all bindings have in common is tested with them, by the fixture `caller`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import httpx2
import pytest
from a2a.types import a2a_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.actors import Cue
from tests.bindings import OPERATIONS, Caller, state
from tests.journeys.conftest import TOWN
from tests.older_rpc import OlderRpc
from tests.remote import process
from tests.rpc import Rpc, Told
from tests.serving import BOUND, ECHO, ROOT, Gateway, message, running
from tests.upstream import tls

pytestmark = pytest.mark.asyncio(loop_scope="module")

Call: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
HOOK = "https://example.com/hook"
SERVICE = "lf.a2a.v1.A2AService"


@pytest.fixture
def rpc(gateway: Gateway) -> Rpc:
    return Rpc(gateway, "grpc")


async def sent(caller: Caller, method: str, data: bytes, **more: Any) -> Told:
    """The end of a call with bytes of our own as its message."""
    assert isinstance(caller, Rpc)
    call: Call
    try:
        call = caller.gateway.channel.unary_unary(f"/{SERVICE}/{method}")
        await asyncio.wait_for(call(data, metadata=caller.metadata, **more), BOUND)
    except grpc.aio.AioRpcError as error:
        details = {str(key): value for key, value in error.trailing_metadata() or ()}
        return Told(error.code().name, f"{error.details()}\n", details)
    return Told("OK", "")


# Which agent.


@pytest.mark.requirement("a2a.grpc.every-agent")
async def test_the_word_in_tenant_names_the_agent_and_none_the_default_one(rpc: Rpc) -> None:
    ours = await rpc.to("").task("ask")
    assert await rpc.to("echo").get(ours["id"]) == ours
    await rpc.to("actor").refused("TASK_NOT_FOUND", "GetTask", id=ours["id"])
    mirrored = (await rpc.to("mirror").send("hi"))["message"]["parts"][0]["data"]
    assert mirrored["message"]["parts"] == [{"text": "hi"}]
    assert "tenant" not in str(mirrored)  # the word is the gateway's business, not the agent's


@pytest.mark.requirement("a2a.grpc.every-agent")
async def test_hidden_and_missing_agents_are_the_same_byte_for_byte(rpc: Rpc) -> None:
    stranger = await rpc.other("looks-around")
    for method in OPERATIONS:
        params = {"id": "x", "taskId": "x", "url": "https://x.example", "message": message("hi", messageId="x")}
        told = [
            await stranger.to(agent).ask(method, **params)
            for agent in ("hidden", "no-one", "hidden/acme", "no-one/acme")
        ]
        assert told == [told[0]] * 4
        stranger.error(told[0], "NOT_FOUND")
    assert state(await rpc.to("hidden").task()) == "COMPLETED"


async def test_without_a_default_agent_a_word_is_needed(tmp_path: Path) -> None:
    async with running(tmp_path, "server: {default_agent: null}\nagents: {}\n", grpc_port=0) as gateway:
        error = await Rpc(gateway, "grpc", "").refused("NOT_FOUND", "ListTasks")
        assert "tenant" in error.message


@pytest.mark.requirement("a2a.card.interfaces-are-true", "a2a.grpc.every-agent")
async def test_cards_say_where_and_with_which_word(gateway: Gateway, tmp_path: Path) -> None:
    for agent, words in (("echo", [None, "echo/acme"]), ("actor", ["actor"]), ("hidden", ["hidden", "hidden/acme"])):
        answer = await gateway.client.get(f"/agents/{agent}/.well-known/agent-card.json", headers=gateway.bearer(None))
        offered = [each for each in answer.json()["supportedInterfaces"] if each["protocolBinding"] == "GRPC"]
        older = [each for each in offered if each["protocolVersion"] == "0.3"]
        assert len(older) == (1 if agent == "echo" else 0)  # it has no word for an agent
        offered = [each for each in offered if each not in older]
        assert [each.get("tenant") for each in offered] == words
        assert {(each["url"], each["protocolVersion"]) for each in offered} == {(gateway.app.grpc_url, "1.0")}
    config = TOWN.replace("{default_agent: echo}", "{public_url: 'https://gw.example', grpc_url: 'rpc.example:443'}")
    async with running(tmp_path, config, grpc_port=0) as named:
        assert named.app.grpc_url == "rpc.example:443"
    async with running(tmp_path, TOWN) as without:
        assert "GRPC" not in (await without.client.get("/.well-known/agent-card.json")).text


# Who.


@pytest.mark.requirement("a2a.auth.every-operation", "a2a.auth.challenge")
async def test_a_credential_that_is_wrong_is_refused_and_told_where_to_get_one(rpc: Rpc) -> None:
    for wrong in ("Bearer nope", "Basic eDp5", "", f"Bearer {rpc.gateway.token}, Bearer {rpc.gateway.token}"):
        for method in OPERATIONS:
            error = await rpc.having(Authorization=wrong).refused("UNAUTHENTICATED", method)
            assert error.answer.headers["www-authenticate"].startswith("Bearer ")
    twice = replace(rpc, headers={"Authorization": None})
    metadata = (*twice.metadata, *[("authorization", f"Bearer {rpc.gateway.token}")] * 2)
    call: Call = rpc.gateway.channel.unary_unary(f"/{SERVICE}/ListTasks")
    with pytest.raises(grpc.aio.AioRpcError, match="not known"):
        await call(b"", metadata=metadata)


@pytest.mark.requirement("a2a.grpc.every-agent")
async def test_a_token_for_one_agent_is_good_for_its_word_alone(tmp_path: Path) -> None:
    echo = f"{{run: 'agents.echo:Echo', card: {ROOT}/agent_cards/echo.json, public: true}}"
    config = f"auth: {{authorization_server: {{}}}}\nagents:\n  echo: {echo}\n  other: {echo}\n"
    async with running(tmp_path, config, grpc_port=0) as gateway:
        made = await gateway.client.post("/admin/clients", json={"id": "c", "scopes": []}, headers=gateway.bearer(None))
        grant = {"grant_type": "client_credentials", "resource": f"{gateway.url}/agents/other"}
        answer = await gateway.client.post(
            "/oauth/token", data=grant, auth=httpx2.BasicAuth("c", made.json()["secret"])
        )
        limited = Rpc(gateway, "grpc", "other", who=answer.json()["access_token"])
        assert state(await limited.task()) == "COMPLETED"
        for word in ("", "echo", "other/x", "no-one"):
            reason = "INVALID_PARAMS" if word == "other/x" else "UNAUTHENTICATED"
            await limited.to(word).refused(reason, "ListTasks")


async def test_who_shows_no_credential_learns_nothing_of_its_message(rpc: Rpc) -> None:
    nobody = rpc.having(Authorization=None)
    assert (await sent(nobody, "SendMessage", b"\x0a\x05abc")).status_code == "UNAUTHENTICATED"


# Bytes.


@pytest.mark.security
@pytest.mark.requirement("a2a.grpc.errors")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a\x05abc", "PARSE_ERROR"),
        (b"\x12\x04\x0a\x02\xff\xfe", "PARSE_ERROR"),  # bad UTF-8
        (a2a_pb2.SendMessageRequest(message={"message_id": "a\0b"}).SerializeToString(), "PARSE_ERROR"),
        (b"", "INVALID_PARAMS"),
        (a2a_pb2.SendMessageRequest(message={"message_id": "m", "role": 2}).SerializeToString(), "INVALID_PARAMS"),
        (a2a_pb2.SendMessageRequest(message={"message_id": "m", "role": 9}).SerializeToString(), "INVALID_PARAMS"),
    ],
)
async def test_bytes_that_are_no_message_are_refused_with_a_reason(rpc: Rpc, data: bytes, reason: str) -> None:
    rpc.error(await sent(rpc, "SendMessage", data), reason)


async def test_numbers_and_states_outside_their_range_name_their_field(rpc: Rpc) -> None:
    for params, field in (
        ({"pageSize": 101}, "pageSize"),
        ({"pageSize": 0}, "pageSize"),
        ({"historyLength": -1}, "historyLength"),
        ({"status": 77}, "status"),
    ):
        assert (await rpc.refused("INVALID_PARAMS", "ListTasks", **params)).fields.keys() == {field}
    task = await rpc.task("hi")
    since = task["status"]["timestamp"]
    listed = await rpc.call("ListTasks", status="TASK_STATE_COMPLETED", statusTimestampAfter=since, pageSize=1)
    assert listed["pageSize"] == 1
    assert listed["tasks"][0]["id"] == task["id"]


@pytest.mark.security
async def test_a_message_beyond_the_limit_never_reaches_us(rpc: Rpc) -> None:
    big = a2a_pb2.SendMessageRequest(message={"message_id": "m", "parts": [{"text": "x" * (1024 * 1024)}]})
    told = await sent(rpc, "SendMessage", big.SerializeToString())
    assert told.status_code == "RESOURCE_EXHAUSTED"
    long = rpc.having(X_Long="x" * 17 * 1024)
    assert (await sent(long, "ListTasks", b"")).status_code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL")
    assert state(await rpc.task()) == "COMPLETED"


@pytest.mark.security
async def test_a_compressed_message_is_not_unpacked(rpc: Rpc) -> None:
    bomb = a2a_pb2.SendMessageRequest(message={"message_id": "m", "parts": [{"text": "x" * (64 * 1024 * 1024)}]})
    told = await sent(rpc, "SendMessage", bomb.SerializeToString(), compression=grpc.Compression.Gzip)
    assert told.status_code != "OK"
    small = await sent(rpc, "ListTasks", a2a_pb2.ListTasksRequest(tenant="echo" * 1000).SerializeToString(),
                       compression=grpc.Compression.Gzip)  # fmt: skip
    assert small.status_code == "UNIMPLEMENTED"


async def test_a_method_that_is_not_there_is_unimplemented(rpc: Rpc) -> None:
    assert (await sent(rpc, "SendMessages", b"")).status_code == "UNIMPLEMENTED"


# Time.


@pytest.mark.requirement("a2a.grpc.deadline")
async def test_a_deadline_ends_the_call_and_not_the_task(rpc: Rpc) -> None:
    cue, actor = Cue(), Rpc(rpc.gateway, "grpc", "actor", timeout=0.3)
    sent = message(cue.text)
    told = await actor.ask("SendMessage", message=sent)
    assert told.status_code == "DEADLINE_EXCEEDED"
    cue.done()
    again = Rpc(rpc.gateway, "grpc", "actor")
    assert state((await again.call("SendMessage", message=sent))["task"]) == "COMPLETED"
    assert not cue.stopped.is_set()


@pytest.mark.requirement("a2a.stream.outlives-its-reader")
async def test_a_reader_that_leaves_or_runs_out_of_time_stops_nobody(rpc: Rpc) -> None:
    cue, actor = Cue(), rpc.to("actor")
    async with actor.stream("SendStreamingMessage", message=message(cue.text)) as events:
        task = (await anext(events))["task"]
        async with Rpc(rpc.gateway, "grpc", "actor", timeout=0.2).stream("SubscribeToTask", id=task["id"]) as short:
            with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
                async for _ in short:
                    pass
    cue.say("nobody hears")
    cue.done()
    assert state(await actor.ended(task["id"])) == "COMPLETED"
    assert not cue.stopped.is_set()


async def test_a_reader_that_does_not_read_is_let_go_with_a_reason(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.live.MAX_BACKLOG", 2)
    assert rpc.gateway.app.grpc is not None
    cue, actor = Cue(), replace(rpc, agent="actor")
    task = await actor.started(cue.text)
    own = grpc.aio.insecure_channel(
        f"127.0.0.1:{rpc.gateway.app.grpc.port}", [("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", -1)]
    )
    async with asyncio.timeout(BOUND), own as channel, actor.stream("SubscribeToTask", id=task["id"]) as events:
        slow = replace(actor, gateway=replace(rpc.gateway, channel=channel)).rpc("SubscribeToTask", {"id": task["id"]})
        await slow.read()
        await anext(events)
        for _ in range(12):
            # Each is more than a stream's window; waiting for it makes each a group of its own.
            cue.say("x" * 128 * 1024)
            await anext(events)
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await _read_all(slow)
    cue.done()
    assert state(await actor.ended(task["id"])) == "COMPLETED"


async def _read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


# A2A 0.3, at the default agent.


@pytest.mark.requirement("a2a.v03.grpc")
async def test_a_client_of_0_3_keeps_push_configurations_under_their_resource_names(gateway: Gateway) -> None:
    client = OlderRpc(gateway)
    task = await client.call("message/send", message=client.message("ask"))
    set_one, get, every, delete = (f"tasks/pushNotificationConfig/{verb}" for verb in ("set", "get", "list", "delete"))
    named = f"tasks/{task['id']}/pushNotificationConfigs/mine"
    made = await client.call(set_one, taskId=task["id"], configId="mine", pushNotificationConfig={"url": HOOK})
    assert made == {"name": named, "pushNotificationConfig": {"id": "mine", "url": HOOK}}
    assert await client.call(get, id=task["id"], pushNotificationConfigId="mine") == made
    assert (await client.call(every, id=task["id"]))["configs"] == [made]
    assert await client.call(delete, id=task["id"], pushNotificationConfigId="mine") == {}
    assert await client.call(every, id=task["id"]) == {}
    await client.refused("TASK_NOT_FOUND", get, id="nobody-made-this", pushNotificationConfigId="mine")


@pytest.mark.requirement("a2a.v03.grpc")
async def test_a_resource_of_0_3_that_is_misnamed_is_told_its_form(gateway: Gateway) -> None:
    client = OlderRpc(gateway)
    for method in ("tasks/get", "tasks/cancel", "tasks/resubscribe"):
        for wrong in ("", "x", "task/x", "tasks/", "tasks/x/y"):
            assert "tasks/{id}" in await client.refused("INVALID_PARAMS", method, name=wrong)
    await OlderRpc(gateway, "nope").refused("UNAUTHENTICATED", "tasks/get", id="x")
    await OlderRpc(gateway, metadata=(("a2a-version", "1.0"),)).refused("METHOD_NOT_FOUND", "tasks/get", id="x")


@pytest.mark.requirement("a2a.v03.grpc")
async def test_an_extended_card_and_extensions_come_in_the_words_of_0_3(tmp_path: Path) -> None:
    config = TOWN.replace("{default_agent: echo}", "{default_agent: more}")
    async with running(tmp_path, config, grpc_port=0) as gateway:
        card = await OlderRpc(gateway).call("agent/getAuthenticatedExtendedCard")
        assert (card["name"], card["protocolVersion"], card["preferredTransport"]) == ("Strict", "0.3.0", "JSONRPC")
        assert {"url": gateway.app.grpc_url, "transport": "GRPC"} in card["additionalInterfaces"]
        assert card["security"] == [{"schemes": {"gateway": {}}}]
        assert card["securitySchemes"]["gateway"]["httpAuthSecurityScheme"]["scheme"] == "Bearer"
    strict = TOWN.replace("{default_agent: echo}", "{default_agent: strict}")
    async with running(tmp_path / "strict", strict, grpc_port=0) as gateway:
        client = OlderRpc(gateway, metadata=(("x-a2a-extensions", "urn:a2a:tck:required-extension, urn:x"),))
        call = client.rpc("message/send", {"message": client.message("hi"), "configuration": {"blocking": True}})
        assert (await call).task.status.state
        assert dict(await call.initial_metadata())["x-a2a-extensions"] == "urn:a2a:tck:required-extension"
        refused = OlderRpc(gateway)
        await refused.refused("EXTENSION_SUPPORT_REQUIRED", "message/send", message=refused.message("hi"))


# Beside A2A.


@pytest.mark.requirement("a2a.grpc.health-and-reflection")
async def test_health_and_the_schema_are_told_without_a_credential(gateway: Gateway) -> None:
    health: Any = health_pb2_grpc.HealthStub(gateway.channel)
    for service in ("", SERVICE):
        told = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert told.status == health_pb2.HealthCheckResponse.SERVING
    gateway.app._not_ready = "the disk is full"
    try:
        told = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
    finally:
        gateway.app._not_ready = None
    assert gateway.app.grpc is not None

    def looked_up(port: int) -> tuple[set[str], Any]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = ProtoReflectionDescriptorDatabase(channel)
            return set(found.get_services()), found.FindFileContainingSymbol(SERVICE)

    services, file = await asyncio.to_thread(looked_up, gateway.app.grpc.port)
    assert services == {
        SERVICE,
        "a2a.v1.A2AService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert {method.name for method in file.service[0].method} == set(OPERATIONS)


# The port.


@pytest.mark.requirement("a2a.grpc.tls")
async def test_with_a_certificate_the_port_speaks_tls_alone(tmp_path: Path) -> None:
    tls.contexts(tmp_path, "localhost")
    pem = tmp_path / "server.pem"
    config = f"server: {{public_url: 'https://localhost:1', tls: {{cert: {pem}, key: {pem}}}}}\n{ECHO}"
    async with running(tmp_path / "data", config, grpc_port=0) as gateway:
        assert gateway.app.grpc is not None
        port = gateway.app.grpc.port
        assert gateway.app.grpc_url == f"localhost:{port}"
        credentials = grpc.ssl_channel_credentials((tmp_path / "trust.pem").read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            gateway.channel, plain = channel, gateway.channel
            assert state(await Rpc(gateway, "grpc", "").task()) == "COMPLETED"
        gateway.channel = plain
        call: Call = gateway.channel.unary_unary(f"/{SERVICE}/ListTasks")
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await call(b"", timeout=BOUND)


@pytest.mark.requirement("a2a.grpc.drain")
async def test_a_shutdown_ends_streams_lets_answers_go_and_refuses_what_is_new(tmp_path: Path) -> None:
    """As a process, with SIGTERM."""
    with process(tmp_path, ECHO, "--grpc-port", "0") as gateway:
        assert gateway.popen.stdout is not None
        said = gateway.popen.stdout.readline()
        while "gRPC: " not in said:
            said = gateway.popen.stdout.readline()
        port = re.fullmatch(r"  gRPC: 127\.0\.0\.1:(\d+)\n", said)
        assert port is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port[1]}") as channel:
            caller = Rpc(_Far(channel, gateway.token), "grpc", "")  # type: ignore[arg-type]
            task = await caller.task("ask")
            async with caller.stream("SubscribeToTask", id=task["id"]) as events:
                assert (await anext(events))["task"]["id"] == task["id"]
                stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
                assert [event async for event in events] == []  # ended, not broken
            code, stderr = await asyncio.wait_for(stopping, BOUND)
            assert (code, stderr) == (0, "")
            assert (await caller.ask("ListTasks")).status_code == "UNAVAILABLE"


class _Far:
    """What an Rpc needs of a gateway in another process."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.channel = channel
        self.token = token

    def bearer(self, who: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {who or self.token}"}
