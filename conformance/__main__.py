"""Runs the official A2A kit and a real peer, or the official MCP suite, against the real gateway.

    make conformance A2A_TCK=DIR           everything: a local agent, then remote ones of both versions
    make conformance A2A_TCK=DIR A2A_TCK_03=DIR    and the kit for 0.3 against the same doors
    make conformance ARGS="--short"        seconds: the peer, and a kit without its long waits
    make conformance ARGS=--mcp MCP_SUITE=DIR    the MCP suite (see mcp.py)
    make conformance ARGS=--mcp-client MCP_SUITE=DIR    the same suite's client mode (see mcp_client.py)
    make conformance ARGS=--acp ACP_PYTHON=PYTHON    acp-sdk's client and server (see acp.py)
    make conformance ARGS=--frameworks ADK_PYTHON=PYTHON AG2_PYTHON=PYTHON    agents of frameworks (see frameworks.py)
    make conformance ARGS=--js A2A_JS=DIR    @a2a-js/sdk's client (see js.py)

A run fails on every test that did not pass and is not listed in conformance/expected/, and on every
listed one that passed after all. The full form writes conformance/results/.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from conformance import acp, expected, frameworks, js, kit, mcp, mcp_client, older, peers, processes, results

HERE = Path(__file__).parent

# Three tests read two streams for ten seconds each, on every binding: a minute and a half of waiting.
SHORT = "not test_multi_stream"


@dataclass(frozen=True)
class Suite:
    """The kit, or a part of it, against one agent of the gateway. `select` is a pytest expression; for the 0.3 kit
    its transports."""

    name: str
    path: str
    expected: tuple[str, ...] = ()
    select: str | None = None


LOCAL_SUITES = (
    Suite("echo", "", ("both",)),
    # Neither can be the default agent: one that requires an extension refuses almost all that the kit sends,
    # and for one that declares nothing the kit skips almost all.
    Suite("strict", "/agents/strict", select="TestCapabilityExtensionRequired"),
    Suite("plain", "/agents/plain", select="(not_supported or unsupported_operation) and not grpc"),
    # The kit asks for the extended card without a credential, so the default agent does not declare one.
    Suite("extended", "/agents/extended", ("extended",), select="CARD-EXT and not grpc"),
)
REMOTE_SUITES = (Suite("player", "", ("both", "remote")),)
SUITES = {"local": LOCAL_SUITES, "remote": REMOTE_SUITES, "remote-0.3": REMOTE_SUITES}
# The kit for 0.3, by transport.
OLDER_SUITES = (
    Suite("asker over JSON-RPC", "", ("0.3-jsonrpc",), "jsonrpc"),
    Suite("asker over HTTP+JSON", "", ("0.3-rest",), "rest"),
    Suite("asker over both", "", ("0.3-equivalence",), "jsonrpc,rest"),
)


@dataclass(frozen=True)
class Leg:
    """Something else to run, instead of the A2A kit."""

    main: Callable[[], int]
    help: str


LEGS = {
    "mcp": Leg(mcp.main, "the MCP suite, from MCP_SUITE"),
    "mcp-client": Leg(mcp_client.main, "the MCP suite's client mode, from MCP_SUITE"),
    "acp": Leg(acp.main, "acp-sdk's client and server, from ACP_PYTHON"),
    "frameworks": Leg(frameworks.main, "agents of ADK and AG2 behind the gateway, from ADK_PYTHON and AG2_PYTHON"),
    "js": Leg(js.main, "@a2a-js/sdk's client, from A2A_JS"),
}


@dataclass(frozen=True)
class Options:
    kit: Path | None
    older_kit: Path | None
    agents: tuple[str, ...]
    short: bool
    leg: str | None  # of LEGS, instead of the A2A kit
    command: str


def options(words: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="what takes seconds, with or without the kit")
    parser.add_argument("--kit", metavar="DIR", help="the kit's folder (default: A2A_TCK)")
    parser.add_argument("--kit-03", metavar="DIR", help="the folder of the kit for 0.3 (default: A2A_TCK_03)")
    parser.add_argument(
        "--agent",
        choices=(*SUITES, "older", "both"),
        default="both",
        help="one kind of agent (older: the one for the 0.3 kit); default: all, with a 0.3 kit where there is one",
    )
    for name, leg in LEGS.items():
        parser.add_argument(f"--{name}", dest="leg", action="store_const", const=name, help=leg.help)
    given = parser.parse_args(words)
    agents = {"both": tuple(SUITES), "older": ()}.get(given.agent, (given.agent,))
    older_kit = older.find(given.kit_03) if given.agent in ("both", "older") else None
    # The kit's folder is nobody's business but the machine's.
    shown = [
        *(["--short"] if given.short else []),
        *(["--agent", given.agent] if given.agent != "both" else []),
    ]
    command = shlex.join(["python", "-m", "conformance", *shown])
    return Options(kit.find(given.kit), older_kit, agents, given.short, given.leg, command)


def main() -> int:
    chosen = options(sys.argv[1:])
    if chosen.leg is not None:
        return LEGS[chosen.leg].main()
    if chosen.agents and chosen.kit is None and not chosen.short:
        print(kit.HOW_TO_GET, file=sys.stderr)
        return 2
    if not chosen.agents and chosen.older_kit is None:
        print(older.HOW_TO_GET, file=sys.stderr)
        return 2
    try:
        wrong = sum([_agent(name, chosen) for name in chosen.agents])
        if chosen.older_kit is not None and not chosen.short:
            wrong += _older(chosen.older_kit, chosen)
        return 1 if wrong else 0
    except (kit.KitError, processes.StartError) as error:
        print(error, file=sys.stderr)
        return 2


def _agent(name: str, chosen: Options) -> int:
    """One kind of agent behind a gateway of its own; how much went wrong."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder, _running(name, Path(folder)) as base:
        print(f"{name} agent:")
        clients = [peers.run(base, version=version) for version in peers.VERSIONS]
        if name == "local":
            clients += peers.run_others(base, processes.credential(Path(folder)))
        for result in clients:
            peers.show(result)
        if chosen.kit:
            return _kit(name, base, chosen.kit, chosen, Path(folder), clients)
    return sum(len(result.failed) for result in clients)


def _older(folder: Path, chosen: Options) -> int:
    """The kit for 0.3 in front of an agent that it can talk to for long; how much went wrong."""
    specification = "A2A 0.3.0"
    outcome = results.Outcome("local", chosen.command, kit.version(folder), "0.3.x", specification)
    with (
        tempfile.TemporaryDirectory(prefix="conformance-") as place,
        processes.gateway(HERE / "a2a-0.3.yaml", Path(place)) as base,
    ):
        print("0.3 kit:")
        for suite in OLDER_SUITES:
            assert suite.select is not None
            report = older.run(folder, base, Path(place) / suite.select, suite.select)
            comparison = expected.compare(report.tests, expected.load(*suite.expected), whole=True)
            command = f"TCK_STREAMING_TIMEOUT={older.STREAMING_TIMEOUT_S} python run_tck.py --sut-url GATEWAY"
            command += f" --category {','.join(older.TRANSPORTS[suite.select])} --transports {suite.select}"
            outcome.runs.append(results.Run(suite.name, report, comparison, command))
            _show(outcome.runs[-1])
    print(f"written: {results.write(outcome).relative_to(HERE.parent)}")
    return len(outcome.unexpected)


def _running(name: str, folder: Path) -> AbstractContextManager[str]:
    if name == "local":
        return processes.gateway(HERE / "a2a.yaml", folder)
    return processes.behind_a_gateway(folder, name.partition("-")[2] or "1.0")


def _kit(name: str, base: str, folder: Path, chosen: Options, reports: Path, clients: list[peers.Result]) -> int:
    outcome = results.Outcome(name, chosen.command, kit.version(folder), clients=clients)
    for suite in SUITES[name]:
        outcome.runs.append(_suite(suite, base, folder, chosen, reports / suite.name))
        _show(outcome.runs[-1])
    if not chosen.short:
        print(f"written: {results.write(outcome).relative_to(HERE.parent)}")
    return len(outcome.unexpected)


def _suite(suite: Suite, base: str, folder: Path, chosen: Options, reports: Path) -> results.Run:
    select = suite.select or (SHORT if chosen.short else None)
    report = kit.run(folder, base + suite.path, reports, select)
    whole = select != SHORT
    comparison = expected.compare(report.tests, expected.load(*suite.expected), whole=whole)
    if not report.tests:
        comparison.unexpected.append("no test ran")
    shown = ["python", "-m", "pytest", *kit.arguments(f"GATEWAY{suite.path}", select, Path("REPORTS"))]
    return results.Run(suite.name, report, comparison, shlex.join(shown))


def _show(run: results.Run) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in run.report.counts.items() if count)
    print(f"a2a-tck against {run.name}: {counts}")
    for explained in run.comparison.explained:
        # What has nothing to run on is in the results, by name; so many lines would hide the others here.
        if explained.outcome != "skipped":
            print(f"  {explained.outcome}, as expected: {explained.test}")
            print(f"    {explained.because}")
    for surprise in run.comparison.unexpected:
        print(f"  UNEXPECTED {surprise}")


if __name__ == "__main__":
    sys.exit(main())
