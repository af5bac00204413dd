"""`gateway tools grant` and `revoke`: what is written into the operator's file, and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load
from tests.cli.conftest import Run
from tests.cli.fake_gateway import FakeGateway, Reply

TOOLS = 'tools: {docs: {url: "https://a.example/mcp"}, notes: {url: "https://b.example/mcp"}}\n'
WRITTEN = f"""# mine
{TOOLS}grants: # who may
  # ada's
  - {{to: ada, tools: ["notes/*", docs]}}   # hers
  - to: key:bob
    tools:
      - docs
      - notes/find # the first
    arguments: {{word: [milk, bread]}}
  - {{to: "role:x", tools: [notes], permissions: [p]}}
egress: {{}}
"""

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gateway runs."""
    monkeypatch.setenv("GATEWAY_URL", "http://127.0.0.1:9")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(WRITTEN)
    return path


def granted(file: Path) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.to, tuple(each.tools)) for each in load(file, cwd=file.parent).grants]


def test_a_grant_is_added_behind_the_others_and_the_rest_of_the_file_stays(gateway: Run, file: Path) -> None:
    given = gateway("tools", "grant", "--config", file, "eve", "docs", "notes/find")
    assert (given.code, given.out) == (0, "eve: docs, notes/find\n"), given.err
    line = '  - {"to": "eve", "tools": ["docs", "notes/find"]}\n'
    assert file.read_text() == WRITTEN.replace("egress", f"{line}egress")
    assert "from the next start on" in given.err
    assert "has that already" in gateway("tools", "grant", "--config", file, "key:eve", "docs").err
    assert gateway("tools", "grant", "--config", file, "eve", "docs", "notes").out == "eve: notes\n"


def test_a_grant_for_some_arguments_is_none_for_all(gateway: Run, file: Path) -> None:
    assert gateway("tools", "grant", "--config", file, "bob", "docs").out == "bob: docs\n"
    assert granted(file)[-1] == ("bob", ("docs",))


@pytest.mark.parametrize(
    "text", [TOOLS, TOOLS + "egress: {}", TOOLS + "grants: []\n", TOOLS + "grants: [{to: x, tools: [docs]}]\n"]
)
def test_the_first_grant_finds_its_place(gateway: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    before = granted(path)
    given = gateway("tools", "grant", "--config", path, "ada", "docs")
    assert (given.code, granted(path)) == (0, [*before, ("ada", ("docs",))]), given.err


def test_tools_are_taken_out_where_they_stand(gateway: Run, file: Path) -> None:
    back = gateway("tools", "revoke", "--config", file, "ada", "docs")
    assert (back.code, back.out) == (0, "ada: no more docs\n"), back.err
    assert "ada keeps notes/*." in back.err
    assert file.read_text() == WRITTEN.replace('["notes/*", docs]', '["notes/*"]')
    assert gateway("tools", "revoke", "--config", file, "ada", "--all").code == 0
    assert "hers" not in file.read_text()
    assert gateway("tools", "revoke", "--config", file, "bob", "docs").code == 0
    assert granted(file) == [("key:bob", ("notes/find",)), ("role:x", ("notes",))]
    assert load(file, cwd=file.parent).grants[0].arguments == {"word": ("milk", "bread")}
    assert gateway("tools", "revoke", "--config", file, "key:bob", "--all").code == 0
    assert gateway("tools", "revoke", "--config", file, "role:x", "notes").code == 0
    assert granted(file) == [("role:x", ())], "its permissions are no tools"
    assert file.read_text() == (
        f"# mine\n{TOOLS}grants: # who may\n  # ada's\n"
        '  - {to: "role:x", tools: [], permissions: [p]}\negress: {}\n'
    )


def test_when_nobody_has_a_grant_any_more_there_is_no_section(gateway: Run, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    for written, left in (
        (f"{TOOLS}grants:\n- {{to: a, tools: [docs]}}\negress: {{}}\n", f"{TOOLS}egress: {{}}\n"),
        (f"{TOOLS}grants: [{{to: a, tools: [docs]}}]\n", f"{TOOLS}grants: []\n"),
        (f"{TOOLS}grants: [{{to: a, tools: [docs]}}, {{to: b, tools: [docs]}}]\n",
         f"{TOOLS}grants: [{{to: b, tools: [docs]}}]\n"),
        (f"{TOOLS}grants: [{{to: b, tools: [docs]}}, {{to: a, tools: [docs]}}]\n",
         f"{TOOLS}grants: [{{to: b, tools: [docs]}}]\n"),
    ):  # fmt: skip
        path.write_text(written)
        back = gateway("tools", "revoke", "--config", path, "a", "docs")
        assert (back.code, path.read_text()) == (0, left), back.err


def test_who_keeps_a_tool_by_being_anybody_is_said(gateway: Run, file: Path) -> None:
    gateway("tools", "grant", "--config", file, "*", "docs/read")
    assert "Everybody has docs/read." in gateway("tools", "revoke", "--config", file, "ada", "docs").err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("grant", "a:b", "docs"), "to must be a key's name"),
        (("grant", "ada", "nosuch/x"), "nosuch"),
        (("grant", "agent:nobody", "docs"), "no agent"),
        (("revoke", "ada", "docs/read"), "ada has notes/*, docs"),
        (("revoke", "eve", "docs"), "eve has no tools"),
        (("revoke", "ada"), "Say which tools, or --all"),
        (("revoke", "ada", "docs", "--all"), "Say which tools, or --all"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    gateway: Run, file: Path, words: tuple[str, ...], sentence: str
) -> None:
    refused = gateway("tools", words[0], "--config", file, *words[1:])
    assert refused.code != 0
    assert sentence in refused.err
    assert file.read_text() == WRITTEN


def test_a_file_that_is_written_otherwise_is_left_to_its_author(gateway: Run, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    text = f"{TOOLS}grants:\n  -\n    to: a\n    tools: [docs]\n"
    path.write_text(text)
    for words in (("grant", "b", "docs"), ("revoke", "a", "docs")):
        refused = gateway("tools", words[0], "--config", path, *words[1:])
        assert (refused.code, "change it there yourself" in refused.err) == (1, True)
    assert path.read_text() == text


def test_a_gateway_with_another_file_is_not_said_to_follow(
    gateway: Run, fake: FakeGateway, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_URL", fake.url)
    fake.answers["POST /admin/tools:reload"] = Reply({"changed": []})
    fake.answers["GET /admin/policy"] = [
        Reply({"rules": [{"grant": "key:eve", "tools": ["docs"]}]}),
        Reply({"rules": [{"grant": "key:eve", "tools": ["docs"]}]}),
    ]
    assert "It holds now" in gateway("tools", "grant", "--config", file, "eve", "docs").err
    assert "reads another file" in gateway("tools", "revoke", "--config", file, "eve", "docs").err
