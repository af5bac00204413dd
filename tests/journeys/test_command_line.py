"""The program against a real gateway, as a person at a terminal and as a script uses it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.remote import PROGRAM, Process, command, environment, process
from tests.serving import BOUND, ECHO, ROOT


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One gateway for the whole file: these tests only talk to it."""
    with process(tmp_path_factory.mktemp("gateway"), ECHO) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Somebody else's agent, which anybody on this machine may use."""
    with process(tmp_path_factory.mktemp("far"), ECHO, "--anonymous") as far:
        yield far


def say(gateway: Process, *words: str, code: int = 0) -> Any:
    ended = command(gateway.data, *words, url=gateway.url)
    assert ended.returncode == code, ended
    assert "Traceback" not in ended.stderr
    return ended


def shown(gateway: Process, *words: str) -> Any:
    return json.loads(say(gateway, *words, "--json").stdout)


def test_what_serve_prints_can_be_copied_as_it_stands(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:
        assert gateway.popen.stdout is not None
        lines: list[str] = []
        while not (lines and "send" in lines[-1]):
            lines.append(gateway.popen.stdout.readline().strip())
        curl, send = lines[-2:]
        assert gateway.token not in "\n".join(lines)
        for line in (curl, send):
            ended = subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment(tmp_path)
            )
            assert ended.returncode == 0, (line, ended)
            assert "hi" in ended.stdout


def test_send_prints_the_answer_and_nothing_else(gateway: Process) -> None:
    ended = say(gateway, "send", "echo", "hi")
    assert ended.stdout == "hi\n"


def test_send_streams_an_answer_as_it_comes(gateway: Process) -> None:
    words = [str(PROGRAM), "send", "echo", "wait 2"]
    environ = environment(gateway.data, GATEWAY_URL=gateway.url)
    sending = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    assert sending.stderr is not None
    first = ""
    while "0 of 2 s" not in first:
        first = sending.stderr.readline()
        assert first, "ended before it said anything"
    assert sending.poll() is None  # the progress is here before the end is
    out, _ = sending.communicate(timeout=BOUND)
    assert (out, sending.returncode) == ("Waited 2 s.\n", 0)
    assert say(gateway, "send", "echo", "count 3").stdout.splitlines() == ["== count", "1", "2", "3", "Counted to 3."]


def test_a_question_is_answered_with_the_command_that_is_shown(gateway: Process) -> None:
    asked = say(gateway, "send", "echo", "ask", code=3)
    shown_command = next(line.strip() for line in asked.stderr.splitlines() if " send echo --task" in line)
    words = shlex.split(shown_command.replace("'your answer'", "blue"))
    program = words.index(next(word for word in words if word.endswith("gateway")))
    assert say(gateway, *words[program + 1 :]).stdout == "blue\n"


def test_a_failed_task_is_exit_code_1(gateway: Process) -> None:
    failed = say(gateway, "send", "echo", "fail", code=1)
    assert "Failed, as you asked." in failed.stdout + failed.stderr
    refused = say(gateway, "send", "nobody", "hi", code=1)
    assert refused.stderr == "gateway: There is no such agent here\n"


def test_tasks_are_listed_shown_watched_and_canceled(gateway: Process) -> None:
    id = say(gateway, "send", "--no-wait", "echo", "wait 60").stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{32}", id)
    listed = say(gateway, "tasks", "list", "--agent", "echo", "--status", "working").stdout
    assert id in listed
    assert shown(gateway, "tasks", "get", id)["task"]["status"]["state"] == "TASK_STATE_WORKING"
    assert "state    working" in say(gateway, "tasks", "get", id).stdout
    watching: list[Any] = []
    watcher = threading.Thread(target=lambda: watching.append(say(gateway, "tasks", "watch", id, code=1)))
    watcher.start()
    assert say(gateway, "tasks", "cancel", id).stdout == f"task {id} is canceled\n"
    watcher.join(BOUND)
    assert watching
    again = say(gateway, "tasks", "cancel", id, code=1)
    assert "has ended already" in again.stderr
    assert say(gateway, "tasks", "get", "0" * 32, code=1).stderr == "gateway: Task not found\n"


def test_ctrl_c_leaves_the_task_at_work(gateway: Process) -> None:
    environ = environment(gateway.data, GATEWAY_URL=gateway.url)
    words = [str(PROGRAM), "send", "echo", "wait 2"]
    sending = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    assert sending.stderr is not None
    while "of 2 s" not in sending.stderr.readline():
        assert sending.poll() is None
    sending.send_signal(signal.SIGINT)
    _, said = sending.communicate(timeout=BOUND)
    assert sending.returncode == 130
    (watch,) = (line.split("tasks watch ")[1] for line in said.splitlines() if "tasks watch" in line)
    assert say(gateway, "tasks", "watch", watch).stdout == "Waited 2 s.\n"


def test_a_tool_server_added_to_the_demo_is_used_at_once_and_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with process(data, cwd=tmp_path) as gateway:
        say(gateway, "tools", "add", "things", "--", sys.executable, str(ROOT / "conformance/fixtures/tool_server.py"))
        said = say(gateway, "tools", "call", "things/test_simple_text")
        assert said.stdout.strip() == "This is a simple text response for testing."
    with process(data, cwd=tmp_path) as gateway:
        assert "simple text" in say(gateway, "tools", "call", "things/test_simple_text").stdout
        assert say(gateway, "send", "echo", "still here").stdout.strip() == "still here"


def test_a_remote_agent_is_added_shown_used_and_removed(gateway: Process, far: Process) -> None:
    added = say(gateway, "agents", "add", far.url, "--id", "far")
    assert "skills:" in added.stdout
    assert "health   healthy" in added.stdout
    tried = shlex.split(added.stderr.splitlines()[-1])
    assert tried[-3:-1] == ["send", "far"]
    listed = {agent["id"]: agent for agent in shown(gateway, "agents", "list")["agents"]}
    assert listed["far"]["kind"] == "remote"
    assert "far" in say(gateway, "agents", "list").stdout
    assert shown(gateway, "agents", "show", "far")["card"]["supportedInterfaces"][0]["url"].startswith(gateway.url)
    assert say(gateway, "send", "far", "count 3").stdout.splitlines()[:4] == ["== count", "1", "2", "3"]
    taken = say(gateway, "agents", "add", far.url, "--id", "far", code=1)
    assert taken.stderr == "gateway: An agent named 'far' is registered already; give another name with --id NAME\n"
    say(gateway, "agents", "remove", "far")
    assert "There is no agent far" in say(gateway, "agents", "show", "far", code=1).stderr


def test_agents_add_takes_the_id_from_the_card_and_says_why_it_refuses(gateway: Process, far: Process) -> None:
    taken = say(gateway, "agents", "add", far.url, code=1)  # its card calls it Echo, like ours
    assert "registered already" in taken.stderr
    down = say(gateway, "agents", "add", "http://127.0.0.1:1", "--id", "down", code=1)
    assert "could not be reached" in down.stderr or "refused the connection" in down.stderr
    assert len(down.stderr.splitlines()) == 1


def test_a_key_is_shown_once_works_and_can_be_revoked(gateway: Process) -> None:
    made = say(gateway, "keys", "add", "alice")
    key = made.stdout.strip()
    assert key.startswith("gw_")
    assert key not in made.stderr
    (entry,) = shown(gateway, "keys", "list")["keys"]
    assert entry["name"] == "alice"
    assert key not in json.dumps(entry)
    assert key.startswith(entry["prefix"])
    environ = {"GATEWAY_TOKEN": key}
    sent = command(gateway.data, "send", "echo", "from alice", url=gateway.url, **environ)
    assert (sent.returncode, sent.stdout) == (0, "from alice\n")
    denied = command(gateway.data, "keys", "list", url=gateway.url, **environ)
    assert denied.returncode == 1
    assert len(denied.stderr.splitlines()) == 1
    say(gateway, "keys", "revoke", entry["id"])
    refused = command(gateway.data, "send", "echo", "hi", url=gateway.url, **environ)
    assert refused.returncode == 1
    assert "does not accept the credential" in refused.stderr
    assert shown(gateway, "keys", "list")["keys"][0]["revoked"]
    assert "There is no key" in say(gateway, "keys", "revoke", "none", code=1).stderr


def test_a_key_lists_shows_watches_and_cancels_its_own_tasks_and_no_others(gateway: Process) -> None:
    foreign = say(gateway, "send", "--no-wait", "echo", "wait 60").stdout.strip()
    key = say(gateway, "keys", "add", "bea").stdout.strip()

    def bea(*words: str, code: int = 0) -> Any:
        ended = command(gateway.data, *words, url=gateway.url, GATEWAY_TOKEN=key)
        assert ended.returncode == code, ended
        return ended

    sent = bea("send", "--no-wait", "echo", "wait 60")
    id = sent.stdout.strip()
    ended = bea("send", "--json", "echo", "hi")
    listed = json.loads(bea("tasks", "list", "--json").stdout)["tasks"]
    # In whatever order: the one that waits says so each second, and then it is the last that changed.
    assert {entry["task"]["id"] for entry in listed} == {json.loads(ended.stdout)["task"]["id"], id}
    assert {entry["agent"] for entry in listed} == {"echo"}
    assert id in bea("tasks", "list", "--agent", "echo", "--status", "working").stdout
    assert bea("tasks", "list", "--limit", "1").stderr == "There are more: --limit shows more than 1.\n"
    assert "state    working" in bea("tasks", "get", id).stdout
    printed = shlex.split(sent.stderr.partition("Watch it with: ")[2])
    watching: list[Any] = []
    watcher = threading.Thread(target=lambda: watching.append(bea(*printed[-3:], code=1)))
    watcher.start()
    assert bea("tasks", "cancel", id).stdout == f"task {id} is canceled\n"
    watcher.join(BOUND)
    assert watching
    for verb in ("get", "watch", "cancel"):
        assert bea("tasks", verb, foreign, code=1).stderr == "gateway: Task not found\n"
    say(gateway, "tasks", "cancel", foreign)


def test_a_key_for_programs_is_json(gateway: Process) -> None:
    made = shown(gateway, "keys", "add", "ci")
    answer = gateway.call("GET", "/agents", who=made["key"])
    assert answer.status_code == 200
    say(gateway, "keys", "revoke", made["id"])
    assert gateway.call("GET", "/agents", who=made["key"]).status_code == 401


def test_token_prints_the_credential_of_the_data_folder(gateway: Process, tmp_path: Path) -> None:
    assert say(gateway, "token").stdout == gateway.token + "\n"
    missing = command(tmp_path, "token")
    assert missing.returncode == 1
    assert "There is no credential" in missing.stderr


def test_no_gateway_is_exit_code_4_with_the_command_that_starts_one(tmp_path: Path) -> None:
    ended = command(tmp_path, "send", "echo", "hi", url="http://127.0.0.1:1")
    assert ended.returncode == 4
    assert "No gateway answers at http://127.0.0.1:1" in ended.stderr
    assert "serve" in ended.stderr


def test_a_watched_task_is_followed_through_a_restart(tmp_path: Path, port: int) -> None:
    with process(tmp_path, ECHO, port=port) as gateway:
        environ = environment(tmp_path, GATEWAY_URL=gateway.url)
        sending = subprocess.Popen(
            [str(PROGRAM), "send", "echo", "wait 2"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        assert sending.stderr is not None
        while "of 2 s" not in sending.stderr.readline():
            assert sending.poll() is None
        gateway.kill()
    with process(tmp_path, ECHO, port=port):
        out, _ = sending.communicate(timeout=60)
        assert (out, sending.returncode) == ("Waited 2 s.\n", 0)


def test_the_admin_api_wants_the_credential(gateway: Process) -> None:
    for path in ("/admin/agents", "/admin/keys", "/admin/tasks"):
        assert httpx2.get(gateway.url + path, timeout=BOUND, trust_env=False).status_code == 401
