"""The secretary keeps notes with the MCP server of the examples: as itself, for its caller, with a grant."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agents.secretary import SAID_CHARS_MAX, WORDS_MAX, Secretary, words
from gateway.model.card import AgentCard
from tests.mcp import configured, says, scripted, tool
from tests.serving import ROOT, Gateway, running

CARD = ROOT / "agent_cards" / "secretary.json"
OFFICE = f"""
tools:
  notes: {{command: [{sys.executable}, examples/tools/notes.py], folder: "{ROOT}"}}
agents:
  secretary: {{run: "agents.secretary:Secretary", card: {CARD}, public: true}}
"""
GRANT = 'grants: [{to: "agent:secretary", tools: [notes]}]\n'


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path, OFFICE + GRANT) as gateway:
        yield gateway


async def said(gateway: Gateway, text: str, **more: Any) -> Any:
    return await gateway.task(text, agent="secretary", **more)


def answer(task: Any) -> tuple[str, str]:
    return task["status"]["state"], task["status"]["message"]["parts"][0]["text"]


async def test_a_note_that_is_taken_is_found_again(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    taken = await said(gateway, "Remember that Ada comes on Friday", who=ann)
    assert answer(taken) == ("TASK_STATE_COMPLETED", "Noted. There are 3 notes now.")
    found = await said(gateway, "When does Ada come? Friday?", who=ann)
    assert answer(found) == ("TASK_STATE_COMPLETED", "2 notes with when, does, ada, come, friday.")
    notes = found["artifacts"][0]["parts"][0]["text"]
    assert notes == "Ada comes on Friday\nCall Ada about the gateway", "the one with most of the words first"


async def test_the_call_stands_in_the_record_as_the_secretarys(gateway: Gateway) -> None:
    await said(gateway, "milk", who=await gateway.key("bob"))
    entries = [entry for entry in await gateway.record() if entry.target == "notes/find"]
    assert {each.outcome for each in entries} == {"begun", "ok"}
    assert all("secretary" in str(each) for each in entries)


async def test_who_says_nothing_to_look_for_is_asked(gateway: Gateway) -> None:
    asked = await said(gateway, "a?")
    assert answer(asked) == ("TASK_STATE_INPUT_REQUIRED", "Which word shall I look for?")
    task = await said(gateway, "milk", taskId=asked["id"])
    assert (task["id"], answer(task)) == (asked["id"], ("TASK_STATE_COMPLETED", "1 note with milk."))


async def test_a_book_is_no_note(gateway: Gateway) -> None:
    assert answer(await said(gateway, "note: " + "x" * SAID_CHARS_MAX))[0] == "TASK_STATE_REJECTED"


async def test_without_a_grant_the_secretary_may_use_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, OFFICE) as gateway:
        task = await said(gateway, "note: water the plants")
        assert answer(task) == ("TASK_STATE_FAILED", "Unknown tool: notes/add")


async def test_a_tool_that_fails_fails_the_task_with_its_words(tmp_path: Path) -> None:
    async with scripted(tool("find"), tool("add")) as notes:

        async def full(params: Any) -> Any:
            return {**says("the notebook is full"), "isError": True}

        notes.answers = {"find": full, "add": full}
        agents = OFFICE.partition("agents:")[2]
        async with running(tmp_path, configured(f"agents:{agents}", GRANT, notes=notes)) as gateway:
            for text in ("note: one more", "milk"):
                state, why = answer(await said(gateway, text))
                assert (state, "the notebook is full" in why) == ("TASK_STATE_FAILED", True)


async def test_each_example_of_the_card_does_what_its_skill_says(gateway: Gateway) -> None:
    card = AgentCard.model_validate(json.loads(CARD.read_text("utf-8")))
    spoken = {"take-notes": r"Noted\. .*", "find-notes": r"[1-9] notes? with .*"}
    for skill in card.skills:
        for example in skill.examples or ():
            assert re.fullmatch(spoken[skill.id], answer(await said(gateway, example))[1]), example


def test_a_question_is_looked_for_by_each_of_its_longer_words_once() -> None:
    assert words("Is it about the gateway? THE gateway!") == ["about", "the", "gateway"]
    assert len(words(" ".join(f"word{n}" for n in range(100)))) == WORDS_MAX


@pytest.mark.parametrize("name", ["", "Notes", "notes/find", "a b"])
def test_a_server_of_an_impossible_name_stops_the_start(name: str) -> None:
    with pytest.raises(ValueError, match="notes: must be the name of an MCP server"):
        Secretary(name)
