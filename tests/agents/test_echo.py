"""Echo through a real Context: each scene is legal for the task state machine and says what its card says."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.echo import COUNT_MAX, KIT, WAIT_REPORTS_MAX, WAIT_S_MAX, Echo
from gateway.model.agent import Context
from gateway.model.card import AgentCard
from gateway.model.message import Message, Part, Role
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Task, TaskState, TaskStatus

CARDS = Path(__file__).parents[2] / "agent_cards"
NOW_MS = 1_763_712_000_000


class Talk:
    """One task with Echo: a clock that waits advance, ids that count, and the task folded from the events."""

    def __init__(self) -> None:
        self.agent = Echo()
        self.agent.sleep = self._sleep
        self.waits: list[float] = []
        self.ids = map("id-{}".format, itertools.count(1))
        self.task = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.SUBMITTED))

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def context(self) -> Context:
        def now() -> int:
            return NOW_MS + int(1000 * sum(self.waits))

        return Context(
            agent="echo", task_id="t", context_id="c", now=now, new_id=lambda: next(self.ids), task=self.task
        )

    async def say(self, *parts: Part | str, message_id: str = "m-1") -> list[Event]:
        content = tuple(Part(text=part) if isinstance(part, str) else part for part in parts)
        message = Message(message_id=message_id, role=Role.USER, parts=content)
        events = [event async for event in self.agent.run(self.context(), message)]
        self.task = self.task.apply(message)
        for event in events:
            if isinstance(event, StatusUpdate | ArtifactUpdate):
                self.task = self.task.apply(event)
        return events

    @property
    def state(self) -> TaskState:
        return self.task.status.state

    @property
    def said(self) -> str:
        return self.task.status.message.text if self.task.status.message is not None else ""


@pytest.fixture
def talk() -> Talk:
    return Talk()


async def test_a_text_comes_back_in_one_event(talk: Talk) -> None:
    [event] = await talk.say("hi")
    assert isinstance(event, StatusUpdate)
    assert (talk.state, talk.said) == (TaskState.COMPLETED, "hi")
    assert talk.task.artifacts is None


async def test_every_kind_of_part_comes_back_as_it_was(talk: Talk) -> None:
    parts = (
        Part(text="grüße", metadata={"lang": "de"}),
        Part(data={"n": 9_007_199_254_740_993}),
        Part(data=None),
        Part(raw="AAE=", media_type="application/x-anything", filename="a.bin"),
        Part(url="https://example.com/a.png"),
        Part.model_validate({"text": "new", "somethingNewer": 1}),
    )
    await talk.say(*parts)
    assert talk.task.status.message is not None
    assert talk.task.status.message.parts == parts
    assert [part.wire() for part in talk.task.status.message.parts] == [part.wire() for part in parts]


NO_WORDS = "| ask|ask |Ask|ask\n|ask 5|fail!|rejected|tck-reject-task|count|count ten"
NO_WAITS = "wait|wait |wait x|wait -1|wait 1.5|wait  5|wait 5 |wait ٥|wait 9999999"


@pytest.mark.parametrize("text", [*NO_WORDS.split("|"), *NO_WAITS.split("|")])
async def test_a_text_that_is_not_exactly_a_word_is_only_echoed(talk: Talk, text: str) -> None:
    await talk.say(text)
    assert (talk.state, talk.said) == (TaskState.COMPLETED, text)


async def test_a_word_among_other_parts_is_only_echoed(talk: Talk) -> None:
    await talk.say("fail", Part(data=1))
    assert (talk.state, talk.said) == (TaskState.COMPLETED, "fail")


async def test_wait_reports_each_second_and_completes(talk: Talk) -> None:
    events = await talk.say("wait 3")
    said = [e.status.message.text for e in events if isinstance(e, StatusUpdate) and e.status.message]
    assert said == ["0 of 3 s", "1 of 3 s", "2 of 3 s", "Waited 3 s."]
    assert talk.waits == [1, 1, 1]


@pytest.mark.parametrize(("asked", "waited"), [(0, 0), (7, 7), (33, 33), (600, 600), (601, 600)])
async def test_wait_is_bounded_in_time_and_in_reports(talk: Talk, asked: int, waited: int) -> None:
    events = await talk.say(f"wait {asked}")
    assert sum(talk.waits) == waited <= WAIT_S_MAX
    assert len(events) <= WAIT_REPORTS_MAX + 1
    assert talk.state is TaskState.COMPLETED


async def test_cancelling_the_run_ends_a_wait_at_once(talk: Talk) -> None:
    talk.agent.sleep = asyncio.sleep
    working = asyncio.Event()

    async def consume() -> None:
        async for _ in talk.agent.run(
            talk.context(), Message(message_id="m", role=Role.USER, parts=(Part(text="wait 600"),))
        ):
            working.set()

    run = asyncio.create_task(consume())
    async with asyncio.timeout(5):
        await working.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_count_streams_one_artifact_in_pieces(talk: Talk) -> None:
    events = await talk.say("count 10")
    pieces = [event for event in events if isinstance(event, ArtifactUpdate)]
    assert [piece.append for piece in pieces] == [False] + [True] * 9
    assert [piece.last_chunk for piece in pieces] == [False] * 9 + [True]
    assert talk.task.artifacts is not None
    [artifact] = talk.task.artifacts
    assert [part.text for part in artifact.parts] == [f"{n}\n" for n in range(1, 11)]


@pytest.mark.parametrize(("asked", "counted"), [(0, 1), (1, 1), (5000, COUNT_MAX)])
async def test_count_is_bounded(talk: Talk, asked: int, counted: int) -> None:
    events = await talk.say(f"count {asked}")
    assert sum(isinstance(event, ArtifactUpdate) for event in events) == counted


async def test_a_count_that_is_played_again_after_a_crash_leaves_no_double(talk: Talk) -> None:
    once = await talk.say("count 3")
    half = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.SUBMITTED))
    for event in (*once[:3], *once):
        assert isinstance(event, StatusUpdate | ArtifactUpdate)
        half = half.apply(event)
    assert half.artifacts == talk.task.artifacts


async def test_ask_asks_back_and_echoes_the_answer(talk: Talk) -> None:
    await talk.say("ask")
    assert (talk.state, talk.said) == (TaskState.INPUT_REQUIRED, "What shall I echo?")
    await talk.say("this", message_id="m-2")
    assert (talk.state, talk.said) == (TaskState.COMPLETED, "this")


async def test_the_answer_to_ask_is_echoed_even_if_it_is_a_word(talk: Talk) -> None:
    await talk.say("ask")
    await talk.say("fail", message_id="m-2")
    assert (talk.state, talk.said) == (TaskState.COMPLETED, "fail")


@pytest.mark.parametrize(("word", "state"), [("fail", TaskState.FAILED), ("reject", TaskState.REJECTED)])
async def test_fail_and_reject_end_the_task_that_way(talk: Talk, word: str, state: TaskState) -> None:
    await talk.say(word)
    assert talk.state is state


async def test_status_times_come_from_the_given_clock(talk: Talk) -> None:
    events = await talk.say("wait 2")
    times = [event.status.timestamp for event in events if isinstance(event, StatusUpdate)]
    assert times[0] == "2025-11-21T08:00:00.000Z"
    assert times[-1] == "2025-11-21T08:00:02.000Z"


# --- The kit's scenes. -------------------------------------------------------------------------------------


def test_the_longest_prefix_is_looked_at_first() -> None:
    prefixes = [prefix for prefix, _ in KIT]
    for earlier, later in itertools.combinations(prefixes, 2):
        assert not later.startswith(earlier), f"{later} would never be reached"


@pytest.mark.parametrize("prefix", [prefix for prefix, _ in KIT])
async def test_every_scene_of_the_kit_is_legal_and_can_be_played_twice(prefix: str) -> None:
    first, second = Talk(), Talk()
    assert await first.say("x", message_id=prefix) == await second.say("x", message_id=f"{prefix}-1a2b")


ENDINGS = {
    "tck-complete-task": (TaskState.COMPLETED, "Hello from TCK"),
    "tck-input-required": (TaskState.INPUT_REQUIRED, "Input required"),
    "tck-auth-required": (TaskState.AUTH_REQUIRED, "Authentication required"),
    "tck-reject-task": (TaskState.REJECTED, "rejected"),
    "tck-delayed-complete": (TaskState.COMPLETED, "Done after delay"),
    "tck-stream-002": (TaskState.COMPLETED, ""),
    "test-resubscribe-message-id": (TaskState.COMPLETED, ""),
    "tck-something-else": (TaskState.COMPLETED, "the text"),
    "test-something-else": (TaskState.COMPLETED, "the text"),
}


@pytest.mark.parametrize("prefix", ENDINGS)
async def test_the_kit_finds_the_state_it_asks_for(talk: Talk, prefix: str) -> None:
    await talk.say("the text", message_id=f"{prefix}-abc")
    assert (talk.state, talk.said) == ENDINGS[prefix]


ARTIFACTS: dict[str, Callable[[Part], bool]] = {
    "tck-artifact-text": lambda part: part.text == "Generated text content",
    "tck-artifact-file": lambda part: (
        (part.raw, part.filename, part.media_type) == ("dGNr", "output.txt", "text/plain")
    ),
    "tck-artifact-file-url": lambda part: (
        (part.url, part.filename, part.media_type) == ("https://example.com/output.txt", "output.txt", "text/plain")
    ),
    "tck-artifact-data": lambda part: part.data == {"key": "value", "count": 42},
    "tck-stream-001": lambda part: part.text == "Stream hello from TCK",
    "tck-stream-003": lambda part: part.text == "Stream task lifecycle",
    "tck-stream-ordering-001": lambda part: part.text == "Ordered output",
    "tck-stream-artifact-text": lambda part: part.text == "Streamed text content",
    "tck-stream-artifact-file": lambda part: part.filename == "output.txt",
}


@pytest.mark.parametrize("prefix", ARTIFACTS)
async def test_the_kit_finds_the_artifact_it_asks_for(talk: Talk, prefix: str) -> None:
    await talk.say("x", message_id=f"{prefix}-abc")
    assert talk.state is TaskState.COMPLETED
    assert talk.task.artifacts is not None
    assert [ARTIFACTS[prefix](part) for part in talk.task.artifacts[0].parts] == [True]


async def test_the_kit_gets_its_two_chunks_as_one_artifact(talk: Talk) -> None:
    await talk.say("x", message_id="tck-stream-artifact-chunked-abc")
    assert talk.task.artifacts is not None
    [artifact] = talk.task.artifacts
    assert [part.text for part in artifact.parts] == ["chunk-1 ", "chunk-2"]


async def test_the_kit_gets_a_message_and_nothing_else(talk: Talk) -> None:
    [event] = await talk.say("x", message_id="tck-message-response-abc")
    assert isinstance(event, Message)
    assert (event.text, event.role, event.context_id, event.task_id) == (
        "Direct message response",
        Role.AGENT,
        "c",
        None,
    )


async def test_the_kit_can_subscribe_while_the_long_scene_waits(talk: Talk) -> None:
    await talk.say("x", message_id="test-resubscribe-message-id-abc")
    assert sum(talk.waits) == 4


async def test_the_kit_can_go_on_with_a_task_that_waits_for_input(talk: Talk) -> None:
    await talk.say("x", message_id="tck-input-required-1")
    await talk.say("y", message_id="tck-input-required-1")
    states = [talk.state]
    await talk.say("z", message_id="tck-complete-task-1")
    assert [*states, talk.state] == [TaskState.INPUT_REQUIRED, TaskState.COMPLETED]


# --- The cards. --------------------------------------------------------------------------------------------


async def test_every_example_of_the_card_does_what_its_skill_says() -> None:
    card = AgentCard.model_validate_json((CARDS / "echo.json").read_bytes())
    expected = {
        "Hello!": TaskState.COMPLETED,
        "wait 5": TaskState.COMPLETED,
        "count 10": TaskState.COMPLETED,
        "ask": TaskState.INPUT_REQUIRED,
        "fail": TaskState.FAILED,
        "reject": TaskState.REJECTED,
    }
    assert {example for skill in card.skills for example in skill.examples or ()} == set(expected)
    for example, state in expected.items():
        talk = Talk()
        await talk.say(example)
        assert talk.state is state


def test_the_extended_card_is_the_card_and_one_skill_more() -> None:
    card = json.loads((CARDS / "echo.json").read_bytes())
    extended = json.loads((CARDS / "echo.extended.json").read_bytes())
    AgentCard.model_validate(extended)
    assert extended.pop("skills")[:-1] == card.pop("skills")
    assert extended == card


def test_no_card_holds_an_empty_text() -> None:
    # Signers disagree about empty strings and lists (research: a2a.md §1.7), so our cards have none but the
    # list of interfaces, which the gateway fills.
    for path in sorted(CARDS.glob("*.json")):
        card = json.loads(path.read_bytes())
        card.pop("supportedInterfaces")
        card.pop("capabilities")
        assert not _empty(card), path.name


def _empty(tree: object) -> bool:
    if isinstance(tree, dict):
        return not tree or any(map(_empty, tree.values()))
    if isinstance(tree, list):
        return not tree or any(map(_empty, tree))
    return tree in ("", None)
