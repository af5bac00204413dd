"""What a2a-sdk's client does with an agent that plays what it is told: one check each, for agents that somebody else's
software serves (fixtures/acp_server.py, adk_agent.py, ag2_agent.py).

Such an agent knows `count 3`, `ask`, `wait`, `fail` and `history`; anything else comes back.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)

from conformance import peers
from conformance.peers import Check, Peer


def request(*parts: Part, wait: bool = True, **follow: str) -> SendMessageRequest:
    message = Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=parts, **follow)
    sent = SendMessageRequest(message=message)
    sent.configuration.CopyFrom(SendMessageConfiguration(return_immediately=not wait))
    return sent


async def send(peer: Peer, *parts: Part, **more: Any) -> Task:
    (event,) = [event async for event in peer.plain.send_message(request(*parts, **more))]
    return event.task


async def tell(peer: Peer, text: str, **more: Any) -> Task:
    return await send(peer, Part(text=text), **more)


def made(task: Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


def said(task: Task) -> str:
    """What it made, and what it said at the end: some agents answer with the one, some with the other."""
    return made(task) or texts(task.status.message.parts)


def texts(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts)


async def a_message_becomes_a_finished_task(peer: Peer) -> None:
    task = await tell(peer, "hello")
    assert (peers.state(task), said(task)) == ("TASK_STATE_COMPLETED", "hello")


async def what_the_agent_makes_streams_as_it_comes(peer: Peer) -> None:
    events = [event async for event in peer.streaming.send_message(request(Part(text="count 3")))]
    pieces = [part.text for event in events for part in event.artifact_update.artifact.parts]
    assert pieces == ["1\n", "2\n", "3\n"], pieces
    assert events[0].HasField("task")
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED, events[-1]


async def a_question_is_answered(peer: Peer) -> None:
    asked = await tell(peer, "ask")
    assert peers.state(asked) == "TASK_STATE_INPUT_REQUIRED", peers.state(asked)
    assert asked.status.message.parts[0].text == "What?"
    done = await tell(peer, "blue", task_id=asked.id, context_id=asked.context_id)
    assert (done.id, said(done)) == (asked.id, "You said blue")


async def a_task_is_canceled(peer: Peer) -> None:
    begun = await tell(peer, "wait 60", wait=False)
    assert peers.state(await peer.plain.cancel_task(CancelTaskRequest(id=begun.id))) == "TASK_STATE_CANCELED"
    read = await peer.plain.get_task(GetTaskRequest(id=begun.id))
    assert peers.state(read) == "TASK_STATE_CANCELED", peers.state(read)


async def a_failure_is_a_failed_task(peer: Peer) -> None:
    assert peers.state(await tell(peer, "fail")) == "TASK_STATE_FAILED"


async def a_failure_says_why(peer: Peer) -> None:
    failed = await tell(peer, "fail")
    assert peers.state(failed) == "TASK_STATE_FAILED"
    assert texts(failed.status.message.parts) == "Failed, as you asked."


async def files_arrive_whole(peer: Peer) -> None:
    note, data, pixel = (await tell(peer, "files")).artifacts
    assert note.parts[0].text == "Two files."
    assert (data.name, pixel.name) == ("data.json", "pixel.png")
    assert data.parts[0].data.struct_value.fields["answer"].number_value == 42
    assert pixel.parts[0].media_type == "image/png"


async def a_conversation_stays_one_session(peer: Peer) -> None:
    first = await tell(peer, "one")
    second = await tell(peer, "history", context_id=first.context_id)
    # What was asked and what was answered; where the question of now counts, it is three.
    assert said(second) in ("2", "3"), said(second)


async def a_task_can_be_read_again(peer: Peer) -> None:
    task = await tell(peer, "hello")
    assert said(await peer.plain.get_task(GetTaskRequest(id=task.id))) == "hello"


async def a_subscriber_sees_the_task_and_its_end(peer: Peer) -> None:
    running = await tell(peer, "wait 1", wait=False)
    events = [event async for event in peer.streaming.subscribe(SubscribeToTaskRequest(id=running.id))]
    assert events[0].task.id == running.id
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED, events[-1]


ACP: tuple[Check, ...] = (
    a_message_becomes_a_finished_task,
    what_the_agent_makes_streams_as_it_comes,
    a_question_is_answered,
    a_task_is_canceled,
    a_failure_says_why,
    files_arrive_whole,
    a_conversation_stays_one_session,
)
