"""`gateway tools add` and `import`: MCP servers into the operator's own file, on this machine and by nobody else.

A server that is a command runs with the gateway's rights. So no network call can add one: only who may write this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import line, note, say
from gateway.config import ConfigError, Flags, config_path, parse

_TOOLS = re.compile(r"^tools:[ \t]*(#.*)?$", re.MULTILINE)
_ANY_TOOLS = re.compile(r"^tools:", re.MULTILINE)
# Words that mean that the command is not all there is to see.
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "fish", "cmd", "powershell", "pwsh", "eval"})
_RAISES = frozenset({"sudo", "doas", "su", "pkexec"})
# What runs a package that it fetches, and the words in front of its name.
_FETCHERS = frozenset({"npx", "bunx", "uvx", "pipx", "npm", "pnpm", "yarn", "bun", "uv", "deno"})
_FETCH = frozenset({"run", "exec", "dlx", "x", "tool"})
_VERSIONED = re.compile(r".(?:@|==|:)v?\d")


def add(options: argparse.Namespace) -> Exit:
    entry = _entry(options.text)
    _write(options, {options.name: entry})
    return Exit.DONE


def take(options: argparse.Namespace) -> Exit:
    """Values of `env` and `headers` may be secrets: each goes into a private file, and the configuration names it."""
    try:
        tree = json.loads(options.file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Stop(f"{options.file}: {error.strerror}", Exit.USAGE) from None
    except ValueError as error:
        raise Stop(f"{options.file} is no JSON: {error}", Exit.USAGE) from None
    servers = (tree.get("mcpServers") or tree.get("servers")) if isinstance(tree, dict) else None
    if not isinstance(servers, dict) or not servers:
        raise Stop(f"{options.file} has no mcpServers", Exit.USAGE)
    data = Place.of(options.data).data
    if data is None:
        raise Stop("There is no data folder for the values of env and headers; say --data DIR", Exit.USAGE)
    _write(options, {_label(name): _taken(name, each, data) for name, each in servers.items()})
    return Exit.DONE


def _entry(words: list[str]) -> dict[str, Any]:
    if len(words) == 1 and words[0].startswith(("http://", "https://")):
        return {"url": words[0]}
    if not words:
        raise Stop("Say the server's URL, or -- and the command that it is", Exit.USAGE)
    return {"command": _resolved(words)}


def _resolved(words: list[str]) -> list[str]:
    """The command with the absolute paths of its program and of files here that it names, looked up this once: later
    nobody's PATH decides, and it starts in a folder of its own."""
    found = shutil.which(words[0])
    if found is None:
        raise Stop(f"There is no program {words[0]} on PATH", Exit.USAGE)
    command = [os.path.abspath(found), *(os.path.abspath(word) if os.path.isfile(word) else word for word in words[1:])]
    name = Path(command[0]).name
    if name in _RAISES:
        raise Stop(f"{name} would give a tool server more rights than the gateway has; name the server itself")
    if name in _SHELLS:
        note(f"Mind: {name} is a shell. What it runs is not checked, and its own path does not say what that is.")
    if name in _FETCHERS and (package := _floating(words[1:])):
        note(
            f"Mind: {name} runs whatever version of {package} is the newest at each start. Name the one you have read."
        )
    return command


def _floating(words: list[str]) -> str | None:
    """The package that is fetched without a version: an update that nobody here has seen would run as the tool server
    that was trusted (as postmark-mcp's did)."""
    for word in words:
        if not word.startswith("-") and word not in _FETCHERS | _FETCH:
            return None if _VERSIONED.search(word) or os.path.exists(word) else word
    return None


def _taken(name: str, server: Any, data: Path) -> dict[str, Any]:
    if not isinstance(server, dict):
        raise Stop(f"{line(name)} is no object", Exit.USAGE)
    if isinstance(url := server.get("url"), str):
        return {"url": url, **_values(name, "headers", server.get("headers"), data)}
    words = [server.get("command"), *(server.get("args") or [])]
    if not all(isinstance(word, str) for word in words):
        raise Stop(f"{line(name)} has neither a url nor a command with args", Exit.USAGE)
    return {"command": _resolved([str(word) for word in words]), **_values(name, "env", server.get("env"), data)}


def _values(name: str, key: str, values: Any, data: Path) -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {}
    folder = data / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    named = {}
    for word, value in values.items():
        path = folder / f"{_label(name)}.{re.sub(r'[^A-Za-z0-9_-]', '_', str(word))}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(str(value))
        named[str(word)] = {"file": str(path.absolute())}
        note(f"The value of {line(word)} is in {path}.")
    return {key: named}


def _label(name: str) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:63].strip("-")
    if not label:
        raise Stop(f"{line(name)} has no letters for a name", Exit.USAGE)
    return label


def _write(options: argparse.Namespace, entries: dict[str, dict[str, Any]]) -> None:
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
