"""The list of protocol duties and the tests that prove them say the same."""

from pathlib import Path

import pytest

from conformance.requirements import Mark, Requirement, load, marks, problems, updated

LINK = "https://example.com/spec#1"


def duty(state: str = "tested", **changes: str) -> dict[str, Requirement]:
    fields = {"link": LINK, "level": "must", "sentence": "Something is so.", "state": state}
    return {"a.b": Requirement("a.b", **(fields | changes))}


def test_the_list_and_the_marks_agree() -> None:
    assert problems(load(), marks()) == [], "python -m conformance.requirements --write sets the states"


def test_a_tested_duty_without_a_test_is_a_problem() -> None:
    assert problems(duty(), []) == ["a.b: is 'tested', but no test says so"]


def test_a_mark_without_a_duty_is_a_problem() -> None:
    found = [Mark("a.b", "tests/test_x.py:1"), Mark("a.c", "tests/test_x.py:9")]
    assert problems(duty(), found) == ["tests/test_x.py:9: no requirement 'a.c'"]


def test_a_gap_that_a_test_proves_is_a_problem() -> None:
    gap = duty("gap", reason="not built")
    assert problems(gap, [Mark("a.b", "tests/test_x.py:1")]) == ["a.b: is a 'gap', but a test proves it"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"state": "gap"}, "needs a reason"),
        ({"state": "gap", "reason": "not built", "level": "maybe"}, "level"),
        ({"state": "gap", "reason": "not built", "link": "section 3"}, "no https address"),
        ({"state": "half"}, "neither"),
    ],
)
def test_a_duty_says_everything_about_itself(changes: dict[str, str], sentence: str) -> None:
    assert any(sentence in problem for problem in problems(duty(**changes), []))


def test_marks_are_found_wherever_pytest_takes_them(tmp_path: Path) -> None:
    source = (
        "import pytest\n"
        "pytestmark = pytest.mark.requirement('module')\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.requirement('case'))])\n"
        "@pytest.mark.requirement('one', 'two')\n"
        "def test_it(x): ...\n"
        "@pytest.mark.requirement('th' + 'ree')\n"
        "def test_other(): ...\n"
    )
    folder = tmp_path / "tests" / "deep"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(source)
    (folder / "contract_of_x.py").write_text("import pytest\npytestmark = pytest.mark.requirement('contract')\n")
    (folder / "helpers.py").write_text("import pytest\npytest.mark.requirement('not a test')\n")
    found = marks(tmp_path / "tests")
    assert {mark.id for mark in found} == {"contract", "module", "case", "one", "two", None}
    assert {mark.place for mark in found if mark.id is None} == {"tests/deep/test_it.py:6"}


def test_states_are_written_from_the_marks_and_nothing_else_changes() -> None:
    proven = '["a.b"]\nlink = "l"\nstate = "gap"\nreason = "no test yet"\n\n'
    lost = '["c.d"]\nlink = "l"\nstate = "tested"\n\n'
    open_still = '["e.f"]\nlink = "l"\nstate = "gap"\nreason = "hard"\n'
    assert updated(f"# head\n\n{proven}{lost}{open_still}", {"a.b"}) == (
        '# head\n\n["a.b"]\nlink = "l"\nstate = "tested"\n\n'
        f'["c.d"]\nlink = "l"\nstate = "gap"\nreason = "no test yet"\n\n{open_still}'
    )
