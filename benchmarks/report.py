"""What a run leaves behind: tables for the eye, a JSON file per scenario and pair for later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.bench import CONNECTIONS
from benchmarks.scenarios import PAIRS

FOLDER = Path(__file__).with_name("results")
BUSY_GENERATOR = 0.95  # from here on it may be the generator that was measured

_SERVER_HEAD = ("", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "peak MiB", "cold s", "generator", "errors")
_PAIR_HEAD = ("pair", "A / B", "req/s A", "req/s B", "ratio", "min–max", "by CPU", "p50 A", "p50 B", "errors")


def write(name: str, around: Mapping[str, Any], result: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"name": name, **around, **result}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return file


def errors(result: Mapping[str, Any]) -> int:
    """All wrong answers in a result, however deep."""
    found: int = sum(result.get("errors", {}).values())
    return found + sum(errors(part) for key, part in result.items() if key != "errors" and isinstance(part, Mapping))


def first_errors(result: Mapping[str, Any]) -> list[str]:
    own = [result["first_error"]] if result.get("first_error") else []
    return own + [text for part in result.values() if isinstance(part, Mapping) for text in first_errors(part)]


def scenario_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, result in results.items():
        for connections in CONNECTIONS:
            load = result[f"connections_{connections}"]
            # Memory and cold start are of the process, so they stand in its first row only.
            process = result if connections == CONNECTIONS[0] else {"peak_memory_mib": None, "cold_start_s": None}
            rows.append((f"{name}, {connections} conn.", *_server(load | process)))
    return _table(_SERVER_HEAD, rows)


def pair_tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    compared = [_pair(name, result) for name, result in results.items()]
    servers = [
        (f"{name}: {result[side]['scenario']}", *_server(result[side]))
        for name, result in results.items()
        for side in ("a", "b")
    ]
    return f"{_table(_PAIR_HEAD, compared)}\n\n{_table(_SERVER_HEAD, servers)}"


def target_table(results: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, str]) -> str:
    rows = []
    for target in targets.load():
        if target.of not in PAIRS:
            raise ValueError(f"targets.toml: there is no pair {target.of!r}")
        value = target.value(results[target.of]) if target.of in results else None
        if value is None:
            verdict = f"skipped: {skipped[target.of]}" if target.of in skipped else "not measured"
        else:
            verdict = "reached" if target.reached(value) else "MISSED"
        sign = "≥" if target.more_is_better else "≤"
        rows.append((target.what, _number(value), f"{sign} {target.now:g}", f"{sign} {target.then:g}", verdict))
    return _table(("target", "measured", "now", "then", ""), rows)


def _server(load: Mapping[str, Any]) -> tuple[str, ...]:
    generator = load["generator_cpu"]
    return (
        _number(load["requests_per_s"]),
        _number(load["p50_ms"]),
        _number(load["p99_ms"]),
        _number(load["cpu_us_per_request"]),
        _number(load["peak_memory_mib"]),
        _number(load["cold_start_s"]),
        f"{generator:.2f}{' !' if generator >= BUSY_GENERATOR else ''}",
        str(sum(load["errors"].values())),
    )


def _pair(name: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    a, b, ratio = result["a"], result["b"], result["ratio"]
    by_cpu = result["ratio_by_cpu"]
    spread = "" if ratio is None else f"{_number(ratio['low'])}–{_number(ratio['high'])}"
    return (
        name,
        result["about"],
        _number(a["requests_per_s"]),
        _number(b["requests_per_s"]),
        _number(ratio and ratio["median"]),
        spread,
        _number(by_cpu and by_cpu["median"]),
        _number(a["p50_ms"]),
        _number(b["p50_ms"]),
        str(errors(result)),
    )


def _number(value: float | None) -> str:
    """Three digits that matter; what stands behind them is noise here."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = [
        # Names to the left, figures to the right.
        "  ".join(
            cell.ljust(width) if _is_text(column, head) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    shown.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(shown)


def _is_text(column: int, head: Sequence[str]) -> bool:
    return column == 0 or head[column] in ("", "A / B")
