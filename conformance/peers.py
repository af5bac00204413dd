"""a2a-sdk's own client against a running agent, over every binding: does a stranger get along with it?

    python -m conformance.peers http://127.0.0.1:8080

It names behaviours by messageId, as the kit does, so it runs against the gateway and against sut.py alike. What only
the agents of a2a.yaml have (`strict`, `plain`, `extended`) is in checks of their own.
"""

import argparse
import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import grpc
import httpx
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    ExtensionSupportRequiredError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

BINDINGS = ("JSONRPC", "HTTP+JSON")
GRPC = "GRPC"  # where the card offers it, and in 1.0 alone
VERSIONS = ("1.0", "0.3")
# The longest behaviour takes four seconds; a check that takes three times as long hangs.
CHECK_S = 12.0
# Creating a configuration must not need the network, and this one is never called: its task has ended.
WEBHOOK = "https://example.com/webhook"
# What cards/strict.json requires.
EXTENSION = "urn:a2a:tck:required-extension"

T = TypeVar("T")


@dataclass(frozen=True)
class Peer:
    card: AgentCard
    streaming: Client
    plain: Client
    # Headers for the checks that want to show a credential.
    credential: dict[str, str]

    async def send(
        self, behaviour: str, text: str = "Hello", *, headers: dict[str, str] | None = None, **follow: str
    ) -> Task | Message:
        context = ClientCallContext(service_parameters=headers)
        event = await _only(self.plain.send_message(request(behaviour, text, **follow), context=context))
        return event.task if event.HasField("task") else event.message

    async def task(self, behaviour: str, **follow: str) -> Task:
        answer = await self.send(behaviour, headers=None, **follow)
        assert isinstance(answer, Task), f"{behaviour} gave a message"
        return answer

    async def started(self, behaviour: str) -> Task:
        """A task that is still at work."""
        sent = request(behaviour, "Hello")
        sent.configuration.CopyFrom(SendMessageConfiguration(return_immediately=True))
        return (await _only(self.plain.send_message(sent))).task


def request(behaviour: str, text: str, **follow: str) -> SendMessageRequest:
    message = Message(
        message_id=f"{behaviour}-{uuid.uuid4().hex}", role=Role.ROLE_USER, parts=[Part(text=text)], **follow
    )
    return SendMessageRequest(message=message)


async def _only(events: AsyncIterator[StreamResponse]) -> StreamResponse:
    found = [event async for event in events]
    assert len(found) == 1, f"{len(found)} answers to one message"
    return found[0]


async def _refused(error: type[A2AError], call: Awaitable[object]) -> None:
    try:
        await call
    except error:
        return
    raise AssertionError(f"answered, instead of {error.__name__}")


async def _all(events: AsyncIterator[T]) -> list[T]:
    return [event async for event in events]


def state(task: Task) -> str:
    return str(TaskState.Name(task.status.state))


# --- The checks: each is one thing a client does, and its name says what should come of it. ---


async def the_card_names_the_bindings(peer: Peer) -> None:
    declared = [interface.protocol_binding for interface in peer.card.supported_interfaces]
    assert set(BINDINGS) <= set(declared), declared
    spoken = {interface.protocol_version for interface in peer.card.supported_interfaces}
    assert "1.0" in spoken
    assert spoken <= set(VERSIONS), spoken


async def a_message_becomes_a_finished_task(peer: Peer) -> None:
    task = await peer.task("tck-complete-task")
    assert state(task) == "TASK_STATE_COMPLETED", state(task)
    assert task.id
    assert task.context_id


async def a_message_may_be_answered_with_a_message(peer: Peer) -> None:
    answer = await peer.send("tck-message-response")
    assert isinstance(answer, Message)
    assert answer.parts[0].text == "Direct message response"


async def a_file_arrives_whole(peer: Peer) -> None:
    part = (await peer.task("tck-artifact-file")).artifacts[0].parts[0]
    assert (part.raw, part.filename, part.media_type) == (b"tck", "output.txt", "text/plain")


async def data_arrives_whole(peer: Peer) -> None:
    fields = (await peer.task("tck-artifact-data")).artifacts[0].parts[0].data.struct_value.fields
    assert fields["key"].string_value == "value"
    assert fields["count"].number_value == 42


async def a_stream_begins_with_the_task_and_ends_with_its_end(peer: Peer) -> None:
    events = await _all(peer.streaming.send_message(request("tck-stream-artifact-chunked", "Hello")))
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[0] == "task", kinds
    # In two pieces, or in one of two parts if the gateway's own agent gives no streams.
    pieces = [event.artifact_update.artifact.parts for event in events if event.HasField("artifact_update")]
    texts = [part.text for parts in pieces for part in parts]
    assert "".join(texts) == "chunk-1 chunk-2", texts
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def a_task_can_be_read_again(peer: Peer) -> None:
    task = await peer.task("tck-artifact-text")
    read = await peer.plain.get_task(GetTaskRequest(id=task.id, history_length=0))
    assert read.id == task.id
    assert read.artifacts[0].parts[0].text == "Generated text content"
    assert not read.history


async def tasks_are_listed_by_context(peer: Peer) -> None:
    first = await peer.task("tck-complete-task")
    second = await peer.task("tck-artifact-text", context_id=first.context_id)
    page = await peer.plain.list_tasks(ListTasksRequest(context_id=first.context_id))
    assert [task.id for task in page.tasks] == [second.id, first.id]
    assert not any(task.artifacts for task in page.tasks)
    assert (page.total_size, page.next_page_token) == (2, "")


async def pages_follow_each_other(peer: Peer) -> None:
    first = await peer.task("tck-complete-task")
    second = await peer.task("tck-complete-task", context_id=first.context_id)
    asked = ListTasksRequest(context_id=first.context_id, page_size=1)
    page = await peer.plain.list_tasks(asked)
    asked.page_token = page.next_page_token
    rest = await peer.plain.list_tasks(asked)
    assert [task.id for task in (*page.tasks, *rest.tasks)] == [second.id, first.id]
    assert rest.next_page_token == ""


async def a_task_that_asks_goes_on_with_the_answer(peer: Peer) -> None:
    asked = await peer.task("tck-input-required")
    assert state(asked) == "TASK_STATE_INPUT_REQUIRED", state(asked)
    done = await peer.task("tck-complete-task", task_id=asked.id, context_id=asked.context_id)
    assert (done.id, state(done)) == (asked.id, "TASK_STATE_COMPLETED")


async def the_history_is_the_conversation_in_order(peer: Peer) -> None:
    asked = await peer.task("tck-input-required", text="one")
    await peer.task("tck-input-required", text="two", task_id=asked.id, context_id=asked.context_id)
    await peer.task("tck-complete-task", text="three", task_id=asked.id, context_id=asked.context_id)
    history = (await peer.plain.get_task(GetTaskRequest(id=asked.id))).history
    said = [message.parts[0].text if message.role == Role.ROLE_USER else "?" for message in history]
    assert said == ["one", "?", "two", "?", "three"], said


async def a_running_task_can_be_cancelled(peer: Peer) -> None:
    running = await peer.started("test-resubscribe-message-id")
    cancelled = await peer.plain.cancel_task(CancelTaskRequest(id=running.id))
    assert state(cancelled) == "TASK_STATE_CANCELED", state(cancelled)


async def a_finished_task_cannot_be_cancelled(peer: Peer) -> None:
    task = await peer.task("tck-complete-task")
    await _refused(TaskNotCancelableError, peer.plain.cancel_task(CancelTaskRequest(id=task.id)))


async def a_subscriber_sees_the_task_and_its_end(peer: Peer) -> None:
    running = await peer.started("test-resubscribe-message-id")
    events = await _all(peer.streaming.subscribe(SubscribeToTaskRequest(id=running.id)))
    assert events[0].task.id == running.id
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def a_finished_task_has_no_subscribers(peer: Peer) -> None:
    task = await peer.task("tck-complete-task")
    subscription = _all(peer.streaming.subscribe(SubscribeToTaskRequest(id=task.id)))
    await _refused(UnsupportedOperationError, subscription)


async def push_configurations_come_and_go(peer: Peer) -> None:
    client, task = peer.plain, await peer.task("tck-complete-task")
    made = await client.create_task_push_notification_config(TaskPushNotificationConfig(task_id=task.id, url=WEBHOOK))
    assert made.id
    wanted = GetTaskPushNotificationConfigRequest(task_id=task.id, id=made.id)
    assert (await client.get_task_push_notification_config(wanted)).url == WEBHOOK
    every = ListTaskPushNotificationConfigsRequest(task_id=task.id)
    assert [c.id for c in (await client.list_task_push_notification_configs(every)).configs] == [made.id]
    gone = DeleteTaskPushNotificationConfigRequest(task_id=task.id, id=made.id)
    await client.delete_task_push_notification_config(gone)
    await client.delete_task_push_notification_config(gone)
    await _refused(TaskNotFoundError, client.get_task_push_notification_config(wanted))


async def an_unknown_task_is_not_found(peer: Peer) -> None:
    await _refused(TaskNotFoundError, peer.plain.get_task(GetTaskRequest(id="nobody-made-this")))
    await _refused(TaskNotFoundError, peer.plain.cancel_task(CancelTaskRequest(id="nobody-made-this")))
    await _refused(TaskNotFoundError, peer.send("tck-complete-task", task_id="nobody-made-this"))


# --- strict: an extension is required. ---


async def without_the_required_extension_nothing_is_taken(peer: Peer) -> None:
    await _refused(ExtensionSupportRequiredError, peer.send("tck-complete-task"))
    await _refused(ExtensionSupportRequiredError, _all(peer.streaming.send_message(request("tck-stream-001", "Hello"))))


async def naming_the_required_extension_is_enough(peer: Peer) -> None:
    extensions = {"A2A-Extensions": f"https://example.com/unknown,{EXTENSION}"}
    assert isinstance(await peer.send("tck-complete-task", headers=extensions), Task)


# --- plain: nothing optional is declared. Its peer is made from a card that says otherwise, or it would not ask. ---


async def undeclared_streams_are_refused(peer: Peer) -> None:
    task = await peer.started("test-resubscribe-message-id")
    await _refused(UnsupportedOperationError, _all(peer.streaming.send_message(request("tck-stream-001", "Hello"))))
    subscription = _all(peer.streaming.subscribe(SubscribeToTaskRequest(id=task.id)))
    await _refused(UnsupportedOperationError, subscription)


async def undeclared_push_notifications_are_refused(peer: Peer) -> None:
    client, task, refusal = peer.plain, await peer.task("tck-complete-task"), PushNotificationNotSupportedError
    config = TaskPushNotificationConfig(task_id=task.id, url=WEBHOOK)
    await _refused(refusal, client.create_task_push_notification_config(config))
    wanted = GetTaskPushNotificationConfigRequest(task_id=task.id, id="any")
    await _refused(refusal, client.get_task_push_notification_config(wanted))
    every = ListTaskPushNotificationConfigsRequest(task_id=task.id)
    await _refused(refusal, client.list_task_push_notification_configs(every))
    gone = DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="any")
    await _refused(refusal, client.delete_task_push_notification_config(gone))


async def an_undeclared_extended_card_is_refused(peer: Peer) -> None:
    await _refused(UnsupportedOperationError, peer.plain.get_extended_agent_card(GetExtendedAgentCardRequest()))


# --- extended: a second card, for callers who say who they are. ---


async def the_extended_card_is_for_callers_with_a_credential(peer: Peer) -> None:
    await _refused(A2AError, peer.plain.get_extended_agent_card(GetExtendedAgentCardRequest()))
    context = ClientCallContext(service_parameters=peer.credential)
    card = await peer.plain.get_extended_agent_card(GetExtendedAgentCardRequest(), context=context)
    assert "conformance" in [skill.id for skill in card.skills], card.name
    assert "conformance" not in [skill.id for skill in peer.card.skills]


async def the_public_card_names_the_scheme_of_that_credential(peer: Peer) -> None:
    assert any(scheme.HasField("http_auth_security_scheme") for scheme in peer.card.security_schemes.values())


Check: TypeAlias = Callable[[Peer], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    the_card_names_the_bindings,
    a_message_becomes_a_finished_task,
    a_message_may_be_answered_with_a_message,
    a_file_arrives_whole,
    data_arrives_whole,
    a_stream_begins_with_the_task_and_ends_with_its_end,
    a_task_can_be_read_again,
    tasks_are_listed_by_context,
    pages_follow_each_other,
    a_task_that_asks_goes_on_with_the_answer,
    the_history_is_the_conversation_in_order,
    a_running_task_can_be_cancelled,
    a_finished_task_cannot_be_cancelled,
    a_subscriber_sees_the_task_and_its_end,
    a_finished_task_has_no_subscribers,
    push_configurations_come_and_go,
    an_unknown_task_is_not_found,
)


# What the SDK's client of 0.3 leaves out, by binding: it has no ListTasks, and on HTTP+JSON neither the list of push
# configurations nor their deletion. There it also takes a file's bytes for the base64 of base64, which no proto says.
_NO_LISTS = {tasks_are_listed_by_context, pages_follow_each_other}
BEYOND_THE_CLIENT: dict[tuple[str, str], set[Check]] = {
    ("JSONRPC", "0.3"): _NO_LISTS,
    ("HTTP+JSON", "0.3"): _NO_LISTS
    | {push_configurations_come_and_go, undeclared_push_notifications_are_refused, a_file_arrives_whole},
}


def _beyond_the_client(check: Check, binding: str, version: str) -> bool:
    return check in BEYOND_THE_CLIENT.get((binding, version), ())


# By the path of the agent.
OTHERS: dict[str, tuple[Check, ...]] = {
    "/agents/strict": (without_the_required_extension_nothing_is_taken, naming_the_required_extension_is_enough),
    "/agents/plain": (
        undeclared_streams_are_refused,
        undeclared_push_notifications_are_refused,
        an_undeclared_extended_card_is_refused,
    ),
    "/agents/extended": (
        the_extended_card_is_for_callers_with_a_credential,
        the_public_card_names_the_scheme_of_that_credential,
    ),
}


async def failures(base: str, checks: tuple[Check, ...], credential: str = "", version: str = VERSIONS[0]) -> list[str]:
    """What went wrong, one line for each check of each binding."""
    return (await tried(base, checks, credential, version))[1]


async def tried(
    base: str, checks: tuple[Check, ...], credential: str = "", version: str = VERSIONS[0]
) -> tuple[tuple[str, ...], list[str]]:
    """The bindings that were tried, and what went wrong there."""
    # Nothing between us and the agent, whatever proxy the environment names.
    async with httpx.AsyncClient(timeout=CHECK_S, trust_env=False) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        channels: list[grpc.aio.Channel] = []
        peers = {
            binding: _peer(card, binding, http, channels, credential, version) for binding in _offered(card, version)
        }
        found = await asyncio.gather(*(_wrong(binding, peer, checks, version) for binding, peer in peers.items()))
        for channel in channels:
            await channel.close()
    return tuple(peers), [line for lines in found for line in lines]


async def _wrong(binding: str, peer: Peer, checks: tuple[Check, ...], version: str) -> list[str]:
    return [
        f"{check.__name__.replace('_', ' ')} ({binding} {version}): {problem}"
        for check in checks
        if not _beyond_the_client(check, binding, version) and (problem := await _problem(check, peer))
    ]


def _offered(card: AgentCard, version: str) -> tuple[str, ...]:
    offered = any(each.protocol_binding == GRPC for each in card.supported_interfaces)
    return (*BINDINGS, GRPC) if offered and version == VERSIONS[0] else BINDINGS


def _peer(
    card: AgentCard,
    binding: str,
    http: httpx.AsyncClient,
    channels: list[grpc.aio.Channel],
    credential: str,
    version: str,
) -> Peer:
    believed = AgentCard()
    believed.CopyFrom(card)
    # The SDK takes the newest version that a card offers; here it is to speak this one.
    for interface in card.supported_interfaces:
        if interface.protocol_version != version:
            believed.supported_interfaces.remove(interface)
    # The SDK does not ask for what a card does not declare; these checks want to hear the answer.
    believed.capabilities.streaming = True
    believed.capabilities.extended_agent_card = True

    def channel(url: str) -> grpc.aio.Channel:
        channels.append(grpc.aio.insecure_channel(url))
        return channels[-1]

    def client(*, streaming: bool) -> Client:
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            grpc_channel_factory=channel,
            supported_protocol_bindings=[binding],
            use_client_preference=True,
        )
        return ClientFactory(config).create(believed)

    return Peer(card, client(streaming=True), client(streaming=False), {"Authorization": f"Bearer {credential}"})


async def _problem(check: Check, peer: Peer) -> str:
    try:
        await asyncio.wait_for(check(peer), CHECK_S)
    except Exception as error:  # Whatever a stranger's client raises is the finding.
        first = str(error).partition("\n")[0]
        return f"{type(error).__name__} {first}".strip()
    return ""


@dataclass(frozen=True)
class Result:
    """What came of the checks with one agent."""

    agent: str
    passed: int
    failed: list[str]


def run(
    base: str,
    path: str = "",
    checks: tuple[Check, ...] = CHECKS,
    credential: str = "",
    version: str = VERSIONS[0],
) -> Result:
    """The checks that any agent should pass, or others, with the agent at `path` over both bindings."""
    bindings, failed = asyncio.run(tried(base + path, checks, credential, version))
    asked = sum(not _beyond_the_client(check, binding, version) for check in checks for binding in bindings)
    return Result(f"{path or '/'}{'' if version == VERSIONS[0] else ' in ' + version}", asked - len(failed), failed)


def run_others(base: str, credential: str) -> list[Result]:
    """The checks for the agents of a2a.yaml that are special; `credential` is one that the gateway knows."""
    return [run(base, path, checks, credential, version) for version in VERSIONS for path, checks in OTHERS.items()]


def show(result: Result) -> None:
    for line in result.failed:
        print(f"FAILED {line}")
    print(f"a2a-sdk client at {result.agent}: {result.passed} passed, {len(result.failed)} failed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.peers", description="a2a-sdk's client, checks.")
    parser.add_argument("url", help="where the agent's card is, without /.well-known/…")
    result = run(parser.parse_args().url)
    show(result)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
