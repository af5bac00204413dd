"""The table of paths: each operation at its place, and no id that could be taken for a verb."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.a2a_v1.paths import match
from gateway.dialects.paths import Operation

IDS = st.text(st.characters(codec="utf-8", exclude_characters="/:"), min_size=1)


@given(IDS, IDS)
def test_ids_come_out_of_a_path_as_they_stand_in_it(task: str, config: str) -> None:
    assert match("GET", f"/tasks/{task}") == Operation("GetTask", {"id": task})
    assert match("POST", f"/tasks/{task}:cancel") == Operation("CancelTask", {"id": task})
    found = match("DELETE", f"/tasks/{task}/pushNotificationConfigs/{config}:x")
    assert found == Operation("DeleteTaskPushNotificationConfig", {"taskId": task, "id": config + ":x"})


@given(IDS)
def test_what_follows_a_colon_is_a_verb_or_nothing(task: str) -> None:
    assert match("GET", f"/tasks/{task}:cancel") == frozenset({"POST"})
    assert match("GET", f"/tasks/{task}:subscribe") == Operation("SubscribeToTask", {"id": task})
    assert match("GET", f"/tasks/{task}:other") is None


@given(st.sampled_from(["GET", "POST", "DELETE", "PUT"]), st.text())
def test_any_path_has_an_answer(verb: str, path: str) -> None:
    found = match(verb, path)
    assert found is None or isinstance(found, Operation | frozenset)
    assert not isinstance(found, frozenset) or verb not in found


@pytest.mark.parametrize("path", ["", "/", "/tasks/", "/tasks//x", "/message:send/", "/message", "/tasks/x/y", "tasks"])
def test_near_misses_are_nothing(path: str) -> None:
    assert match("GET", path) is None
