"""One agent on several servers: who gets a message, who keeps a task, and what is never sent twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.core import registry
from gateway.upstream import a2a
from tests.remote import Asked, Gone, Scripted, admin_agent, ended, ready, reason, scripted, sdk, status, task, until
from tests.serving import Gateway, message, running


def far(*urls: str, balance: str = "round_robin", more: str = "") -> str:
    first, *others = urls
    replicas = ", ".join(f"'{url}'" for url in others)
    return f"agents:\n  far: {{card_url: '{first}', replicas: [{replicas}], balance: {balance}, public: true{more}}}\n"


def completes(agent: Scripted, name: str = "") -> None:
    @agent.on("SendMessage")
    async def _(asked: Asked) -> None:
        asked.answer({"task": task("COMPLETED", id=f"{name}-{len(agent.asked)}", context=f"ctx-{name}")})


async def all_healthy(gateway: Gateway) -> None:
    async def look() -> bool:
        endpoints = (await admin_agent(gateway, "far"))["endpoints"]
        return all(each["signature"] is not None for each in endpoints)

    await until(look)


async def three(stack: AsyncExitStack) -> list[Scripted]:
    agents = [await stack.enter_async_context(scripted()) for _ in range(3)]
    for number, agent in enumerate(agents):
        completes(agent, f"a{number}")
    return agents


async def test_messages_take_turns(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        async with running(tmp_path, far(*(agent.url for agent in agents))) as gateway:
            await all_healthy(gateway)
            for _ in range(6):
                await gateway.task("hi", agent="far")
            assert [len(agent.asked) for agent in agents] == [2, 2, 2]


async def test_the_least_loaded_gets_the_next_message(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        held = asyncio.Event()

        @agents[0].on("SendMessage")
        async def hold(asked: Asked) -> None:
            await held.wait()
            asked.answer({"task": task("COMPLETED")})

        config = far(*(agent.url for agent in agents), balance="least_loaded")
        async with running(tmp_path, config) as gateway:
            await all_healthy(gateway)
            sent = []

            async def busy() -> bool:
                sent.append(asyncio.create_task(gateway.task("hi", agent="far")))
                await asyncio.sleep(0)
                return len(agents[0].asked) == 1

            await until(busy)
            held_back = len(agents[0].asked)
            for _ in range(4):
                await gateway.task("hi", agent="far")
            assert len(agents[0].asked) == held_back, "it is at work; the others are not"
            held.set()
            await asyncio.gather(*sent)


async def test_a_server_that_cannot_be_reached_costs_nobody_an_answer(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        async with running(tmp_path, far(*(agent.url for agent in agents))) as gateway:
            await all_healthy(gateway)
            await gateway.task("hi", agent="far")
            down = await _closed(agents[1])
            for _ in range(6):
                done = await gateway.task("hi", agent="far")
                assert done["status"]["state"] == "TASK_STATE_COMPLETED"
            assert down.asked == []
            assert len(agents[0].asked) + len(agents[2].asked) >= 6


@pytest.mark.parametrize("balance", ["round_robin", "least_loaded"])
async def test_what_may_have_run_is_never_sent_to_another(tmp_path: Path, balance: str) -> None:
    """The connection breaks after the message is out: whether the work was done nobody knows, and so it is said."""
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        for agent in agents:

            @agent.on("SendMessage")
            async def _(asked: Asked) -> None:
                raise Gone

        async with running(tmp_path, far(*(agent.url for agent in agents), balance=balance)) as gateway:
            await all_healthy(gateway)
            failed = await gateway.task("hi", agent="far")
            assert failed["status"]["state"] == "TASK_STATE_FAILED"
            assert reason(failed) == "unknown-outcome"
            assert sum(len(agent.asked) for agent in agents) == 1


async def test_an_answer_is_final_even_if_it_is_a_refusal(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        for agent in agents:

            @agent.on("SendMessage")
            async def _(asked: Asked) -> None:
                asked.refuse(-32603, message="Out of order.")

        async with running(tmp_path, far(*(agent.url for agent in agents))) as gateway:
            await all_healthy(gateway)
            await gateway.error("SendMessage", {"message": message("hi")}, agent="far")
            assert sum(len(agent.asked) for agent in agents) == 1


async def test_a_task_and_its_conversation_stay_where_they_began(tmp_path: Path) -> None:
    """Each server of a2a-sdk knows its own tasks and contexts alone."""
    async with sdk() as first, sdk() as second, running(tmp_path, far(first.url, second.url)) as gateway:
        await all_healthy(gateway)
        for _ in range(4):
            asked = await gateway.task("ask", agent="far")
            assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
            more = {"taskId": asked["id"], "contextId": asked["contextId"]}
            answered = await gateway.task("blue", agent="far", **more)
            assert answered["status"]["message"]["parts"] == [{"text": "You said blue"}]
            again = await gateway.task("hello", agent="far", contextId=asked["contextId"])
            assert again["status"]["state"] == "TASK_STATE_COMPLETED"
        where = [Counter(heard.context_id for heard in place.player.heard) for place in (first, second)]
        assert where[0].keys().isdisjoint(where[1].keys())
        assert sorted(where[0].values()) == sorted(where[1].values()) == [3, 3]


async def test_after_a_restart_a_task_is_followed_where_it_runs(tmp_path: Path) -> None:
    async with sdk() as first, sdk() as second:
        config = far(first.url, second.url)
        async with running(tmp_path, config) as gateway:
            await all_healthy(gateway)
            begun = [
                await gateway.task("slow", agent="far", configuration={"returnImmediately": True}) for _ in range(4)
            ]

            async def at_work() -> bool:
                return len(first.player.heard) == len(second.player.heard) == 2

            await until(at_work)
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            first.player.go.set()
            second.player.go.set()
            for each in begun:
                done = await ended(gateway, each["id"], agent="far")
                assert done["artifacts"][0]["parts"] == [{"text": "late"}]


async def test_the_card_names_servers_in_its_order_of_preference(tmp_path: Path) -> None:
    """The second interface of a card is another server's: it stands in when the first cannot be reached."""
    async with scripted() as preferred, scripted() as other:
        completes(preferred, "p")
        completes(other, "o")
        preferred.card["supportedInterfaces"].append(other.card["supportedInterfaces"][0])
        config = far(preferred.url) + f"egress: {{allow: ['127.0.0.1:{other.url.rpartition(':')[2]}']}}\n"
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            await gateway.task("hi", agent="far")
            await gateway.task("hi", agent="far")
            assert (len(preferred.asked), len(other.asked)) == (2, 0)
            await _closed(preferred)
            await gateway.task("hi", agent="far")
            assert len(other.asked) == 1


async def test_one_server_without_a_card_does_not_make_the_agent_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
    async with scripted() as here, scripted() as late:
        completes(here)
        completes(late)
        late.up = False
        async with running(tmp_path, far(here.url, late.url)) as gateway:
            await ready(gateway, "far")
            shown = await admin_agent(gateway, "far")
            assert shown["health"] == "healthy"
            assert [each["health"] for each in shown["endpoints"]] == ["healthy", "unhealthy"]
            await gateway.task("hi", agent="far")
            late.up = True
            await all_healthy(gateway)

            async def both() -> bool:
                await gateway.task("hi", agent="far")
                return bool(late.asked)

            await until(both)


# Blocking calls, and silence.


async def test_a_blocking_call_does_not_block_on_the_wire(tmp_path: Path) -> None:
    """The agent is asked to return at once, and its stream is waited on: no timeout between the two can end it."""
    async with scripted() as agent, running(tmp_path, far(agent.url)) as gateway:
        await ready(gateway, "far")
        begun = asyncio.Event()

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("WORKING")})

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            begun.set()
            await asked.event(status("COMPLETED", text="Done"))

        done = await gateway.task("hi", agent="far")
        assert done["status"]["message"]["parts"] == [{"text": "Done"}]
        assert agent.asked[0].params["configuration"]["returnImmediately"] is True
        assert begun.is_set()


async def test_silence_ends_a_stream_and_length_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that says anything at all goes on for ever; one that says nothing is taken up anew, and the message is
    not sent again."""
    monkeypatch.setattr(a2a, "IDLE_SECONDS", 0.1)
    async with scripted() as agent, running(tmp_path, far(agent.url)) as gateway:
        await ready(gateway, "far")

        @agent.on("SendStreamingMessage")
        async def say_nothing(asked: Asked) -> None:
            monkeypatch.setattr(a2a, "IDLE_SECONDS", 1.5)  # of the next stream: much longer than its pauses
            await asked.event({"task": task("WORKING")})
            await asyncio.Event().wait()

        @agent.on("SubscribeToTask")
        async def take_long(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            for _ in range(18):
                await asyncio.sleep(0.1)  # what the agent does is what is tested
                await asked.chunk(b": still here\n\n")
            await asked.event(status("COMPLETED", text="Done"))

        @agent.on("GetTask")
        async def look(asked: Asked) -> None:
            asked.answer(task("WORKING"))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["message"]["parts"] == [{"text": "Done"}]
        assert len(agent.asked_for("SendStreamingMessage")) == 1
        assert len(agent.asked_for("SubscribeToTask")) == 1, "1.8 s without silence are no reason to end it"


async def test_fields_that_nobody_here_knows_survive_the_trip(tmp_path: Path) -> None:
    async with scripted(newer={"kept": [1]}) as agent, running(tmp_path, far(agent.url)) as gateway:
        await ready(gateway, "far")

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": {**task("COMPLETED"), "generation": 7}})

        sent: dict[str, Any] = {"message": {**message("hi"), "newer": {"x": 1}}}
        answer = await gateway.result("SendMessage", sent, agent="far")
        assert agent.asked[0].params["message"]["newer"] == {"x": 1}
        assert (await admin_agent(gateway, "far"))["card"]["newer"] == {"kept": [1]}
        assert answer["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def _closed(agent: Scripted) -> Scripted:
    """From now on nobody listens there."""
    agent.asked.clear()
    assert agent.close is not None
    await agent.close()
    return agent
