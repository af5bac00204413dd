from __future__ import annotations

import base64
import json
import shlex
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Start
from tests.cli.fake_gateway import FakeGateway, Reply, Stream, made, message, moved, refused, task, text

STREAM = "SendStreamingMessage echo"
SUBSCRIBE = "SubscribeToTask echo"


def completed(*events: dict[str, object]) -> Stream:
    return Stream(({"task": task("SUBMITTED")}, *events, moved("COMPLETED")))


def test_a_message_is_printed_and_ends_well(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"message": message("hi yourself")},))
    result = gateway("send", "echo", "hi", "there")
    assert (result.code, result.out, result.err) == (0, "hi yourself\n", "")
    (params,) = fake.calls("SendStreamingMessage")
    assert params["message"]["parts"] == [{"text": "hi there"}]
    assert params["message"]["role"] == "ROLE_USER"
    assert len(params["message"]["messageId"]) == 36
    assert fake.seen[0].path == "/agents/echo"
    assert fake.seen[0].headers["A2A-Version"] == "1.0"
    assert fake.seen[0].headers["Accept"] == "text/event-stream"


def test_results_go_to_stdout_as_they_stream_and_progress_to_stderr(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = completed(
        moved("WORKING", "reading…"),
        made(text("forty-"), name="answer.txt"),
        made(text("two"), append=True),
        made({"data": {"n": 42}}, id="a-2", name="numbers"),
    )
    result = gateway("send", "echo", "hi")
    assert result.code == 0
    assert result.out == '== answer.txt\nforty-two\n== numbers\n{\n  "n": 42\n}\n'
    assert result.err == "working: reading…\n"


@pytest.mark.parametrize("state", ["FAILED", "REJECTED", "CANCELED"])
def test_a_task_that_ends_badly_says_why_and_exits_with_1(gateway: Run, fake: FakeGateway, state: str) -> None:
    fake.answers[STREAM] = Stream(({"task": task("SUBMITTED")}, moved(state, "the disk is full")))
    result = gateway("send", "echo", "hi")
    assert (result.code, result.out, result.err) == (1, "", f"{state.lower()}: the disk is full\n")


def test_a_question_exits_with_3_and_shows_the_command_that_answers_it(gateway: Run, fake: FakeGateway) -> None:
    asked = message("Which year?", metadata={"schema": {"type": "integer"}})
    fake.answers[STREAM] = Stream(({"task": task("WORKING")}, moved("INPUT_REQUIRED", message=asked)), "hang")
    result = gateway("send", "echo", "hi")
    assert (result.code, result.out) == (3, "Which year?\n")
    assert '{"type": "integer"}' in result.err
    command = result.err.splitlines()[-1].strip()
    assert command.endswith("gateway send echo --task t-1 'your answer'")
    assert command.startswith(f"GATEWAY_URL={fake.url} GATEWAY_DATA=")

    # …and the words of that command continue the task.
    fake.answers["GetTask echo"] = Reply(
        task("INPUT_REQUIRED", "Which year?", artifacts=[{"artifactId": "old", "parts": [text("old")]}])
    )
    fake.answers[STREAM] = Stream((
        {"task": task("INPUT_REQUIRED", "Which year?", artifacts=[{"artifactId": "old", "parts": [text("old")]}])},
        moved("COMPLETED", "A good one."),
    ))  # fmt: skip
    words = shlex.split(command)
    result = gateway(*words[words.index("send") :])
    assert fake.calls("SendStreamingMessage")[-1]["message"]["taskId"] == "t-1"
    assert (result.code, result.out) == (0, "A good one.\n")


def test_waiting_for_authorization_exits_with_3(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"task": task("WORKING")}, moved("AUTH_REQUIRED", "Sign in at https://x.example")))
    result = gateway("send", "echo", "hi")
    assert (result.code, result.out) == (3, "Sign in at https://x.example\n")
    assert "waits for authorization" in result.err


def test_who_waits_for_somebody_elses_approval_is_not_told_to_answer(gateway: Run, fake: FakeGateway) -> None:
    others = message("It waits for lea.", metadata={"approval": "a-1", "approvers": ["lea"]})
    own = message("It waits for you.", metadata={"approval": "a-1", "schema": {}})
    for said, hint in ((others, "gateway tasks get t-1"), (own, "gateway send echo --task t-1 'your answer'")):
        fake.answers[STREAM] = Stream(({"task": task("WORKING")}, moved("AUTH_REQUIRED", message=said)))
        result = gateway("send", "echo", "hi")
        assert result.code == 3
        assert result.err.splitlines()[-1].endswith(hint)


def test_files_json_and_ids_travel(gateway: Run, fake: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"\x00\xff")
    fake.answers[STREAM] = Stream(({"message": message("ok")},))
    words = ("--file", tmp_path / "note.txt", "--data", '{"a": [1]}', "--context", "c-9", "--message-id", "m-9")
    assert gateway("send", "echo", *words, "look", "at this").code == 0
    assert fake.calls("SendStreamingMessage")[0]["message"] == {
        "messageId": "m-9",
        "role": "ROLE_USER",
        "contextId": "c-9",
        "parts": [
            {"text": "look at this"},
            {"raw": base64.b64encode(b"\x00\xff").decode(), "filename": "note.txt", "mediaType": "text/plain"},
            {"data": {"a": [1]}},
        ],
    }


def test_text_comes_from_standard_input(start: Start, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"message": message("ok")},))
    process = start("send", "echo", "-")
    out, err = process.communicate("many\nlines\n", timeout=60)
    assert (process.returncode, out, err) == (0, "ok\n", "")
    assert fake.calls("SendStreamingMessage")[0]["message"]["parts"] == [{"text": "many\nlines\n"}]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Nothing to send"),
        (("a", "-"), "leave the other words out"),
        (("--file", "/no/such/file"), "--file /no/such/file: No such file or directory"),
        (("--data", "/srv/gateway"), "GATEWAY_DATA"),
        (("--file",), "expected one argument"),
        (("hi", "--bogus"), "unrecognized arguments: --bogus"),
    ],
)
def test_words_that_make_no_message_exit_with_2_and_send_nothing(
    gateway: Run, fake: FakeGateway, words: tuple[str, ...], sentence: str
) -> None:
    result = gateway("send", "echo", *words)
    assert result.code == 2
    assert sentence in result.err
    assert not fake.seen


def test_words_after_options_and_after_two_dashes_are_text(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"message": message("ok")},))
    assert gateway("send", "echo", "a", "--context", "c", "b").code == 0
    assert gateway("send", "echo", "--context", "c", "--", "--b").code == 0
    assert [call["message"]["parts"][0]["text"] for call in fake.calls("SendStreamingMessage")] == ["a b", "--b"]


def test_json_prints_the_final_task_once(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = completed(made(text("x")))
    fake.answers["GetTask echo"] = Reply(task("COMPLETED"))
    result = gateway("send", "echo", "hi", "--json")
    assert (result.code, json.loads(result.out), result.err) == (0, {"task": task("COMPLETED")}, "")


def test_json_prints_the_message(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"message": message("ok")},))
    assert json.loads(gateway("send", "echo", "hi", "--json").out) == {"message": message("ok")}


def test_no_wait_prints_the_id_alone(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["SendMessage echo"] = Reply({"task": task("SUBMITTED")})
    result = gateway("send", "echo", "hi", "--no-wait")
    assert (result.code, result.out) == (0, "t-1\n")
    assert "gateway tasks watch t-1" in result.err
    assert fake.calls("SendMessage")[0]["configuration"] == {"returnImmediately": True}


def test_a_broken_stream_is_subscribed_to_again_and_nothing_is_printed_twice(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"task": task("WORKING")}, moved("WORKING", "on it"), made(text("one "))), "break")
    whole = {"artifactId": "a-1", "parts": [text("one "), text("two ")]}
    fake.answers[SUBSCRIBE] = [
        Stream(({"task": task("WORKING", "on it", artifacts=[whole])},), "break"),
        Stream(
            (
                {"task": task("WORKING", "on it", artifacts=[whole])},
                made(text("three"), append=True),
                moved("COMPLETED"),
            )
        ),
    ]
    result = gateway("send", "echo", "hi")
    assert (result.code, result.out) == (0, "one two three\n")
    assert result.err.count("on it") == 1
    assert result.err.count("Subscribing again") == 2


def test_a_task_that_ended_while_the_stream_was_broken_is_read_instead(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"task": task("WORKING")},), "break")
    fake.answers[SUBSCRIBE] = Reply(
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32004, "message": "It has ended"}}, 400
    )
    fake.answers["GetTask echo"] = Reply(task("COMPLETED", "All done."))
    result = gateway("send", "echo", "hi")
    assert (result.code, result.out) == (0, "All done.\n")


def test_a_stream_that_keeps_breaking_is_given_up_with_the_command_to_go_on(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"task": task("WORKING")},), "break")
    fake.answers[SUBSCRIBE] = Stream(({"task": task("WORKING")},), "break")
    result = gateway("send", "echo", "hi")
    assert result.code == 4
    assert len(fake.calls("SubscribeToTask")) == 3
    assert "Watch it with:" in result.err
    assert result.err.strip().endswith("gateway tasks watch t-1")


def test_a_connection_that_breaks_before_any_answer_says_how_to_send_the_same_again(
    gateway: Run, fake: FakeGateway
) -> None:
    fake.answers[STREAM] = Stream((), "break")
    result = gateway("send", "echo", "hi", "--message-id", "m-7")
    assert result.code == 4
    assert "--message-id m-7" in result.err
    assert len(fake.calls("SendStreamingMessage")) == 1


def test_ctrl_c_leaves_the_task_alone_and_shows_how_to_watch_or_cancel_it(start: Start, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"task": task("WORKING")}, moved("WORKING", "on it")), "hang")
    process = start("send", "echo", "hi")
    assert process.stderr is not None
    assert process.stderr.readline() == "working: on it\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "gateway tasks watch t-1" in err
    assert "gateway tasks cancel t-1" in err
    assert "Traceback" not in err


def test_the_gateways_refusal_is_shown_as_it_says_it(gateway: Run, fake: FakeGateway) -> None:
    result = gateway("send", "nobody", "hi")
    assert (result.code, result.err) == (1, "gateway: Nothing at SendStreamingMessage nobody\n")
    fake.answers[STREAM] = refused(429, "RESOURCE_EXHAUSTED", "Too many runs; try again in 2 s")
    assert gateway("send", "echo", "hi").err == "gateway: Too many runs; try again in 2 s\n"


def test_an_agents_id_cannot_lead_to_another_path(gateway: Run, fake: FakeGateway) -> None:
    gateway("send", "../admin/keys", "hi")
    gateway("send", "..", "hi")
    assert [seen.path for seen in fake.seen] == ["/agents/..%2Fadmin%2Fkeys", "/agents/%2E%2E"]


def test_a_line_end_of_unicode_inside_an_event_stays_inside(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = Stream(({"message": message("a\u2028b\x85c")},))
    assert gateway("send", "echo", "hi").out == "a\\u2028b\\u0085c\n"


@pytest.mark.security
def test_an_agent_cannot_command_the_terminal(gateway: Run, fake: FakeGateway) -> None:
    evil = "\x1b]0;pwned\x07\u202e\rhidden"
    fake.answers[STREAM] = Stream((
        {"task": task("SUBMITTED", id="t\x1b[2J")},
        moved("WORKING", evil),
        made(text(evil), {"url": "https://x/" + evil}, {"data": evil}, {"raw": "eA==", "filename": evil}, name=evil),
        {"task": task("INPUT_REQUIRED", evil, id=f"t'; reboot\n{evil}")},
    ))  # fmt: skip
    result = gateway("send", "echo", "hi")
    for character in "\x1b\x07\u202e\r":
        assert character not in result.out + result.err
    # The command to copy stays one command: the id is one quoted word of it.
    assert len(result.err.splitlines()[-1].split("--task")) == 2
    assert shlex.split(result.err.splitlines()[-1])[-2].startswith("t'; reboot ")


@pytest.mark.security
def test_files_are_saved_under_their_last_name_only_and_overwrite_nothing(
    gateway: Run, fake: FakeGateway, tmp_path: Path
) -> None:
    def raw(name: str | None, content: bytes, kind: str = "image/png") -> dict[str, str]:
        named = {} if name is None else {"filename": name}
        return {"raw": base64.b64encode(content).decode(), "mediaType": kind, **named}

    out = tmp_path / "out"
    fake.answers[STREAM] = completed(
        made(
            raw("plot.png", b"1"),
            raw("../../plot.png", b"2"),
            raw("..\\.bashrc", b"3"),
            raw(None, b"4"),
            raw("..", b"5"),
        ),
        made({"raw": "no base64!", "filename": "x"}, id="a-2"),
    )
    result = gateway("send", "echo", "hi", "--out", out)
    assert result.code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "plot.png": b"1", "plot-2.png": b"2", "bashrc": b"3", "file.png": b"4", "file-2.png": b"5",
    }  # fmt: skip
    assert f"[plot.png, image/png, 1 byte: saved as {out}/plot.png]" in result.out
    assert "[x: not readable as base64]" in result.out
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("out", "data")] == []


def test_without_out_a_file_is_named_with_its_size(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = completed(made({"raw": "eHl6", "filename": "a.bin", "mediaType": "application/x"}))
    assert gateway("send", "echo", "hi").out == "[a.bin, application/x, 3 bytes; --out DIR saves it]\n"


def test_an_artifact_that_is_replaced_is_printed_anew(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[STREAM] = completed(made(text("draft"), name="plan"), made(text("final"), name="plan"))
    assert gateway("send", "echo", "hi").out == "== plan\ndraft\n== plan (new version)\nfinal\n"
