"""What every command's words are made of."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse without guessing: an option is written in full, so a new one never changes an old script."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self.about: str = settings.get("description") or ""
        self.subcommands: dict[str, Parser] = {}
        self._nouns: argparse._SubParsersAction[Parser] | None = None
        self.runs: str | None = None
        self.leaf: Parser | None = None

    def command(self, name: str, about: str, run: str | None = None) -> Parser:
        if self._nouns is None:
            self._nouns = self.add_subparsers(metavar="COMMAND", required=True, title="commands")
        parser = self._nouns.add_parser(name, help=about, description=about)
        parser.runs = run
        if run is not None:
            parser.set_defaults(run=run, parser=parser)
        self.subcommands[name] = parser
        return parser


def data_folder(parser: Parser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="The data folder. Default: GATEWAY_DATA.")


def as_json(parser: Parser, about: str = "Print JSON.") -> None:
    parser.add_argument("--json", action="store_true", help=about)


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("must be 1 to 10000")
    return int(text)


class Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata takes as long as everything else here."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"gateway {version('gateway')}")
        parser.exit()
