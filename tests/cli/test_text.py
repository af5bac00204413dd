from __future__ import annotations

import json

import pytest

from gateway.cli.text import clean, dump, line, table

pytestmark = pytest.mark.security


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
        ("\x9b2J", r"\u009b2J"),  # CSI as one C1 byte
        ("over\rwritten\x08", r"over\u000dwritten\u0008"),
        ("user\u202enimda", r"user\u202enimda"),
        ("\u2066isolate\u2069", r"\u2066isolate\u2069"),
        ("pay\u200bpal", r"pay\u200bpal"),
        ("line\u2028end", r"line\u2028end"),
        ("tag\U000e0041", r"tag\udb40\udc41"),
        ("half\ud800", r"half\ud800"),
        ("\x7f", r"\u007f"),
    ],
)
def test_what_could_command_a_terminal_or_deceive_a_reader_is_shown_as_its_number(sent: str, shown: str) -> None:
    assert clean(sent) == shown


def test_words_of_every_language_lines_and_tabs_stay() -> None:
    said = "Grüße, 世界, مرحبا, नमस्ते, 👩\u200d💻\n\tend"
    assert clean(said) == said


def test_the_line_ends_of_windows_become_plain_ones() -> None:
    assert clean("a\r\nb") == "a\nb"


def test_a_name_is_one_line_and_has_an_end() -> None:
    assert line("two\nlines\tand\x1b[m") == r"two lines and\u001b[m"
    assert line("x" * 300, 10) == "x" * 9 + "…"


def test_json_output_says_the_very_same_value_without_the_characters(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "\x1b[31m\u202e\x7f\r\n\U000e0041 ü \ud800"}
    dump(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert clean(printed) == printed
    assert "ü" in printed


def test_a_cell_cannot_start_a_row_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "B"), [("x\nfake  row", "y"), ("1", "")])
    assert capsys.readouterr().out == "A           B\nx fake row  y\n1\n"
