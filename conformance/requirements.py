"""The duties of the protocol, and the tests that prove them.

`requirements.toml` lists every duty once. A test names the duties it proves:

    @pytest.mark.requirement("a2a.send.task-or-message")

    python -m conformance.requirements            prints what has no test yet
    python -m conformance.requirements --write    sets the states in the list from the marks in tests/
"""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = Path(__file__).with_name("requirements.toml")
TESTS = ROOT / "tests"

LEVELS = ("must", "should", "may")
TESTED, GAP = "tested", "gap"
NO_TEST = "no test yet"

_KEYS = {"link", "level", "sentence", "state", "reason"}


@dataclass(frozen=True)
class Requirement:
    id: str
    link: str
    level: str
    sentence: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Mark:
    """A place in the tests that names a duty; `id` is None when it cannot be read from the source."""

    id: str | None
    place: str


def load(manifest: Path = MANIFEST) -> dict[str, Requirement]:
    """The list; a duty that stands in it twice is an error of the TOML itself."""
    with manifest.open("rb") as file:
        tables = tomllib.load(file)
    return {name: _requirement(name, table) for name, table in tables.items()}


def _requirement(name: str, table: Mapping[str, str]) -> Requirement:
    if unknown := set(table) - _KEYS:
        raise ValueError(f"{name}: unknown keys {sorted(unknown)}")
    return Requirement(name, **table)


def marks(tests: Path = TESTS) -> list[Mark]:
    """Every requirement mark under `tests`, read from the source: nothing has to be importable."""
    # A contract holds tests too, which run wherever something promises to keep it.
    files = sorted(file for pattern in ("test_*.py", "contract*.py") for file in tests.rglob(pattern))
    return [mark for file in files for mark in _marks_in(file, tests)]


def _marks_in(file: Path, tests: Path) -> Iterator[Mark]:
    name = file.relative_to(tests.parent).as_posix()
    for node in ast.walk(ast.parse(file.read_text("utf-8"), filename=name)):
        if isinstance(node, ast.Call) and _is_mark(node.func):
            yield from (Mark(_constant(argument), f"{name}:{node.lineno}") for argument in node.args)


def _is_mark(function: ast.expr) -> bool:
    """Whether this is `….mark.requirement`: a decorator, a pytestmark or the marks of a pytest.param."""
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "requirement"
        and isinstance(function.value, ast.Attribute)
        and function.value.attr == "mark"
    )


def _constant(argument: ast.expr) -> str | None:
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def problems(requirements: Mapping[str, Requirement], found: list[Mark]) -> list[str]:
    """Where the list and the tests do not agree, one sentence each."""
    proven = {mark.id for mark in found}
    tested, gaps = _in(TESTED, requirements), _in(GAP, requirements)
    return [
        *(problem for requirement in requirements.values() for problem in _faults(requirement)),
        *(problem for mark in found for problem in _mark_faults(mark, requirements)),
        *(f"{duty.id}: is 'tested', but no test says so" for duty in tested if duty.id not in proven),
        *(f"{duty.id}: is a 'gap', but a test proves it" for duty in gaps if duty.id in proven),
    ]


def _mark_faults(mark: Mark, requirements: Mapping[str, Requirement]) -> Iterator[str]:
    if mark.id is None:
        yield f"{mark.place}: name the requirement as a plain string, so that it can be found"
    elif mark.id not in requirements:
        yield f"{mark.place}: no requirement '{mark.id}'"


def _in(state: str, requirements: Mapping[str, Requirement]) -> list[Requirement]:
    return [requirement for requirement in requirements.values() if requirement.state == state]


def _faults(requirement: Requirement) -> Iterator[str]:
    if requirement.level not in LEVELS:
        yield f"{requirement.id}: level '{requirement.level}' is none of {', '.join(LEVELS)}"
    if not requirement.link.startswith("https://"):
        yield f"{requirement.id}: link is no https address"
    if requirement.state not in (TESTED, GAP):
        yield f"{requirement.id}: state '{requirement.state}' is neither '{TESTED}' nor '{GAP}'"
    if (requirement.state == GAP) != bool(requirement.reason):
        yield f"{requirement.id}: a gap needs a reason, and nothing else has one"


_TABLE = re.compile(r'^\["(?P<id>[^"]+)"\]\n(?P<body>(?:\w+ = .*\n)+)', re.MULTILINE)
_STATE = re.compile(r"^(?:state|reason) = .*\n", re.MULTILINE)


def updated(text: str, proven: set[str]) -> str:
    """The list with its states set from `proven`; a gap keeps the reason it has."""

    def table(match: re.Match[str]) -> str:
        name, body = match["id"], match["body"]
        was_gap = f'state = "{GAP}"\n' in body
        if was_gap != (name in proven):
            return match[0]
        state = f'state = "{TESTED}"\n' if was_gap else f'state = "{GAP}"\nreason = "{NO_TEST}"\n'
        return f'["{name}"]\n{_STATE.sub("", body)}{state}'

    return _TABLE.sub(table, text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.requirements", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true", help="set the states in the list from the marks")
    found = marks()
    if parser.parse_args().write:
        proven = {mark.id for mark in found if mark.id}
        MANIFEST.write_text(updated(MANIFEST.read_text("utf-8"), proven), "utf-8")
    requirements = load()
    gaps = _in(GAP, requirements)
    for gap in gaps:
        print(f"{gap.level:<7}{gap.id:<44}{gap.reason}")
    print(f"{len(requirements) - len(gaps)} of {len(requirements)} requirements have a test")
    wrong = problems(requirements, found)
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
