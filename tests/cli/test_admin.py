"""tasks, agents and keys: what each asks of the admin API, and how it shows the answer."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.conftest import Run, Start
from tests.cli.fake_gateway import FakeGateway, Reply, Stream, made, moved, refused, task, text

CARD = {
    "name": "Weather",
    "description": "Knows the weather.",
    "version": "2.1",
    "supportedInterfaces": [{"url": "https://w.example/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    "skills": [
        {"id": "now", "name": "Weather now", "description": "Here and now.", "tags": ["weather", "now"],
         "examples": ["Will it rain in Zürich?", "And tomorrow?"]},
    ],
}  # fmt: skip
WEATHER = {
    "id": "weather", "kind": "remote", "health": "healthy", "reason": None, "public": True, "shadowed": False,
    "card": CARD, "cardUrl": "http://127.0.0.1:8080/agents/weather/.well-known/agent-card.json",
}  # fmt: skip
DOWN = {**WEATHER, "id": "down", "health": "unhealthy", "reason": "connection refused", "public": False, "card": None}
KEY = {"id": "k-1", "name": "ci", "prefix": "gw_abc", "created": 1763712000000, "revoked": None}


# tasks


def test_tasks_are_listed_with_agent_and_state(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/tasks"] = Reply(
        {"tasks": [{"agent": "echo", "task": task("INPUT_REQUIRED")}], "nextPageToken": ""}
    )
    result = gateway(
        "tasks", "list", "--agent", "echo", "--status", "input-required", "--context", "c-1", "--limit", "5"
    )
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["t-1", "echo", "input-required", "2026-11-21T08:00:00.000Z", "c-1"]
    assert fake.seen[0].query == {
        "agent": "echo", "status": "TASK_STATE_INPUT_REQUIRED", "contextId": "c-1", "pageSize": "5",
    }  # fmt: skip


def test_the_limit_goes_over_pages_and_says_that_there_is_more(gateway: Run, fake: FakeGateway) -> None:
    page = [{"agent": "echo", "task": task()}] * 100
    fake.answers["GET /admin/tasks"] = Reply({"tasks": page, "nextPageToken": "next"})
    result = gateway("tasks", "list", "--limit", "200")
    assert len(result.out.splitlines()) == 201
    assert [seen.query.get("pageToken") for seen in fake.seen] == [None, "next"]
    assert "There are more" in result.err


def test_json_lists_the_tasks_as_the_api_says_them(gateway: Run, fake: FakeGateway) -> None:
    answer = {"tasks": [{"agent": "echo", "task": task()}], "nextPageToken": ""}
    fake.answers["GET /admin/tasks"] = Reply(answer)
    assert json.loads(gateway("tasks", "list", "--json").out) == answer


def test_no_tasks_is_said_and_is_no_failure(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/tasks"] = Reply({"tasks": [], "nextPageToken": ""})
    result = gateway("tasks", "list")
    assert (result.code, result.out, result.err) == (0, "", "No tasks.\n")


def test_a_task_is_shown_with_its_results(gateway: Run, fake: FakeGateway) -> None:
    done = task(
        "COMPLETED", "Here it is.", artifacts=[{"artifactId": "a", "name": "sum", "parts": [text("4"), text("2")]}]
    )
    fake.answers["GET /admin/tasks/t-1"] = Reply({"agent": "echo", "task": done})
    result = gateway("tasks", "get", "t-1")
    assert result.code == 0
    assert result.out.endswith("context  c-1\n\nHere it is.\n\n== sum\n42\n")
    assert json.loads(gateway("tasks", "get", "t-1", "--json").out) == {"agent": "echo", "task": done}


def test_cancel_says_the_new_state(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/tasks/t-1:cancel"] = Reply({"agent": "echo", "task": task("CANCELED")})
    result = gateway("tasks", "cancel", "t-1")
    assert (result.code, result.out) == (0, "task t-1 is canceled\n")


def test_a_refusal_is_the_gateways_sentence(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/tasks/t-1:cancel"] = refused(400, "FAILED_PRECONDITION", "The task has ended already")
    result = gateway("tasks", "cancel", "t-1")
    assert (result.code, result.err) == (1, "gateway: The task has ended already\n")


def test_watch_follows_to_the_end_and_comes_back_after_a_break(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/tasks/t-1"] = Reply({"agent": "echo", "task": task()})
    half = task(artifacts=[{"artifactId": "a-1", "parts": [text("a")]}])
    fake.answers["GET /admin/tasks/t-1:watch"] = [
        Stream(({"task": task()}, made(text("a"))), "break"),
        Stream(({"task": half}, made(text("b"), append=True), moved("FAILED", "no"))),
    ]
    result = gateway("tasks", "watch", "t-1")
    assert (result.code, result.out) == (1, "ab\n")
    assert result.err.endswith("failed: no\n")


def test_watching_a_question_shows_the_command_that_answers_it(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/tasks/t-1"] = Reply({"agent": "echo", "task": task()})
    fake.answers["GET /admin/tasks/t-1:watch"] = Stream(({"task": task("INPUT_REQUIRED", "Which?")},), "hang")
    result = gateway("tasks", "watch", "t-1")
    assert (result.code, result.out) == (3, "Which?\n")
    assert "gateway send echo --task t-1 'your answer'" in result.err


def test_watch_prints_events_as_lines_of_json(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/tasks/t-1"] = Reply({"agent": "echo", "task": task()})
    fake.answers["GET /admin/tasks/t-1:watch"] = Stream(({"task": task()}, moved("COMPLETED")))
    result = gateway("tasks", "watch", "t-1", "--json")
    assert [json.loads(each) for each in result.out.splitlines()] == [{"task": task()}, moved("COMPLETED")]


def test_ctrl_c_ends_watching_and_not_the_task(start: Start, fake: FakeGateway) -> None:
    fake.answers["GET /admin/tasks/t-1"] = Reply({"agent": "echo", "task": task()})
    fake.answers["GET /admin/tasks/t-1:watch"] = Stream(({"task": task("WORKING", "on it")},), "hang")
    process = start("tasks", "watch", "t-1")
    assert process.stderr is not None
    assert process.stderr.readline() == "working: on it\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the task goes on" in err


# agents


def test_agents_are_listed_with_health_and_reason(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/agents"] = Reply({"agents": [WEATHER, DOWN, {**WEATHER, "id": "twice", "shadowed": True}]})
    rows = gateway("agents", "list").out.splitlines()
    assert rows[1].split() == ["weather", "remote", "healthy", "yes", "Weather"]
    assert "unhealthy (connection refused)" in rows[2]
    assert "shadowed, healthy" in rows[3]


def test_one_agent_is_shown_with_its_card(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/agents"] = Reply({"agents": [WEATHER]})
    out = gateway("agents", "show", "weather").out
    assert "Weather 2.1\nKnows the weather.\nspeaks JSONRPC 1.0 at https://w.example/a2a\n" in out
    assert json.loads(gateway("agents", "show", "weather", "--json").out) == WEATHER


def test_an_unknown_agent_is_answered_with_the_known_ones(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/agents"] = Reply({"agents": [WEATHER]})
    result = gateway("agents", "show", "wether")
    assert (result.code, result.err) == (1, "gateway: There is no agent wether. Known: weather.\n")


def test_an_agent_is_added_and_the_next_command_is_shown(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/agents"] = Reply(WEATHER, 201)
    result = gateway("agents", "add", "https://w.example/card.json", "--id", "weather")
    assert result.code == 0
    assert fake.seen[0].body == {"cardUrl": "https://w.example/card.json", "id": "weather"}
    assert "now: Weather now [weather, now]" in result.out
    assert "for example: Will it rain in Zürich?" in result.out
    assert result.err.strip().endswith("gateway send weather 'Will it rain in Zürich?'")


def test_without_an_id_the_gateway_chooses_it(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/agents"] = Reply(WEATHER, 201)
    assert json.loads(gateway("agents", "add", "https://w.example", "--json").out) == WEATHER
    assert fake.seen[0].body == {"cardUrl": "https://w.example"}


@pytest.mark.security
@pytest.mark.parametrize("words", ["--out /etc", "two\nlines", "\x1b[2J", "x" * 500, 7])
def test_an_example_that_is_no_plain_sentence_is_not_put_into_a_command(
    gateway: Run, fake: FakeGateway, words: object
) -> None:
    card = {**CARD, "skills": [{"id": "s", "name": "s", "examples": [words]}]}
    fake.answers["POST /admin/agents"] = Reply({**WEATHER, "card": card}, 201)
    assert gateway("agents", "add", "https://w.example").err.strip().endswith("gateway send weather hi")


def test_an_agent_is_removed(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["DELETE /admin/agents/weather"] = Reply(None, 204)
    result = gateway("agents", "remove", "weather")
    assert (result.code, result.err) == (0, "Removed weather.\n")


# keys


def test_a_new_key_is_alone_on_standard_output(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/keys"] = Reply({"id": "k-1", "name": "ci", "key": "gw_abcdef", "prefix": "gw_abc"}, 201)
    result = gateway("keys", "add", "ci")
    assert (result.code, result.out) == (0, "gw_abcdef\n")
    assert "shown this one time" in result.err
    assert fake.seen[0].body == {"name": "ci"}


def test_json_gives_id_and_key_of_a_new_key(gateway: Run, fake: FakeGateway) -> None:
    made_key = {"id": "k-1", "name": "ci", "key": "gw_abcdef", "prefix": "gw_abc"}
    fake.answers["POST /admin/keys"] = Reply(made_key, 201)
    result = gateway("keys", "add", "ci", "--json")
    assert (json.loads(result.out), result.err) == (made_key, "")


def test_keys_are_listed_by_their_beginnings(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/keys"] = Reply({"keys": [KEY, {**KEY, "id": "k-2", "revoked": "2026-11-21T08:00:00Z"}]})
    rows = gateway("keys", "list").out.splitlines()
    assert rows[1].split() == ["k-1", "ci", "gw_abc…", "2025-11-21T08:00:00Z", "-"]
    assert rows[2].split()[-1] == "2026-11-21T08:00:00Z"


def test_a_key_is_revoked(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["DELETE /admin/keys/k-1"] = Reply(None, 204)
    assert gateway("keys", "revoke", "k-1").code == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("tasks",),
        ("tasks", "list", "--limit", "0"),
        ("tasks", "list", "--status", "odd"),
        ("nonsense",),
        ("keys", "add"),
    ],
)
def test_wrong_words_exit_with_2(gateway: Run, words: tuple[str, ...]) -> None:
    assert gateway(*words).code == 2


# approvals


def test_a_call_that_was_made_by_the_time_of_the_answer_was_approved_all_the_same(
    gateway: Run, fake: FakeGateway
) -> None:
    answer = {"id": "a-1", "action": "SendMessage", "target": "agents/desk", "missing": 0}
    for state, said in (("approved", "approved"), ("used", "approved"), ("rejected", "rejected")):
        fake.answers["GET /admin/approvals/a-1"] = Reply({**answer, "state": "waiting", "released": "ab" * 32})
        fake.answers["POST /admin/approvals/a-1:approve"] = Reply({**answer, "state": state})
        assert gateway("approvals", "approve", "a-1").err == f"SendMessage on agents/desk is {said}.\n"
        assert fake.seen[-1].body["seen"] == "ab" * 32


def test_an_edit_between_the_look_and_the_yes_of_the_program_makes_the_yes_void(
    gateway: Run, fake: FakeGateway
) -> None:
    fake.answers["GET /admin/approvals/a-1"] = Reply({"id": "a-1", "state": "waiting", "released": "ab" * 32})
    fake.answers["POST /admin/approvals/a-1:approve"] = refused(409, "OUTDATED", "It was edited meanwhile")
    result = gateway("approvals", "approve", "a-1")
    assert (result.code, "It was edited meanwhile" in result.err) == (1, True)
