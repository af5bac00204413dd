"""The audit log alone: how fast it is written and signed, how fast it is verified, and what one proof takes.

make bench ARGS=audit                          a hundred thousand entries
make bench ARGS="audit --entries 1000000"      a million
make bench ARGS="audit --short"                five thousand, to see that it works
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import uvloop

from benchmarks.store import CALLERS, entry
from gateway.stores.notary import Notary
from gateway.stores.sqlite import open_sqlite
from gateway.verifier import Database, Exit, Trust, notes_in, verify, verify_proof

PROOFS = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """Entries a second written durably (a commit each, 32 callers), entries a second verified, milliseconds a proof."""

    written: float
    verified: float
    proof_ms: float


def now() -> int:
    return time.time_ns() // 1_000_000


async def write(folder: Path, count: int) -> float:
    store = await open_sqlite(folder / "gateway.db", now=now, node="bench", host="bench.example")
    notary = Notary(store, folder / "audit", now)
    await notary.start()
    numbers = iter(range(count))

    async def caller(mine: Iterator[int]) -> None:
        for number in mine:
            await store.commit(records=(entry("reply", f"{number:032x}", now()),))

    began = time.perf_counter()
    await asyncio.gather(*(caller(islice(numbers, count)) for _ in range(CALLERS)))
    took = time.perf_counter() - began
    await notary.aclose()
    await store.aclose()
    return count / took


def read(folder: Path, count: int) -> tuple[float, float]:
    trust = Trust.parse((folder / "audit" / "keys").read_text())
    since = notes_in((folder / "audit" / "head").read_text())
    with closing(Database(folder / "gateway.db")) as log:
        began = time.perf_counter()
        report = verify(log, trust, since)
        rate = count / (time.perf_counter() - began)
        if (report.exit, report.covered) != (Exit.OK, count):
            raise RuntimeError(f"the log that was just written is not sound: {report}")
        took = []
        for index in random.Random(1).sample(range(count), min(PROOFS, count)):
            began = time.perf_counter()
            proof = log.proof(index)
            took.append(time.perf_counter() - began)
            if verify_proof(proof, trust).exit is not Exit.OK:
                raise RuntimeError(f"the proof of entry {index} does not hold")
    return rate, statistics.median(took) * 1000


def measure(count: int) -> Cost:
    with tempfile.TemporaryDirectory(prefix="bench-audit-") as folder:
        written = uvloop.run(write(Path(folder), count))
        return Cost(written, *read(Path(folder), count))


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks audit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--entries", type=int, default=100_000, help="entries in the log (default: 100000)")
    parser.add_argument("--short", action="store_true", help="five thousand entries, to see that it works")
    options = parser.parse_args(words)
    entries = 5_000 if options.short else options.entries
    cost = measure(entries)
    print(f"{'entries':>9} {'written/s':>10} {'verified/s':>11} {'proof ms':>9}")
    print(f"{entries:9} {cost.written:10.0f} {cost.verified:11.0f} {cost.proof_ms:9.2f}")
    print(f"{'goals':>9} {'≥ 3000':>10} {'≥ 200000':>11} {'≤ 5':>9}   the last at a million entries")
    return 0
