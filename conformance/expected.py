"""What we know the kit will not pass, and the comparison with what it did."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conformance.kit import Test

FOLDER = Path(__file__).with_name("expected")
KINDS = ("kit", "older", "capability", "elsewhere")


@dataclass(frozen=True)
class Expectation:
    tests: tuple[str, ...]
    outcome: str
    kind: str
    because: str

    def fits(self, test: str) -> bool:
        return any(_pattern(name).fullmatch(test) for name in self.tests)


@dataclass(frozen=True)
class Explained:
    """A test that did not pass, with the reason why that is as it should be."""

    test: str
    outcome: str
    kind: str
    because: str


@dataclass(frozen=True)
class Comparison:
    explained: list[Explained] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def load(*names: str, folder: Path = FOLDER) -> list[Expectation]:
    """The expectations of these files, in order; a file that is not there expects nothing."""
    files = [folder / f"{name}.toml" for name in names]
    return [entry for file in files if file.exists() for entry in _entries(file)]


def _entries(file: Path) -> Iterator[Expectation]:
    with file.open("rb") as stream:
        for entry in tomllib.load(stream)["expected"]:
            expectation = Expectation(**(entry | {"tests": tuple(entry["tests"])}))
            if expectation.kind not in KINDS:
                raise ValueError(f"{file.name}: kind '{expectation.kind}' is none of {', '.join(KINDS)}")
            yield expectation


def _pattern(name: str) -> re.Pattern[str]:
    """Only `*` is special: test names are full of the brackets that fnmatch would read."""
    return re.compile(".*".join(re.escape(piece) for piece in name.split("*")))


def compare(tests: list[Test], expectations: list[Expectation], *, whole: bool) -> Comparison:
    """Every test against its first expectation. `whole`: all tests ran, so each expected name must occur."""
    compared = Comparison()
    for test in tests:
        entry = next((entry for entry in expectations if entry.fits(test.name)), None)
        if entry and test.outcome == entry.outcome:
            compared.explained.append(Explained(test.name, test.outcome, entry.kind, entry.because))
        elif entry or test.outcome != "passed":
            compared.unexpected.append(_surprise(test, entry))
    if whole:
        compared.unexpected.extend(_unheard(tests, expectations))
    return compared


def _surprise(test: Test, entry: Expectation | None) -> str:
    expected = f", expected to be {entry.outcome}" if entry else ""
    detail = f": {test.message.splitlines()[0][:300]}" if test.message else ""
    return f"{test.name} {test.outcome}{expected}{detail}"


def _unheard(tests: list[Test], expectations: list[Expectation]) -> Iterator[str]:
    for entry in expectations:
        for name in entry.tests:
            if not any(_pattern(name).fullmatch(test.name) for test in tests):
                yield f"{name} is expected to be {entry.outcome}, but the kit has no such test"
