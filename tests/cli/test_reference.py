from __future__ import annotations

import importlib
from pathlib import Path

from gateway.cli.exits import MEANING, Exit
from gateway.cli.grammar import program
from gateway.cli.parser import Parser
from gateway.cli.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def leaves(parser: Parser) -> list[Parser]:
    below = [leaf for each in parser.subcommands.values() for leaf in leaves(each)]
    return below or [parser]


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "python -m gateway.cli.reference > docs/reference/cli.md"


def test_every_exit_code_is_documented() -> None:
    assert set(MEANING) == set(Exit)


def test_every_command_and_option_has_its_line_of_help() -> None:
    for leaf in leaves(program()):
        assert leaf.about.endswith(".")
        assert all(action.help for action in leaf._actions)


def test_behind_every_command_stands_its_function() -> None:
    for leaf in leaves(program()):
        assert leaf.runs is not None
        module, function = leaf.runs.split(":")
        if module != "serve":  # it imports the whole gateway; test_serve.py runs it
            assert callable(getattr(importlib.import_module(f"gateway.cli.{module}"), function))


def test_every_listing_and_creating_command_takes_json() -> None:
    commands = program().subcommands
    for noun, verbs in {
        "tasks": ("list", "get", "cancel", "watch"),
        "agents": ("list", "show", "add"),
        "keys": ("add", "list"),
        "tools": ("list", "show", "call", "approve"),
    }.items():
        for verb in verbs:
            assert "--json" in commands[noun].subcommands[verb].format_usage()
    assert "--json" in commands["send"].format_usage()


def test_no_command_takes_a_secret_as_an_argument() -> None:
    for leaf in leaves(program()):
        words = {option for action in leaf._actions for option in action.option_strings}
        assert not words & {"--token", "--key", "--password", "--secret"}
