"""How a conformance run is judged: the kit's report is read whole, and nothing that we did not expect goes unseen."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from conformance import frameworks, inspector, js, mcp, mcp_client, peers
from conformance.__main__ import LOCAL_SUITES, OLDER_SUITES, REMOTE_SUITES, Suite
from conformance.expected import FOLDER, Expectation, compare, load
from conformance.kit import Report, Verdict, read
from conformance.peers import Result
from conformance.results import FOLDER as RESULTS
from conformance.results import Outcome, Run, document
from gateway.config import load as load_config

KNOWN = {"a.b[x-jsonrpc]": Expectation("failed", "kit", "The kit is wrong.")}

JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite>
  <testcase classname="tests.compatibility.core.test_x.TestX" name="test_good[jsonrpc]"/>
  <testcase classname="tests.compatibility.core.test_x" name="test_bad"><failure message="no">trace</failure></testcase>
  <testcase classname="tests.compatibility.core.test_x" name="test_broken"><error message="oh"/></testcase>
  <testcase classname="tests.compatibility.grpc.test_y" name="test_off">
    <skipped type="pytest.skip" message="off"/>
  </testcase>
  <testcase classname="tests.compatibility.core.test_x" name="test_soft">
    <skipped type="pytest.xfail" message="may"/>
  </testcase>
</testsuite></testsuites>
"""


def test_the_kits_report_is_read_with_names_relative_to_its_suite(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(JUNIT)
    assert list(read(junit)) == [
        Verdict("core.test_x.TestX.test_good[jsonrpc]", "passed"),
        Verdict("core.test_x.test_bad", "failed", "no"),
        Verdict("core.test_x.test_broken", "failed", "oh"),
        Verdict("grpc.test_y.test_off", "skipped", "off"),
        Verdict("core.test_x.test_soft", "xfailed", "may"),
    ]


def test_what_is_expected_is_explained() -> None:
    compared = compare([Verdict("a.b[x-jsonrpc]", "failed", "no"), Verdict("a.c", "passed")], KNOWN, whole=True)
    assert [(entry.test, entry.because) for entry in compared.explained] == [("a.b[x-jsonrpc]", "The kit is wrong.")]
    assert compared.unexpected == []


@pytest.mark.parametrize(
    ("tests", "surprise"),
    [
        ([Verdict("a.b[x-jsonrpc]", "passed")], "a.b[x-jsonrpc] passed, expected to be failed"),
        ([Verdict("a.b[x-jsonrpc]", "skipped", "off")], "a.b[x-jsonrpc] skipped, expected to be failed: off"),
        ([Verdict("a.b[x-jsonrpc]", "failed"), Verdict("a.c", "failed", "one\ntwo")], "a.c failed: one"),
        ([Verdict("a.b[x-jsonrpc]", "failed"), Verdict("a.c", "skipped")], "a.c skipped"),
        ([Verdict("a.b[x-jsonrpc]", "failed"), Verdict("a.c", "xfailed")], "a.c xfailed"),
        ([], "a.b[x-jsonrpc] is expected to be failed, but the kit has no such test"),
    ],
)
def test_everything_else_is_a_surprise(tests: list[Verdict], surprise: str) -> None:
    assert compare(tests, KNOWN, whole=True).unexpected == [surprise]


def test_a_part_of_the_kit_need_not_have_every_test() -> None:
    assert compare([], KNOWN, whole=False).unexpected == []


@pytest.mark.parametrize("suite", [*LOCAL_SUITES, *REMOTE_SUITES, *OLDER_SUITES], ids=lambda suite: suite.name)
def test_the_expectations_of_a_run_can_be_read_and_say_why(suite: Suite) -> None:
    expectations = load(*suite.expected)
    assert all(entry.because.endswith((".", ")")) for entry in expectations.values())
    # Nothing is expected to fail but what the kit or its age is to blame for.
    assert {entry.kind for entry in expectations.values() if entry.outcome == "failed"} <= {"kit", "older"}


def test_every_file_of_expectations_belongs_to_a_run() -> None:
    used = {name for suite in (*LOCAL_SUITES, *REMOTE_SUITES, *OLDER_SUITES) for name in suite.expected}
    assert {file.stem for file in FOLDER.glob("*.toml")} == used


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ('[[expected]]\ntests = ["a"]\noutcome = "failed"\nkind = "luck"\nbecause = "x."\n', "luck"),
        ('[[expected]]\ntests = ["a", "a"]\noutcome = "failed"\nkind = "kit"\nbecause = "x."\n', "already"),
    ],
)
def test_a_wrong_file_of_expectations_is_refused(tmp_path: Path, entries: str, problem: str) -> None:
    (tmp_path / "wrong.toml").write_text(entries)
    with pytest.raises(ValueError, match=problem):
        load("wrong", folder=tmp_path)


def test_results_say_what_was_run_and_nothing_about_whose_machine_it_was() -> None:
    report = Report([Verdict("a.b[x-jsonrpc]", "failed"), Verdict("a.c", "passed")], {"overall_compatibility": 50})
    run = Run("echo", report, compare(report.tests, KNOWN, whole=True), "python -m pytest suite")
    client = Result("/agents/x", 3, ["a card is there (JSONRPC): no"])
    written = document(
        Outcome("local", "python -m conformance", {"kit": "a2a-tck 1.0.0"}, clients=[client], runs=[run])
    )
    assert written["unexpected"] == ["a2a-sdk client at /agents/x: a card is there (JSONRPC): no"]
    assert written["runs"][0]["counts"] == {"passed": 1, "failed": 1, "skipped": 0, "xfailed": 0}
    assert [entry["test"] for entry in written["runs"][0]["not_passed"]] == ["a.b[x-jsonrpc]"]
    assert {"specification", "gateway", "a2a-sdk", "python", "kit"} <= written["versions"].keys()
    assert written["machine"].keys() == {"cores", "memory_gib", "architecture", "system"}


MCP_OUTPUT = """=== Running scenario: ping ===
✓ ping: 2 passed, 0 failed
✗ tools-list: 1 passed, 1 failed
✗ tasks-lifecycle: 1 passed, 8 failed

Total: 4 passed, 9 failed

Not scored for 2026-07-28: 1 scenario(s) run, 1 failing. These do not affect conformance.
  ✗ tasks-lifecycle (extension)
"""


def test_the_mcp_suites_scenarios_are_read_and_only_the_required_ones_count() -> None:
    scenarios = mcp.read(MCP_OUTPUT)
    assert [(each.name, each.passed, each.failed, each.not_scored) for each in scenarios] == [
        ("ping", 2, 0, None),
        ("tools-list", 1, 1, None),
        ("tasks-lifecycle", 1, 8, "extension"),
    ]
    told = mcp.document("modern", "2026-07-28", scenarios)
    assert (told["required"], told["checks"], told["failed"]) == ("1/2", "3/4", ["tools-list"])
    assert told["not_scored"] == {"tasks-lifecycle": {"why": "extension", "passed": 1, "failed": 8}}


def test_a_scenario_that_the_mcp_suite_warns_of_is_not_overlooked() -> None:
    warned = MCP_OUTPUT.replace("2 passed, 0 failed", "2 passed, 0 failed, 2 warnings")
    warned = warned.replace("1 passed, 1 failed", "2 passed, 2 failed, 1 warnings")
    told = mcp_client.document("2026-07-28", mcp.read(warned))
    assert (told["required"], told["failed"]) == ("0/2", ["ping", "tools-list"])


def test_what_the_mcp_suite_says_in_other_words_ends_the_run() -> None:
    with pytest.raises(mcp.SuiteError, match="tools-list: no verdict"):
        mcp.read(MCP_OUTPUT.replace("tools-list: 1 passed, 1 failed", "tools-list: no verdict"))


@pytest.mark.parametrize("kind", mcp.KINDS)
@pytest.mark.parametrize(("revision", "required"), [("2025-11-25", "30/30"), ("2026-07-28", "37/37")])
def test_the_kept_mcp_results_are_complete(kind: str, revision: str, required: str) -> None:
    told = json.loads((RESULTS / f"mcp-{revision}-{kind}.json").read_text("utf-8"))
    assert (told["required"], told["failed"]) == (required, [])
    assert told["versions"]["suite"] == mcp.SUITE_VERSION


@pytest.mark.parametrize(("revision", "required"), [("2025-11-25", "18/18"), ("2026-07-28", "32/32")])
def test_the_kept_results_of_the_mcp_client_are_complete_and_explained(revision: str, required: str) -> None:
    told = json.loads((RESULTS / f"mcp-client-{revision}.json").read_text("utf-8"))
    assert (told["required"], told["failed"]) == (required, [])
    assert told["versions"]["suite"] == mcp.SUITE_VERSION
    failing = {name: each["reason"] for name, each in told["not_scored"].items() if each["failed"]}
    assert failing == mcp_client.NOT_DONE


def test_a_failure_of_the_mcp_client_is_told_by_name() -> None:
    told = mcp_client.document("2026-07-28", mcp.read(MCP_OUTPUT))
    assert (told["required"], told["failed"]) == ("1/2", ["tools-list"])
    assert told["not_scored"]["tasks-lifecycle"]["reason"] == "unknown"


def test_the_mcp_suites_configuration_is_one() -> None:
    assert set(load_config(mcp.CONFIG, cwd=mcp.HERE).mounts) == set(mcp.KINDS)


def test_the_results_with_acp_sdk_are_those_that_the_page_shows() -> None:
    told = json.loads((RESULTS / "acp-1.0.3.json").read_text("utf-8"))
    page = (RESULTS.parent / "README.md").read_text("utf-8")
    checked = {agent: found["passed"] for agent, found in told["acp_sdk_client"].items()}
    assert [found["failed"] for found in told["acp_sdk_client"].values()] == [{}, {}]
    assert f"| acp-sdk's client with `echo` | {checked['echo']} | 0 |" in page
    assert f"| acp-sdk's client with acp-sdk's server | {checked['player']} | 0 |" in page
    assert [result["failed"] for result in told["a2a_sdk_client"]] == [[]] * 4
    server, server_03, again, again_03 = (result["passed"] for result in told["a2a_sdk_client"])
    assert f"in 1.0 and in 0.3 | {server}, {server_03} | 0 |" in page
    assert f"in 1.0 and in 0.3 | {again}, {again_03} | 0 |" in page


def test_the_results_with_frameworks_are_those_that_the_page_shows() -> None:
    told = json.loads((RESULTS / "frameworks.json").read_text("utf-8"))
    page = (RESULTS.parent / "README.md").read_text("utf-8")
    passed = {each["agent"].removeprefix("/agents/"): each["passed"] for each in told["a2a_sdk_client"]}
    assert [each["failed"] for each in told["a2a_sdk_client"]] == [[]] * 10
    assert "google-adk {google-adk}, ag2 {ag2} |".format_map(told["versions"]) in page
    names = [agent for framework in frameworks.FRAMEWORKS for agent in framework.agents]
    shown = dict(
        re.findall(r"^\| `(\S+)` \| (?:JSON-RPC|HTTP\+JSON|gRPC) .+? \| (\d+ \| \d+) \| 0 \|$", page, re.MULTILINE)
    )
    assert shown == {name: f"{passed[name]} | {passed[name + ' in 0.3']}" for name in names}


def test_the_frameworks_configuration_has_the_agents_and_ports_that_are_started() -> None:
    text = frameworks.CONFIG.read_text("utf-8")
    started = {name: words[0] for framework in frameworks.FRAMEWORKS for name, words in framework.agents.items()}
    assert dict(re.findall(r'^  (\S+): \{card_url: "http://127\.0\.0\.1:(\d+)"', text, re.MULTILINE)) == started
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", text)) == set(frameworks.STATED)
    assert set(load_config(frameworks.CONFIG, cwd=frameworks.HERE).agents) == set(started)


def test_the_results_with_a2a_js_are_those_that_the_page_shows() -> None:
    told = json.loads((RESULTS / f"a2a-js-{js.SDK}.json").read_text("utf-8"))
    page = (RESULTS.parent / "README.md").read_text("utf-8")
    assert f"{js.PACKAGE} {told['versions'][js.PACKAGE]}, passed" in page
    for agent, sides in told["a2a_js_client"].items():
        assert [side["failed"] for side in sides.values()] == [{}] * 6
        calls = [sides[f"{binding} {version}"]["passed"] for binding in peers.BINDINGS for version in peers.VERSIONS]
        cards = sum(side["passed"] for name, side in sides.items() if name.startswith("card"))
        assert f"| {agent} | {' | '.join(map(str, [*calls, cards]))} | 0 |" in page


def test_the_results_with_the_inspector_are_those_that_the_page_shows() -> None:
    told = json.loads((RESULTS / f"mcp-inspector-{inspector.INSPECTOR}.json").read_text("utf-8"))
    page = (RESULTS.parent / "README.md").read_text("utf-8")
    assert f"{inspector.PACKAGE} {told['versions'][inspector.PACKAGE]}, passed" in page
    assert tuple(told["inspector"]) == inspector.KINDS
    for kind, eras in told["inspector"].items():
        assert tuple(eras) == inspector.ERAS
        assert [era["failed"] for era in eras.values()] == [{}] * len(inspector.ERAS)
        passed = [str(era["passed"]) for era in eras.values()]
        assert passed == [str(len(inspector.CHECKS))] * len(inspector.ERAS)
        assert f"| in front of a {kind} server | {' | '.join(passed)} | 0 |" in page


@pytest.mark.parametrize(
    ("code", "printed", "why"),
    [
        (0, '{"result":{"content":[{"type":"text","text":"a simple text"}]}}', ""),
        (0, '{"result":{"content":[]}}', "exit code 0"),
        (5, '{"result":{"content":[{"type":"text","text":"a simple text"}]}}', "exit code 5"),
        (1, '{"error":{"message":"no"}}', "exit code 1"),
        (0, "npm is unhappy", "exit code 0"),
    ],
)
def test_what_the_inspector_misses_is_told(tmp_path: Path, code: int, printed: str, why: str) -> None:
    program = tmp_path / "inspector"
    program.write_text(f"import sys\nprint({printed!r})\nsys.exit({code})\n")
    words, check = [sys.executable, str(program)], inspector.CHECKS["calls_a_tool"]
    found = inspector._why(words, "http://127.0.0.1:9/mcp", "modern", check, tmp_path)
    assert found.startswith(why)
    assert bool(found) is bool(why)
    told = inspector.document({"stdio": {"modern": {"calls_a_tool": found}}}, "1")["inspector"]["stdio"]["modern"]
    assert told == {"passed": int(not why), "failed": {"calls_a_tool": found} if why else {}}


def test_what_a_client_in_javascript_misses_is_told_by_name() -> None:
    found = {"local": {"JSONRPC 1.0": {"it_does": "", "it_does_not": "Error saw"}}}
    told = js.document(found, js.SDK)["a2a_js_client"]
    assert told == {"local": {"JSONRPC 1.0": {"passed": 1, "failed": {"it_does_not": "Error saw"}}}}
