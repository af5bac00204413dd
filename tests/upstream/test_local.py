"""Agents of the operator's own: what may stand behind an import string, and what is said when nothing does."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model.agent import Context
from gateway.model.message import Message, Part, Role
from gateway.model.task import StatusUpdate
from gateway.upstream.local import LoadError, LocalAgent, load

_names = (f"own_agent_{number}" for number in itertools.count())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before


def written(folder: Path, code: str, attribute: str = "agent", **options: Any) -> LocalAgent:
    name = next(_names)
    (folder / f"{name}.py").write_text(code)
    return load(f"{name}:{attribute}", options, base=folder, also=folder)


def context() -> Context:
    return Context("a", "t", "c", lambda: 0, iter(map(str, itertools.count())).__next__)


async def events(agent: LocalAgent) -> list[Any]:
    message = Message(message_id="m", role=Role.USER, parts=(Part(text="hi"),))
    return [event async for event in agent.run(context(), message)]


@pytest.mark.parametrize(
    ("returned", "parts"),
    [
        ("message.text", [Part(text="hi")]),
        ("Part(url='https://e.example/')", [Part(url="https://e.example/")]),
        ("[Part(text='a'), Part(text='b')]", [Part(text="a"), Part(text="b")]),
        ("{'n': 1}", [Part(data={"n": 1}, media_type="application/json")]),
        ("[1, 2]", [Part(data=[1, 2], media_type="application/json")]),
        ("0", [Part(data=0, media_type="application/json")]),
    ],
)
async def test_what_a_function_returns_is_its_reply(folder: Path, returned: str, parts: list[Part]) -> None:
    code = f"from gateway.model.message import Part\nasync def agent(context, message):\n    return {returned}\n"
    (reply,) = await events(written(folder, code))
    assert isinstance(reply, Message)
    assert list(reply.parts) == parts
    assert reply.context_id == "c"


async def test_a_function_that_returns_nothing_has_said_nothing(folder: Path) -> None:
    assert await events(written(folder, "async def agent(context, message): pass\n")) == []


async def test_a_function_may_yield_events(folder: Path) -> None:
    code = "async def agent(context, message):\n    yield context.working()\n    yield context.completed('ok')\n"
    first, second = await events(written(folder, code))
    assert isinstance(first, StatusUpdate)
    assert isinstance(second, StatusUpdate)
    assert second.status.message is not None
    assert second.status.message.text == "ok"


async def test_a_class_gets_its_options_and_the_folder_of_the_file(folder: Path) -> None:
    code = """
class Agent:
    resumable = True
    def __init__(self, word, base):
        self.word, self.base = word, base
    async def run(self, context, message):
        return f"{self.word} {self.base}"
"""
    agent = written(folder, code, "Agent", word="hello")
    assert agent.resumable
    (reply,) = await events(agent)
    assert reply.text == f"hello {folder}"


async def test_an_agent_that_is_stopped_between_two_events_cleans_up_at_once(folder: Path) -> None:
    code = """
cleaned = []
async def agent(context, message):
    try:
        yield context.working()
        yield context.completed()
    finally:
        cleaned.append(1)
"""
    agent = written(folder, code)
    run = agent.run(context(), Message(message_id="m", role=Role.USER, parts=()))
    await anext(run)
    await run.aclose()  # type: ignore[attr-defined]
    module = next(module for name, module in sys.modules.items() if name.startswith("own_agent_") and hasattr(
        module, "cleaned"))  # fmt: skip
    assert module.cleaned == [1]


async def test_an_agent_that_closes_is_closed(folder: Path) -> None:
    code = """
import asyncio
class Agent:
    def __init__(self): self.closed = asyncio.Event()
    async def run(self, context, message): return ""
    async def aclose(self): self.closed.set()
"""
    agent = written(folder, code, "Agent")
    await agent.aclose()
    closed = agent._owner.closed
    assert isinstance(closed, asyncio.Event)
    assert closed.is_set()


@pytest.mark.parametrize(
    ("code", "attribute", "reason", "hint"),
    [
        ("x = 1", "y", "has no 'y'", "it has x"),
        ("x = 1", "x", "neither a class nor an async function", "async def"),
        ("def x(context, message): return ''", "x", "neither a class nor an async function", "async def"),
        ("class X: pass", "X", "has no method run", "give the class one"),
        ("class X:\n    def __init__(self, word): ...", "X", "missing a required argument: 'word'", "documentation"),
        ("class X:\n    def __init__(self): raise ValueError('not today')", "X", "not today", "correct `with`"),
        ("import nothing_of_that_name", "x", "No module named 'nothing_of_that_name'", "beside the configuration"),
        ("def (", "x", "failed while it was imported: SyntaxError", "correct the module"),
    ],
)
def test_what_is_no_agent_is_said_with_what_to_do(
    folder: Path, code: str, attribute: str, reason: str, hint: str
) -> None:
    with pytest.raises(LoadError) as caught:
        written(folder, code, attribute)
    assert reason in caught.value.reason
    assert hint in caught.value.hint


def test_a_function_takes_no_options(folder: Path) -> None:
    with pytest.raises(LoadError, match="takes no options"):
        written(folder, "async def agent(context, message): ...", word="x")
