"""Texts in pieces: what waits, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.compliance.held import MAX_BLOCK, MAX_ENDS, Held, uncut
from gateway.model.message import Artifact, Part
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, TaskState, TaskStatus

KEY = "-----BEGIN PRIVATE KEY-----\n" + "MIIE\n" * 40 + "-----END PRIVATE KEY-----"


def chunk(text: str, *, append: bool = True, last: bool | None = None, id: str = "a") -> ArtifactUpdate:
    artifact = Artifact(artifact_id=id, parts=(Part(text=text),))
    return ArtifactUpdate(task_id="t", context_id="c", artifact=artifact, append=append or None, last_chunk=last)


def status(state: TaskState = TaskState.WORKING) -> StatusUpdate:
    return StatusUpdate(task_id="t", context_id="c", status=TaskStatus(state=state))


def spoken(events: list[Event]) -> list[str]:
    return [event.artifact.parts[0].text or "" for event in events if isinstance(event, ArtifactUpdate)]


def through(*events: Event) -> list[Event]:
    held = Held()
    return [out for event in events for out in held.take(event)] + list(held.release())


def test_a_word_at_the_end_waits_for_the_next_chunk() -> None:
    held = Held()
    assert spoken(list(held.take(chunk("my key is sk_li", append=False)))) == ["my key is "]
    assert spoken(list(held.take(chunk("ve_123 and")))) == ["sk_live_123 "]
    assert spoken(list(held.take(chunk(" more", last=True)))) == ["and more"]


def test_what_has_begun_waits_while_its_agent_works_on() -> None:
    assert spoken(through(chunk("sk_li", append=False), status(), chunk("ve_123 "))) == ["sk_live_123 "]


@pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.INPUT_REQUIRED])
def test_nothing_waits_behind_a_rest(state: TaskState) -> None:
    out = through(chunk("wor", append=False), status(state))
    assert [type(event).__name__ for event in out] == ["ArtifactUpdate", "StatusUpdate"]


def test_what_is_said_beside_a_text_stays_with_it() -> None:
    held = Held()
    first, then = (chunk(text, append=text != "a").model_copy(update={"metadata": {text: 1}}) for text in ("a", "b"))
    assert list(held.take(first)) == list(held.take(then)) == []
    (event,) = held.release()
    assert isinstance(event, ArtifactUpdate)
    assert event.metadata == {"a": 1, "b": 1}


def test_what_was_held_from_the_beginning_begins_the_artifact() -> None:
    first, *rest = through(chunk("abc", append=False), chunk("def ghi"))
    assert isinstance(first, ArtifactUpdate)
    assert not first.append
    assert spoken([first, *rest]) == ["abcdef ", "ghi"]


def test_a_key_of_many_lines_waits_for_its_end_but_not_for_ever() -> None:
    half = len(KEY) // 2
    assert KEY in spoken(through(chunk("here: " + KEY[:half], append=False), chunk(KEY[half:] + " .")))[1]
    endless = chunk("-----BEGIN x" + " y" * MAX_BLOCK, append=False)
    assert sum(map(len, spoken(list(Held().take(endless))))) > MAX_BLOCK


def test_two_artifacts_do_not_run_into_each_other() -> None:
    out = through(chunk("one", append=False, id="a"), chunk("two", append=False, id="b"), chunk("more", id="a"))
    assert sorted(spoken(out)) == ["onemore", "two"]


def test_what_one_artifact_has_begun_waits_for_its_own_next_chunk() -> None:
    out = through(chunk("sk_li", append=False, id="a"), chunk("two ", append=False, id="b"), chunk("ve_123 ", id="a"))
    assert spoken(out) == ["two ", "sk_live_123 "]


def test_of_very_many_artifacts_the_first_does_not_wait_longer() -> None:
    held = Held()
    out = [each for n in range(MAX_ENDS + 1) for each in held.take(chunk("x", append=False, id=str(n)))]
    assert [event.artifact.artifact_id for event in out if isinstance(event, ArtifactUpdate)] == ["0"]


@given(st.lists(st.text(alphabet="ab 1-\n", max_size=12), min_size=1, max_size=8), st.booleans())
def test_the_text_stays_the_same_however_it_is_cut(pieces: list[str], ends: bool) -> None:
    chunks = [chunk(text, append=index > 0) for index, text in enumerate(pieces)]
    if ends:
        chunks[-1] = chunks[-1].model_copy(update={"last_chunk": True})
    out = through(*chunks)
    assert "".join(spoken(out)) == "".join(pieces)
    assert [event.append for event in out if isinstance(event, ArtifactUpdate)][1:] == [True] * (len(out) - 1)


@pytest.mark.parametrize("before", ["sk_live_1", "key sk_live_a1b2c3d4"])
def test_a_word_that_ends_in_digits_is_not_cut_before_them(before: str) -> None:
    said = spoken(through(chunk(before + " ", append=False), chunk("for you")))
    assert any(before.split()[-1] in each for each in said)


def test_a_text_is_not_cut_inside_of_what_was_found() -> None:
    assert uncut("one two three", 8, [(4, 13), (0, 6)]) == 0
    assert uncut("one two three", 8, [(8, 13), (0, 8)]) == 8
    assert uncut("a" * (MAX_BLOCK + 9), 8, [(0, MAX_BLOCK + 9)]) == 8


@pytest.mark.parametrize("cut", range(1, 19))
def test_a_card_number_in_groups_is_never_cut(cut: int) -> None:
    text = "4111 1111 1111 1111"
    assert any(text in said for said in spoken(through(chunk(text[:cut], append=False), chunk(text[cut:] + " ok"))))
