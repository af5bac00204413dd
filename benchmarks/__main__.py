"""Measures the gateway, what the machine can do without one, and a2a-sdk.

    make bench                                 everything; wants the machine for itself for half an hour
    make bench ARGS=--short                    the pairs only, few and short rounds
    make bench ARGS="proxied ours-task"        some of it, by name
    make bench ARGS=--list                     the names
    make bench ARGS=store                      the store alone (benchmarks/store.py)
    make bench ARGS=audit                      the audit log alone (benchmarks/audit.py)
    make bench ARGS=policy                     the policy alone (benchmarks/policy.py)

A wrong answer, or a server that does not start, fails the run. A missed target does not.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks import audit, machine, policy, store
from benchmarks.bench import Plan
from benchmarks.processes import StartError
from benchmarks.run import Run
from benchmarks.scenarios import PAIRS, SCENARIOS


def main(words: list[str]) -> int:
    if words[:1] == ["audit"]:
        return audit.main(words[1:])
    if words[:1] == ["policy"]:
        return policy.main()
    if words[:1] == ["store"]:
        return store.main(words[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="the pairs only, few and short rounds")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios and pairs (default: all)")
    options = parser.parse_args(words)
    if options.list:
        return _list()
    known = SCENARIOS.keys() | PAIRS.keys()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; --list prints the names")
    names = options.names or [*([] if options.short else SCENARIOS), *PAIRS]
    run = Run(
        names,
        plan=_plan(short=options.short),
        command=shlex.join(["python", "-m", "benchmarks", *words]),
        label=".short" if options.short else "",
    )
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        try:
            uvloop.run(run.go(Path(folder)))
        except StartError as error:
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nstopped; what was measured until then:")
    run.show()
    return 1 if run.wrong else 0


def _plan(*, short: bool) -> Plan:
    cores = machine.cores()
    server, other = cores[:2] if len(cores) > 1 else (None, None)
    if short:
        return Plan(3, 1.5, 0.5, cold_starts=1, server_core=server, other_core=other)
    return Plan(5, 3.0, 1.0, cold_starts=3, server_core=server, other_core=other)


def _list() -> int:
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:22} {scenario.about}")
    for pair in PAIRS.values():
        print(f"{pair.name:22} {pair.a} / {pair.b}, connections: {pair.connections}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
