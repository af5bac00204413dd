"""The first thing anybody does: send a message and get an answer."""

from __future__ import annotations

from pathlib import Path

from tests.serving import message, running


async def test_a_message_to_echo_comes_back_as_a_completed_task(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        task = await gateway.task("hi")
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert task["status"]["message"]["parts"] == [{"text": "hi"}]
        assert await gateway.result("GetTask", {"id": task["id"]}) == task


async def test_the_same_message_again_gives_the_same_task(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        params = {"message": message("hi")}
        first = await gateway.result("SendMessage", params)
        assert await gateway.result("SendMessage", params) == first


async def test_an_agent_that_answers_with_a_message_leaves_no_task(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        params = {"message": message("hi", messageId="tck-message-response-1")}
        first = await gateway.result("SendMessage", params)
        assert first["message"]["parts"] == [{"text": "Direct message response"}]
        assert await gateway.result("SendMessage", params) == first
        assert (await gateway.result("ListTasks"))["totalSize"] == 0
