"""The reference page of the program, made from its grammar.

`python -m gateway.cli.reference > docs/reference/cli.md`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from gateway.cli.exits import MEANING
from gateway.cli.grammar import ENVIRONMENT, program
from gateway.cli.parser import Parser

_HEAD = """\
# The `gateway` program

<!-- Made by `python -m gateway.cli.reference`; a test keeps it current. -->

`gateway serve` runs the gateway. The other commands speak to one that runs, with the credential of the data
folder. What was asked for goes to standard output; progress, hints and refusals go to standard error.

Text from agents is shown with control characters, terminal sequences and text-reordering characters escaped
(`\\u001b`). In JSON output these are JSON escapes, so the value stays exactly the same."""

_CREDENTIAL = """\
A credential is never an argument, because other users of the machine can read those. The credential of the
data folder is sent to this machine or over https, never in clear text to another machine."""


def markdown() -> str:
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield from (_HEAD, "", "## Environment", "")
    yield from _table(("variable", "what"), ((f"`{name}`", about) for name, about in ENVIRONMENT.items()))
    yield from ("", _CREDENTIAL, "")
    yield "## Exit codes"
    yield ""
    yield from _table(("code", "meaning"), ((str(int(code)), meaning) for code, meaning in MEANING.items()))
    for name, parser in program().subcommands.items():
        yield from _command(f"gateway {name}", parser, "##")
        for verb, leaf in parser.subcommands.items():
            yield from _command(f"gateway {name} {verb}", leaf, "###")


def _command(name: str, parser: Parser, mark: str) -> Iterator[str]:
    yield ""
    yield f"{mark} `{name}`"
    yield ""
    yield parser.about
    if parser.runs is None:
        return
    arguments = [action for action in parser._actions if action.dest != "help"]
    yield ""
    yield "```"
    yield " ".join([name, *map(_usage, arguments)])
    yield "```"
    if arguments:
        yield ""
        yield from _table(("argument", "what"), ((f"`{_name(action)}`", action.help or "") for action in arguments))


def _name(action: argparse.Action) -> str:
    words = [*action.option_strings[-1:], *([str(action.metavar)] if action.metavar else [])]
    return " ".join(words)


def _usage(action: argparse.Action) -> str:
    if action.nargs == "*":
        return f"[{action.metavar}…]"
    return f"[{_name(action)}]" if action.option_strings else _name(action)


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
