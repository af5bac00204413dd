"""Runs the official A2A kit and a real peer, or the official MCP suite, against the real gateway.

    make conformance A2A_TCK=DIR           everything: a local agent, then remote ones of both versions
    make conformance A2A_TCK=DIR A2A_TCK_03=DIR    and the kit for 0.3 against the same doors
    make conformance ARGS="--short"        seconds: the peer, and a kit without its long waits
    make conformance ARGS=--mcp MCP_SUITE=DIR    the MCP suite (see mcp.py)
    make conformance ARGS=--mcp-client MCP_SUITE=DIR    the same suite's client mode (see mcp_client.py)
    make conformance ARGS=--inspector MCP_INSPECTOR=DIR    MCP's Inspector (see inspector.py)
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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from conformance import acp, expected, frameworks, inspector, js, kit, mcp, mcp_client, older, peers, processes, results

HERE = Path(__file__).parent

# Three tests read two streams for ten seconds each, on every binding: a minute and a half of waiting.
SHORT = "not test_multi_stream"


@dataclass(frozen=True)
class Suite:
    """The kit, or a part of it, against one agent. `select` is a pytest expression. `credential`: the gateway asks
    every caller for one, and the kit has it."""

    name: str
    expected: tuple[str, ...] = ()
    select: str | None = None
    credential: bool = False


@dataclass(frozen=True)
class OlderSuite:
    """Categories of the kit for 0.3, over one transport or several. `guarded`: by TLS, and every caller needs a
    credential, which the kit has."""

    name: str
    expected: tuple[str, ...]
    transports: str
    categories: tuple[str, ...] = older.SINGLE
    guarded: bool = False


# Each as the default agent of a gateway of its own: over gRPC the kit knows no way to name another.
LOCAL_SUITES = (
    Suite("echo", ("both", "anonymous")),
    # One that requires an extension refuses almost all that the kit sends, and for one that declares nothing the kit
    # skips almost all.
    Suite("strict", select="TestCapabilityExtensionRequired"),
    Suite("plain", ("plain",), "not_supported or unsupported_operation"),
    # The kit has no credential of its own, and the extended card is for callers who do.
    Suite("extended", ("both", "extended"), credential=True),
)
REMOTE_SUITES = (Suite("player", ("both", "anonymous", "remote")),)
SUITES = {"local": LOCAL_SUITES, "remote": REMOTE_SUITES, "remote-0.3": REMOTE_SUITES}
OLDER_SUITES = (
    OlderSuite("asker over JSON-RPC", ("0.3-jsonrpc",), "jsonrpc"),
    OlderSuite("asker over HTTP+JSON", ("0.3-rest",), "rest"),
    OlderSuite("asker over gRPC", ("0.3-grpc",), "grpc"),
    OlderSuite("asker over all three", ("0.3-equivalence",), "jsonrpc,rest,grpc", older.SEVERAL),
    # Over the other transports the kit does not find the schemes of a card.
    OlderSuite("asker over JSON-RPC, with TLS and a credential", ("0.3-guarded",), "jsonrpc", older.GUARDED, True),
)


@dataclass(frozen=True)
class Leg:
    """Something else to run, instead of the A2A kit."""

    main: Callable[[], int]
    help: str


LEGS = {
    "mcp": Leg(mcp.main, "the MCP suite, from MCP_SUITE"),
    "mcp-client": Leg(mcp_client.main, "the MCP suite's client mode, from MCP_SUITE"),
    "inspector": Leg(inspector.main, "MCP's Inspector in each era, from MCP_INSPECTOR"),
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
    """One kind of agent, first a2a-sdk's client and then the kit; how much went wrong."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as place, _configured(name, Path(place)) as config:
        print(f"{name} agent:")
        clients = _clients(name, config, Path(place) / "clients")
        if chosen.kit:
            return _kit(name, config, chosen.kit, chosen, Path(place), clients)
    return sum(len(result.failed) for result in clients)


def _clients(name: str, config: Path, folder: Path) -> list[peers.Result]:
    with processes.gateway(config, folder) as base:
        clients = [peers.run(base, version=version) for version in peers.VERSIONS]
        if name == "local":
            clients += peers.run_others(base, processes.credential(folder))
    for result in clients:
        peers.show(result)
    return clients


def _older(folder: Path, chosen: Options) -> int:
    """The kit for 0.3 in front of an agent that it can talk to for long; how much went wrong."""
    specification = "A2A 0.3.0"
    outcome = results.Outcome("local", chosen.command, kit.version(folder), "0.3.x", specification)
    print("0.3 kit:")
    for suite in OLDER_SUITES:
        with tempfile.TemporaryDirectory(prefix="conformance-") as place:
            outcome.runs.append(_older_suite(suite, folder, Path(place)))
        _show(outcome.runs[-1])
    print(f"written: {results.write(outcome).relative_to(HERE.parent)}")
    return len(outcome.unexpected)


def _older_suite(suite: OlderSuite, folder: Path, place: Path) -> results.Run:
    # Where gRPC is served its address stands in the card, and fails a test of every transport.
    grpc, config = "grpc" in suite.transports, HERE / "a2a-0.3.yaml"
    shown: tuple[Path, ...] = ()
    if suite.guarded:
        running = processes.gateway_with_tls(config, place)
        shown = (processes.credential_file(place), processes.certificate_file(place))
    else:
        running = processes.gateway(config, place, grpc=grpc)
    with running as base:
        report = older.run(folder, base, place / "reports", suite.transports, suite.categories, *shown)
    comparison = expected.compare(report.tests, expected.load(*suite.expected), whole=True)
    command = f"TCK_STREAMING_TIMEOUT={older.STREAMING_TIMEOUT_S} python run_tck.py --sut-url GATEWAY"
    command += f" --category {','.join(suite.categories)} --transports {suite.transports}"
    return results.Run(suite.name, report, comparison, command)


def _configured(name: str, folder: Path) -> AbstractContextManager[Path]:
    """The configuration for one kind of agent, while that agent runs if it is somebody else's."""
    if name == "local":
        return nullcontext(HERE / "a2a.yaml")
    return processes.remote(folder, name.partition("-")[2] or "1.0")


def _kit(name: str, config: Path, folder: Path, chosen: Options, place: Path, clients: list[peers.Result]) -> int:
    outcome = results.Outcome(name, chosen.command, kit.version(folder), clients=clients)
    for suite in SUITES[name]:
        outcome.runs.append(_suite(suite, config, folder, chosen, place / suite.name))
        _show(outcome.runs[-1])
    if not chosen.short:
        print(f"written: {results.write(outcome).relative_to(HERE.parent)}")
    return len(outcome.unexpected)


def _suite(suite: Suite, config: Path, folder: Path, chosen: Options, place: Path) -> results.Run:
    place.mkdir()
    select = suite.select or (SHORT if chosen.short else None)
    whole = select != SHORT
    config = processes.variant(config, place, default_agent=suite.name)
    with processes.gateway(config, place, anonymous=not suite.credential) as base:
        report = kit.run(folder, base, place, select, processes.credential_file(place) if suite.credential else None)
    comparison = expected.compare(report.tests, expected.load(*suite.expected), whole=whole)
    if not report.tests:
        comparison.unexpected.append("no test ran")
    plugin = kit.CREDENTIAL_PLUGIN if suite.credential else None
    shown = ["python", "-m", "pytest", *kit.arguments("GATEWAY", select, Path("REPORTS"), plugin)]
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
