"""One agent on several servers over gRPC: who gets a message, who keeps a task, and what is never sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from a2a.types import a2a_pb2 as pb

from tests.journeys.test_endpoints import all_healthy, far
from tests.journeys.test_remote_grpc import ALLOWED, Far, calling, refuse
from tests.remote import reason, until
from tests.serving import Gateway, message, running


def task(state: str, id: str = "theirs", context: str = "ctx") -> pb.Task:
    return pb.Task(id=id, context_id=context, status={"state": f"TASK_STATE_{state}"})


def answers(server: Far) -> None:
    @server.on("SendMessage")
    async def _(request: Any, context: Any) -> pb.SendMessageResponse:
        return pb.SendMessageResponse(task=task("COMPLETED", f"t{len(server.asked)}"))


@asynccontextmanager
async def three(tmp_path: Path, balance: str = "round_robin") -> AsyncIterator[tuple[Gateway, list[Far]]]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(calling()) for _ in range(3)]
        for server in servers:
            answers(server)
        urls = [server.card.url for server in servers]
        gateway = await stack.enter_async_context(running(tmp_path, far(*urls, balance=balance) + ALLOWED))
        await all_healthy(gateway)
        yield gateway, servers


def sent(servers: list[Far]) -> list[int]:
    return [len(server.asked_for("SendMessage")) for server in servers]


async def test_messages_take_turns(tmp_path: Path) -> None:
    async with three(tmp_path) as (gateway, servers):
        for _ in range(6):
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"
        assert sent(servers) == [2, 2, 2]


async def test_the_least_loaded_gets_the_next_message(tmp_path: Path) -> None:
    async with three(tmp_path, "least_loaded") as (gateway, servers):
        go_on = asyncio.Event()
        for server in servers:

            @server.on("SendMessage")
            async def _(request: Any, context: Any) -> pb.SendMessageResponse:
                await go_on.wait()
                return pb.SendMessageResponse(task=task("COMPLETED"))

        calls = []
        for number in range(1, 7):
            calls.append(asyncio.create_task(gateway.task("hi", agent="far")))

            async def arrived(wanted: int = number) -> bool:
                return sum(sent(servers)) == wanted

            await until(arrived)
        assert sent(servers) == [2, 2, 2], "whoever has the fewest in hand is next"
        go_on.set()
        await asyncio.gather(*calls)


async def test_a_server_that_cannot_be_reached_costs_nobody_an_answer(tmp_path: Path) -> None:
    async with three(tmp_path) as (gateway, servers):
        await gateway.task("hi", agent="far")
        await servers[1].server.stop(0)
        before = sent(servers)
        for _ in range(6):
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"
        assert sent(servers)[1] == before[1]
        assert sum(sent(servers)) == sum(before) + 6, "each message once"


@pytest.mark.parametrize("balance", ["round_robin", "least_loaded"])
async def test_what_may_have_run_is_never_sent_to_another(tmp_path: Path, balance: str) -> None:
    """The server dies with the message in hand: whether the work was done nobody knows, and so it is said."""
    async with three(tmp_path, balance) as (gateway, servers):
        dying = []
        for server in servers:

            @server.on("SendMessage")
            async def _(request: Any, context: Any, server: Far = server) -> pb.SendMessageResponse:
                dying.append(asyncio.create_task(server.server.stop(0)))
                await asyncio.Event().wait()
                raise AssertionError

        failed = await gateway.task("hi", agent="far")
        assert (failed["status"]["state"], reason(failed)) == ("TASK_STATE_FAILED", "unknown-outcome")
        assert sum(sent(servers)) == 1
        await asyncio.gather(*dying)


async def test_an_answer_is_final_even_if_it_is_a_refusal(tmp_path: Path) -> None:
    async with three(tmp_path) as (gateway, servers):
        for server in servers:

            @server.on("SendMessage")
            async def _(request: Any, context: Any) -> None:
                await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_OPERATION")

        await gateway.error("SendMessage", {"message": message("hi")}, agent="far")
        assert sum(sent(servers)) == 1


async def test_a_task_is_continued_and_canceled_where_it_is(tmp_path: Path) -> None:
    async with three(tmp_path) as (gateway, servers):
        for number, server in enumerate(servers):

            @server.on("SendMessage")
            async def _(request: Any, context: Any, number: int = number) -> pb.SendMessageResponse:
                return pb.SendMessageResponse(task=task("INPUT_REQUIRED", f"t{number}", f"c{number}"))

            @server.on("CancelTask")
            async def _(request: Any, context: Any, number: int = number) -> pb.Task:
                return task("CANCELED", f"t{number}", f"c{number}")

        asked = await gateway.task("hi", agent="far")
        (home,) = [place for place, count in enumerate(sent(servers)) if count]
        for text in ("more", "and more"):
            await gateway.task(text, agent="far", taskId=asked["id"], contextId=asked["contextId"])
        canceled = await gateway.result("CancelTask", {"id": asked["id"]}, agent="far")
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
        assert sent(servers) == [3 if place == home else 0 for place in range(3)]
        assert [len(server.asked_for("CancelTask")) for server in servers] == [int(place == home) for place in range(3)]
        assert {request.message.task_id for request in servers[home].asked_for("SendMessage")[1:]} == {f"t{home}"}
