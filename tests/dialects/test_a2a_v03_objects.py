"""0.3's objects and 1.0's: there and back is identity on all that the older version can say, and what it cannot say
travels in its metadata."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.a2a_v03 import objects, parts, pushes
from gateway.dialects.a2a_v03.objects import JSON, PROTO, Form
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.push import PushConfig
from gateway.model.task import Event, Task, TaskState, envelope, open_envelope

FORMS = [JSON, PROTO]
INTERRUPTED = {"input-required", "auth-required"}
ENDED = {"completed", "failed", "canceled", "rejected"}

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
# With what we write ourselves in metadata, too: a peer may say just that.
metadata = st.dictionaries(
    texts | st.sampled_from(["a2a_v1", "data_part_compat"]),
    json_values | st.just(True) | st.just({"part": True}) | st.just({"filename": "f"}),
    max_size=2,
)
unknown = st.dictionaries(texts.map(lambda name: "x" + name), json_values, max_size=1)


def objects_of(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these fields, and now and then one that nobody knows."""
    known = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda more, known: {**more, **known}, unknown, known)


# What 0.3 can say (types.ts, a2a.proto of 0.3.0).

base64 = st.binary(max_size=6).map(lambda raw: b64encode(raw).decode())
data = st.dictionaries(texts | st.sampled_from(["value", "part"]), json_values, max_size=2)


def files(raw: str, uri: str) -> st.SearchStrategy[dict[str, Any]]:
    named = {"mimeType": texts, "name": texts}
    return objects_of({raw: base64}, named) | objects_of({uri: texts}, named)


def parts_of(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    more = {"metadata": metadata}
    if not form.kinds:
        file = files("fileWithBytes", "fileWithUri")
        kinds: list[dict[str, Any]] = [{"text": texts}, {"file": file}, {"data": st.fixed_dictionaries({"data": data})}]
        held = st.sampled_from(kinds)
        return held.flatmap(lambda required: objects_of(required, more))
    return (
        objects_of({"kind": st.just("text"), "text": texts}, more)
        | objects_of({"kind": st.just("file"), "file": files("bytes", "uri")}, more)
        | objects_of({"kind": st.just("data"), "data": data}, more)
    )


def messages(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    required = {
        "messageId": ids,
        "role": st.sampled_from(list(form.roles.values())),
        form.content: st.lists(parts_of(form), min_size=1, max_size=2),
    }
    optional: dict[str, Any] = {"contextId": ids, "taskId": ids, "metadata": metadata, "extensions": st.lists(texts)}
    if form.kinds:
        required |= {"kind": st.just("message")}
        optional |= {"referenceTaskIds": st.lists(ids, max_size=2)}
    return objects_of(required, optional)


def statuses(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    moments = st.just("2026-11-21T08:00:00.000Z")
    states = st.sampled_from(list(form.states.values()))
    return objects_of({"state": states}, {"message": messages(form), "timestamp": moments})


def artifacts(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"name": texts, "description": texts, "metadata": metadata, "extensions": st.lists(texts)}
    return objects_of({"artifactId": ids, "parts": st.lists(parts_of(form), max_size=2)}, optional)


def tasks(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    required: dict[str, Any] = {"id": ids, "contextId": ids, "status": statuses(form)}
    required |= {"kind": st.just("task")} if form.kinds else {}
    optional = {
        "artifacts": st.lists(artifacts(form), max_size=2),
        "history": st.lists(messages(form), max_size=2),
        "metadata": metadata,
    }
    return objects_of(required, optional)


def _final(update: dict[str, Any]) -> dict[str, Any]:
    state = update["status"]["state"].removeprefix("TASK_STATE_").lower().replace("_", "-").replace("lled", "led")
    return {**update, "final": state in INTERRUPTED | ENDED}


def updates(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    common: dict[str, Any] = {"taskId": ids, "contextId": ids}

    def kind(name: str) -> dict[str, Any]:
        return {"kind": st.just(name)} if form.kinds else {}

    status = objects_of(common | {"status": statuses(form)} | kind("status-update"), {"metadata": metadata})
    chunk = objects_of(
        common | {"artifact": artifacts(form)} | kind("artifact-update"),
        {"metadata": metadata, "append": st.booleans(), "lastChunk": st.booleans()},
    )
    if form.kinds:
        return status.map(_final) | chunk
    return status.map(lambda tree: {"statusUpdate": _final(tree)}) | chunk.map(lambda tree: {"artifactUpdate": tree})


def events(form: Form) -> st.SearchStrategy[dict[str, Any]]:
    if form.kinds:
        return tasks(form) | messages(form) | updates(form)
    wholes = tasks(form).map(lambda tree: {"task": tree}) | messages(form).map(lambda tree: {"message": tree})
    return wholes | updates(form)


def through_the_model(tree: Any) -> Any:
    """What is left of 1.0's tree after our own values had it: all of it."""
    return json.loads(envelope(open_envelope(tree)))


@pytest.mark.requirement("a2a.v03.there-and-back")
def test_a_strangers_part_that_looks_like_a_stowed_one_keeps_what_stands_beside_it() -> None:
    said: dict[str, Any] = {"kind": "data", "data": {"part": {}}, "metadata": {"a2a_v1": {"part": True}}, "x": None}
    assert parts.write(parts.read(said)) == said


@pytest.mark.requirement("a2a.v03.there-and-back")
@given(st.data())
@pytest.mark.parametrize("form", FORMS, ids=["jsonrpc", "http"])
def test_what_0_3_can_say_comes_back_as_it_was(form: Form, data: st.DataObject) -> None:
    said = data.draw(events(form))
    newer = objects.read_event(form, said)
    assert objects.write_event(form, through_the_model(newer)) == said


@pytest.mark.requirement("a2a.v03.there-and-back")
@given(st.data())
def test_an_older_push_configuration_comes_back_as_it_was(data: st.DataObject) -> None:
    schemes = st.lists(ids, min_size=1, max_size=3)
    authentication = objects_of({"schemes": schemes}, {"credentials": texts})
    said = data.draw(objects_of({"url": ids, "id": ids}, {"token": texts, "authentication": authentication}))
    config = PushConfig.model_validate({**pushes.read_config(said, ""), "taskId": "t"})
    tree = json.loads(config.wire())
    assert pushes.nested(tree) == {"taskId": "t", "pushNotificationConfig": said}
    assert pushes.resource(tree) == {
        "name": f"tasks/t/pushNotificationConfigs/{said['id']}",
        "pushNotificationConfig": said,
    }


# What 1.0 can say and 0.3 cannot. -----------------------------------------------------------


def newer_parts() -> st.SearchStrategy[dict[str, Any]]:
    beside = {"filename": ids, "mediaType": ids, "metadata": st.dictionaries(ids, json_values, min_size=1, max_size=2)}
    contents: list[dict[str, Any]] = [{"text": texts}, {"raw": base64}, {"url": texts}, {"data": json_values}, {}]
    held = st.sampled_from(contents)
    return held.flatmap(lambda required: st.fixed_dictionaries(required, optional=beside))


@pytest.mark.requirement("a2a.v03.beyond-the-older-version")
@given(st.lists(newer_parts(), min_size=1, max_size=3), st.lists(ids, min_size=1, max_size=2))
@pytest.mark.parametrize("form", FORMS, ids=["jsonrpc", "http"])
def test_what_only_1_0_can_say_survives_the_way_through_0_3(
    form: Form, given_parts: list[dict[str, Any]], references: list[str]
) -> None:
    said = {"messageId": "m", "role": "ROLE_USER", "parts": given_parts, "referenceTaskIds": references}
    older = objects.write_message(form, said)
    assert objects.read_message(form, older) == said


@pytest.mark.requirement("a2a.v03.beyond-the-older-version")
def test_data_that_is_no_object_is_wrapped_the_way_that_a2a_sdk_wraps_it() -> None:
    assert parts.write({"data": [1, 2]}) == {
        "kind": "data",
        "data": {"value": [1, 2]},
        "metadata": {"data_part_compat": True},
    }


@pytest.mark.requirement("a2a.v03.beyond-the-older-version")
def test_a_texts_name_and_type_stand_in_the_metadata() -> None:
    assert parts.write({"text": "x", "mediaType": "text/markdown", "metadata": {"k": 1}}) == {
        "kind": "text",
        "text": "x",
        "metadata": {"k": 1, "a2a_v1": {"mediaType": "text/markdown"}},
    }


# Total: whatever comes is read without an exception, and what is no 0.3 is refused where values are made.


@given(json_values, st.sampled_from(FORMS))
def test_reading_takes_anything(tree: Any, form: Form) -> None:
    for shape in (tree, {"status": tree}, {"parts": tree, "content": [tree]}, {"artifact": tree}, {"task": tree}):
        objects.read_event(form, shape)
    for shape in ({"kind": tree, "text": tree}, {"kind": "file", "file": tree}, {"kind": "data", "data": tree}, tree):
        form.read_part(shape)


@pytest.mark.parametrize("word", ["unknown", "sleeping", "WORKING", "task_state_working", "", 7, None])
def test_a_state_that_has_no_twin_is_refused(word: Any) -> None:
    tree = objects.read_event(JSON, {"kind": "task", "id": "t", "contextId": "c", "status": {"state": word}})
    with pytest.raises(ValueError, match="state"):
        open_envelope(tree)


def test_every_state_and_role_has_its_word() -> None:
    assert JSON.states == {state: state[11:].lower().replace("_", "-") for state in TaskState}
    assert set(JSON.states.values()) == INTERRUPTED | ENDED | {"submitted", "working"}
    assert set(JSON.roles.values()) == {"user", "agent"}
    assert PROTO.states["TASK_STATE_CANCELED"] == "TASK_STATE_CANCELLED"
    assert {ours for ours, theirs in PROTO.states.items() if ours != theirs} == {"TASK_STATE_CANCELED"}


@pytest.mark.requirement("a2a.v03.final")
@pytest.mark.parametrize("state", list(TaskState))
def test_final_is_true_where_the_task_has_ended_or_waits(state: TaskState) -> None:
    update = {"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": state}}}
    for form in FORMS:
        written = objects.write_event(form, update)
        assert (written if form.kinds else written["statusUpdate"])["final"] == (state.terminal or state.interrupted)


def test_an_event_that_does_not_say_what_it_is_is_known_by_its_fields() -> None:
    status = {"state": "working"}
    for tree, kind in (
        ({"id": "t", "contextId": "c", "status": status}, Task),
        ({"messageId": "m", "role": "agent", "parts": []}, Message),
    ):
        event: Event = open_envelope(objects.read_event(JSON, tree))
        assert isinstance(event, kind)
    update = objects.read_event(JSON, {"taskId": "t", "contextId": "c", "status": status, "final": False})
    assert update.keys() == {"statusUpdate"}
    assert objects.read_event(JSON, {"taskId": "t", "artifact": {}}).keys() == {"artifactUpdate"}


def test_our_own_values_can_all_be_written() -> None:
    part = Part(raw="-_8", media_type="image/png")
    message = Message(message_id="m", role=Role.AGENT, parts=(part,))
    artifact = Artifact(artifact_id="a", parts=(part,))
    for form in FORMS:
        assert objects.write_message(form, json.loads(message.wire()))
        written = objects.write_artifact(form, json.loads(artifact.wire()))
        file = written["parts"][0]["file"]
        assert (file["bytes"] if form.kinds else file["fileWithBytes"]) == "+/8="  # 0.3's readers know one alphabet
