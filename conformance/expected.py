"""What we know the kit will not pass, test by test, and the comparison with what it did."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from conformance.kit import Verdict

FOLDER = Path(__file__).with_name("expected")
KINDS = ("kit", "older", "capability", "elsewhere")


@dataclass(frozen=True)
class Expectation:
    outcome: str
    kind: str
    because: str


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


def load(*names: str, folder: Path = FOLDER) -> dict[str, Expectation]:
    """The expectations of these files, by the name of the test."""
    expectations: dict[str, Expectation] = {}
    for name in names:
        file = folder / f"{name}.toml"
        with file.open("rb") as stream:
            entries = tomllib.load(stream)["expected"]
        for entry in entries:
            tests = entry.pop("tests")
            expectation = Expectation(**entry)
            if expectation.kind not in KINDS:
                raise ValueError(f"{file.name}: kind '{expectation.kind}' is none of {', '.join(KINDS)}")
            if twice := sorted({test for test in tests if test in expectations or tests.count(test) > 1}):
                raise ValueError(f"{file.name}: {twice[0]} has an expectation already")
            expectations |= dict.fromkeys(tests, expectation)
    return expectations


def compare(tests: list[Verdict], expectations: dict[str, Expectation], *, whole: bool) -> Comparison:
    """Every test against its expectation. `whole`: all tests ran, so each expected name must occur."""
    compared = Comparison()
    for test in tests:
        entry = expectations.get(test.name)
        if entry and test.outcome == entry.outcome:
            compared.explained.append(Explained(test.name, test.outcome, entry.kind, entry.because))
        elif entry or test.outcome != "passed":
            compared.unexpected.append(_surprise(test, entry))
    heard = {test.name for test in tests}
    compared.unexpected.extend(
        f"{name} is expected to be {entry.outcome}, but the kit has no such test"
        for name, entry in expectations.items()
        if whole and name not in heard
    )
    return compared


def _surprise(test: Verdict, entry: Expectation | None) -> str:
    expected = f", expected to be {entry.outcome}" if entry else ""
    detail = f": {test.message.splitlines()[0][:300]}" if test.message else ""
    return f"{test.name} {test.outcome}{expected}{detail}"
