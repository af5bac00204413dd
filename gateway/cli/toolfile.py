"""`gateway tools add` and `import`: MCP servers into the operator's own file, on this machine and by nobody else.

A server that is a command runs with the gateway's rights. So no network call can add one: only who may write this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.cli import mcpjson
from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.resolving import resolved
from gateway.cli.text import line, note, say
from gateway.config import ConfigError, Flags, config_path, parse

_TOOLS = re.compile(r"^tools:[ \t]*(#.*)?$", re.MULTILINE)
_ANY_TOOLS = re.compile(r"^tools:", re.MULTILINE)


def add(options: argparse.Namespace) -> Exit:
    entry = _entry(options.text)
    _write(options, {options.name: entry})
    return Exit.DONE


def take(options: argparse.Namespace) -> Exit:
    data = Place.of(options.data).data
    if data is None:
        raise Stop("There is no data folder for the values of env and headers; say --data DIR", Exit.USAGE)
    servers = mcpjson.read(options.file, data / "secrets")
    _write(options, servers.entries, servers.keep_secrets)
    return Exit.DONE


def _entry(words: list[str]) -> dict[str, Any]:
    if len(words) == 1 and words[0].startswith(("http://", "https://")):
        return {"url": words[0]}
    if not words:
        raise Stop("Say the server's URL, or -- and the command that it is", Exit.USAGE)
    return {"command": resolved(words)}


def _write(
    options: argparse.Namespace, entries: dict[str, dict[str, Any]], prepare: Callable[[], None] | None = None
) -> None:
    """`prepare` is done once nothing is against the entries any more."""
    file = file_of(options)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    after = _with(before, entries, file)
    try:
        if before:
            known = parse(before, name=str(file), base=file.parent.absolute()).tools
            for name in entries.keys() & known.keys():
                raise Stop(f"{file} has a server {name} already")
        parse(after, name=str(file), base=file.parent.absolute())
    except ConfigError as error:
        raise Stop("\n".join(line(problem, 2000) for problem in error.problems), Exit.USAGE) from None
    if prepare is not None:
        prepare()
    written(file, after)
    for name, entry in entries.items():
        say(_line(name, entry))
    note(f"Written to {file}. Nobody but you may use it without a grant.")
    _tell(Place.of(options.data), file, set(entries))


def _tell(place: Place, file: Path, names: set[str]) -> None:
    """Have the gateway that runs read its file again; it may be none, or one with another file."""
    try:
        with Gateway(place) as gateway:
            changed = set(gateway.post("admin", "tools", verb="reload").get("changed") or ())
    except Stop as stop:
        told_not(place, file, stop)
        return
    if names <= changed:
        note("The gateway uses it now:")
        note(f"  {place.command('tools', 'list', min(names))}")
    else:
        note(f"The gateway at {place.url} reads another file. To use this one:")
        note(f"  {place.command('serve', '--config', str(file))}")


def told_not(place: Place, file: Path, why: Stop) -> None:
    note(f"It is used from the next start on ({line(why, 300)}):")
    note(f"  {place.command('serve', '--config', str(file))}")


def written(file: Path, text: str) -> None:
    """Whole or not at all, readable for whom it was before."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    if file.exists():
        shutil.copymode(file, fresh)
    fresh.replace(file)


def file_of(options: argparse.Namespace) -> Path:
    """The file that `serve` would read; without one, one in the data folder."""
    named = config_path(Flags(config=options.config), os.environ)
    if named is not None:
        return named
    if Path("gateway.yaml").exists():
        return Path("gateway.yaml")
    data = Place.of(options.data).data
    if data is None:
        raise Stop("There is no data folder; say --config FILE", Exit.USAGE)
    return data / "gateway.yaml"


def _with(text: str, entries: dict[str, dict[str, Any]], file: Path) -> str:
    """The text with more servers; everything else in it, comments too, stays as it is."""
    found = _TOOLS.search(text)
    if found is not None:
        rest = text[found.end() :].removeprefix("\n")
        indent = re.match(r"(?:[ \t]*(?:#.*)?\n)*( +)\S", rest)
        return f"{text[: found.end()]}\n{_indented(entries, indent[1] if indent else '  ')}{rest}"
    lines = _indented(entries, "  ")
    if _ANY_TOOLS.search(text):
        raise Stop(f"tools in {file} is not written one server a line; add there yourself:\n{lines}")
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}tools:\n{lines}"


def _indented(entries: dict[str, dict[str, Any]], indent: str) -> str:
    return "".join(f"{indent}{_line(name, entry)}\n" for name, entry in entries.items())


def _line(name: str, entry: dict[str, Any]) -> str:
    """One line of YAML, which JSON is a part of."""
    return f"{name}: {json.dumps(entry, ensure_ascii=False)}"
