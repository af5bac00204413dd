"""Reads files of named SQL: `-- name: x` begins the statement x."""

from __future__ import annotations

from pathlib import Path

_MARK = "-- name:"


def read(path: Path) -> dict[str, str]:
    """name -> statement, without comments: SQLite's statement cache compares the whole text."""
    statements: dict[str, str] = {}
    for block in path.read_text("utf-8").split(_MARK)[1:]:
        name, _, text = block.partition("\n")
        lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
        statements[name.strip()] = "\n".join(lines).strip().rstrip(";")
    return statements


SQL = read(Path(__file__).with_name("queries.sql"))
